"""Where the first submits of a pool wait while its fork server preloads.

Runs in: host; any thread waits, the supervisor thread opens.

Hard part: a wait that Ctrl-C ends, and that a signal handler or finalizer may enter again in the thread that waits already.
So nothing is shared but single steps: each waiter brings a lock of its own, takes it twice, and is released by the opener.
    waiter: append(lock) -> look at `is_open` once more -> block
    opener: is_open = True -> release every lock that is there
A waiter that was interrupted leaves its lock behind, where releasing it does no harm.
Tests: tests/process/test_preload.py, tests/process/test_preload_wait.py
"""

from __future__ import annotations

import _thread
from collections import deque


class PreloadGate:
    """Closed until the first fork server of a pool that preloads is ready, has failed, or will never be."""

    __slots__ = ("_waiting", "is_open", "notices")

    def __init__(self, *, is_open: bool) -> None:
        self.is_open = is_open
        self.notices: deque[str] = deque()  # warnings that the next submit is to give
        self._waiting: deque[_thread.LockType] = deque()

    def wait(self) -> None:
        """Block until the gate is open. May raise what a signal handler raises."""
        while not self.is_open:
            lock = _thread.allocate_lock()
            lock.acquire()
            self._waiting.append(lock)
            if not self.is_open:
                lock.acquire()

    def open(self) -> None:
        """Let everybody go on, for good. The supervisor thread only."""
        self.is_open = True
        while self._waiting:
            self._waiting.popleft().release()
