"""A ForkFuture without a pool: `Requests` stands in for that.

Runs in: pytest.
"""

import os
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from forkpool._host.any_pool import AnyPool
from forkpool.future import ForkFuture, Run


class Requests:
    """What a future wants of its pool."""

    error_in_fork = AnyPool.error_in_fork  # it knows of no more than `pid`

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.killed: list[object] = []
        self.forgotten: list[object] = []
        self.on_supervisor = False
        self.stuck_callbacks: threading.Event | None = None
        self.run: Run | None = ((4711, 3), 2_500_000_000, None)

    def ask_kill(self, task: object) -> None:
        self.killed.append(task)

    def forget(self, task: object) -> None:
        self.forgotten.append(task)

    def find_run(self, task: object) -> Run | None:
        return self.run

    def is_of_another_process(self) -> bool:
        return self.pid != os.getpid()

    def is_supervisor_thread(self) -> bool:
        return self.on_supervisor


TASK = SimpleNamespace(options=SimpleNamespace(cancel_running=False))
STOPPABLE = SimpleNamespace(options=SimpleNamespace(cancel_running=True))


def make(task: object = TASK) -> ForkFuture[Any]:
    future: ForkFuture[Any] = ForkFuture()
    future._pool, future._task = Requests(), task
    return future


def running(task: object = TASK) -> ForkFuture[Any]:
    future = make(task)
    assert future._try_start()
    return future


def in_thread(work: Callable[[], object]) -> list[object]:
    """Run it in another thread, to its end; what it returned or raised."""
    said: list[object] = []

    def run() -> None:
        try:
            said.append(work())
        except BaseException as error:
            said.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return said
