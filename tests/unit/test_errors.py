"""What users catch: bases, attributes, and the way through pickle.

Runs in: pytest; pure.
"""

import concurrent.futures
import copy
import pickle
from concurrent.futures import BrokenExecutor
from concurrent.futures.process import BrokenProcessPool

import pytest

import forkpool
from forkpool import errors

TASK_FACTS = {
    "task_name": "thumb",
    "pid": 4711,
    "slot": 2,
    "exitcode": -11,
    "signal": "SIGSEGV",
    "seconds": 0.25,
    "peak_rss": 1 << 20,
    "may_have_run": "maybe",
    "crash_traceback": "Fatal Python error",
    "oom_hint": None,
    "pool_usable": True,
}
CASES: list[tuple[type[BaseException], dict[str, object]]] = [
    (errors.ForkPoolError, {}),
    (errors.TaskError, TASK_FACTS),
    (errors.WorkerCrashedError, TASK_FACTS),
    (errors.TaskTimeoutError, TASK_FACTS),
    (errors.TaskMemoryError, {**TASK_FACTS, "limit": 1 << 20, "grown": 3 << 20}),
    (errors.SerializationError, {"part": "Service.ex", "may_have_run": "yes"}),
    (errors.RemoteError, {"type_name": "a.B", "remote_traceback": "Traceback ..."}),
    (errors.PoolBrokenError, {"pool_usable": False, "may_have_run": "no"}),
    (errors.InitializerError, {}),
    (errors.InternalError, {"may_have_run": "maybe"}),
]
BASES = {
    errors.WorkerCrashedError: (errors.ForkPoolError, BrokenProcessPool, BrokenExecutor, RuntimeError),
    errors.TaskTimeoutError: (errors.ForkPoolError, TimeoutError, concurrent.futures.TimeoutError, OSError),
    errors.TaskMemoryError: (errors.ForkPoolError, MemoryError),
    errors.SerializationError: (errors.ForkPoolError, pickle.PicklingError, pickle.PickleError),
    errors.InitializerError: (errors.PoolBrokenError, BrokenProcessPool),
    errors.PoolBrokenError: (errors.ForkPoolError, BrokenProcessPool),
    errors.InternalError: (errors.PoolBrokenError,),
    errors.RemoteError: (errors.ForkPoolError,),
}


def test_every_error_is_tried_here() -> None:
    ours = {each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, errors.ForkPoolError)}
    assert ours == {kind for kind, _ in CASES}


@pytest.mark.parametrize(("kind", "facts"), CASES)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_an_error_goes_through_pickle_with_all_it_knows(
    kind: type[BaseException], facts: dict[str, object], protocol: int
) -> None:
    error = kind("what happened", **facts)  # type: ignore[call-arg]
    for twin in (pickle.loads(pickle.dumps(error, protocol)), copy.copy(error), copy.deepcopy(error)):
        assert type(twin) is kind
        assert str(twin) == "what happened"
        assert twin.args == ("what happened",)
        assert vars(twin) == facts
        for name, value in facts.items():
            assert getattr(twin, name) == value


@pytest.mark.parametrize(("kind", "facts"), CASES)
def test_an_error_can_be_made_of_nothing(kind: type[BaseException], facts: dict[str, object]) -> None:
    error = pickle.loads(pickle.dumps(kind()))
    assert str(error) == ""
    for name in facts:
        getattr(error, name)


@pytest.mark.parametrize("kind", BASES)
def test_existing_except_clauses_catch_it(kind: type[BaseException]) -> None:
    for base in BASES[kind]:
        assert issubclass(kind, base), base


def test_a_crash_is_no_broken_pool_of_ours_and_the_other_way_round() -> None:
    assert not issubclass(errors.WorkerCrashedError, errors.PoolBrokenError)
    assert errors.WorkerCrashedError().pool_usable is True
    assert errors.PoolBrokenError().pool_usable is False
    assert (errors.PoolBrokenError().may_have_run, errors.SerializationError().may_have_run) == ("no", "no")
    assert errors.WorkerCrashedError().may_have_run == "maybe"


def test_a_remote_traceback_shows_its_text() -> None:
    error = errors.RemoteTraceback("Traceback: there")
    twin = pickle.loads(pickle.dumps(error))
    assert str(twin) == '\n"""\nTraceback: there"""'
    assert not issubclass(errors.RemoteTraceback, errors.ForkPoolError)


def test_every_public_error_is_the_one_that_the_package_names() -> None:
    for name in forkpool.__all__:
        if name.endswith(("Error", "Warning", "Traceback")):
            assert getattr(forkpool, name) is getattr(errors, name)
    assert issubclass(forkpool.PayloadWarning, UserWarning)
