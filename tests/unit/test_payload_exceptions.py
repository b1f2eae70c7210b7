"""Exceptions of tasks: the same one in the host if at all possible, and always something that says what happened."""

from __future__ import annotations

import dataclasses
import errno
import pickle
import signal
import sys
import threading
from types import FrameType
from typing import Any

import pytest

from forkpool import errors
from forkpool._host.answers import decode_exception
from forkpool._shared.notes import add_note
from forkpool._shared.payload import ResultEncoder
from tests.unit.conftest import Notebook
from tests.unit.worker_process import Worker

SOURCE = """
import threading

class TwoArguments(Exception):
    def __init__(self, code, why):
        super().__init__(f"{code}: {why}")
        self.code = code

class HoldsLock(Exception):
    def __init__(self, code):
        super().__init__(code, threading.Lock())
        self.code, self.lock = code, threading.Lock()

class FailsToLoad(Exception):
    def __setstate__(self, state):
        raise SystemExit(3)

class NoNew(Exception):
    def __new__(cls, *, key):
        return super().__new__(cls)
    def __init__(self, *, key):
        pass
    def __reduce__(self):
        raise SystemExit(4)

class Mute(Exception):
    def __str__(self):
        raise SystemExit(5)

class Empty(Exception):
    def __len__(self):
        return 0

def throw(kind, *args, **kwargs):
    raise globals()[kind](*args, **kwargs)
def needs():
    return TwoArguments, HoldsLock, FailsToLoad, NoNew, Mute, Empty
def noted():
    error = ValueError("x")
    error.add_note("look here")
    raise error
def chained():
    try:
        1 / 0
    except ZeroDivisionError as error:
        raise KeyError("k") from error
"""


@pytest.fixture
def thrower(notebook: Notebook, worker: Worker) -> Any:
    notebook.cell(SOURCE)
    worker.call(notebook.needs)

    def throw(kind: str, *args: Any, **kwargs: Any) -> Any:
        try:
            return worker.call(notebook.throw, kind, *args, **kwargs)
        except BaseException as error:
            return error

    throw.notebook, throw.worker = notebook, worker  # type: ignore[attr-defined]
    return throw


def test_its_cause_is_the_remote_traceback_from_the_users_first_frame_on(thrower: Any) -> None:
    error = thrower("Mute")
    assert type(error) is thrower.notebook.Mute
    assert isinstance(error.__cause__, errors.RemoteTraceback)
    assert "in throw" in error.__cause__.tb
    assert "forkpool/_shared" not in error.__cause__.tb


def test_an_init_with_two_arguments_is_passed_by(thrower: Any) -> None:
    error = thrower("TwoArguments", 7, "why")
    assert (type(error), error.args, error.code) == (thrower.notebook.TwoArguments, ("7: why",), 7)


def test_what_cannot_be_pickled_is_left_out(thrower: Any) -> None:
    error = thrower("HoldsLock", 7)
    assert (type(error), error.code, hasattr(error, "lock")) == (thrower.notebook.HoldsLock, 7, False)
    assert error.args[0] == 7
    assert error.args[1].startswith("<unlocked _thread.lock")


def test_hostile_unpickling_ends_in_the_rebuilt_exception(thrower: Any) -> None:
    assert type(thrower("FailsToLoad")) is thrower.notebook.FailsToLoad


def test_an_exception_that_cannot_be_rebuilt_is_described(thrower: Any) -> None:
    error = thrower("NoNew", key=1)
    assert type(error) is errors.RemoteError
    assert error.type_name == "notebook_for_tests.NoNew"
    assert "in throw" in error.remote_traceback


def test_an_exception_that_is_false(thrower: Any) -> None:
    assert type(thrower("Empty")) is thrower.notebook.Empty


def test_system_exit_and_notes_and_chains(thrower: Any) -> None:
    with pytest.raises(SystemExit) as exited:
        thrower.worker.call(exit_with, 3)
    assert exited.value.code == 3
    with pytest.raises(ValueError, match="x") as noted:
        thrower.worker.call(thrower.notebook.noted)
    assert noted.value.__notes__ == ["look here"]
    with pytest.raises(KeyError) as chained:
        thrower.worker.call(thrower.notebook.chained)
    assert "ZeroDivisionError" in str(chained.value.__cause__)


def exit_with(code: int) -> None:
    raise SystemExit(code)


def test_groups_travel(worker: Worker) -> None:
    def throw() -> None:
        raise ExceptionGroup("many", [ValueError(1), KeyError("k")])

    with pytest.raises(ExceptionGroup) as info:
        worker.call(throw)
    assert [type(error) for error in info.value.exceptions] == [ValueError, KeyError]


class TwoArguments(Exception):
    """Pickles, and does not unpickle."""

    def __init__(self, code: int, why: str) -> None:
        super().__init__(f"{code}: {why}")
        self.code = code


class Stubborn(Exception):
    """Neither unpickles nor lets itself be rebuilt."""

    def __new__(cls, *, key: int) -> Stubborn:
        return super().__new__(cls)

    def __init__(self, *, key: int) -> None:
        super().__init__(f"stubborn {key}")


