"""The pool's decisions against a host in which anything happens at any time.

Runs in: pytest, with hypothesis. `Host` is a world of pretended workers: each has a pipe with what it was sent, may take a
task, answer, be stopped, die; the host learns of it later, in another order than it happened, as far as the rules of
`PoolMachine` allow. What the machine asks for is carried out as the supervisor does it, and each action is judged by what is
true in that world (who really took the task? was it ever begun?), not by what the machine believes.
The teardown closes the pool and lets everything end that can: each task must have ended exactly once then, and FINISHED must
have come exactly once. So a stall is found in whatever state the rules have reached.
"""

from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from forkpool._core.ahead import MAX_AHEAD
from forkpool._core.machine import UNTAKEN_PATIENCE_S, PoolMachine
from forkpool._core.repeating import TASK_OVER_MEMORY, TASK_TIMED_OUT, WORKER_CRASHED
from forkpool._core.states import Expiry, GroupMemory, RepeatableTask, Task, Verdict, Worker, WorkerState
from forkpool._core.wire import INLINE_BYTES
from forkpool.config import TaskOptions
from tests.support.machine_invariants import check_invariants

GRACE_S = 5.0
SHORT_S = 0.00001
TASK_NAMES = ["short", "other", "long"]
ERRORS = [WORKER_CRASHED[0], TASK_TIMED_OUT[0], TASK_OVER_MEMORY[0], "builtins.KeyError"]
MEMORY_LIMIT = 100
GROUP_LIMIT = 6000
PARTS = 3  # of a large task, behind the first
PAUSES = st.lists(st.sampled_from([0.0, 0.4, 1.4, 3.9]), min_size=1, max_size=PARTS)  # before each part is read
A_MOMENT_S = 1e-6  # sums of seconds are not exact
ENDS_ONE = (Verdict.KILLED, Verdict.TIMED_OUT, Verdict.OVER_MEMORY, Verdict.GROUP_FULL)  # and no other


class ShortlyShown(bytes):
    """Else each of them fills pages of a failing example."""

    def __repr__(self) -> str:
        return f"<{len(self)} bytes>"


LARGE = ShortlyShown(INLINE_BYTES + 1)


@dataclass(frozen=True)
class Content:
    digest: bytes


class Parted(bytes):
    """Needs a content that it does not have in it."""

    def __init__(self, digest: bytes) -> None:
        self.contents = {"key": Content(digest)}


@dataclass
class Call:
    """The truth about one task."""

    task: Task | None = None
    order: int = 0  # of submission
    claimed: bool = False
    losses: int = 0  # how often it was found to be stolen
    was_back: bool = False  # it was taken back from a worker, or is tried again
    attempts: int = 1
    cancelled: bool = False  # by its user, while it was pending
    kill_asked: bool = False
    began_in: list[int] = field(default_factory=list)  # generations of the workers that took it
    ends: list[str] = field(default_factory=list)


@dataclass
class Process:
    """The truth about one worker."""

    worker: Worker
    born: bool = False
    dead: bool = False
    kill_signal: bool = False
    asked_to_leave: bool = False
    hung_up: bool = False
    pipe: deque[Task] = field(default_factory=deque)
    unwritten: int = 0  # parts of the only task in the pipe that found no room in it yet
    written_at: float = 0.0  # when something was written there last
    stolen: deque[Task] = field(default_factory=deque)  # read out of the pipe by somebody else
    holds: Task | None = None  # taken, not answered
    started_at: float = 0.0
    answers: deque[Task] = field(default_factory=deque)  # written, not read by the host
    failing: set[Task] = field(default_factory=set)  # those of them that tell of an error
    has: bytes | None = None  # the digest of the content that it holds
    whole: Task | None = None  # the last task that was sent with its content
    lacking: set[Task] = field(default_factory=set)  # those that it took and has not got all for
    private: int = 1000  # bytes of memory
    base: int | None = None  # bytes that it had right before it was sent a task with a limit
    seen: int | None = None  # bytes that the host saw last; None: it was not looked at since

    @property
    def is_busy_with(self) -> list[Task]:
        """What the host has sent and not seen the end of, in order."""
        return [*self.answers, *([self.holds] if self.holds else []), *self.pipe]


