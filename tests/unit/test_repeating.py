"""Which errors mean another attempt, by the names of their classes. Runs in: pytest."""

import pickle
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import pytest

from forkpool import SerializationError, TaskMemoryError, TaskTimeoutError, WorkerCrashedError, config
from forkpool._core import repeating
from forkpool._core.states import RepeatableTask, Task
from forkpool._shared.remote_exceptions import describe
from forkpool.config import TaskOptions, task_options


def bases_of(error: BaseException) -> tuple[str, ...]:
    bases: tuple[str, ...] = pickle.loads(describe(error, pickle.dumps))["bases"]
    return bases


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (WorkerCrashedError, repeating.WORKER_CRASHED),
        (TaskTimeoutError, repeating.TASK_TIMED_OUT),
        (TaskMemoryError, repeating.TASK_OVER_MEMORY),
        (SerializationError, repeating.RESULT_UNPICKLABLE),
    ],
)
def test_the_names_of_our_own_errors(kind: type[Exception], names: tuple[str, ...]) -> None:
    assert set(names) == {config.full_name(cls) for cls in kind.__mro__}
    assert len(set(names)) == len(names)
    assert set(bases_of(kind("x"))) == set(names)


def asked(retry_on: Any, error: tuple[str, ...]) -> bool:
    options = task_options(TaskOptions(), retries=1, retry_on=retry_on)
    return repeating.is_asked_for(RepeatableTask(None, b"", "f", options), error)


class Local(ConnectionError):
    pass


@pytest.mark.parametrize("retry_on", [Local, ConnectionError, OSError, (KeyError, Exception), [BaseException]])
def test_a_class_or_one_of_its_bases(retry_on: Any) -> None:
    assert asked(retry_on, bases_of(Local("x")))


@pytest.mark.parametrize("retry_on", [KeyError, TimeoutError, (ValueError, WorkerCrashedError)])
def test_another_class(retry_on: Any) -> None:
    assert not asked(retry_on, bases_of(Local("x")))


def test_existing_except_clauses_of_our_errors_mean_them_too() -> None:
    assert asked(BrokenProcessPool, repeating.WORKER_CRASHED)
    assert asked(TimeoutError, repeating.TASK_TIMED_OUT)
    assert not asked(TimeoutError, repeating.WORKER_CRASHED)
    assert asked(MemoryError, repeating.TASK_OVER_MEMORY)


def test_at_first_a_crash_only_and_never_unless_asked() -> None:
    options = task_options(TaskOptions(), retries=1)
    task = RepeatableTask(None, b"", "f", options)
    assert repeating.is_asked_for(task, repeating.WORKER_CRASHED)
    assert not repeating.is_asked_for(task, repeating.TASK_TIMED_OUT)
    assert not repeating.is_asked_for(task, bases_of(Local("x")))
    task.attempt = 2
    assert not repeating.is_asked_for(task, repeating.WORKER_CRASHED), "the last attempt"
    assert not repeating.is_asked_for(Task(None, b"", "f", options), repeating.WORKER_CRASHED), "it cannot be run twice"


def test_an_error_whose_class_has_odd_names_is_described_all_the_same() -> None:
    class Odd(Exception):
        pass

    Odd.__module__ = "__mp_main__"
    assert bases_of(Odd())[0].startswith("__main__.")
    Odd.__module__ = 7  # type: ignore[assignment]
    assert bases_of(Odd())[0].startswith("7.")