class Unloadable:
    def __reduce__(self) -> Any:
        return eval, ("1 / 0",)


def sent(error: BaseException) -> Any:
    return decode_exception(ResultEncoder().encode_exception(error))


def test_an_attribute_that_cannot_be_unpickled_costs_itself_alone() -> None:
    error = ValueError("x", Unloadable(), 3)
    error.inner, error.thing, error.fine = TwoArguments(1, "one"), Unloadable(), {1: [2]}  # type: ignore[attr-defined]
    found = sent(error)
    said = f"<{__name__}.Unloadable, which cannot be unpickled>"
    assert (type(found), found.args) == (ValueError, ("x", said, 3))
    assert (type(found.inner), found.inner.code, str(found.inner)) == (TwoArguments, 1, "1: one")
    assert (found.thing, found.fine) == (said, {1: [2]})


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    code: int
    why: str


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class FrozenSlots(Exception):
    code: int
    why: str


@pytest.mark.parametrize("kind", [Frozen, FrozenSlots])
def test_a_frozen_dataclass_is_rebuilt_past_what_forbids_it(kind: Any) -> None:
    error = kind(code=7, why="why")
    for found in (sent(error), sent(KeyError(error, Unloadable())).args[0]):
        assert (type(found), found) == (kind, error)
    assert isinstance(sent(error).__cause__, errors.RemoteTraceback)
    try:
        raise sent(error)
    except kind as caught:
        with pytest.raises(dataclasses.FrozenInstanceError):
            caught.code = 8


class Slots(Exception):
    __slots__ = ("__hidden", "inner", "never", "thing")

    def __init__(self, hidden: int, inner: BaseException) -> None:
        super().__init__("message")
        self.__hidden, self.inner, self.thing = hidden, inner, threading.Lock()

    @property
    def hidden(self) -> int:
        return self.__hidden


class MoreSlots(Slots):
    __slots__ = "more"

    def __init__(self, more: int) -> None:
        super().__init__(more - 1, TwoArguments(1, "one"))
        self.more, self.attribute = more, "attribute"


def test_slots_are_filled() -> None:
    found = sent(Slots(7, TwoArguments(1, "one")))
    assert (type(found), found.args, found.hidden) == (Slots, ("message",), 7)
    assert (type(found.inner), found.inner.code) == (TwoArguments, 1)
    assert not hasattr(found, "thing")
    assert not hasattr(found, "never")


def test_so_are_those_of_base_classes() -> None:
    found = sent(MoreSlots(3))
    assert (type(found), found.more, found.hidden, found.attribute) == (MoreSlots, 3, 2, "attribute")


class OnlySlots(Exception):
    __slots__ = ("number",)


@dataclasses.dataclass(frozen=True, slots=True)
class FrozenSlots(Exception):
    a: int
    b: str = "default"


def test_slots_that_pickle_would_forget() -> None:
    """It makes such an exception of its `args`, without a word of complaint."""
    error = OnlySlots("text")
    error.number = 5
    assert sent(error).number == 5
    found = sent(FrozenSlots(1, b="given"))
    assert (type(found), found.a, found.b) == (FrozenSlots, 1, "given")


@pytest.mark.parametrize("kind", [Frozen, ValueError])
def test_a_note_past_what_forbids_it(kind: Any) -> None:
    error = kind(1, "one")
    add_note(error, "first")
    add_note(error, "second")
    assert sent(error).__notes__ == error.__notes__ == ["first", "second"]
    vars(error)["__notes__"] = None
    add_note(error, "third")
    assert error.__notes__ is None


def test_an_exception_among_the_arguments_is_rebuilt_too() -> None:
    found = sent(KeyError(TwoArguments(1, "one"), [TwoArguments(2, "two"), 7], (OSError(2, "gone", "file"),)))
    assert type(found) is KeyError
    one, (two, seven), (gone,) = found.args
    assert [(type(each), each.code) for each in (one, two)] == [(TwoArguments, 1), (TwoArguments, 2)]
    assert (seven, type(gone), gone.filename) == (7, FileNotFoundError, "file")


def test_members_of_groups_are_rebuilt_each_for_itself() -> None:
    inner = ExceptionGroup("inner", [Stubborn(key=4), KeyError("k")])
    found = sent(ExceptionGroup("g", [TwoArguments(1, "one"), ValueError(3), inner]))
    assert (type(found), found.message) == (ExceptionGroup, "g")
    two, value, group = found.exceptions
    assert (type(two), two.code, type(value), value.args) == (TwoArguments, 1, ValueError, (3,))
    stubborn, key = group.exceptions
    assert (type(stubborn), stubborn.type_name, str(stubborn)) == (
        errors.RemoteError,
        f"{__name__}.Stubborn",
        f"{__name__}.Stubborn: stubborn 4",
    )
    assert "stubborn 4" in stubborn.remote_traceback
    assert type(key) is KeyError
    matched, rest = found.split(TwoArguments)
    assert matched is not None
    assert rest is not None