class Host(RuleBasedStateMachine):
    @initialize(
        max_workers=st.integers(1, 3),
        max_tasks=st.one_of(st.none(), st.integers(1, 3)),
        lazy=st.booleans(),
        lives=st.sampled_from([20, 5, 0]),
        guarded=st.booleans(),
        first=st.sampled_from([(3.0, None), (None, MEMORY_LIMIT), (3.0, MEMORY_LIMIT), (None, None), None]),
        ahead=st.booleans(),
        reading=st.one_of(st.none(), PAUSES),
    )
    def make(
        self,
        max_workers: int,
        max_tasks: int | None,
        lazy: bool,
        lives: int,
        guarded: bool,
        first: tuple[float | None, int | None] | None,
        ahead: bool,
        reading: list[float] | None,
    ) -> None:
        self.lives = lives  # tasks that are sent before the pool may come to its end, else most runs were over at once
        self.now = 1000.0
        self.forks_late = lazy  # a worker that is to end before it was forked never is
        self.max_workers = max_workers
        self.machine = PoolMachine(
            max_workers,
            task_limit=lambda: max_tasks,
            grace_s=GRACE_S,
            try_start=self.try_start,
            put_back=self.put_back,
            repeat=self.repeat,
            started_at=self.started_at,
        )
        self.calls: list[Call] = []
        self.untold: list[Call] = []  # cancelled; the machine has not heard of it
        self.processes: dict[int, Process] = {}
        self.seq = 0
        self.finished = 0
        self.robbed: set[int] = set()  # generations that the machine knows to have lost something
        self.recycled: set[int] = set()  # generations that the user wanted replaced
        self.closed = self.aborted = self.stopped = self.was_broken = self.queue_cancelled = False
        self.is_marked = True
        if guarded:
            self.machine.guard_group()
        if first is not None:
            self.begin_with(*first, reading)
        if first is not None and ahead:
            self.send_ahead()

    def begin_with(self, timeout: float | None, memory_limit: int | None, reading: list[float] | None) -> None:
        """All workers run a task, or are `reading` a large one: hypothesis leaves many rules out of each run, and would seldom
        come as far.
        """
        self.submit("other", timeout, memory_limit, 0, 1, {ERRORS[-1]}, self.max_workers, reading is not None)
        self.step()
        for process in self.known():
            self.host_hears_ready(process)
        self.step()
        for process in self.alive():
            if reading is None:
                self.worker_takes(process)
            else:
                self.worker_reads(process, reading)

    def send_ahead(self) -> None:
        """Workers have tasks in their pipes as well."""
        for _ in range(2):
            self.everybody_works_on()
            for process in self.known():
                self.host_reads(process)
            self.submit("short", None, None, 0, 1, {ERRORS[-1]}, 2 * self.max_workers)
            self.step()

    # --- what the machine asks the host

    def call(self, task: Task) -> Call:
        call: Call = task.future
        return call

    def try_start(self, task: Task) -> bool:
        call = self.call(task)
        assert not call.claimed, "claimed twice"
        assert not call.ends, "started after its end"
        if call.cancelled:
            return False
        call.claimed = True
        self.judge_order(task, call)
        return True

    def judge_order(self, task: Task, call: Call) -> None:
        """The highest priority is first, and in it what was submitted first; what was taken back stands before the others."""
        for other in self.machine.queue:
            assert other.options.priority <= task.options.priority
            if other.options.priority == task.options.priority and not call.was_back:
                assert not self.call(other).was_back
                assert self.call(other).order > call.order

    def put_back(self, task: Task) -> None:
        call = self.call(task)
        assert call.claimed
        assert not call.began_in
        call.claimed, call.was_back = False, True

    def repeat(self, task: Task, worker: Worker) -> bool:
        call = self.call(task)
        assert call.claimed
        assert not call.ends, "tried again after its end"
        assert call.began_in == [worker.generation]
        assert not self.machine.broken
        assert not self.queue_cancelled
        if call.kill_asked:
            return False
        call.attempts += 1
        assert call.attempts <= 1 + task.options.retries
        call.claimed, call.was_back, call.began_in = False, True, []
        return True

    def started_at(self, worker: Worker) -> float | None:
        process = self.processes[worker.generation]
        return process.started_at if process.holds is worker.tasks[0] else None

    # --- what the machine tells the host to do

    def step(self) -> None:
        """One turn of the supervisor's loop, after the facts."""
        due = self.machine.next_time()
        if due is not None and due <= self.now:
            self.machine.on_time(self.now)
        self.machine.dispatch(self.now)
        while self.machine.actions:
            self.act()
            self.machine.dispatch(self.now)
        self.check_no_stall()
        self.check_nothing_waits_to_begin()

    def act(self) -> None:
        while self.machine.actions:
            actions, self.machine.actions = self.machine.actions, []
            for verb, worker, task in actions:
                getattr(self, f"do_{verb.name.lower()}")(worker, task)

    def do_spawn(self, worker: Worker, _: None) -> None:
        assert worker.generation not in self.processes
        seated = [p.worker.slot for p in self.processes.values() if p.worker.owns_slot and p.worker is not worker]
        assert (worker.slot in seated) == (worker.heir_of is not None)
        assert 0 <= worker.slot < self.max_workers
        assert not self.queue_cancelled, "a worker is started for nothing"
        self.processes[worker.generation] = Process(worker)

    def do_send(self, worker: Worker, task: Task) -> None:
        process, call = self.processes[worker.generation], self.call(task)
        assert process.born
        assert not process.dead or worker.generation in self.machine.workers
        assert not process.kill_signal
        assert not process.asked_to_leave
        assert worker.generation not in self.recycled
        assert call.claimed
        assert not self.queue_cancelled, "it begins after all that had not begun was cancelled"
        assert not call.began_in, "run twice"
        assert not call.ends
        assert all(task not in other.is_busy_with for other in self.processes.values()), "sent twice"
        assert worker.generation not in self.robbed, "somebody reads its pipe"
        for other in self.processes.values():
            if other is not process and other.worker.slot == worker.slot:
                assert other.dead or not other.is_busy_with, "two busy workers on one slot"
        ahead = process.is_busy_with
        assert len(ahead) <= MAX_AHEAD
        assert not ahead or all(other.options.timeout is None for other in (*ahead, task))
        assert not ahead or all(other.options.memory_limit is None for other in (*ahead, task))
        assert not ahead or all(len(other.payload) <= INLINE_BYTES for other in (*ahead, task))
        assert process.whole not in ahead
        assert task.options.memory_limit is None or process.dead or process.seen == process.private, "no base line"
        process.base = process.seen
        self.seq += 1
        task.seq = self.seq
        process.pipe.append(task)
        process.unwritten = PARTS if len(task.payload) > INLINE_BYTES else 0
        self.on_written(process)

    def do_send_whole(self, worker: Worker, task: Task) -> None:
        process = self.processes[worker.generation]
        assert isinstance(task.payload, Parted)
        assert not process.is_busy_with
        self.do_send(worker, task)
        process.whole, process.unwritten = task, PARTS

    def on_written(self, process: Process) -> None:
        process.written_at = self.now
        if process.worker.generation in self.machine.workers:
            self.machine.on_sent(process.worker, self.now)

    def do_recall(self, worker: Worker, _: None) -> None:
        if worker.generation in self.machine.workers:
            self.machine.on_recalled(worker, self.take_from_pipe(worker), self.now, alive=True)

    def take_from_pipe(self, worker: Worker) -> list[int]:
        pipe = self.processes[worker.generation].pipe
        seqs = [task.seq for task in pipe]
        pipe.clear()
        self.processes[worker.generation].unwritten = 0
        return seqs

    def do_look(self, worker: Worker, _: None) -> None:
        process = self.processes[worker.generation]
        if worker.generation in self.machine.workers:
            assert not process.kill_signal
            assert [task for task in worker.tasks if task.options.memory_limit is not None], "looked at for nothing"
            process.seen = None if process.dead else process.private
            self.machine.on_memory(worker, self.now, process.seen)

    def do_look_at_group(self, _: None, __: None) -> None:
        def private(worker: Worker) -> int | None:
            process = self.processes[worker.generation]
            assert not process.kill_signal
            return None if process.dead else process.private

        known = list(self.machine.workers.values())
        rich = [one for one in known if one.state is WorkerState.READY and (private(one) or 0) >= self.little()]
        untouched = [one for one in known if one.doom is None and not any(task.verdict for task in one.tasks)]
        self.machine.on_group_memory(self.now, self.group(), private)
        for worker in untouched:
            if worker.doom is not None or any(task.verdict for task in worker.tasks):
                assert worker in rich or not rich, "a task ends, and an idle worker keeps as much"

    def little(self) -> int:
        return GROUP_LIMIT // 2 // (self.max_workers + 1)

    def group(self) -> GroupMemory | None:
        if not self.is_marked:
            return None
        used = sum(process.private for process in self.processes.values() if not process.dead)
        return GroupMemory(GROUP_LIMIT, used, "memory.max", GROUP_LIMIT)

    @rule()
    def mark_the_group(self) -> None:
        """From now on, or no more, the kernel would kill it as a whole."""
        self.is_marked = not self.is_marked

    def do_stop(self, worker: Worker, _: None) -> None:
        process = self.processes[worker.generation]
        assert not process.is_busy_with
        process.asked_to_leave = True
        self.perhaps_never_fork(process)

    def perhaps_never_fork(self, process: Process) -> None:
        if self.forks_late and not process.born and not process.dead:
            process.dead = True
            self.machine.on_not_spawned(process.worker)

    def do_kill(self, worker: Worker, _: None) -> None:
        process = self.processes[worker.generation]
        if worker.state is WorkerState.GONE:
            return  # the news came between the decision and now
        assert not process.kill_signal
        process.kill_signal = True
        if worker.doom is Verdict.GROUP_FULL:
            self.judge_choice(worker)
        if not self.stopped and worker.doom in ENDS_ONE:
            # None is left if the answer was read since the decision; several if the user has killed each of them.
            assert {task.verdict for task in worker.tasks} <= {worker.doom}
            robbed = [task for task in worker.tasks if task not in process.stolen]
            assert process.is_busy_with in ([], robbed), "the signal might hit another task"
            assert process.is_busy_with or set(worker.tasks) <= set(process.stolen)
        if worker.doom is Verdict.TIMED_OUT and process.pipe:
            self.judge_untaken(process, worker.tasks[0])
        self.perhaps_never_fork(process)

    def judge_untaken(self, process: Process, task: Task) -> None:
        """It has not even read a part of the task for so long."""
        assert task.options.timeout is not None
        assert self.now - process.written_at > task.options.timeout + UNTAKEN_PATIENCE_S - A_MOMENT_S

    def judge_choice(self, worker: Worker) -> None:
        """It held much."""
        assert worker.grown >= self.little()
        assert worker.group is not None

    def do_end(self, worker: Worker | None, task: Task) -> None:
        call = self.call(task)
        assert not call.ends, "ended twice"
        assert task.verdict is not None
        call.ends.append(task.verdict.name)
        getattr(self, f"judge_{task.verdict.name.lower()}")(call, worker)

    def do_finished(self, _: None, __: None) -> None:
        assert self.closed
        assert not self.machine.workers
        self.finished += 1

    # --- was the verdict just?

    def judge_crashed(self, call: Call, worker: Worker) -> None:
        process = self.processes[worker.generation]
        assert process.dead
        if call.losses > 1 and call.task in process.stolen:
            return
        assert process.holds is call.task, "blamed without being run there"
        assert not process.worker.terminated
        assert not process.kill_signal

    def judge_timed_out(self, call: Call, worker: Worker) -> None:
        process = self.processes[worker.generation]
        assert call.task not in process.stolen, "it never began"
        assert process.holds is call.task
        assert process.kill_signal
        assert call.task is not None
        assert call.task.options.timeout is not None
        assert self.now >= process.started_at

    def judge_over_memory(self, call: Call, worker: Worker) -> None:
        process = self.processes[worker.generation]
        assert process.dead
        assert process.kill_signal
        assert call.task is not None
        assert call.task.options.memory_limit is not None
        assert process.base is not None
        assert process.seen is not None
        assert process.seen - process.base == worker.grown > call.task.options.memory_limit

    def judge_group_full(self, call: Call, worker: Worker) -> None:
        process = self.processes[worker.generation]
        assert process.holds is call.task
        assert process.kill_signal
        assert worker.grown >= self.little()

    def judge_killed(self, call: Call, worker: Worker | None) -> None:
        if worker is None:
            assert not call.began_in
            assert call.kill_asked
        else:
            process = self.processes[worker.generation]
            assert process.dead
            assert process.holds is call.task or (call.losses > 1 and call.task in process.stolen)
            assert call.kill_asked or self.aborted

    def judge_pool_killed(self, call: Call, worker: Worker) -> None:
        process = self.processes[worker.generation]
        assert process.holds is call.task or (call.losses > 1 and call.task in process.stolen)
        assert self.stopped

    def judge_cancelled(self, call: Call, worker: Worker | None) -> None:
        assert not call.began_in
        assert self.queue_cancelled or call.kill_asked or call.cancelled

    def judge_pool_broken(self, call: Call, worker: Worker | None) -> None:
        assert not call.began_in
        assert self.machine.broken

    # --- rules: the user

    @rule(
        name=st.sampled_from(TASK_NAMES),
        timeout=st.sampled_from([None, None, None, 0.5, 3.0]),
        memory_limit=st.sampled_from([None, None, None, MEMORY_LIMIT]),
        priority=st.sampled_from([0, 0, 0, 1, -1]),
        retries=st.sampled_from([0, 0, 1, 3]),
        retry_on=st.sets(st.sampled_from(ERRORS), min_size=1),
        count=st.integers(1, 6),
        large=st.booleans(),
        content=st.sampled_from([None, None, b"A", b"B"]),
    )
    def submit(
        self,
        name: str,
        timeout: float | None,
        memory_limit: int | None,
        priority: int,
        retries: int,
        retry_on: set[str],
        count: int,
        large: bool = False,
        content: bytes | None = None,
    ) -> None:
        options = TaskOptions(
            timeout, priority=priority, retries=retries, retry_on=frozenset(retry_on), memory_limit=memory_limit
        )
        for _ in range(count):
            call = Call(order=len(self.calls))
            payload = Parted(content) if content is not None else LARGE if large else b""
            call.task = (RepeatableTask if retries else Task)(call, payload, name, options)
            self.calls.append(call)
            if self.finished:
                self.machine.reopen()
                self.finished = 0
            self.machine.on_submit(call.task)

    @rule(data=st.data())
    @precondition(lambda self: self.open_calls())
    def cancel(self, data: st.DataObject) -> None:
        call = data.draw(st.sampled_from(self.open_calls()))
        if not call.claimed:
            call.cancelled = True
            self.untold.append(call)

    @rule()
    @precondition(lambda self: self.untold)
    def hear_of_cancels(self) -> None:
        while self.untold:
            task = self.untold.pop().task
            assert task is not None
            self.machine.on_cancel(task)

    @rule(data=st.data())
    @precondition(lambda self: self.open_calls())
    def kill(self, data: st.DataObject) -> None:
        claimed = [call for call in self.open_calls() if call.claimed]
        call = data.draw(st.sampled_from(claimed or self.open_calls()))
        if call.claimed:
            call.kill_asked = True
            assert call.task is not None
            self.machine.on_kill(call.task)

    def open_calls(self) -> list[Call]:
        return [call for call in self.calls if not call.ends and not call.cancelled]

    @rule(expiry=st.sampled_from([Expiry.RECYCLE, Expiry.RESTART]))
    def recycle(self, expiry: Expiry) -> None:
        if expiry is Expiry.RESTART:
            self.recycled.update(self.machine.workers)
        self.machine.on_recycle(expiry, self.now)

    @rule(cancel_queued=st.booleans())
    @precondition(lambda self: self.seq >= self.lives)
    def close(self, cancel_queued: bool) -> None:
        self.closed = True
        self.queue_cancelled = self.queue_cancelled or cancel_queued
        self.machine.on_close(cancel_queued=cancel_queued)

    @rule()
    @precondition(lambda self: self.seq >= self.lives and not self.closed)
    def close_while_pipes_are_full(self) -> None:
        """Seldom met by chance."""
        self.send_ahead()
        self.close(cancel_queued=True)
        self.step()

    @rule()
    @precondition(lambda self: self.seq >= self.lives)
    def abort(self) -> None:
        self.closed = self.aborted = self.stopped = self.queue_cancelled = True
        self.machine.on_abort(self.now)

    @rule()
    @precondition(lambda self: self.seq >= self.lives)
    def kill_all(self) -> None:
        self.closed = self.stopped = self.queue_cancelled = True
        self.machine.on_kill_all(Verdict.POOL_KILLED)

    @rule()
    @precondition(lambda self: self.seq >= self.lives)
    def terminate_all(self) -> None:
        self.closed = self.stopped = self.queue_cancelled = True
        self.machine.on_terminate_all(self.now)

    # --- rules: workers do something; the host does not know yet

    def alive(self) -> list[Process]:
        return [p for p in self.processes.values() if p.born and not p.dead]

    @rule(data=st.data())
    @precondition(lambda self: any(p.pipe and not p.holds for p in self.alive()))
    def take(self, data: st.DataObject) -> None:
        self.worker_takes(data.draw(st.sampled_from([p for p in self.alive() if p.pipe and not p.holds])))

    @rule(data=st.data(), pauses=PAUSES)
    @precondition(lambda self: any(p.unwritten for p in self.alive()))
    def read_parts(self, data: st.DataObject, pauses: list[float]) -> None:
        self.worker_reads(data.draw(st.sampled_from([p for p in self.alive() if p.unwritten])), pauses)

    def worker_reads(self, process: Process, pauses: list[float]) -> None:
        """Part by part of a large task, so that the host can write more of it."""
        for pause in pauses:
            self.time_passes(pause)
            if process.unwritten and not process.kill_signal:
                self.write_a_part(process)

    def write_a_part(self, process: Process) -> None:
        process.unwritten -= 1
        self.on_written(process)

    @rule(data=st.data(), count=st.integers(1, 3))
    @precondition(lambda self: any(p.pipe for p in self.alive()))
    def steal(self, data: st.DataObject, count: int) -> None:
        """A task reads our pipe, or what one left there."""
        process = data.draw(st.sampled_from([p for p in self.alive() if p.pipe]))
        while process.unwritten:
            self.write_a_part(process)
        while process.pipe and count:
            process.stolen.append(process.pipe.popleft())
            count -= 1

    @rule(data=st.data())
    @precondition(lambda self: any(p.holds for p in self.alive()))
    def write_answer(self, data: st.DataObject) -> None:
        self.worker_answers(data.draw(st.sampled_from([p for p in self.alive() if p.holds])))

    @rule(data=st.data())
    @precondition(lambda self: any(p.holds for p in self.alive()))
    def write_error(self, data: st.DataObject) -> None:
        process = data.draw(st.sampled_from([p for p in self.alive() if p.holds]))
        process.failing.add(process.holds)  # type: ignore[arg-type]  # it holds one
        self.worker_answers(process)

    @rule(data=st.data(), by=st.sampled_from([MEMORY_LIMIT + 1, MEMORY_LIMIT, 1, -500, GROUP_LIMIT]), looked_at=st.booleans())
    @precondition(lambda self: self.alive())
    def grow(self, data: st.DataObject, by: int, looked_at: bool) -> None:
        """One that has a limit, if there is any: it takes its task at last."""
        limited = [p for p in self.alive() for task in (*p.pipe, p.holds) if task and task.options.memory_limit is not None]
        process = data.draw(st.sampled_from(limited or self.alive()))
        if process.pipe and not process.holds:
            self.worker_takes(process)
        process.private += by
        if looked_at:
            self.time_passes_to_the_next_deadline()

    @rule()
    def everybody_works_on(self) -> None:
        for process in self.alive():
            while process.holds or process.pipe:
                self.worker_answers(process) if process.holds else self.worker_takes(process)

    def worker_takes(self, process: Process) -> None:
        while process.unwritten:
            self.write_a_part(process)
        process.holds, process.started_at = process.pipe.popleft(), self.now
        self.call(process.holds).began_in.append(process.worker.generation)
        if isinstance(process.holds.payload, Parted):
            digest = process.holds.payload.contents["key"].digest
            if process.holds is process.whole:
                process.has = digest
            elif process.has != digest:
                process.lacking.add(process.holds)

    @rule(data=st.data(), digest=st.sampled_from([None, b"A", b"B"]))
    @precondition(lambda self: any(p.has for p in self.alive()))
    def get_another_content(self, data: st.DataObject, digest: bytes | None) -> None:
        """By a call that carries it for itself; or what it was sent last could not be unpickled."""
        data.draw(st.sampled_from([p for p in self.alive() if p.has])).has = digest

    def worker_answers(self, process: Process) -> None:
        assert process.holds is not None
        process.answers.append(process.holds)
        process.holds = None

    @rule(data=st.data())
    @precondition(lambda self: self.processes)
    def die(self, data: st.DataObject) -> None:
        living = [p for p in self.processes.values() if not p.dead]
        busy = [p for p in living if p.holds]
        if living:
            data.draw(st.sampled_from(busy or living)).dead = True

    @rule(data=st.data())
    @precondition(lambda self: any(task.options.timeout for p in self.alive() for task in p.is_busy_with))
    def overrun(self, data: st.DataObject) -> None:
        """A task with a timeout takes longer."""
        process = data.draw(st.sampled_from([p for p in self.alive() if any(task.options.timeout for task in p.is_busy_with)]))
        if process.pipe and not process.holds:
            self.worker_takes(process)
        self.time_passes(6.0)

    # --- rules: facts reach the host

    def known(self) -> list[Process]:
        """Workers of which the machine knows."""
        return [p for p in self.processes.values() if p.worker.generation in self.machine.workers]

    @rule(data=st.data())
    @precondition(lambda self: any(not p.born and not p.dead for p in self.known()))
    def ready(self, data: st.DataObject) -> None:
        self.host_hears_ready(data.draw(st.sampled_from([p for p in self.known() if not p.born and not p.dead])))

    def host_hears_ready(self, process: Process) -> None:
        process.born = True
        self.machine.on_ready(process.worker, self.now)

    @rule(data=st.data())
    @precondition(lambda self: any(not p.born for p in self.known()))
    def fail_to_spawn(self, data: st.DataObject) -> None:
        process = data.draw(st.sampled_from([p for p in self.known() if not p.born]))
        self.host_hears_of_a_failed_start(process)

    def host_hears_of_a_failed_start(self, process: Process) -> None:
        process.dead = True
        with self.judged_if_it_breaks():
            self.machine.on_spawn_failed(process.worker, self.now)

    @contextmanager
    def judged_if_it_breaks(self) -> Iterator[None]:
        """A pool in which a worker lives that has started is not given up because others do not start."""
        was_broken = self.machine.broken
        yield
        if self.machine.broken and not was_broken:
            assert not [p for p in self.known() if p.born], "somebody works, or leaves and so makes room"

    @rule(count=st.integers(1, 7))
    @precondition(lambda self: self.seq >= self.lives or self.alive())
    def shortage(self, count: int) -> None:
        """Nobody can be started, so many times in a row."""
        for _ in range(count):
            for process in [p for p in self.known() if not p.born]:
                self.host_hears_of_a_failed_start(process)
            self.time_passes_to_the_next_deadline()

    @rule(count=st.integers(7, 9), pauses=st.booleans())
    @precondition(lambda self: self.seq >= self.lives or self.alive())
    def spoilt_initializer(self, count: int, pauses: bool) -> None:
        """Whoever starts ends before it takes anything: there is a pause soon."""
        for number in range(count):
            self.step()
            unborn = [p for p in self.known() if not p.born and not p.dead]
            if number > 5 and not pauses:  # not sooner: some were asked for before the last end, or failed to start before
                assert not [p for p in unborn if not p.asked_to_leave], "forks without end"
            for process in unborn:
                self.host_hears_ready(process)
            self.step()
            for process in self.known():
                if process in unborn:
                    process.dead = True
                    self.host_hears_of_death(process)
            if pauses:
                self.time_passes_to_the_next_deadline()

    @rule()
    @precondition(lambda self: self.seq >= self.lives)
    def break_pool(self) -> None:
        """An initializer raised."""
        self.machine.on_break()

    @rule(data=st.data())
    @precondition(lambda self: any(p.answers for p in self.known()))
    def read_answers(self, data: st.DataObject) -> None:
        self.host_reads(data.draw(st.sampled_from([p for p in self.known() if p.answers])))

    @rule(data=st.data())
    @precondition(lambda self: any(p.stolen for p in self.known()))
    def look(self, data: st.DataObject) -> None:
        self.host_looks(data.draw(st.sampled_from([p for p in self.known() if p.stolen])))

    def host_looks(self, process: Process) -> None:
        """It sees the pipe and the page, and reads all answers."""
        self.host_reads(process)
        if process.worker.doom is not None:
            return
        if process.holds is not None:
            lost = [task for task in process.stolen if not process.pipe or task.seq < process.holds.seq]
            self.host_learns_of_losses(process, lost, alive=not process.dead)
        elif process.stolen and not process.pipe:
            process.hung_up = True
            self.robbed.add(process.worker.generation)
            self.machine.on_unreliable(process.worker)

    def host_learns_of_losses(self, process: Process, lost: list[Task], *, alive: bool) -> None:
        if not lost:
            return
        seqs = [task.seq for task in lost]
        self.robbed.add(process.worker.generation)
        for task in lost:
            self.call(task).losses += 1
        self.machine.on_lost(process.worker, seqs, self.now, alive=alive)
        process.stolen = deque(task for task in process.stolen if task in process.worker.tasks)

    def host_reads(self, process: Process) -> None:
        while process.answers:
            task = process.answers.popleft()
            skipped = [other for other in process.stolen if other.seq < task.seq]
            self.host_learns_of_losses(process, skipped, alive=not process.dead)
            if task in process.lacking:
                process.lacking.discard(task)
                process.failing.discard(task)
                self.call(task).began_in.clear()
                self.machine.on_lacking(process.worker, self.now)
                continue
            seconds = 1.0 if task.name == "long" else SHORT_S
            assert self.machine.on_answer(process.worker, self.now, seconds) is task
            call = self.call(task)
            assert not call.ends, "answered after its end"
            failed = task in process.failing
            process.failing.discard(task)
            if not (failed and self.machine.on_failure(task, process.worker, ["builtins.KeyError", "builtins.Exception"])):
                call.ends.append("answered")

    @rule(data=st.data())
    @precondition(lambda self: any(p.dead for p in self.known()))
    def hear_of_death(self, data: st.DataObject) -> None:
        self.host_hears_of_death(data.draw(st.sampled_from([p for p in self.known() if p.dead])))

    def host_hears_of_death(self, process: Process) -> None:
        self.host_reads(process)
        self.machine.on_recalled(process.worker, self.take_from_pipe(process.worker), self.now, alive=False)
        self.host_learns_of_losses(process, list(process.stolen), alive=False)
        with self.judged_if_it_breaks():
            self.machine.on_gone(process.worker, self.now)
        self.act()
        process.holds = None  # judged; a further attempt may be sent elsewhere now

    @rule(seconds=st.sampled_from([0.001, 0.006, 0.3, 0.6, 2.0, 6.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.step()

    @rule()
    def time_passes_to_the_next_deadline(self) -> None:
        due = self.machine.next_time()
        if due is not None:
            self.now = max(self.now, due)
        self.step()

    @rule()
    def take_a_turn(self) -> None:
        self.step()

    # --- invariants

    @invariant()
    def state_is_consistent(self) -> None:
        if hasattr(self, "machine"):
            check_invariants(self.machine)

    @invariant()
    def seats_are_enough(self) -> None:
        if hasattr(self, "machine"):
            workers = self.machine.workers.values()
            seated = Counter(w.slot for w in workers if w.owns_slot)
            heirs = Counter(w.slot for w in workers if not w.owns_slot and w.state is not WorkerState.RETIRING)
            assert len(seated) <= self.max_workers
            assert all(count == 1 for count in seated.values())
            assert all(heirs[slot] == 1 and seated[slot] == 1 for slot in heirs)

    def check_no_stall(self) -> None:
        """Somebody will wake the host while there is work, and nobody wakes it for nothing."""
        machine, due = self.machine, self.machine.next_time()
        waiting = [task for task in machine.queue if not self.call(task).cancelled]
        assert not waiting or machine.workers or due is not None, "work is waiting and nothing will happen"
        if self.closed and not machine.queue and not machine.workers:
            assert self.finished == 1
        for worker in machine.workers.values():
            if worker.tasks and worker.tasks[0].options.timeout is not None and worker.doom is None:
                assert worker.deadline is not None, "nobody looks at its timeout"
        told_soon = any(process.answers or process.dead for process in self.known())
        assert due is None or due > self.now or told_soon, "the host would spin"

    def check_nothing_waits_to_begin(self) -> None:
        """After a shutdown that cancels, a pipe holds at most what its worker takes at once: that is waiting for nothing."""
        for process in self.known():
            if self.queue_cancelled and process.pipe:
                assert len(process.is_busy_with) == 1

    # --- the end

    def teardown(self) -> None:
        if not hasattr(self, "machine"):
            return
        self.close(cancel_queued=False)
        for _ in range(200 + 10 * len(self.calls)):
            self.step()
            if self.finished and not self.machine.queue:
                break
            self.let_everybody_go_on()
        assert self.finished == 1, "the pool never ends"
        for process in self.known():
            raise AssertionError(f"{process} was forgotten")
        for call in self.calls:
            assert len(call.ends) == 1, call
            assert len(call.began_in) <= 1, "run twice"

    def let_everybody_go_on(self) -> None:
        """What can happen without the user, happens; a deadline is waited for only when nothing else can."""
        acted = False
        for process in self.known():
            acted = True
            if process.kill_signal or process.dead or (process.asked_to_leave and process.born):
                process.dead = True
                self.host_hears_of_death(process)
            elif not process.born:
                self.host_hears_ready(process)
            elif process.is_busy_with or process.stolen:
                while process.holds or process.pipe:
                    self.worker_answers(process) if process.holds else self.worker_takes(process)
                self.host_looks(process)
                process.dead = process.dead or process.hung_up
        due = self.machine.next_time()
        if not acted and due is not None:
            self.now = max(self.now, due)


TestHost = Host.TestCase
TestHost.settings = settings(
    max_examples=150, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
