"""End futures whose condition a thread held when they were to end.

Runs in: host, supervisor thread (`any_is_held_here` for whoever waits for the pool). Owns the list of them.
`concurrent.futures.wait` takes the conditions of all futures that it is given, and a thread may be interrupted with one held: a
finalizer of the user's that runs there may even wait for another future of ours. So the supervisor does not wait for it: it
tries again a little later. When the pool has ended it waits, for then it has nothing else to do.
Rejected: a thread for each of them. They may be as many as the futures, tens of thousands, and starting one may block.
Tests: tests/unit/test_late_ends.py, tests/process/test_shutdown.py
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any

from .._shared import clock
from ..future import ForkFuture

End = Callable[..., bool | None]
_PAUSE_S = 0.005  # arbitrary: mostly the thread is in `wait`, and lets go of all within milliseconds
_MOST_IN_VAIN = 100  # arbitrary: what one thread holds it lets go of together, so the others are hardly worth a look
_LAST_PATIENCE_S = 0.05  # arbitrary: for one, when the pool has ended; others may be free meanwhile


class LateEnds:
    """Futures that are still to be ended, and how."""

    def __init__(self, try_end: Callable[[ForkFuture[Any], End, float], bool]) -> None:
        """
        Args:
            try_end: Ends this future so, if it can take the condition within so many seconds. False: it could not.
        """
        self.due: float | None = None  # monotonic seconds: when `try_again` is needed
        self._try_end = try_end
        self._waiting: deque[tuple[ForkFuture[Any], End]] = deque()

    def add(self, future: ForkFuture[Any], end: End) -> None:
        """It could not be ended."""
        self._waiting.append((future, end))
        if self.due is None:
            self.due = clock.now() + _PAUSE_S

    def try_again(self, now: float) -> None:
        """End those that can be ended now."""
        in_vain = 0
        for _ in range(len(self._waiting)):
            in_vain += not self._try_first(0)
            if in_vain == _MOST_IN_VAIN:
                break
        self.due = now + _PAUSE_S if self._waiting else None

    def finish(self) -> None:
        """End all of them, however long that takes."""
        while self._waiting:
            try:
                self._try_first(_LAST_PATIENCE_S)
            except MemoryError:  # others may give some back
                time.sleep(_PAUSE_S)

    def any_is_held_here(self) -> bool:
        """Does the thread that asks hold the condition of one? Then it must not wait until all have ended."""
        return any(future._is_held_here() for future, _ in list(self._waiting))

    def _try_first(self, patience: float) -> bool:
        future, end = self._waiting[0]
        has_ended = self._try_end(future, end, patience)
        if has_ended:
            self._waiting.popleft()  # not before: what fails must not lose it
        else:
            self._waiting.rotate(-1)
        return has_ended
