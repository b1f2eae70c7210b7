"""Decide who goes when the control group's memory is nearly full, where the kernel would kill the whole group.

Runs in: host, supervisor thread; pure. Called by PoolMachine alone. Only where `memory.oom.group` is set: there the kernel ends
this program along with the worker that took too much, and forkpool could tell nobody. Elsewhere the kernel's choice costs
one future, as any crash.
Hard part: to end nobody's task without need. A limit for each worker would end a task that takes half of a group that is
otherwise empty. So the group is looked at, and only when it is nearly full somebody goes: an idle worker first, which costs no
future, else the worker that holds most gives up its task. Who holds little is not to blame, and is let be even if this program
itself fills the group.
Tests: tests/unit/test_group_guard.py, tests/unit/test_machine_stateful.py, tests/process/test_group_guard.py
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from .memory_watch import LATEST_S, next_look
from .states import GroupMemory, Worker, WorkerState

KEPT_FREE = 0.05  # arbitrary: of 4 GiB, as much as grows in 25 ms at 8 GiB/s
SELDOM_S = 10.0  # arbitrary: where the kernel kills one process only, which somebody may change


class GroupGuard:
    """The memory of the control groups, and of those in them that run tasks."""

    def __init__(self, max_workers: int) -> None:
        self._parts = max_workers + 1  # one for each worker and one for this program
        self.look_at: float | None = 0.0  # monotonic seconds: then, if anybody works; None: it was asked for

    def on_memory(
        self, now: float, group: GroupMemory | None, workers: Iterable[Worker], private: Callable[[Worker], int | None]
    ) -> Worker | None:
        """This was read of the group with the least room; None: the kernel would kill none as a whole.

        Args:
            private: Asked for what a worker has for itself; None if nobody can tell.
        Returns:
            Who is to go: an idle worker, or one whose task is to end.
        """
        if group is None:
            self.look_at = now + SELDOM_S
            return None
        if group.used is None:
            self.look_at = now + LATEST_S
            return None
        left = group.limit - int(group.tightest * KEPT_FREE) - group.used
        self.look_at = now + next_look(left)
        if left > 0:
            return None
        everybody = list(workers)
        if any(_is_condemned(worker) for worker in everybody):
            return None  # what that one holds comes back first
        little = group.tightest // (2 * self._parts)  # not even half of an equal part
        for state in (WorkerState.READY, WorkerState.BUSY):
            held = [(private(one) or 0, one.generation, one) for one in everybody if one.state is state]
            most, _, heaviest = max(held, default=(0, 0, None))
            if heaviest is not None and most >= little:
                heaviest.grown, heaviest.group = most, group
                return heaviest
        return None


def _is_condemned(worker: Worker) -> bool:
    return worker.doom is not None or (bool(worker.tasks) and worker.tasks[0].verdict is not None)
