"""The executors that the contract is checked on, and where they are known to differ.

Runs in: the pytest process.
"""

import gc
import multiprocessing
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import forkserver, resource_tracker
from typing import Any

import pytest

from forkpool import ForkPoolExecutor, InlineExecutor
from tests.support.leaks import open_fds

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
PATIENCE_S = 5.0
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
def make(request: pytest.FixtureRequest, nothing_is_left: None) -> Iterator[Make]:
    """Make an executor of the kind that is looked at."""
    yield from given(request.param)


@pytest.fixture
def make_process_pool(request: pytest.FixtureRequest, nothing_is_left: None) -> Iterator[Make]:
    """The executors whose tasks run in other processes, or as if."""
    yield from given(request.param)


def given(kind: Make) -> Iterator[Make]:
    before = open_fds().keys()
    yield kind
    if kind is make_processes:  # its pipes are closed by the end of a thread that its `shutdown` does not always wait for
        end = time.monotonic() + PATIENCE_S
        while open_fds().keys() - before and time.monotonic() < end:
            gc.collect()
