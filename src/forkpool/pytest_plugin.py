"""The pytest plugin: pools as fixtures. (PYTEST_DONT_REWRITE, which is slow, the first time.)

Runs in: the pytest process. Loaded at the start of every pytest run in an environment that has forkpool, used or not: it
imports nothing but pytest, and does nothing, until a test asks for a fixture.
What the fixtures do is in integrations/pytest_pools.py.
Tests: tests/pytest_plugin/
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Generator, Iterator

import pytest

TYPE_CHECKING = False  # as typing's

if TYPE_CHECKING:
    from .executor import ForkPoolExecutor
    from .integrations.pytest_pools import PoolsOfTests

_NO_WINDOWS = "forkpool needs fork, which Windows does not have"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini(
        "fork_pool_arguments",
        "arguments of the pools that fork_pool, fork_pool_session and fork_pool_factory make: lines name=value",
        type="linelist",
        default=[],
    )
    parser.addini(
        "fork_pool_task_grace",
        "seconds that a task may go on after its test; then the test fails (default: 0)",
        default="0",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "fork_pool(max_workers=2, task_grace=0, ...): arguments of this test's fork_pool and fork_pool_factory, "
        "as ForkPoolExecutor takes them",
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    pools = item.config.stash.get(_POOLS, None)
    if pools is None:
        return (yield)
    return (yield from pools.around_call(item))


@pytest.fixture
def fork_pool(request: pytest.FixtureRequest) -> Iterator[ForkPoolExecutor]:
    """A fresh ForkPoolExecutor for this test; the mark fork_pool(...) gives its arguments.

    The test fails if a task that it submitted has not ended with it, or if its pool left something behind.
    """
    pools = _pools(request.config)
    pool = pools.make("fork_pool", request.node)
    yield pool.executor
    pools.close([pool])


@pytest.fixture(scope="session")
def fork_pool_session(request: pytest.FixtureRequest) -> Iterator[ForkPoolExecutor]:
    """One ForkPoolExecutor for all tests: each starts with warm workers. Its arguments are the ini options'.

    A test fails if a task that it submitted has not ended with it.
    """
    pools = _pools(request.config)
    pool = pools.make("fork_pool_session", None)
    yield pool.executor
    pools.close([pool])


@pytest.fixture
def fork_pool_factory(request: pytest.FixtureRequest) -> Iterator[Callable[..., ForkPoolExecutor]]:
    """A function that makes pools: `fork_pool_factory(max_workers=4)`. All of them are closed and checked after the test."""
    pools = _pools(request.config)
    made = []

    def make(**arguments: object) -> ForkPoolExecutor:
        pool = pools.make("fork_pool_factory", request.node, **arguments)
        made.append(pool)
        return pool.executor

    yield make
    pools.close(made)


def _pools(config: pytest.Config) -> PoolsOfTests:
    if sys.platform == "win32" and os.environ.get("FORKPOOL_INLINE") != "1":
        pytest.skip(_NO_WINDOWS)
    pools = config.stash.get(_POOLS, None)
    if pools is None:
        from .integrations.pytest_pools import PoolsOfTests

        pools = config.stash[_POOLS] = PoolsOfTests(config)
    return pools


_POOLS = pytest.StashKey["PoolsOfTests"]()
