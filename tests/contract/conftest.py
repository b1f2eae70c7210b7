"""The executors that the contract is checked on, and where they are known to differ.

Runs in: the pytest process.
"""

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import forkserver, resource_tracker
from pathlib import Path
from typing import Any

import pytest

from forkpool import ForkPoolExecutor
from tests.support.gate import Gate, Marks
from tests.support.leaks import no_leaks

Make = Callable[..., Executor]


def make_threads(*args: Any, **kwargs: Any) -> Executor:
    return ThreadPoolExecutor(*args, **kwargs)


def make_processes(*args: Any, **kwargs: Any) -> Executor:
    # forkserver: "fork" would warn of the threads of pytest from 3.12 on.
    return ProcessPoolExecutor(*args, mp_context=multiprocessing.get_context("forkserver"), **kwargs)


def make_forkpool(*args: Any, **kwargs: Any) -> Executor:
    return ForkPoolExecutor(*args, **kwargs)


@pytest.fixture(scope="session")
def standard_helpers() -> None:
    """The standard library's own helpers live as long as the process; they are no leak of a test."""
    resource_tracker.ensure_running()
    forkserver.ensure_running()


@pytest.fixture(autouse=True)
def nothing_is_left(alarm_clock: None, standard_helpers: None) -> Iterator[None]:
    with no_leaks():
        yield


@pytest.fixture(params=[make_threads, make_processes, make_forkpool], ids=["threads", "processes", "forkpool"])
def make(request: pytest.FixtureRequest, nothing_is_left: None) -> Make:
    """Make an executor of the kind that is looked at."""
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(params=[make_processes, make_forkpool], ids=["processes", "forkpool"])
def make_process_pool(request: pytest.FixtureRequest, nothing_is_left: None) -> Make:
    """The executors whose tasks run in other processes."""
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def gate(tmp_path: Path, nothing_is_left: None) -> Iterator[Gate]:
    gate = Gate(tmp_path)
    yield gate
    gate.close()


@pytest.fixture
def marks(tmp_path: Path) -> Marks:
    return Marks(tmp_path / "marks")
