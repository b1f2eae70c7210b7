"""The meeting point of the user's threads and the supervisor.

Runs in: host; any thread.

Hard part: user code puts things in at any moment: from a signal handler, a garbage-collection finalizer or a weakref callback
in the middle of another call of the same thread. So there is no lock to wait for: each change is one atomic step
(`deque.append`, one store), in an order in which every prefix is valid.
    user:       items.append(x) -> wake, if `sleeping`
    supervisor: sleeping = True -> look at the items once more -> sleep
so an item is either seen before the sleep, or its thread sees `sleeping` and wakes. A supervisor that ends sets `closed`, and
looks at the items once more; a submitter appends, then looks at `closed`, and takes back what nobody will run.
Tests: tests/process/test_interruptions.py, tests/process/test_shutdown.py
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable
from enum import Enum, auto
from typing import Any

from .._core.states import Task
from .preload_gate import PreloadGate


class Request(Enum):
    """What else but tasks may lie in the intake, as (request, argument)."""

    KILL = auto()  # argument: the task
    CANCEL = auto()  # argument: the task
    CLOSE = auto()  # argument: cancel what is queued?
    ABORT = auto()
    KILL_ALL = auto()
    TERMINATE_ALL = auto()
    RECYCLE = auto()
    RESTART = auto()  # argument: a Restart
    ASK = auto()  # argument: called with the supervisor, between two of its steps


ENDS_THE_POOL = frozenset({Request.CLOSE, Request.ABORT, Request.KILL_ALL, Request.TERMINATE_ALL})


class Waker:
    """An eventfd that closes when the last one who may write to it has let go."""

    __slots__ = ("fd",)

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def wake(self) -> None:
        os.eventfd_write(self.fd, 1)

    def clear(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.fd)

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        with contextlib.suppress(AttributeError):  # the eventfd could not be made
            close(self.fd)


class Intake:
    """What user threads hand to the supervisor, and the few facts that both look at."""

    __slots__ = ("broken", "closed", "closing", "done", "gate", "items", "sleeping", "waker")

    def __init__(self, *, preloads: bool = False) -> None:
        self.items: deque[Task | tuple[Request, Any]] = deque()
        self.sleeping = False  # the supervisor is about to sleep, or sleeps
        self.closing = False  # no task is accepted any more
        self.closed = False  # the supervisor has ended, or is about to
        self.broken: Callable[[], BaseException] | None = None  # makes the error that says why no task can ever run
        self.waker: Waker | None = None  # the supervisor's, while it lives
        self.gate = PreloadGate(is_open=not preloads)  # the first submits wait there
        self.done = threading.Event()  # the supervisor has given everything back

    def put(self, item: Task | tuple[Request, Any]) -> None:
        """Hand something over. Never blocks."""
        self.items.append(item)
        if self.sleeping:
            waker = self.waker  # our reference keeps its descriptor open
            if waker is not None:
                waker.wake()

    def has_task(self) -> bool:
        return any(isinstance(item, Task) for item in list(self.items))
