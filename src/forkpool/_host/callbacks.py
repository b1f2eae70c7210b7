"""Run done-callbacks on a thread of their own.

Runs in: host. The supervisor hands finished futures over; the thread is started with the first one.
A callback that blocks delays other callbacks, never dispatch, timeouts or kills. Where no thread can be started now (a limit of
processes), they wait, and it is tried again; at the latest they run on the supervisor's, when the pool has ended and that one
has nothing else to do. While the interpreter is shutting down it runs them at once: no thread will ever be had, and what the
pool still has to finish may depend on what they do.
Tests: tests/process/test_callbacks.py
"""

from __future__ import annotations

import contextlib
import os
from queue import SimpleQueue
from typing import Any

from .._shared import clock
from ..future import ForkFuture
from .any_pool import interpreter_is_exiting
from .side_thread import SideThread

_PAUSE_S = 0.05  # arbitrary: between two attempts to start the thread


class CallbackRunner:
    """Owned by the supervisor. All is called by it alone, but `join` by any other thread."""

    def __init__(self) -> None:
        self.due: float | None = None  # monotonic seconds: when `try_again` is needed, for no thread could be started
        self._queue: SimpleQueue[ForkFuture[Any] | None] = SimpleQueue()
        self.side = SideThread("forkpool-callbacks", self._run)  # begins with the first callback

    def put(self, future: ForkFuture[Any]) -> None:
        """Run the callbacks of a future that is done."""
        self._queue.put(future)
        if not self.side.begin():
            self.try_again(clock.now())

    def try_again(self, now: float) -> None:
        """Start the thread, if one can be had now."""
        if self.side.begin():
            self.due = None
        elif interpreter_is_exiting():
            self._run_here()
        else:
            self.due = now + _PAUSE_S

    def stop(self) -> None:
        """Let the thread end after what it was handed. If there is none, do its work: call this as the last thing."""
        if self.due is not None and not self.side.begin():
            self._run_here()
        self._queue.put(None)

    def _run_here(self) -> None:
        self.due = None
        self._queue.put(None)
        self._run()

    def join(self) -> None:
        self.side.join()

    def _run(self) -> None:
        host = os.getpid()
        while (future := self._queue.get()) is not None:
            with contextlib.suppress(MemoryError):  # on the way to a callback: it costs this future's, and no other's
                future._run_callbacks()
            if os.getpid() != host:
                return  # a callback forked, and the child returned from it: nothing comes here
            del future
