"""Decide which task goes to which worker, when workers are forked and replaced, and what a death means.

Runs in: host, supervisor thread only. Never blocks, never reads the clock, touches no process: facts come in as
`on_<fact>` calls, decisions go out as actions appended to `self.actions`, in the order in which to carry them out.
The host must process all answers of a dead worker, then report what still lay in its pipe (`on_recalled`), then `on_gone`.

Hard parts:
- A verdict (timeout, kill, shutdown) races with the answer and with a death by itself. The answer wins if it was
  complete: it is processed first, so the task is gone when the death is judged.
- Short tasks are sent ahead, so that a worker need not sleep and be woken for each. A worker answers a task before it takes
  the next, so a death is charged to the first task only; those behind it are recalled from the pipe and queued again.
  A worker is killed for a task only when nothing lies behind that task any more, else the signal might hit its successor.
  Tasks must not wait for each other in one pipe: if the first one is unanswered for 5 ms, the others are taken back.
- A task that is run again waits in front, and prefers another worker; see `repeating`.
- A worker expires when it was sent the last task that it may run, or when the user wants it replaced. From then on its slot has
  an heir: a worker that starts meanwhile, and gets no task before the old one has answered its last. So the slot has no
  gap, and one busy worker at most.
Tests: tests/unit/test_machine.py (order of facts), tests/unit/test_machine_stateful.py (invariants under hypothesis)
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable

from . import repeating
from .ahead import RECALL_AFTER_S
from .group_guard import GroupGuard
from .ready_queue import ReadyQueue
from .states import Expiry, GroupMemory, RepeatableTask, Task, Verb, Verdict, Worker, WorkerState
from .workforce import Workforce

UNTAKEN_PATIENCE_S = 1.0  # beyond the timeout, for a worker that has not even taken its task: it is stopped, or starved


class PoolMachine(Workforce):
    """The pool's decisions. See the module for the rules of calling it."""

    def __init__(
        self,
        max_workers: int,
        *,
        task_limit: Callable[[], int | None],
        grace_s: float,
        try_start: Callable[[Task], bool],
        put_back: Callable[[Task], None],
        repeat: Callable[[Task, Worker], bool],
        started_at: Callable[[Worker], float | None],
    ) -> None:
        """
        Args:
            max_workers: Number of slots.
            task_limit: Draws how many tasks a new worker runs before it is replaced; None: never replaced for that.
            grace_s: Seconds that a worker that was asked to leave may take.
            try_start: Claim a task for running; False if the user has cancelled it.
            put_back: The reverse: a claimed task was never taken, and waits again.
            repeat: A task whose attempt on this worker failed waits again; False if the user has killed it.
            started_at: When (monotonic seconds) the worker took its present task; None: it has not.
        """
        super().__init__(max_workers, task_limit, grace_s)
        self.queue = ReadyQueue()
        self.broken = False
        self.closing = False
        self._lost_before: set[Task] = set()  # on the way from the host to their workers; they have not ended
        self.ends_all = False  # what runs is to end soon
        self._begins_nothing = False  # what has not begun is cancelled, wherever it comes from, and what fails is not run again
        self._try_start = try_start
        self._put_back = put_back
        self._repeat = repeat
        self._started_at = started_at
        self._finished = False
        self._max_workers = max_workers
        self._guard: GroupGuard | None = None

    # --- facts: work -----------------------------------------------------------------------------------

    def on_submit(self, task: Task) -> None:
        """A task was accepted. Call `dispatch` when the batch is in."""
        if self.broken:
            self._end(task, Verdict.POOL_BROKEN, None)
        elif self._begins_nothing:
            self._end(task, Verdict.CANCELLED, None)
        else:
            self.queue.append(task)

    def on_answer(self, worker: Worker, now: float, seconds: float) -> Task:
        """The worker answered its first task, which took it so long; the host has the result. Returns that task."""
        task = worker.tasks.popleft()
        if not worker.tasks_done:
            self._staffing.on_first_answer()
        if self._lost_before:
            self._lost_before.discard(task)
        self._ahead.durations.learn(task.name, seconds)
        self._go_on(worker, now)
        return task

    def on_lacking(self, worker: Worker, now: float) -> None:
        """The worker lacks a content of its first task, which was not sent whole: that never began, and is sent again.

        So may others be that it has, and it says so of each.
        """
        task = worker.tasks.popleft()
        worker.has.clear()
        self._take_back(task, worker)
        self._go_on(worker, now)

    def _go_on(self, worker: Worker, now: float) -> None:
        """The worker is done with what was its first task."""
        worker.tasks_done += 1
        worker.head_since = now
        worker.first_is_whole = False  # nothing is sent behind such a one
        if worker.tasks:
            self._next_is_first(worker)  # under the same deadline: only one that stops everything can be set now
        else:
            self._work_is_over(worker, now)

    def on_malformed(self, worker: Worker) -> None:
        """The worker's first task wrote what is no answer: whatever comes for it now, it gets none.

        Tasks that the worker took behind it are innocent. They are answered before the worker is killed.
        """
        first = worker.tasks[0]
        if first.verdict is Verdict.CRASHED:
            return
        self._condemn(worker, first, Verdict.CRASHED)
        if len(worker.tasks) > 1:
            worker.tasks.rotate(-1)  # nothing waits for its answer
            worker.tasks_done += 1  # as the worker counts
            self._expire(worker, Expiry.RESTART)  # nothing is sent behind it

    def on_failure(self, task: Task, worker: Worker, error: Iterable[str]) -> bool:
        """The task failed on this worker, with an error whose class and base classes have these names.

        Returns whether it waits now to be run again, in front of those of its priority. Else it is to end with its error.
        """
        if self.broken or self._begins_nothing or not repeating.is_asked_for(task, error) or not self._repeat(task, worker):
            return False
        assert isinstance(task, RepeatableTask)  # else it is not asked for
        task.verdict, task.seq = None, 0
        task.attempt += 1
        self.queue.appendleft(task)
        self._prefer_others(worker)
        return True

    def on_sent(self, worker: Worker, now: float) -> None:
        """The frame of the first task is in the worker's pipe, or one more part of it, for which the worker has made room.

        It takes the task when it has read the whole: until then it is to read on.
        """
        if worker.tasks and worker.doom is None:
            timeout = worker.tasks[0].options.timeout
            if timeout is not None:
                worker.sent_at = now
                self._limit(worker, now + timeout)

    def on_memory(self, worker: Worker, now: float, private: int | None) -> None:
        """The worker has so many bytes of private memory (asked for by LOOK); None: nobody can tell."""
        if self._memory.on_memory(worker, now, private):
            self._condemn(worker, worker.tasks[0], Verdict.OVER_MEMORY)

    def guard_group(self) -> None:
        """From now on no task is to fill a control group that the kernel would kill as a whole."""
        self._guard = GroupGuard(self._max_workers)

    def on_group_memory(self, now: float, group: GroupMemory | None, private: Callable[[Worker], int | None]) -> None:
        """This was read of the control groups (asked for by LOOK_AT_GROUP); None: the kernel would kill none as a whole.

        `private` tells as for `on_memory`.
        """
        assert self._guard is not None
        worker = self._guard.on_memory(now, group, self.workers.values(), private)
        if worker is None:
            return
        if worker.tasks:
            self._condemn(worker, worker.tasks[0], Verdict.GROUP_FULL)
        else:  # not asked to leave, which may take as long as it likes
            self.replaced[Expiry.GROUP_FULL_IDLE.value] += 1
            self._kill(worker, Verdict.GROUP_FULL)

    def on_recalled(self, worker: Worker, seqs: list[int], now: float, *, alive: bool) -> None:
        """These tasks were still in the worker's pipe, and now are not: it will never run them."""
        back = [task for task in worker.tasks if task.seq in seqs]
        worker.tasks = deque(task for task in worker.tasks if task.seq not in seqs)
        self._ahead.on_recalled(worker)
        for task in reversed(back):
            self._take_back(task, worker)
        if not alive:
            return
        if back and not worker.tasks:
            self._send_again(worker, now)
        self._execute(worker)

    def _take_back(self, task: Task, worker: Worker) -> None:
        """The worker has the task no more, and never ran it."""
        if task.verdict is Verdict.KILLED or self._begins_nothing:
            self._end(task, Verdict.CANCELLED, worker)
        elif self.broken:
            self._end(task, Verdict.POOL_BROKEN, worker)
        else:
            task.verdict, task.seq = None, 0
            self._put_back(task)
            self.queue.appendleft(task)

    def on_lost(self, worker: Worker, seqs: list[int], now: float, *, alive: bool) -> None:
        """Somebody else in the worker has read these tasks out of its pipe: it will never run them, and gets no more.

        They run elsewhere. One that is lost again may be so each time: it ends as if this worker had crashed with it.
        """
        lost = [task for task in worker.tasks if task.seq in seqs]
        self.on_unreliable(worker)
        if len(lost) == len(worker.tasks) and self._lost_before.issuperset(lost):
            for task in lost:
                task.verdict = task.verdict or Verdict.CRASHED
            seqs = []
        self._lost_before.update(lost)
        self.on_recalled(worker, seqs, now, alive=alive)

    def on_unreliable(self, worker: Worker) -> None:
        """The worker may not have got what it was sent: it is sent nothing more, and replaced when it has nothing to do."""
        self._expire(worker, Expiry.LOST_TASK)

    def _send_again(self, worker: Worker, now: float) -> None:
        """The worker had not even taken its first task: it gets that one back, and stays busy."""
        stays = worker.doom is None and worker.expiry in (None, Expiry.TASK_LIMIT)
        while self.queue and stays:
            task = self.queue.popleft()
            if self._claim(task):
                worker.head_since = now
                self._send(worker, task)
                return
        self._work_is_over(worker, now)

    def on_kill(self, task: Task) -> None:
        """The user wants this task, which was sent when asked, stopped."""
        for worker in self.workers.values():
            if task in worker.tasks:
                self._condemn(worker, task, Verdict.KILLED)
                return
        if task.seq == 0:  # it was taken back in between
            self._leave_queue(task, Verdict.KILLED)

    def on_cancel(self, task: Task) -> None:
        """The user has cancelled a task that was waiting. News for the books: `try_start` would refuse it anyway."""
        self._leave_queue(task, Verdict.CANCELLED)

    def _leave_queue(self, task: Task, verdict: Verdict) -> None:
        if task.verdict is None:  # else it has left already
            self.queue.remove(task, verdict)
            self._end(task, verdict, None)

    # --- facts: workers --------------------------------------------------------------------------------

    def on_ready(self, worker: Worker, now: float) -> None:
        """The worker was forked and its initializer returned."""
        self._staffing.on_ready(worker)
        self.started += 1
        if worker.doom is not None or worker.leaving:
            self._unseat(worker)
            worker.state = WorkerState.RETIRING
        elif not worker.owns_slot:
            worker.state = WorkerState.WAITING
            self._staffing.waiting += 1
            if worker.heir_of is not None and worker.heir_of.state is WorkerState.READY:
                self._dismiss(worker.heir_of, now, Expiry.RECYCLE)
        else:
            self._rest(worker)

    def on_gone(self, worker: Worker, now: float) -> None:
        """The worker is dead; its answers and what it never took were reported."""
        state, useless = worker.state, worker.is_useless
        crash = Verdict.POOL_KILLED if worker.terminated else Verdict.CRASHED
        if worker.is_ready and worker.doom is None and not worker.tasks and worker.expiry is Expiry.LOST_TASK:
            self.replaced[Expiry.LOST_TASK.value] += 1
        elif worker.is_ready:
            self.replaced[(worker.doom or crash).name.lower()] += 1
        self._forget(worker)
        while worker.tasks:
            task = worker.tasks.popleft()
            verdict = crash if task.verdict is Verdict.CRASHED else worker.doom or crash
            if not self.on_failure(task, worker, repeating.OF_VERDICT.get(verdict, ())):
                self._end(task, verdict, worker)
        if state is WorkerState.SPAWNED:
            self._start_failed(worker, now)
        elif not useless:
            self._staffing.on_room()
        elif self.queue or state is WorkerState.WAITING:  # else nobody waits for another one
            self._break_if(self._staffing.on_useless(worker, now))

    def on_spawn_failed(self, worker: Worker, now: float) -> None:
        """There is no such worker: the fork, or what it needs, failed."""
        self._forget(worker)
        self._start_failed(worker, now)

    # --- facts: the pool -------------------------------------------------------------------------------

    def on_close(self, *, cancel_queued: bool) -> None:
        """No more work will come; finish what was accepted, or only what runs.

        What a worker was sent while it had nothing else counts as running: it takes that at once.
        """
        self.closing = True
        if cancel_queued:
            self._begins_nothing = True
            self._drop_queue(Verdict.CANCELLED)
            self._recall_what_waits()

    def on_break(self) -> None:
        """The pool can never work again: the queued tasks end; running ones may finish."""
        self.broken = True
        self._drop_queue(Verdict.POOL_BROKEN)
        for worker in list(self.workers.values()):
            if worker.state is WorkerState.SPAWNED:
                self._kill(worker, Verdict.POOL_BROKEN)

    def on_abort(self, now: float) -> None:
        """Ctrl-C: cancel the queue, give running tasks the grace period; a second call kills at once."""
        if self._abort_at is not None:
            self.on_kill_all(Verdict.KILLED)
            return
        self._abort_at = limit = now + self._grace_s
        self.ends_all = True
        self.on_close(cancel_queued=True)
        for worker in self.workers.values():
            if worker.doom is None:
                self._limit(worker, limit)

    def on_kill_all(self, verdict: Verdict) -> None:
        """Stop everything now."""
        self.ends_all = True
        self.on_close(cancel_queued=True)
        for worker in list(self.workers.values()):
            self._kill(worker, verdict)

    def on_terminate_all(self, now: float) -> None:
        """The host sends SIGTERM to all; who stays for the grace period is killed."""
        self.ends_all = True
        self.on_close(cancel_queued=True)
        for worker in self.workers.values():
            worker.terminated = True
            if worker.doom is None:
                worker.deadline = now + self._grace_s

    def reopen(self) -> None:
        """A task came in while FINISHED was carried out: finish that one too."""
        self._finished = False

    def on_time(self, now: float) -> None:
        """Carry out the deadlines that have passed."""
        for worker in self.workers.values():
            if worker.deadline is not None and worker.deadline <= now:
                self._deadline_passed(worker, now)
        for worker in self._ahead.overdue(now):
            self.actions.append((Verb.RECALL, worker, None))
        for worker in self._memory.due(now):
            self.actions.append((Verb.LOOK, worker, None))

    def next_time(self) -> float | None:
        """When `on_time` and `dispatch` are needed next, if nothing else happens (monotonic seconds)."""
        times = [worker.deadline for worker in self.workers.values() if worker.deadline is not None]
        times += self._ahead.times()
        times += self._memory.times()
        if self._guard is not None:
            times.append(self._looks_at_group())
        retry_at = self._staffing.retry_at
        if retry_at is not None and any(self._wanted()):
            times.append(retry_at)
        soonest = min(times, default=math.inf)
        return None if soonest == math.inf else soonest

    def _looks_at_group(self) -> float:
        """When (monotonic seconds) the control groups are looked at next: not while nobody works."""
        assert self._guard is not None
        when = self._guard.look_at
        return math.inf if when is None or not any(worker.tasks for worker in self.workers.values()) else when

    # --- decisions -------------------------------------------------------------------------------------

    def dispatch(self, now: float) -> None:
        """Give queued tasks to idle workers, fork for the rest, and let go when there is no more to do."""
        queue, idle = self.queue, self._idle
        while queue and idle:
            task = queue.popleft()
            if self._claim(task):
                worker = idle.pop()
                worker.state = WorkerState.BUSY
                worker.head_since = now
                self._send(worker, task)
        while queue and self._ahead.hungry:
            self._feed(self._ahead.hungry.popitem()[1], now)
        if queue:
            self._spawn(now)
        elif self.closing or self.broken:
            self._let_go(now)
        elif self._staffing.has_expired:
            self._spawn(now)
        if self._guard is not None and self._looks_at_group() <= now:
            self._guard.look_at = None
            self.actions.append((Verb.LOOK_AT_GROUP, None, None))

    def _claim(self, task: Task) -> bool:
        """Take a task for running; False if its user has cancelled it. He may have been interrupted: it ends all the same."""
        if self._try_start(task):
            return True
        self._end(task, Verdict.CANCELLED, None)
        return False

    def _feed(self, worker: Worker, now: float) -> None:
        """Send ahead to a busy worker what surely takes no longer than it would take to be asked."""
        if worker.head_since + RECALL_AFTER_S <= now:
            return  # it would be taken back at once
        queue = self.queue
        while queue:
            expected = self._ahead.expected(worker, queue.first)
            if expected is None:
                return
            task = queue.popleft()
            if self._claim(task):
                self._ahead.on_sent(worker, expected)
                self._send(worker, task)

    def _send(self, worker: Worker, task: Task) -> None:
        tasks = worker.tasks
        tasks.append(task)
        limit = task.options.memory_limit
        if limit is not None:  # such a task is never sent ahead: what the worker has now is the base line
            self._memory.begin(worker, limit)
            self.actions.append((Verb.LOOK, worker, None))
        verb = Verb.SEND
        if len(tasks) == 1:
            worker.first_is_whole = worker.lacks(task.payload)
            if worker.first_is_whole:
                worker.note_contents(task.payload)
                verb = Verb.SEND_WHOLE
            self._ahead.hungry[worker.generation] = worker
        self.actions.append((verb, worker, task))
        if worker.task_limit is not None and worker.tasks_done + len(tasks) >= worker.task_limit:
            self._expire(worker, Expiry.TASK_LIMIT)

    def _next_is_first(self, worker: Worker) -> None:
        """The worker goes on with what was sent ahead."""
        self._ahead.on_next(worker)
        first = worker.tasks[0]
        if first.verdict is not None:
            self._condemn(worker, first, first.verdict)

    def _work_is_over(self, worker: Worker, now: float) -> None:
        """The worker holds no task any more."""
        self._memory.end(worker)
        if worker.doom is not None:
            worker.state = WorkerState.RETIRING  # SIGKILL is on its way; the task was quicker
        elif worker.expiry is None or (worker.expiry is Expiry.RECYCLE and not worker.has_ready_heir):
            self._rest(worker)
        else:
            self._dismiss(worker, now, worker.expiry)

    def _condemn(self, worker: Worker, task: Task, verdict: Verdict) -> None:
        """End this one task of the worker, and no other."""
        if task.verdict is None or verdict is Verdict.KILLED:  # a task that timed out untaken runs again; a killed one never
            task.verdict = verdict
        if len(worker.tasks) > 1:
            self.actions.append((Verb.RECALL, worker, None))
        else:
            self._execute(worker)

    def _execute(self, worker: Worker) -> None:
        """Kill the worker if all that it has is condemned."""
        tasks = worker.tasks
        if tasks and worker.doom is None and all(task.verdict is not None for task in tasks):
            assert tasks[0].verdict is not None
            self._kill(worker, tasks[0].verdict)
        # Two after a recall: the second one was taken, so the answer of the first is on its way.

    def _wanted(self) -> tuple[int, int]:
        return self._staffing.wanted(len(self.queue), renew=not (self.closing or self.broken))

    def _spawn(self, now: float) -> None:
        """Fork for the tasks that wait, and for the slots whose worker is to be replaced."""
        fresh, heirs = self._wanted()
        if not (fresh or heirs) or not self._staffing.may_try(now):
            return
        self._fork(fresh, heirs)

    def _let_go(self, now: float) -> None:
        for worker in list(self.workers.values()):
            if worker.state.holds_nothing and not worker.leaving and worker.doom is None:
                self._dismiss(worker, now)
        if not self.workers and self.closing and not self._finished:
            self._finished = True
            self.actions.append((Verb.FINISHED, None, None))

    def _start_failed(self, worker: Worker, now: float) -> None:
        if worker.doom is not None or worker.leaving:
            return  # it was to end anyway
        self._break_if(self._staffing.on_failed(worker, now))

    def _break_if(self, too_often: bool) -> None:
        """Give up if no worker is there that started: one that works, or that leaves and so makes room for another."""
        if too_often and all(worker.state is WorkerState.SPAWNED for worker in self.workers.values()):
            self.on_break()

    def _deadline_passed(self, worker: Worker, now: float) -> None:
        worker.deadline = None
        if not worker.tasks or worker.terminated:
            self._kill(worker, Verdict.POOL_KILLED)
        elif self._abort_at is not None and self._abort_at <= now:
            self._kill(worker, Verdict.KILLED)
        else:
            self._timeout_passed(worker, worker.tasks[0], now)

    def _timeout_passed(self, worker: Worker, task: Task, now: float) -> None:
        timeout = task.options.timeout
        assert timeout is not None
        started = self._started_at(worker)
        begin = worker.sent_at + UNTAKEN_PATIENCE_S if started is None else started
        if begin + timeout > now:
            self._limit(worker, begin + timeout)
        else:
            self._condemn(worker, task, Verdict.TIMED_OUT)

    def _end(self, task: Task, verdict: Verdict, worker: Worker | None) -> None:
        task.verdict = verdict
        self._lost_before.discard(task)
        self.actions.append((Verb.END, worker, task))

    def _recall_what_waits(self) -> None:
        """Have what was sent ahead taken back, to end as `_take_back` says."""
        for worker in self.workers.values():
            if len(worker.tasks) > 1:
                self.actions.append((Verb.RECALL, worker, None))

    def _drop_queue(self, verdict: Verdict) -> None:
        while self.queue:
            self._end(self.queue.popleft(), verdict, None)
