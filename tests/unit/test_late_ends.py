"""Futures whose condition a thread holds when they are to end. Runs in: pytest, one thread; what it holds is made up."""

from typing import Any

import pytest

from forkpool._host import late_ends
from forkpool._host.late_ends import LateEnds
from forkpool.future import ForkFuture


class Ends:
    """Ends futures, but those that are held."""

    def __init__(self) -> None:
        self.held: set[ForkFuture[Any]] = set()
        self.tried: list[ForkFuture[Any]] = []
        self.late = LateEnds(self._try_end)

    def add(self, count: int) -> list[ForkFuture[Any]]:
        futures: list[ForkFuture[Any]] = [ForkFuture() for _ in range(count)]
        self.held.update(futures)
        for future in futures:
            self.late.add(future, future._finish)
        return futures

    def _try_end(self, future: ForkFuture[Any], end: Any, _: float) -> bool:
        self.tried.append(future)
        return future not in self.held and end() is not None


def test_one_that_is_let_go_of_ends_whatever_others_do() -> None:
    ends = Ends()
    first, second, third = ends.add(3)
    assert ends.late.due is not None
    ends.held.remove(second)
    ends.late.try_again(7.0)
    assert [future.done() for future in (first, second, third)] == [False, True, False]
    assert ends.late.due > 7.0
    ends.held.clear()
    ends.late.try_again(8.0)
    assert first.done()
    assert third.done()
    assert ends.late.due is None


def test_of_very_many_that_are_held_some_are_tried_each_time() -> None:
    ends = Ends()
    futures = ends.add(1000)
    ends.late.try_again(1.0)
    assert len(ends.tried) < 200
    while len(ends.tried) < len(futures):
        ends.late.try_again(1.0)
    assert set(ends.tried) == set(futures)
    ends.held.clear()
    ends.late.try_again(1.0)
    assert all(future.done() for future in futures)


def test_an_error_loses_none(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = Ends()
    future, other = ends.add(2)
    ends.held.clear()
    lacking = [MemoryError(), MemoryError()]

    def fail_twice(future: ForkFuture[Any], end: Any, patience: float) -> bool:
        if lacking:
            raise lacking.pop()
        return Ends._try_end(ends, future, end, patience)

    monkeypatch.setattr(ends.late, "_try_end", fail_twice)
    with pytest.raises(MemoryError):
        ends.late.try_again(1.0)
    monkeypatch.setattr(late_ends, "_PAUSE_S", 0.0)
    ends.late.finish()
    assert future.done()
    assert other.done()


def test_who_holds_one_is_told() -> None:
    ends = Ends()
    (future,) = ends.add(1)
    assert not ends.late.any_is_held_here()
    with future._condition:
        assert ends.late.any_is_held_here()
    assert not ends.late.any_is_held_here()
