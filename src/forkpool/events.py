"""Records that the pool hands out: frozen, plain, and readable when printed.

Runs in: host; any thread. Imports nothing of ours.
Tests: tests/unit/test_placement.py
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SlotPlacement:
    """Where the workers of one slot run."""

    slot: int
    cpus: tuple[int, ...] | None  # logical CPUs, ascending; None: wherever this process may run
    reason: str  # why these, or why none

    def __str__(self) -> str:
        where = "not pinned" if self.cpus is None else f"CPU {', '.join(map(str, self.cpus))}"
        return f"slot {self.slot}: {where}, {self.reason}"


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the workers of a pool run, and why. Print it to read it."""

    pinned: bool  # whether any slot is bound to CPUs
    reason: str  # what was asked for, and why it is as it is
    slots: tuple[SlotPlacement, ...]  # one for each slot, in order

    def __str__(self) -> str:
        if not self.pinned:
            return self.reason
        return "\n".join([self.reason, *(f"  {slot}" for slot in self.slots)])


@dataclass(frozen=True, slots=True)
class PoolStatistics:
    """What became of a pool's calls and workers. Each accepted call is counted in exactly one of the first eight.

    Attributes:
        queued: Calls that wait for a worker.
        running: Calls that a worker has.
        done: Calls that returned.
        failed: Calls that raised, whose result could not be pickled, or that a broken pool could not run.
        crashed: Calls whose worker died (`WorkerCrashedError`), by `kill_workers()` and `terminate_workers()` too.
        cancelled: Calls that ended in `CancelledError`: cancelled before they began, or killed.
        timed_out: Calls that were stopped at their `timeout`.
        over_memory: Calls that ended in `TaskMemoryError`: at their `memory_limit`, or since the control group was full.
        workers: Workers that live and are ready; one that was asked to leave is not counted.
        workers_started: Workers that have become ready since the pool was made.
        workers_replaced: How many workers ended before the pool did, by reason: "max_tasks_per_child", "recycle_workers",
            "restart_workers", "lost_task", "crashed", "timed_out", "over_memory", "group_full",
            "group_full_idle", "killed". A reason that never came is not in it.
        busy_time: Seconds that calls have run, by slot; with what runs now.
    """

    queued: int
    running: int
    done: int
    failed: int
    crashed: int
    cancelled: int
    timed_out: int
    over_memory: int
    workers: int
    workers_started: int
    workers_replaced: Mapping[str, int]
    busy_time: tuple[float, ...]

    @property
    def submitted(self) -> int:
        """All calls that were accepted."""
        ended = self.done + self.failed + self.crashed + self.cancelled + self.timed_out + self.over_memory
        return self.queued + self.running + ended
