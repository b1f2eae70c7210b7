"""The executors that the contract is checked on, and where they are known to differ.

Runs in: the pytest process.
"""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import forkserver, resource_tracker
from typing import Any

import pytest

from forkpool import ForkPoolExecutor

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
def leak_check(nothing_is_left: None) -> None:
    """Each test here starts processes."""


@pytest.fixture(params=[make_threads, make_processes, make_forkpool], ids=["threads", "processes", "forkpool"])
def make(request: pytest.FixtureRequest, nothing_is_left: None) -> Make:
    """Make an executor of the kind that is looked at."""
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(params=[make_processes, make_forkpool], ids=["processes", "forkpool"])
def make_process_pool(request: pytest.FixtureRequest, nothing_is_left: None) -> Make:
    """The executors whose tasks run in other processes."""
    return request.param  # type: ignore[no-any-return]
