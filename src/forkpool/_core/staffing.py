"""Count slots and starts: how many workers to fork, and when to try again after a failure.

Runs in: host, supervisor thread; pure. Called by PoolMachine alone.
Hard parts:
- A slot may have an heir: a worker that is forked while the slot's worker runs the last task that it gets. See `machine`.
- One cause (a dead fork server, one moment without memory) fails a whole row of starts. That row is one failure: all
  workers that were asked for before it belong to the attempt that failed.
- A worker that is ready and ends by itself before it has taken a task may have been killed by somebody, or its initializer may
  have spoiled it as it will spoil each: forks would have no end. The first of a row is replaced at once, the next ones like
  those that could not be started. Such a row ends with an answer, or when another worker ends; a mere start is no proof.
Tests: tests/unit/test_machine.py, tests/unit/test_machine_recycling.py
"""

from __future__ import annotations

from .states import Worker, WorkerState

START_FAILURES_IN_A_ROW = 5  # arbitrary: with the back-off below, 1.5 s of failed attempts
FIRST_BACKOFF_S = 0.05
MAX_BACKOFF_S = 5.0
_MOST_DOUBLINGS = 10  # far beyond MAX_BACKOFF_S; without an end, the 1025th failure in a row (after 85 minutes) is no float


class Staffing:
    """The pool's seats, and the attempts to fill them."""

    def __init__(self, slots: int) -> None:
        self.starting = 0  # workers with a slot that were asked for and are not ready
        self.heirs = 0  # workers that wait for a slot, ready or not
        self.waiting = 0  # those of them that are ready
        self.retry_at: float | None = None  # monotonic seconds; None: nothing has failed since the last good start
        self._slots = slots
        self._free_slots = list(range(slots - 1, -1, -1))
        self._expired: dict[int, Worker] = {}  # by generation: each owns a slot and has no heir yet
        self._generation = 0
        self._failures = 0  # in a row
        self._useless = 0  # workers in a row that started, and ended by themselves before they had taken a task
        self._failed_through = 0  # workers up to this generation belong to the attempts that were counted

    def wanted(self, queued: int, *, renew: bool) -> tuple[int, int]:
        """How many workers to fork, once the back-off allows it.

        Args:
            queued: Tasks that wait.
            renew: Whether each worker that expired is to have an heir; else only for tasks that wait.
        Returns:
            How many for free slots, and how many heirs. An heir serves no waiting task before its slot is left: free slots
            are filled whatever heirs there are.
        """
        fresh = max(0, min(queued - self.starting, len(self._free_slots)))
        heirs = len(self._expired)
        if not renew:
            heirs = max(0, min(queued - self.starting - fresh - self.heirs, heirs))
        if not self._failures:
            return fresh, heirs
        # Try with one, before a whole row fails again.
        if self.starting or self.heirs > self.waiting:
            return 0, 0
        return (1, 0) if fresh else (0, min(heirs, 1))

    @property
    def has_expired(self) -> bool:
        """Whether a worker is to be replaced that has no heir yet."""
        return bool(self._expired)

    def may_try(self, now: float) -> bool:
        return self.retry_at is None or now >= self.retry_at

    def new_worker(self, task_limit: int | None) -> Worker:
        """Take a free slot."""
        self._generation += 1
        self.starting += 1
        return Worker(self._generation, self._free_slots.pop(), task_limit=task_limit)

    def new_heir(self, task_limit: int | None) -> Worker:
        """Wait for the slot of a worker that expired."""
        self._generation += 1
        self.heirs += 1
        old = self._expired.pop(next(iter(self._expired)))
        old.heir = Worker(self._generation, old.slot, task_limit=task_limit, owns_slot=False, heir_of=old)
        return old.heir

    def on_expired(self, worker: Worker) -> None:
        """The worker is to be replaced: its slot may have an heir."""
        self._expired[worker.generation] = worker

    def on_ready(self, worker: Worker) -> None:
        """A worker has started. After two that were of no use in a row, only an answer tells that another one need not wait."""
        self.on_born_or_not(worker)
        if self._useless > 1:
            self._failures = self._useless
        else:
            self._failures = 0
            self.retry_at = None

    def on_born_or_not(self, worker: Worker) -> None:
        """A worker that was asked for is ready, or will never be."""
        if worker.owns_slot:
            self.starting -= 1

    def on_failed(self, worker: Worker, now: float) -> bool:
        """A worker could not be started. Returns whether that happened too often in a row."""
        if self._is_another_attempt(worker):
            self._failures += 1
            self._pause(now)
        return self._failures >= START_FAILURES_IN_A_ROW

    def on_useless(self, worker: Worker, now: float) -> bool:
        """A worker was ready, and ended by itself before it had taken a task. Returns whether too many did in a row."""
        if self._is_another_attempt(worker):
            self._useless += 1
            if self._useless == 1:
                self._begin_anew()
            else:
                self._failures = self._useless
                self._pause(now)
        return self._useless >= START_FAILURES_IN_A_ROW

    def _is_another_attempt(self, worker: Worker) -> bool:
        """Whether this failure belongs to no attempt that was counted; then it is."""
        if worker.generation <= self._failed_through:
            return False
        self._failed_through = self._generation
        return True

    def _pause(self, now: float) -> None:
        self.retry_at = now + min(FIRST_BACKOFF_S * 2 ** min(self._failures - 1, _MOST_DOUBLINGS), MAX_BACKOFF_S)

    def on_first_answer(self) -> None:
        """A worker has answered its first task: workers are of use."""
        self._useless = 0

    def on_room(self) -> None:
        """A worker has ended that was of use, or that we wanted to end."""
        self._useless = 0
        self._begin_anew()

    def _begin_anew(self) -> None:
        """What failed while a worker was there may work now that it is gone."""
        self._failures = min(self._failures, 1)  # of many, try with one
        self.retry_at = None

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
            self.heirs -= 1
            if heir.state is WorkerState.SPAWNED:
                self.starting += 1
        return heir

    def _disinherit(self, heir: Worker) -> None:
        old, heir.heir_of = heir.heir_of, None
        if old is not None:
            self.heirs -= 1
            old.heir = None
            self._expired[old.generation] = old

    def check_invariants(self, workers: list[Worker]) -> None:
        """For tests: each slot is free, or somebody's."""
        seats = [worker.slot for worker in workers if worker.owns_slot] + self._free_slots
        assert sorted(seats) == list(range(self._slots))
        assert self.starting == sum(worker.owns_slot and worker.state is WorkerState.SPAWNED for worker in workers)
        assert self.heirs == sum(worker.heir_of is not None for worker in workers)
        assert self.waiting == sum(worker.state is WorkerState.WAITING for worker in workers)
        for worker in workers:
            expired = worker.owns_slot and worker.expiry is not None
            assert (worker.generation in self._expired) == (expired and worker.heir is None)
            assert worker.heir is None or (worker.heir.heir_of is worker and worker.heir.slot == worker.slot and expired)
            assert worker.heir_of is None or (worker.heir_of.heir is worker and not worker.owns_slot)
