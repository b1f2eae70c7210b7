"""Count slots and starts: how many workers to fork, and when to try again after a failure.

Runs in: host, supervisor thread; pure. Called by PoolMachine alone.
Hard part: one cause (a dead fork server, one moment without memory) fails a whole row of starts. That row is one failure: all
workers that were asked for before it belong to the attempt that failed.
Tests: tests/unit/test_machine.py
"""

from __future__ import annotations

from .states import Worker

START_FAILURES_IN_A_ROW = 5  # arbitrary: with the back-off below, 1.5 s of failed attempts
FIRST_BACKOFF_S = 0.05
MAX_BACKOFF_S = 5.0


class Staffing:
    """The pool's seats, and the attempts to fill them."""

    def __init__(self, slots: int) -> None:
        self.starting = 0  # workers that were asked for and are not ready
        self.retry_at: float | None = None  # monotonic seconds; None: nothing has failed since the last good start
        self._slots = slots
        self._free_slots = list(range(slots - 1, -1, -1))
        self._generation = 0
        self._failures = 0  # in a row
        self._failed_through = 0  # workers up to this generation belong to the attempts that were counted

    def wanted(self, queued: int) -> int:
        """How many workers to fork for so many queued tasks, once the back-off allows it."""
        if self._failures:
            # Try with one, before a whole row fails again.
            return int(bool(queued and self._free_slots and not self.starting))
        return min(queued - self.starting, len(self._free_slots))

    def may_try(self, now: float) -> bool:
        return self.retry_at is None or now >= self.retry_at

    def new_worker(self) -> Worker:
        """Take a free slot."""
        self._generation += 1
        self.starting += 1
        return Worker(self._generation, self._free_slots.pop())

    def on_ready(self) -> None:
        """A worker has started."""
        self.starting -= 1
        self._failures = 0
        self.retry_at = None

    def on_failed(self, worker: Worker, now: float) -> bool:
        """A worker could not be started. Returns whether that happened too often in a row."""
        if worker.generation > self._failed_through:
            self._failed_through = self._generation
            self.retry_at = now + min(FIRST_BACKOFF_S * 2**self._failures, MAX_BACKOFF_S)
            self._failures += 1
        return self._failures >= START_FAILURES_IN_A_ROW

    def free(self, worker: Worker) -> None:
        """The worker's slot may be taken by another. A second call does nothing."""
        if worker.owns_slot:
            worker.owns_slot = False
            self._free_slots.append(worker.slot)

    def check_invariants(self, workers: list[Worker]) -> None:
        """For tests: each slot is free, or somebody's."""
        seats = [worker.slot for worker in workers if worker.owns_slot] + self._free_slots
        assert sorted(seats) == list(range(self._slots))
