"""Keep what is known of a task's failed attempts, for whoever reads its last error.

Runs in: host, supervisor thread; the notes are added by the caller who asks for the error. It decides nothing.
Must not unpickle what the task raised: of that it reads names and text, which the worker sent as plain data.
Tests: tests/process/test_retries.py
"""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from .._core.repeating import RESULT_UNPICKLABLE
from .._core.states import RepeatableTask, Task
from .._core.wire import Kind
from .._unpickling import EncodedAnswer, is_interruption
from ..future import Run
from .tally import Outcome

_LINE = 300  # characters that a note quotes of an error


def kind_of(kind: int, payload: bytes | bytearray) -> tuple[str, ...]:
    """Full names of the class of an error that came as an answer, and of its base classes."""
    if kind == Kind.RESULT_ERROR:
        return RESULT_UNPICKLABLE
    with contextlib.suppress(Exception):  # a worker that was tampered with
        names: tuple[str, ...] = pickle.loads(payload)["bases"]
        return names
    return ()


def text_of(kind: int, payload: bytes | bytearray, run: Run | None) -> str:
    """What a note says of such an answer."""
    assert run is not None
    (pid, slot), _, seconds = run
    return f"{_error_in(kind, payload)} (worker {slot} (pid {pid}), {seconds:.3g} s)"


def _error_in(kind: int, payload: bytes | bytearray) -> str:
    with contextlib.suppress(Exception):
        answer = pickle.loads(payload)
        if kind == Kind.RESULT_ERROR:
            name, message = "forkpool.errors.SerializationError", answer[0]
        else:
            name, message = answer["type_name"].removeprefix("builtins."), answer["message"]
        return f"{name}: {message}".partition("\n")[0][:_LINE]
    return "an error that cannot be read"


def may_have_run(task: Task, this_time: str) -> str:
    """Whether its function was entered in this attempt, or one before."""
    return "maybe" if this_time == "no" and isinstance(task, RepeatableTask) and task.has_run else this_time


class Failure(NamedTuple):
    """How an attempt ended that was not to be the last one."""

    ended: EncodedAnswer
    outcome: Outcome
    run: Run | None


def note(task: Task, text: str, failure: Failure | None, ran: str) -> None:
    """An attempt has failed, and another one follows."""
    assert isinstance(task, RepeatableTask)
    task.failures.append(f"attempt {task.attempt} of {1 + task.options.retries}: {text}")
    task.last_failure = failure
    if ran != "no":
        task.has_run = True


def with_notes(task: Task, decode: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """How the task's last error is made: it tells of the attempts before."""
    if not isinstance(task, RepeatableTask) or not task.failures:
        return decode
    last = f"attempt {task.attempt} of {1 + task.options.retries}: this error"
    return partial(_decode_noted, decode, (*task.failures, last))


def never_again(task: Task, why: str) -> Failure:
    """How a task ends that waited for a further attempt, and does not get it: as its last one did."""
    assert isinstance(task, RepeatableTask)
    failure: Failure = task.last_failure
    notes = (*task.failures[:-1], f"attempt {len(task.failures)} of {1 + task.options.retries}: this error", why)
    ended = failure.ended
    return failure._replace(ended=EncodedAnswer(ended.data, partial(_decode_noted, ended.decode, notes), True))


def _decode_noted(decode: Callable[[Any], Any], notes: tuple[str, ...], data: Any) -> Any:
    error = decode(data)
    try:
        for text in notes:
            BaseException.add_note(error, text)
    except Exception as failure:  # a class that forbids attributes, or uses this one for something else
        if is_interruption(failure):
            raise
    return error
