"""Decide when a worker's memory is looked at, and whether it has grown beyond its task's limit.

Runs in: host, supervisor thread; pure. Called by PoolMachine alone, which asks the host for a LOOK and kills who is beyond.
The first look is the base line: it comes right before the task is sent to a worker that holds nothing else.
Hard part: growth is no event, so it must be looked at, and each look costs the host some 50 µs. But memory grows no faster
than the kernel can hand out pages: a worker far from its limit cannot reach it before a known time, and is left alone until
then. One that is near is looked at often. Nothing is looked at, and no timer exists, while no such task runs.
Tests: tests/unit/test_memory_watch.py, tests/unit/test_machine_stateful.py, tests/process/test_memory_limit.py
"""

from __future__ import annotations

from dataclasses import dataclass

from .states import Worker

# Bytes a second. What one thread of a fast machine touches with huge pages; measured with small pages: 1 to 4 GB/s.
FASTEST_GROWTH = 8 << 30
SOONEST_S = 0.01  # arbitrary: some 0.5 % of a CPU, and 40 MB at 4 GB/s
LATEST_S = 0.5  # arbitrary: several threads may be faster together


def next_look(left: int) -> float:
    """Seconds after which so many bytes could have been taken."""
    return min(max(left / FASTEST_GROWTH, SOONEST_S), LATEST_S)


@dataclass(slots=True)
class _Watched:
    """A worker that runs a task with a limit."""

    worker: Worker
    limit: int  # bytes that it may grow by
    base: int | None = None  # bytes that it had before; None: not looked at yet
    look_at: float | None = None  # monotonic seconds: when it is looked at next; None: that was asked for


class MemoryWatch:
    """The workers whose memory is watched."""

    def __init__(self) -> None:
        self._watched: dict[int, _Watched] = {}  # by generation

    def begin(self, worker: Worker, limit: int) -> None:
        """The worker is to get a task with this limit; ask for a look before."""
        self._watched[worker.generation] = _Watched(worker, limit)

    def on_memory(self, worker: Worker, now: float, private: int | None) -> bool:
        """It has so many bytes of private memory. Returns whether that is too much.

        None: nobody can tell. Without a base line it is let be.
        """
        watched = self._watched.get(worker.generation)
        if watched is None:
            return False
        if private is None:
            if watched.base is None:
                self.end(worker)
            watched.look_at = now + LATEST_S  # a moment without descriptors, or it is dead: we will hear of that
            return False
        if watched.base is None:
            watched.base = private
        worker.grown = private - watched.base
        left = watched.limit - worker.grown
        watched.look_at = now + next_look(left)
        return left < 0

    def end(self, worker: Worker) -> None:
        """The task has ended, or will for sure."""
        self._watched.pop(worker.generation, None)

    def due(self, now: float) -> list[Worker]:
        """Who is to be looked at now."""
        due = [watched for watched in self._watched.values() if watched.look_at is not None and watched.look_at <= now]
        for watched in due:
            watched.look_at = None
        return [watched.worker for watched in due]

    def times(self) -> list[float]:
        """When workers are to be looked at (monotonic seconds)."""
        return [watched.look_at for watched in self._watched.values() if watched.look_at is not None]

    def check_invariants(self, workers: dict[int, Worker]) -> None:
        """For tests: who is watched runs one task, which has that limit."""
        for generation, watched in self._watched.items():
            worker = workers[generation]
            assert watched.worker is worker
            assert worker.doom is None
            (task,) = worker.tasks
            assert task.options.memory_limit == watched.limit
