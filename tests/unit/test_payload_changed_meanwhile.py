"""Calls whose globals and arguments another thread changes while they are pickled. Here a reducer does it instead."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest

from forkpool._shared.changed_meanwhile import MOST_TRIES, is_change, quiet
from forkpool._shared.payload import CallEncoder, PayloadError
from tests.unit.conftest import Notebook
from tests.unit.worker_process import Worker


class Changing:
    """When it is pickled, somebody changes the container that it is in, as often as it is told to."""

    change: Callable[[], object]
    left = 0

    def __reduce__(self) -> tuple[Any, ...]:
        if Changing.left:
            Changing.left -= 1
            Changing.change()
        return (str, ("pickled",))


def grow(container: Any, how: str) -> Callable[[], object]:
    return lambda: getattr(container, how)(*range(len(container), len(container) + (2 if type(container) is dict else 1)))


CONTAINERS = pytest.mark.parametrize(
    ("source", "how"),
    [("{0: made, 1: 1}", "__setitem__"), ("{made, 1}", "add"), ("deque([made, 1])", "append")],
    ids=["dict", "set", "deque"],
)


@pytest.fixture
def changing(notebook: Notebook) -> Callable[[str, str, int], Notebook]:
    def make(source: str, how: str, times: int) -> Notebook:
        vars(notebook.module).update(made=Changing(), deque=deque)
        notebook.cell(f"cache = {source}\ndel made\ndef work(): return len(cache)\n")
        Changing.change, Changing.left = staticmethod(grow(notebook.cache, how)), times
        return notebook

    return make


@CONTAINERS
@pytest.mark.parametrize("times", [1, MOST_TRIES - 1])
def test_a_global_that_is_changed_is_pickled_again(changing: Any, worker: Worker, source: str, how: str, times: int) -> None:
    notebook = changing(source, how, times)
    assert worker.call(notebook.work) == len(notebook.cache) == 2 + times


@CONTAINERS
def test_one_that_is_changed_each_time_is_named(changing: Any, source: str, how: str) -> None:
    with pytest.raises(PayloadError) as found:
        CallEncoder().encode(changing(source, how, MOST_TRIES).work, (), {})
    assert found.value.part == "cache"
    assert str(found.value) == (
        "cannot send `work` to a worker: global 'cache' used by `work` was changed by another thread, a callback or its own "
        "`__reduce__` while it was pickled, 20 times in a row; pass a copy as an argument (made under a lock if need be), or "
        "hold a lock for each change and each submit"
    )
    assert isinstance(found.value.__cause__, RuntimeError)


def test_an_argument_that_is_changed_each_time() -> None:
    argument: dict[Any, Any] = {0: Changing(), 1: 1}
    Changing.change, Changing.left = staticmethod(grow(argument, "__setitem__")), MOST_TRIES
    with pytest.raises(PayloadError, match="an argument, closure variable or default of `len` was changed by another thread"):
        CallEncoder().encode(len, (argument,), {})
    assert CallEncoder().encode(len, (argument,), {})


def test_what_is_being_handled_where_the_call_is_made_plays_no_part() -> None:
    try:
        raise RuntimeError("Set changed size during iteration")
    except RuntimeError:
        with pytest.raises(PayloadError, match=r"argument 1 of `len` .*is a lock"):
            CallEncoder().encode(len, (threading.Lock(),), {})


def test_plain_contents_are_copied_and_what_may_hold_itself_is_not() -> None:
    for value in ({1: (2, [3])}, {1, 2}, deque([1])):
        assert quiet(value) == value
        assert quiet(value) is not value
    holds_itself: dict[str, Any] = {}
    holds_itself["me"] = [holds_itself]
    for value in (holds_itself, {1: object()}, deque([deque()]), [1]):
        assert quiet(value) is value


def test_what_a_large_container_needs(notebook: Notebook, worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is changed in each attempt, because pickling it takes long: from the second on its copy is pickled."""
    from forkpool._shared.by_value import ByValuePickler

    notebook.cell("cache = dict.fromkeys(range(20_000))\ndef work(): return len(cache)\n")
    dump = ByValuePickler.dump

    def dump_and_change(pickler: ByValuePickler, value: Any) -> None:
        if value is notebook.cache:
            raise RuntimeError("dictionary changed size during iteration")
        dump(pickler, value)

    monkeypatch.setattr(ByValuePickler, "dump", dump_and_change)
    assert worker.call(notebook.work) == 20_000


def test_other_errors_are_none_of_a_change() -> None:
    assert not is_change(None)
    assert not is_change(RuntimeError("something else"))
    assert not is_change(RuntimeError(3))
    assert not is_change(ValueError("dictionary changed size during iteration"))
    outer = ValueError()
    outer.__cause__ = RuntimeError("deque mutated during iteration")
    assert is_change(outer)
