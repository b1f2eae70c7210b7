"""Run done-callbacks on a thread of their own.

Runs in: host. The supervisor hands finished futures over; the thread is started with the first one.
A callback that blocks delays other callbacks, never dispatch, timeouts or kills. Where no thread can be started any more
(the interpreter is shutting down), they run on the supervisor's.
Tests: tests/process/test_callbacks.py
"""

from __future__ import annotations

import os
import threading
from queue import SimpleQueue
from typing import Any

from ..future import ForkFuture


class CallbackRunner:
    """Owned by the supervisor. `put` and `stop` are called by it alone; `join` by any other thread."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[ForkFuture[Any] | None] = SimpleQueue()
        self.thread: threading.Thread | None = None  # from the first callback on

    def put(self, future: ForkFuture[Any]) -> None:
        """Run the callbacks of a future that is done."""
        if self.thread is None and not self._start():
            future._run_callbacks()
        else:
            self._queue.put(future)

    def stop(self) -> None:
        """Let the thread end after what it was handed."""
        if self.thread is not None:
            self._queue.put(None)

    def join(self) -> None:
        thread = self.thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _start(self) -> bool:
        thread = threading.Thread(target=self._run, name="forkpool-callbacks", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            return False
        self.thread = thread
        return True

    def _run(self) -> None:
        host = os.getpid()
        while (future := self._queue.get()) is not None:
            future._run_callbacks()
            if os.getpid() != host:
                return  # a callback forked, and the child returned from it: nothing comes here
            del future
