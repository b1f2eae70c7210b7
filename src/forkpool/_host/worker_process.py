"""A worker as programs look for it in `executor._processes`: what `multiprocessing.Process` has for who looks on.

Runs in: host, any thread. The descriptors of a worker are the supervisor's, and so are its signals: they are handed to that
thread, which knows whether the worker is still there. So a signal never reaches a process that got the number later.
Tests: tests/process/test_worker_processes.py
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .pool import Pool
    from .worker_link import WorkerLink


class WorkerProcess:
    """One worker. Its slot gets another when it has ended: to end them all, use `kill_workers` or `terminate_workers`.

    In a fork of the process that owns the pool, each method raises a RuntimeError.
    """

    __slots__ = ("_link", "_pool", "name", "pid", "slot")

    def __init__(self, pool: Pool, link: WorkerLink) -> None:
        self._pool = pool
        self._link = link
        self.pid = link.pid
        self.slot = link.slot
        self.name = f"ForkPoolWorker-{link.slot}"

    def __repr__(self) -> str:
        return f"<worker {self.slot}, pid {self.pid}>"

    @property
    def ident(self) -> int:
        """The pid."""
        return self.pid

    @property
    def exitcode(self) -> int | None:
        """As of `multiprocessing.Process`: negative for a signal. None: it lives, or nobody can tell how it ended."""
        death = self._link.death
        return None if death is None or death.status is None else os.waitstatus_to_exitcode(death.status)

    def is_alive(self) -> bool:
        """Tell whether it lives, as far as the pool has heard."""
        self._pool.check_owner()
        return self._link.death is None and self._link.waiters is not None

    def terminate(self) -> None:
        """Send SIGTERM, as the call that it runs handles it: at first it ends the worker. Nothing, if it has ended.

        Does not wait. The call that runs ends in `WorkerCrashedError`, and another worker takes the slot.
        """
        self._pool.signal_worker(self._link, self._link.terminate)

    def kill(self) -> None:
        """Send SIGKILL; else as `terminate`."""
        self._pool.signal_worker(self._link, self._link.kill)

    def join(self, timeout: float | None = None) -> None:
        """Wait until it has ended and `exitcode` is known, at most `timeout` seconds. It does not make it end."""
        self._pool.check_owner()
        ended = threading.Event()
        waiters = self._link.waiters
        if waiters is None:
            return
        waiters.append(ended)
        if self._link.waiters is not None:  # else it was closed in between, and perhaps did not see us
            ended.wait(timeout)
        waiters.remove(ended)
