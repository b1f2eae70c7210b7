"""Count slots and starts: how many workers to fork, and when to try again after a failure.

Runs in: host, supervisor thread; pure. Called by PoolMachine alone.
Hard parts:
- A slot may have an heir: a worker that is forked while the slot's worker runs the last task that it gets. See `machine`.
- One cause (a dead fork server, one moment without memory) fails a whole row of starts. That row is one failure: all
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
        self.waiting = 0  # heirs that are ready
        self.retry_at: float | None = None  # monotonic seconds; None: nothing has failed since the last good start
        self._slots = slots
        self._free_slots = list(range(slots - 1, -1, -1))
        self._expired: dict[int, Worker] = {}  # by generation: each owns a slot and has no heir yet
        self._generation = 0
        self._failures = 0  # in a row
        self._failed_through = 0  # workers up to this generation belong to the attempts that were counted

    def wanted(self, queued: int) -> int:
        """How many workers to fork for so many queued tasks, once the back-off allows it."""
        seats = len(self._free_slots) + len(self._expired)
        unserved = queued - self.starting - self.waiting
        if self._failures:
            # Try with one, before a whole row fails again.
            return int(unserved > 0 and seats > 0 and not self.starting)
        return min(unserved, seats)

    def may_try(self, now: float) -> bool:
        return self.retry_at is None or now >= self.retry_at

    def new_worker(self, task_limit: int | None) -> Worker:
        """Take a free slot; if there is none, become the heir of a worker that expired."""
        self._generation += 1
        self.starting += 1
        if self._free_slots:
            return Worker(self._generation, self._free_slots.pop(), task_limit=task_limit)
        old = self._expired.pop(next(iter(self._expired)))
        old.heir = Worker(self._generation, old.slot, task_limit=task_limit, owns_slot=False, heir_of=old)
        return old.heir

    def on_expired(self, worker: Worker) -> None:
        """The worker gets no more tasks: its slot may have an heir."""
        self._expired[worker.generation] = worker

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

    def leave(self, worker: Worker) -> Worker | None:
        """The worker needs no slot any more. Returns the heir, if it has one. A second call does nothing."""
        if not worker.owns_slot:
            self._disinherit(worker)
            return None
        worker.owns_slot = False
        self._expired.pop(worker.generation, None)
        heir, worker.heir = worker.heir, None
        if heir is None:
            self._free_slots.append(worker.slot)
        else:
            heir.owns_slot, heir.heir_of = True, None
        return heir

    def _disinherit(self, heir: Worker) -> None:
        old, heir.heir_of = heir.heir_of, None
        if old is not None:
            old.heir = None
            self._expired[old.generation] = old

    def check_invariants(self, workers: list[Worker]) -> None:
        """For tests: each slot is free, or somebody's."""
        seats = [worker.slot for worker in workers if worker.owns_slot] + self._free_slots
        assert sorted(seats) == list(range(self._slots))
        for worker in workers:
            expired = worker.owns_slot and worker.expiry is not None
            assert (worker.generation in self._expired) == (expired and worker.heir is None)
            assert worker.heir is None or (worker.heir.heir_of is worker and worker.heir.slot == worker.slot and expired)
            assert worker.heir_of is None or (worker.heir_of.heir is worker and not worker.owns_slot)
