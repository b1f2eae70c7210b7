"""Count how calls end, and how long slots were busy.

Runs in: host, supervisor thread (`Counter`: any). A call is counted at the moment at which its end is decided, which is before
its future tells anybody.
Tests: tests/process/test_statistics.py
"""

from __future__ import annotations

import operator
import sys
from enum import IntEnum

from .._core.states import Verdict


class Outcome(IntEnum):
    """How a call ended."""

    DONE = 0
    FAILED = 1
    CRASHED = 2
    CANCELLED = 3
    TIMED_OUT = 4
    OVER_MEMORY = 5


OF_VERDICT = {
    Verdict.CRASHED: Outcome.CRASHED,
    Verdict.POOL_KILLED: Outcome.CRASHED,
    Verdict.TIMED_OUT: Outcome.TIMED_OUT,
    Verdict.OVER_MEMORY: Outcome.OVER_MEMORY,
    Verdict.GROUP_FULL: Outcome.OVER_MEMORY,
    Verdict.KILLED: Outcome.CANCELLED,
    Verdict.CANCELLED: Outcome.CANCELLED,
    Verdict.POOL_BROKEN: Outcome.FAILED,
}


class Tally:
    """Counters of one pool."""

    __slots__ = ("busy", "ended")

    def __init__(self, slots: int) -> None:
        self.ended = [0] * len(Outcome)
        self.busy = [0.0] * slots  # seconds by slot, of calls that have ended


class Counter:
    """Counts in one step, which neither a thread nor a signal handler can split."""

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left = iter(range(sys.maxsize))

    def add(self) -> None:
        next(self._left)

    @property
    def value(self) -> int:
        return sys.maxsize - operator.length_hint(self._left)
