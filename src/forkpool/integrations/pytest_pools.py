"""The pools that the pytest plugin's fixtures make: their arguments, and what they must not leave behind.

Runs in: the pytest process. Imported with the first fixture that is used; the plugin itself stays light.
A test fails when a task that it submitted has not ended with it: nobody would ever hear of its error. What a pool leaves
behind can only be seen when it is shut down, in its fixture's teardown.
Hard part: blame. A fixture may keep a task running for its test, so only tasks that were submitted during the call of the
test are held against the test; whatever is left when the pool itself is torn down is held against its fixture.
Tests: tests/pytest_plugin/
"""

from __future__ import annotations

import ast
import os
from collections.abc import Generator, Iterable
from concurrent.futures import wait
from typing import Any

import pytest

from .._shared import clock
from ..diagnostics import PoolSnapshot, TaskSnapshot, leftovers, snapshot
from ..executor import ForkPoolExecutor

_END_PATIENCE_S = 10.0  # arbitrary: for the pool's threads to end; a done-callback that blocks lets it pass
_DEFAULT_WORKERS = 2  # the same on every machine, and enough for tasks to run beside each other
_ADVICE = (
    "Wait for the results of its tasks, or cancel() or kill() them, before the test ends; "
    "or give them time with fork_pool_task_grace."
)
Arguments = dict[str, Any]


class PoolsOfTests:
    """All pools that fixtures have made and not yet closed. One per session."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._open: list[WatchedPool] = []

    def make(self, fixture: str, node: pytest.Item | None, **more: Any) -> WatchedPool:
        """Make a pool from the ini options, the marks of a test, and `more`; the last one wins.

        Raises:
            pytest.skip.Exception: Not on this platform.
            pytest.fail.Exception: An argument is wrong.
        """
        arguments = {"max_workers": _DEFAULT_WORKERS, **ini_arguments(self._config), **marked_arguments(node), **more}
        grace_s = _task_grace(self._config, arguments.pop("task_grace", None))
        try:
            executor = ForkPoolExecutor(**arguments)
        except RuntimeError as error:  # what the constructor promises for a platform without the means
            pytest.skip(str(error))
        except (TypeError, ValueError) as error:
            pytest.fail(f"{fixture}: {error}", pytrace=False)
        pool = WatchedPool(fixture, executor, grace_s)
        self._open.append(pool)
        return pool

    def close(self, pools: Iterable[WatchedPool]) -> None:
        """Shut pools down; fail with the names of what they left behind."""
        lines: list[str] = []
        for pool in pools:
            self._open.remove(pool)
            lines += pool.close()
        if lines:
            pytest.fail("\n".join(lines), pytrace=False)

    def around_call(self, item: pytest.Item) -> Generator[None, object, object]:
        """Run a test; fail it for tasks that it has left."""
        before = {pool: {task.future for task in pool.tasks()} for pool in self._open}
        try:
            result = yield
        except BaseException as error:
            for line in self._blame(before, item):
                error.add_note(line)
            raise
        lines = self._blame(before, item)
        if lines:
            pytest.fail("\n".join([*lines, _ADVICE]), pytrace=False)
        return result

    def _blame(self, before: dict[WatchedPool, set[Any]], node: pytest.Item) -> list[str]:
        for pool in self._open:
            pool.note_shared_memory(node)
        return [line for pool in self._open for line in pool.end_tasks(before.get(pool, ()))]


class WatchedPool:
    """A pool that a fixture hands to tests."""

    def __init__(self, fixture: str, executor: ForkPoolExecutor, grace_s: float) -> None:
        self.executor = executor
        self._fixture = fixture
        self._grace_s = grace_s
        self._foreign = _names_in_shared_memory()  # a worker that attaches what others made names it as well
        self._made_during: dict[str, str] = {}  # name of shared memory: the test that ran when it was first seen

    def tasks(self) -> list[TaskSnapshot]:
        """Those that have not ended, and nobody is ending."""
        return [task for task in snapshot(self.executor).tasks if task.state != "ending"]

    def end_tasks(self, spared: Iterable[Any]) -> list[str]:
        """Name the tasks that have not ended within their grace, and kill them."""
        open_tasks = [task for task in self.tasks() if task.future not in spared]
        if open_tasks and self._grace_s:
            wait([task.future for task in open_tasks], self._grace_s)
            open_tasks = [task for task in self.tasks() if task.future not in spared]
        for task in open_tasks:
            task.future.kill()
        return [_task_line(self._fixture, task) for task in open_tasks]

    def note_shared_memory(self, node: pytest.Item) -> None:
        """What is there now and was not there before this test comes from this test."""
        for name in snapshot(self.executor).shared_memory:
            self._made_during.setdefault(name, node.nodeid)

    def close(self) -> list[str]:
        """Shut it down. What it left behind, a line each."""
        lines = self.end_tasks(())
        held = self._without_foreign(snapshot(self.executor))
        self.executor.shutdown(wait=False, cancel_futures=True)
        end = clock.now() + _END_PATIENCE_S
        for thread in held.threads:  # with `wait=True` a done-callback that blocks would hang us
            thread.join(max(0.0, end - clock.now()))
        return lines + [f"{self._fixture} left behind: {line}{self._origin_of(line)}" for line in leftovers(held)]

    def _origin_of(self, line: str) -> str:
        return next((f" (during {test})" for name, test in self._made_during.items() if repr(name) in line), "")

    def _without_foreign(self, held: PoolSnapshot) -> PoolSnapshot:
        own = tuple(name for name in held.shared_memory if name.lstrip("/") not in self._foreign)
        return PoolSnapshot(held.tasks, held.processes, held.threads, held.descriptors, own)


def _names_in_shared_memory() -> frozenset[str]:
    try:
        return frozenset(os.listdir("/dev/shm"))
    except OSError:
        return frozenset()


def _task_line(fixture: str, task: TaskSnapshot) -> str:
    if task.state == "waiting":
        return f"{fixture}: task {task.name!r} was still waiting for a worker"
    return f"{fixture}: task {task.name!r} was still running on slot {task.slot} (pid {task.pid}), since {task.seconds:.3g} s"


def ini_arguments(config: pytest.Config) -> Arguments:
    """What `fork_pool_arguments` says: lines `name = value`, a value being a Python literal, or else text."""
    found = {}
    for line in config.getini("fork_pool_arguments"):
        name, equals, text = line.partition("=")
        if not equals or not name.strip().isidentifier():
            pytest.fail(f"ini option fork_pool_arguments: {line!r} is not name=value", pytrace=False)
        try:
            found[name.strip()] = ast.literal_eval(text.strip())
        except (ValueError, SyntaxError):
            found[name.strip()] = text.strip()
    return found


def marked_arguments(node: pytest.Item | None) -> Arguments:
    """What the marks `fork_pool(...)` say; the one nearest to the test wins."""
    merged: Arguments = {}
    for mark in () if node is None else node.iter_markers("fork_pool"):
        if len(mark.args) > 1:
            pytest.fail("marker fork_pool: all arguments but max_workers are named", pytrace=False)
        merged = {**dict(zip(("max_workers",), mark.args, strict=False)), **mark.kwargs, **merged}
    return merged


def _task_grace(config: pytest.Config, given: object) -> float:
    wanted = config.getini("fork_pool_task_grace") if given is None else given
    try:
        return float(wanted)  # type: ignore[arg-type]  # what is no number is told
    except (TypeError, ValueError):
        pytest.fail(f"fork_pool_task_grace must be a number of seconds, not {wanted!r}", pytrace=False)
