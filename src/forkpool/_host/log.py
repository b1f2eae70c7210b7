"""Say what the user should know, through `logging`, on a thread of its own.

Runs in: host. The supervisor hands over what is to be said. Handlers, filters and loggers' classes are the user's code: they
may block (a full pipe as stderr is enough), raise, or call the pool. So they run on a thread that is started with the first
record, and what they raise ends there, told on stderr as `logging` tells of its own errors. The records come in order.
A handler that blocks delays what is said after it, and the end of the pool a moment.

Hard part: where no thread can be started (the interpreter is shutting down, or the machine has no more of them) nobody may run
that code. What is to be said waits then: it is tried again with the next record and at the pool's end, and dropped after that.
Tests: tests/unit/test_log.py, tests/process/test_logging.py
"""

from __future__ import annotations

import contextlib
import logging
import sys
import traceback
from queue import SimpleQueue

from .side_thread import SideThread

_LOGGER = logging.getLogger("forkpool")
_PATIENCE_S = 5.0  # arbitrary: far longer than a handler takes that works; one that is stuck costs a shutdown no more than this
_Record = tuple[int, str, tuple[str | int, ...], BaseException | None]  # level, text, its arguments, what is to blame


class Log:
    """Owned by the supervisor, which alone calls `warning`, `critical` and `stop`; `join` is for any other thread."""

    def __init__(self) -> None:
        self._records: SimpleQueue[_Record | None] = SimpleQueue()
        self.side = SideThread("forkpool-log", self._run)  # begins with the first record
        self._is_stuck = False

    def warning(self, text: str, *facts: str | int) -> None:
        """Say `text % facts`. Never blocks, never raises."""
        self._hand_over((logging.WARNING, text, facts, None))

    def critical(self, text: str, error: BaseException) -> None:
        """Say it with the traceback of `error`. Never blocks, never raises."""
        self._hand_over((logging.CRITICAL, text, (), error))

    def stop(self) -> None:
        """Let the thread end after what it was handed."""
        if not self._records.empty():
            self.side.begin()
        self._records.put(None)

    def join(self) -> None:
        """Wait until all is said, after `stop`; not for ever, and not again."""
        if not self._is_stuck:
            self._is_stuck = not self.side.join(_PATIENCE_S)

    def _hand_over(self, record: _Record) -> None:
        with contextlib.suppress(MemoryError):  # then it is not said
            self._records.put(record)
            self.side.begin()

    def _run(self) -> None:
        while (record := self._records.get()) is not None:
            level, text, facts, error = record
            try:
                _LOGGER.log(level, text, *facts, exc_info=error)
            except BaseException:  # SystemExit too: what is said next is another matter
                _complain()
            del record, error  # its frames hold the pool


def _complain() -> None:
    """As `logging.Handler.handleError` does."""
    with contextlib.suppress(BaseException):
        if logging.raiseExceptions and sys.stderr is not None:
            traceback.print_exc()
