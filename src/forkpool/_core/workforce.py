"""Know the workers of a pool: which are idle, which is to be replaced or killed, whose slot is whose.

Runs in: host, supervisor thread; pure. The lower half of PoolMachine, which adds the tasks and the end of the pool.
Hard part: a worker leaves its slot at one moment, whatever ends it (`_unseat`): only then its heir gets tasks.
Tests: tests/unit/test_machine_recycling.py, tests/unit/test_machine_stateful.py
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from .ahead import SendAhead
from .memory_watch import MemoryWatch
from .staffing import Staffing
from .states import Expiry, Task, Verb, Verdict, Worker, WorkerState


class Workforce:
    """The workers, and what is done with them."""

    def __init__(self, max_workers: int, task_limit: Callable[[], int | None], grace_s: float) -> None:
        """Arguments as of `PoolMachine`."""
        self.actions: list[tuple[Verb, Worker | None, Task | None]] = []
        self.workers: dict[int, Worker] = {}  # by generation; all that are not GONE
        self.replaced: Counter[str] = Counter()  # workers that ended before the pool did, by reason
        self.started = 0  # workers that became ready
        self._idle: list[Worker] = []  # the last one used is used first: its caches are warm
        self._ahead = SendAhead()
        self._memory = MemoryWatch()
        self._staffing = Staffing(max_workers)
        self._task_limit = task_limit
        self._grace_s = grace_s
        self._abort_at: float | None = None  # monotonic seconds: everything that runs is killed then

    # --- facts -----------------------------------------------------------------------------------------

    def on_not_spawned(self, worker: Worker) -> None:
        """The worker was to end before it was begun: there never was one."""
        self._forget(worker)

    def on_recycle(self, expiry: Expiry, now: float) -> None:
        """The user wants all workers replaced that there are; none is disturbed in the task that it runs.

        RECYCLE: each goes on until its heir is ready. RESTART: none gets another task from now on.
        """
        for worker in list(self.workers.values()):
            if worker.doom is not None or worker.leaving:
                continue
            if expiry is Expiry.RECYCLE:
                if worker.state in (WorkerState.READY, WorkerState.BUSY):
                    self._expire(worker, expiry)
            elif worker.state is WorkerState.BUSY:
                self._expire(worker, expiry)
                if len(worker.tasks) > 1:
                    self.actions.append((Verb.RECALL, worker, None))
            else:
                self._dismiss(worker, now, expiry)

    # --- decisions -------------------------------------------------------------------------------------

    def _fork(self, fresh: int, heirs: int) -> None:
        """Have so many workers forked for free slots, and so many heirs."""
        staffing = self._staffing
        born = [staffing.new_worker(self._task_limit()) for _ in range(fresh)]
        born += [staffing.new_heir(self._task_limit()) for _ in range(heirs)]
        for worker in born:
            self.workers[worker.generation] = worker
            self.actions.append((Verb.SPAWN, worker, None))

    def _rest(self, worker: Worker) -> None:
        worker.state = WorkerState.READY
        worker.deadline = None
        self._idle.append(worker)

    def _prefer_others(self, worker: Worker) -> None:
        """The next task goes to another worker, if one is idle."""
        self._ahead.hungry.pop(worker.generation, None)
        if worker.state is WorkerState.READY:
            self._idle.remove(worker)
            self._idle.insert(0, worker)

    def _expire(self, worker: Worker, expiry: Expiry) -> None:
        if worker.expiry is None:
            self._staffing.on_expired(worker)
        if worker.expiry is None or expiry is not Expiry.RECYCLE:
            worker.expiry = expiry

    def _dismiss(self, worker: Worker, now: float, expiry: Expiry | None = None) -> None:
        """Ask a worker that holds nothing to leave. One that is being born leaves when it is."""
        if expiry is not None:
            self.replaced[expiry.value] += 1
        if worker.state is not WorkerState.SPAWNED:
            self._unseat(worker)
            worker.state = WorkerState.RETIRING
        worker.leaving = True
        worker.deadline = now + self._grace_s
        self.actions.append((Verb.STOP, worker, None))

    def _unseat(self, worker: Worker) -> None:
        """The worker gets no more tasks: its slot goes to its heir, or is free. The heir need not wait for the goodbye."""
        if worker.state is WorkerState.READY:
            self._idle.remove(worker)
        elif worker.state is WorkerState.WAITING:
            self._staffing.waiting -= 1
        heir = self._staffing.leave(worker)
        if heir is not None and heir.state is WorkerState.WAITING:
            self._staffing.waiting -= 1
            self._rest(heir)

    def _forget(self, worker: Worker) -> None:
        if worker.state is WorkerState.SPAWNED:
            self._staffing.on_born_or_not(worker)
        self._unseat(worker)
        worker.state = WorkerState.GONE
        worker.deadline = None
        self._ahead.forget(worker)
        self._memory.end(worker)
        del self.workers[worker.generation]

    def _limit(self, worker: Worker, deadline: float) -> None:
        """The worker's patience ends then, unless something else ends it before."""
        for other in (worker.deadline, self._abort_at):
            if other is not None:
                deadline = min(deadline, other)
        worker.deadline = deadline

    def _kill(self, worker: Worker, verdict: Verdict) -> None:
        if worker.doom is not None:
            return
        worker.doom = verdict
        worker.deadline = None
        self._memory.end(worker)
        if worker.state is WorkerState.READY or worker.state is WorkerState.WAITING:
            self._unseat(worker)
            worker.state = WorkerState.RETIRING
        self.actions.append((Verb.KILL, worker, None))
