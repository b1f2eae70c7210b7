"""A `concurrent.futures.Future` that makes its condition when somebody first asks for it.

Runs in: host; any thread. Most futures of a storm of submits are done before anyone looks at them, and condition, lock and
lists cost more time and memory than all else that a future is made of.

Hard part: who ends the future, and who first asks for its condition, must meet without a lock. Both begin with the same atomic
step, `dict.setdefault` on `_meeting`, and what it answers tells who was first:
    a condition  Somebody may wait, or have left a callback: the end is written and told under it, as in the base class.
    an end       Nobody waits, nobody can begin to: who wants the condition finds that end, and first writes it himself, for the
                 other thread may be in the middle of that. Written twice, even late, it changes nothing (see `_write`).
                 From then on nothing changes any more, so the condition of such a future is one that locks nothing.
In a fork of the process no future ends, and any of these locks may be held by a thread that does not exist there: whoever looks
at a future first has it leave the host (`_leave_host`). So a fork costs nothing, however many futures wait.
Tests: tests/unit/test_lazy_future.py
"""

from __future__ import annotations

import _thread
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures._base import FINISHED, PENDING, RUNNING
from typing import Any, TypeVar

T = TypeVar("T")
in_fork = False  # this process was forked after the import: futures may be another process's
End = tuple[str, Any, BaseException | None, Any]  # state, result, exception, and an answer that nobody has unpickled yet


class LazyFuture(Future[T]):
    """What a Future needs before somebody waits for it: nothing."""

    # What the base class sets in each new future.
    _state: str = PENDING
    _result: Any = None
    _exception: BaseException | None = None
    _encoded: Any = None  # in place of `_result` or `_exception`, until somebody asks
    _task: Any = None  # what leads to the end; let go of then

    def __init__(self) -> None:
        # Made here, where one thread has the future: a collection of Python 3.11 in the middle of that may let another thread
        # in, which makes a dict of its own from the same values, and they are freed with each.
        vars(self)

    @property
    def _condition(self) -> Any:  # type: ignore[override]  # the base class's attributes are made on demand
        if in_fork:
            self._leave_host()
        first = self.__dict__.get("_meeting")
        if first is None:
            first = self.__dict__.setdefault("_meeting", _Meeting())
        if type(first) is tuple:
            self._write(first)
            return _NO_CONDITION
        return first

    @property
    def _waiters(self) -> Any:  # type: ignore[override]
        first = self.__dict__.get("_meeting")
        if type(first) is not _Meeting:
            return _NO_CONDITION
        if first.waiters is None:  # whoever asks holds the lock
            first.waiters = []
        return first.waiters

    @property
    def _done_callbacks(self) -> Any:
        first = self.__dict__.get("_meeting")
        if type(first) is not _Meeting:
            return ()
        if first.callbacks is None:  # as above
            first.callbacks = []
        return first.callbacks

    @property
    def _has_callbacks(self) -> bool:
        """May be asked without the lock."""
        first = self.__dict__.get("_meeting")
        return type(first) is _Meeting and bool(first.callbacks)

    def _is_held_here(self) -> bool:
        """Does the thread that asks hold its condition?"""
        first = self.__dict__.get("_meeting")
        return type(first) is _Meeting and bool(first._is_owned())  # type: ignore[attr-defined]  # not in its stubs

    def done(self) -> bool:
        """Tell whether the call has ended, or was cancelled."""
        if in_fork:
            self._leave_host()
        state = self._state
        return state != PENDING and state != RUNNING

    def _leave_host(self) -> None:
        """In a fork: if the future is another process's, end it, for no answer comes here, and forget who held its locks."""

    def _end_unseen(self, end: End) -> bool:
        """End it, if nobody has asked for the condition. False: somebody has; or it has ended."""
        if self.__dict__.setdefault("_meeting", end) is not end:
            return False
        self._write(end)
        return True

    def _write(self, end: End) -> None:
        """A second time, also after somebody has unpickled the answer, this changes nothing: what is there stays."""
        state, result, exception, encoded = end
        own = self.__dict__
        if state == FINISHED:
            own.setdefault("_result", result)
            own.setdefault("_exception", exception)
            own.setdefault("_encoded", encoded)
        own["_task"] = None
        own["_state"] = state  # the last one: who reads this needs no lock to read the others
        own["_meeting"] = _NO_CONDITION


class _Meeting(_thread.RLock):  # type: ignore[misc]  # a function, for its stubs
    """A condition, and the lists that it guards: no more objects than are in use.

    `concurrent.futures.wait` takes the condition of each future, waits on none of them, and the garbage collector looks at all
    that they consist of: a `threading.Condition` is ten objects.
    """

    __slots__ = ("_condition", "callbacks", "waiters")

    def __init__(self) -> None:
        self.waiters: list[Any] | None = None
        self.callbacks: list[Callable[[Future[Any]], object]] | None = None
        self._condition: threading.Condition | None = None  # for who really waits

    @property
    def _lock(self) -> _Meeting:
        return self

    def wait(self, timeout: float | None = None) -> bool:
        """With the lock held, as a condition's."""
        if self._condition is None:
            self._condition = threading.Condition(self)
        return self._condition.wait(timeout)

    def notify_all(self) -> None:
        """Likewise."""
        if self._condition is not None:
            self._condition.notify_all()


class _NoCondition:
    """Condition and list of waiters of futures that have ended: nothing to guard, nobody to tell. One serves all."""

    def __init__(self) -> None:
        self._lock = self

    def __enter__(self) -> bool:
        return True

    def __exit__(self, *_: object) -> None:
        pass

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        return True

    def release(self) -> None:
        pass

    def notify_all(self) -> None:
        pass

    def append(self, waiter: object) -> None:
        pass

    def remove(self, waiter: object) -> None:
        pass

    def __iter__(self) -> Iterator[Any]:
        return iter(())


_NO_CONDITION = _NoCondition()


def _note_fork() -> None:
    global in_fork
    in_fork = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)
