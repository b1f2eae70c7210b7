"""SideThread: never waited for by who starts it, and always by who wants to know that it has ended."""

import _thread
import sys
import threading
from functools import partial
from types import FrameType
from typing import Any

import pytest

from forkpool._host import side_thread
from forkpool._host.side_thread import SideThread


def test_it_begins_once_and_is_a_proper_thread() -> None:
    served: list[threading.Thread] = []
    side = SideThread("mine", lambda: served.append(threading.current_thread()))
    assert side.join()
    assert side.begin()
    assert side.begin()
    assert side.join()
    assert [thread.name for thread in served] == ["mine"]
    assert not served[0].is_alive()


def test_who_runs_on_it_does_not_wait_for_itself() -> None:
    joined: list[bool] = []
    side = SideThread("mine", lambda: joined.append(side.join()))
    side.begin()
    assert side.join()
    assert joined == [True]


def test_one_that_is_stuck_is_not_waited_for_without_end() -> None:
    go_on = threading.Event()
    side = SideThread("mine", go_on.wait)
    side.begin()
    assert not side.join(0.0625)
    go_on.set()
    assert side.join()


@pytest.mark.parametrize("error", [RuntimeError("can't start new thread"), MemoryError()])
def test_no_thread_can_be_had(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[int] = []

    def refuse(*_: Any) -> int:
        raise error

    side = SideThread("mine", lambda: served.append(1))
    with monkeypatch.context() as patch:
        patch.setattr(_thread, "start_new_thread", refuse)
        assert not side.begin()
    assert side.join()
    assert side.begin()
    assert side.join()
    assert served == [1]


@pytest.mark.parametrize("error", [RuntimeError("can't start new thread"), MemoryError()])
def test_only_one_more_can_be_had(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[int] = []

    def refuse(_: threading.Thread) -> None:
        raise error

    monkeypatch.setattr(threading.Thread, "start", refuse)
    side = SideThread("mine", lambda: served.append(_thread.get_ident()))
    side.begin()
    assert side.join()
    assert len(served) == 1
    assert side.thread is None


def test_a_thread_that_dies_before_its_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    # With no memory for its first frame it says nothing to nobody, and `Thread.start` waits for its word without end.
    entered, go_on = threading.Event(), threading.Event()

    def wait_in_vain(_: threading.Thread) -> None:
        entered.set()
        go_on.wait()
        raise RuntimeError

    monkeypatch.setattr(threading.Thread, "start", wait_in_vain)
    monkeypatch.setattr(side_thread, "_PATIENCE_S", 0.0625)
    side = SideThread("mine", lambda: None)
    assert side.begin()
    entered.wait()
    assert not side.join()
    go_on.set()
    assert side._down.wait()


def test_no_memory_at_any_step_of_its_begin() -> None:
    """It begins once at most: of two, the end of the queue that they read would reach but one."""
    line_count = 0
    for nth in range(1, 20):
        served: list[int] = []
        side = SideThread("mine", partial(served.append, 1))
        line_count = begin_failing_at(side, nth)
        assert side.begin()
        assert side.join()
        assert served == [1]
        if line_count < nth:
            break
    assert 3 < line_count < nth


def begin_failing_at(side: SideThread, nth: int) -> int:
    """Begin with a MemoryError at that line; return how many lines there were before."""
    lines = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal lines
        if frame.f_code is not SideThread.begin.__code__:
            return None
        if event == "line":
            lines += 1
            if lines == nth:
                raise MemoryError
        return trace

    sys.settrace(trace)
    try:
        side.begin()
    except MemoryError:
        pass
    finally:
        sys.settrace(None)
    return lines
