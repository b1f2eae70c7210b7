"""Count how calls end, and how long slots were busy.

Runs in: host, supervisor thread. A call is counted at the moment at which its end is decided, which is before its future
tells anybody.
Tests: tests/process/test_statistics.py
"""

from __future__ import annotations

from enum import IntEnum

from .._core.states import Verdict


class Outcome(IntEnum):
    """How a call ended."""

    DONE = 0
    FAILED = 1
    CRASHED = 2
    CANCELLED = 3
    TIMED_OUT = 4


OF_VERDICT = {
    Verdict.CRASHED: Outcome.CRASHED,
    Verdict.POOL_KILLED: Outcome.CRASHED,
    Verdict.TIMED_OUT: Outcome.TIMED_OUT,
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
