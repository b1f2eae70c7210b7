"""Remember how long tasks take, by name, to know which are short.

Runs in: host, supervisor thread; pure. A wrong answer costs time, never a result: what was sent ahead is recalled.
Tests: tests/unit/test_durations.py
"""

from __future__ import annotations

SHORT_S = 0.001  # arbitrary: some ten times what a wake-up costs
_FORGETTING = 0.25  # weight of the newest value when it is smaller; a larger one counts at once
_MOST_NAMES = 4096


class Durations:
    """Expected seconds by task name."""

    __slots__ = ("_expected",)

    def __init__(self) -> None:
        self._expected: dict[str, float] = {}

    def learn(self, name: str, seconds: float) -> None:
        """A task of this name took so long."""
        known = self._expected.get(name)
        if known is None and len(self._expected) >= _MOST_NAMES:
            self._expected.clear()  # names made by a program, one a task: nothing to learn from them
        if known is not None and seconds < known:
            seconds = known + (seconds - known) * _FORGETTING
        self._expected[name] = seconds

    def short(self, name: str) -> float | None:
        """Expected seconds of a task that is known to be short; None for all others."""
        expected = self._expected.get(name)
        return expected if expected is not None and expected <= SHORT_S else None