def test_exceptions_that_hold_one_another_stay_what_they_are() -> None:
    parent, child = TwoArguments(1, "one"), TwoArguments(2, "two")
    parent.child, parent.children, child.parent, child.me = child, [child], parent, child  # type: ignore[attr-defined]
    found = sent(parent)
    assert (found.code, found.child.code) == (1, 2)
    assert found.child.parent is found
    assert found.child.me is found.child is found.children[0]


def test_an_exception_among_its_own_arguments_is_described_there() -> None:
    error = TwoArguments(1, "one")
    error.args = (error,)
    found = sent(error)
    assert (type(found), found.code, type(found.args[0])) == (TwoArguments, 1, errors.RemoteError)


@pytest.mark.alarm(60)
def test_a_tangle_of_exceptions_is_described_in_bounded_time_and_size() -> None:
    tangle = [TwoArguments(number, "x" * 100) for number in range(300)]
    for each in tangle:
        each.others = tangle  # type: ignore[attr-defined]
    payload = ResultEncoder().encode_exception(tangle[0])
    assert len(payload) < 1 << 23
    assert [other.code for other in decode_exception(payload).others] == list(range(300))  # type: ignore[attr-defined]


def test_a_group_of_many_members_keeps_those_that_unpickle() -> None:
    found = sent(ExceptionGroup("many", [ValueError(number) for number in range(2000)]))
    assert [each.args for each in found.exceptions] == [(number,) for number in range(2000)]


class Recurses(Exception):
    """As a class does whose `__getattr__` asks for an attribute that is not there yet."""

    def __setstate__(self, state: Any) -> None:
        self.__setstate__(state)


def from_depth(depth: int, do: Any) -> Any:
    return do() if depth == 0 else from_depth(depth - 1, do)


def test_an_endless_recursion_is_the_exceptions_own_unless_the_caller_is_deep() -> None:
    error = Recurses("x")
    error.attribute = 1  # type: ignore[attr-defined]
    payload = ResultEncoder().encode_exception(error)
    assert type(decode_exception(payload)) is Recurses
    with pytest.raises(RecursionError):
        from_depth(sys.getrecursionlimit() * 3 // 4, lambda: decode_exception(payload))


class Ring(Exception):
    pass


class SendsASignal(Exception):
    sends = True

    def __setstate__(self, state: Any) -> None:
        if self.sends:
            signal.raise_signal(signal.SIGUSR1)
        super().__setstate__(state)


@pytest.mark.parametrize("wrap", [lambda error: error, lambda error: KeyError(error, Unloadable())])
def test_what_a_signal_handler_raises_passes_through(monkeypatch: pytest.MonkeyPatch, wrap: Any) -> None:
    def ring(signum: int, frame: FrameType | None) -> None:
        raise Ring

    error = SendsASignal("x")
    error.attribute = 1  # type: ignore[attr-defined]
    payload = ResultEncoder().encode_exception(wrap(error))
    before = signal.signal(signal.SIGUSR1, ring)
    try:
        with pytest.raises(Ring):
            decode_exception(payload)
    finally:
        signal.signal(signal.SIGUSR1, before)
    monkeypatch.setattr(SendsASignal, "sends", False)
    assert type(decode_exception(payload)) is type(wrap(error))


@pytest.mark.parametrize("lacking", [MemoryError, OSError(errno.EMFILE, "none left")])
def test_what_lacks_passes_through(lacking: Any) -> None:
    payload = ResultEncoder().encode_exception(ValueError("x"))

    def load(_: object) -> None:
        raise lacking

    with pytest.raises((MemoryError, OSError)):
        decode_exception(payload, load)
    assert type(decode_exception(payload)) is ValueError


def test_encoding_an_exception_never_raises_and_needs_no_traceback() -> None:
    error = decode_exception(ResultEncoder().encode_exception(OSError(2, "gone", "file")))
    assert type(error) is FileNotFoundError
    assert error.filename == "file"


def test_garbage_is_reported_as_such() -> None:
    with pytest.raises(pickle.UnpicklingError):
        decode_exception(b"garbage")


def test_an_error_while_unpickling_in_the_worker_is_the_users(worker: Worker) -> None:
    class Explodes:
        def __reduce__(self) -> Any:
            return eval, ("1 / 0",)

    with pytest.raises(ZeroDivisionError):
        worker.call(len, [Explodes()])
    with pytest.raises(ZeroDivisionError):
        worker.call(lambda: Explodes())
    assert worker.call(len, "abc") == 3


class OwnCause(Exception):
    """Its cause is something else to it."""

    @property
    def __cause__(self) -> None:  # type: ignore[override]  # that it can only be read is the point
        return None


def test_an_exception_whose_cause_can_only_be_read(worker: Worker) -> None:
    def fail() -> None:
        raise OwnCause("on purpose")

    with pytest.raises(OwnCause, match="on purpose"):
        worker.call(fail)
