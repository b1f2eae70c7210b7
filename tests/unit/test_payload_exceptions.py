"""Exceptions of tasks: the same one in the host if at all possible, and always something that says what happened."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from forkpool import errors
from forkpool._host.answers import decode_exception
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
