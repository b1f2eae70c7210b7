"""Run done-callbacks on a thread of their own.

Runs in: host. The supervisor hands finished futures over; the thread is started with the first one.
A callback that blocks delays other callbacks, never dispatch, timeouts or kills. Where no thread can be started any more
(the interpreter is shutting down), they run on the supervisor's.
Tests: tests/process/test_callbacks.py
"""

from __future__ import annotations

import contextlib
import os
from queue import SimpleQueue
from typing import Any

from ..future import ForkFuture
from .side_thread import SideThread


class CallbackRunner:
    """Owned by the supervisor. `put` and `stop` are called by it alone; `join` by any other thread."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[ForkFuture[Any] | None] = SimpleQueue()
        self.side = SideThread("forkpool-callbacks", self._run)  # begins with the first callback

    def put(self, future: ForkFuture[Any]) -> None:
        """Run the callbacks of a future that is done."""
        if self.side.begin():
            self._queue.put(future)
        else:
            future._run_callbacks()

    def stop(self) -> None:
        """Let the thread end after what it was handed."""
        self._queue.put(None)

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
