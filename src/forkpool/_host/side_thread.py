"""A thread for what may block, first of all the user's code, started by the supervisor, which cannot wait for it.

Runs in: host. One for done-callbacks, one for what is logged; each ends with its pool. Others write what somebody is slow to
read, and end when they have.

Hard part: `threading.Thread.start` waits until the new thread says that it runs. One that finds no memory for its first step
never says so (3.11.7 to 3.13.0, under RLIMIT_AS; seen), and whoever started it waits for ever. So the supervisor starts a bare
thread, which does not wait, and that one starts the proper thread. Where no other can be had, the bare one serves.
Tests: tests/unit/test_side_thread.py
"""

from __future__ import annotations

import _thread
import threading
from collections.abc import Callable

_PATIENCE_S = 5.0  # arbitrary: far longer than a thread takes to start that ever does


class SideThread:
    """Owned by whoever makes it: one thread calls `begin`, any other `join`."""

    def __init__(self, name: str, serve: Callable[[], None]) -> None:
        """
        Args:
            serve: What it runs. When it returns, the thread ends.
        """
        self.thread: threading.Thread | None = None  # while it serves and is a proper one
        self._name = name
        self._serve = serve
        self._has_begun = False
        self._ident = 0
        self._up = threading.Event()  # it serves
        self._down = threading.Event()  # it has served

    def begin(self) -> bool:
        """Start it, unless that was done. Never blocks. False: no thread can be had now."""
        if not self._has_begun:
            try:
                self._has_begun = True  # first: with no memory to note it, a second one would be started
                _thread.start_new_thread(self._boot, ())
            except (RuntimeError, MemoryError):  # 3.12.1 says so at exit
                self._has_begun = False
                return False
        return True

    def join(self, timeout: float | None = None) -> bool:
        """Wait until it has ended, if it has begun, and is not the thread that asks.

        Args:
            timeout: Seconds; None: as long as it takes.
        Returns:
            False: it has not, and may never.
        """
        if not self._has_begun or self._ident == _thread.get_ident():
            return True
        if not (self._up.wait(_PATIENCE_S) and self._down.wait(timeout)):
            return False
        if self.thread is not None:
            self.thread.join()
        return True

    def _boot(self) -> None:
        try:
            threading.Thread(target=self._run_properly, name=self._name, daemon=True).start()
        except Exception:  # no more threads, or no memory for one
            self._run()

    def _run_properly(self) -> None:
        self.thread = threading.current_thread()
        self._run()

    def _run(self) -> None:
        self._ident = _thread.get_ident()
        self._up.set()
        try:
            self._serve()
        finally:
            self._ident = 0
            self._down.set()
