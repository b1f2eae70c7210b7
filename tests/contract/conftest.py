"""The executors that the contract is checked on, and where they are known to differ.

Runs in: the pytest process.
"""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import forkserver, resource_tracker
from typing import Any

import pytest

from forkpool import ForkPoolExecutor, InlineExecutor

Make = Callable[..., Executor]


def make_threads(*args: Any, **kwargs: Any) -> Executor:
    return ThreadPoolExecutor(*args, **kwargs)


def make_processes(*args: Any, **kwargs: Any) -> Executor:
    # forkserver: "fork" would warn of the threads of pytest from 3.12 on.
    return ProcessPoolExecutor(*args, mp_context=multiprocessing.get_context("forkserver"), **kwargs)


def make_forkpool(*args: Any, **kwargs: Any) -> Executor:
    return ForkPoolExecutor(*args, **kwargs)


def make_inline(*args: Any, **kwargs: Any) -> Executor:
    return InlineExecutor(*args, **kwargs)


# By fixture. A test that something must happen beside says so: `@beside` leaves out what runs calls in `submit`.
KINDS: dict[str, dict[str, Make]] = {
    "make": {"threads": make_threads, "processes": make_processes, "forkpool": make_forkpool, "inline": make_inline},
    "make_process_pool": {"processes": make_processes, "forkpool": make_forkpool, "inline": make_inline},
}
beside = pytest.mark.beside


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    own = {name for mark in metafunc.definition.iter_markers("parametrize") for name in str(mark.args[0]).split(",")}
    has_workers = metafunc.definition.get_closest_marker("beside") is not None
    for fixture, kinds in KINDS.items():
        if fixture in metafunc.fixturenames and fixture not in own:
            chosen = {name: kind for name, kind in kinds.items() if not (has_workers and kind is make_inline)}
            metafunc.parametrize(fixture, chosen.values(), ids=chosen, indirect=True)


@pytest.fixture(scope="session")
def standard_helpers() -> None:
    """The standard library's own helpers live as long as the process; they are no leak of a test."""
    resource_tracker.ensure_running()
    forkserver.ensure_running()


@pytest.fixture(autouse=True)
def leak_check(nothing_is_left: None) -> None:
    """Each test here starts processes."""


@pytest.fixture
def make(request: pytest.FixtureRequest, nothing_is_left: None) -> Make:
    """Make an executor of the kind that is looked at."""
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def make_process_pool(request: pytest.FixtureRequest, nothing_is_left: None) -> Make:
    """The executors whose tasks run in other processes, or as if."""
    return request.param  # type: ignore[no-any-return]
