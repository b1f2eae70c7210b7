"""Decide whose task ends when the control group's memory is nearly full, where the kernel would kill the whole group.

Runs in: host, supervisor thread; pure. Called by PoolMachine alone. Only where `memory.oom.group` is set: there the kernel ends
this program along with the worker that took too much, and forkpool could tell nobody. Elsewhere the kernel's choice costs
one future, as any crash.
Hard part: to end nobody's task without need. A limit for each worker would end a task that takes half of a group that is
otherwise empty. So the group is looked at, and only when it is nearly full the worker that holds most gives up its task; who
holds little is not to blame, and is let be even if this program itself fills the group.
Tests: tests/unit/test_group_guard.py, tests/unit/test_machine_stateful.py, tests/process/test_group_guard.py
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from .memory_watch import next_look
from .states import Worker

NEARLY_FULL = 0.95  # arbitrary: of 4 GiB, as much as grows in 25 ms at 8 GiB/s is left


class GroupGuard:
    """The memory of the control group, and of those in it that run tasks."""

    def __init__(self, limit: int, max_workers: int) -> None:
        """
        Args:
            limit: Bytes that the group may have.
        """
        self._full = int(limit * NEARLY_FULL)
        # An equal part of it for each worker and one for this program: who holds not even half of one is not to blame.
        self._little = limit // (2 * (max_workers + 1))
        self.look_at: float | None = 0.0  # monotonic seconds: then, if anybody works; None: it was asked for

    def on_memory(
        self, now: float, used: int | None, workers: Iterable[Worker], private: Callable[[Worker], int | None]
    ) -> Worker | None:
        """The group has so many bytes that nobody can take back; None: nobody can tell. Returns whose task is to end.

        Args:
            private: Asked for what a worker has for itself; None if nobody can tell.
        """
        left = self._full - (used or 0)
        self.look_at = now + next_look(left)
        if used is None or left > 0:
            return None
        busy = [worker for worker in workers if worker.tasks]
        if any(worker.doom is not None or worker.tasks[0].verdict is not None for worker in busy):
            return None  # what that one holds comes back first
        held = [(private(worker) or 0, worker.generation, worker) for worker in busy]
        most, _, heaviest = max(held, default=(0, 0, None))
        if heaviest is None or most < self._little:
            return None
        heaviest.grown = most
        return heaviest
