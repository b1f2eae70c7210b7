"""The thread that acts for the pool: it carries facts to the core and carries out what the core decides.

Runs in: host, one thread per pool, from the first submit to the end of shutdown. It owns the reactor, the waker, the crew of
processes and the endings of futures. No user code runs on it.
No policy here: which task goes where and what a death means is for `_core.machine` to say.

Hard part: never sleep while something is undecided. A step is: wait, handle what is ready, take the intake, then let the core
decide and act until it decides nothing more. See `intake` for how a submitter and a supervisor that falls asleep meet.
Tests: tests/process/test_shutdown.py, tests/process/test_interruptions.py
"""

from __future__ import annotations

import _thread
import contextlib
import os
import threading
from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING, Any

from .._core.machine import PoolMachine
from .._core.states import Expiry, Task, Verb, Verdict, Worker, WorkerState
from .._core.wire import MAX_MICROS, TRACKED, Answer, Kind, MalformedFrame
from .._shared import clock
from .._shared.owning_payload import let_go
from .._shared.passed_fds import address_of
from ..config import PoolConfig
from ..events import PoolStatistics
from ..future import Run
from .crew import Crew
from .endings import ANSWER_KINDS, Endings
from .failure import break_pool
from .group_memory import GroupWatch, find_groups
from .intake import ENDS_THE_POOL, Intake, Request, Waker
from .inventory import PoolSnapshot, describe_descriptors, describe_processes
from .log import Log
from .pinning import Pinning
from .reactor import Reactor
from .reports import Reports
from .retries import kind_of
from .stdio_guard import StdioGuard
from .tally import Tally
from .verdicts import broken_error, initializer_error, preload_error, shut_down_error

if TYPE_CHECKING:
    from .worker_link import WorkerLink


class Supervisor:
    """One pool's loop. Made in the thread that submits first; everything after `boot` belongs to its own thread."""

    def __init__(
        self,
        config: PoolConfig,
        intake: Intake,
        claim: Callable[[Supervisor], bool],
        init_payload: bytes | None,
        pool_name: str,
        path_of_calls: list[str],
    ) -> None:
        """
        Args:
            claim: Asked on the thread: True if this is the supervisor that serves the pool.
            init_payload: The initializer's call.
            path_of_calls: The `sys.path` of calls that bring none along.
        """
        self.error: BaseException | None = None  # why it cannot serve
        self.waker: Waker | None = None
        self._stdio = StdioGuard()
        self._intake = intake
        self._path_of_calls = path_of_calls
        self._claim = claim
        self._reactor = Reactor()
        self._log = Log()
        self._machine = PoolMachine(
            config.max_workers,
            task_limit=lambda: _draw_task_limit(config),
            grace_s=config.grace_period,
            try_start=_try_start,
            put_back=_put_back,
            repeat=self._repeat,
            started_at=lambda worker: self._crew.started_at(worker),
        )
        self._crew = Crew(
            config,
            self._machine,
            self._reactor,
            self._on_answer,
            init_payload,
            intake.gate,
            self._on_preload_failure,
            address_of(pool_name),
            self._log,
        )
        self.pinning = Pinning(config)
        self._tally = Tally(config.max_workers)
        self._endings = Endings(lambda: intake.closing, self._why_broken, self._tally)
        self._reports = Reports(self._machine, self._crew, self._tally)
        self._groups: GroupWatch | None = None  # control groups that the kernel kills as a whole, or may be told to
        self._askers: list[Callable[[Supervisor], None]] = []
        self._failed_answer: tuple[int, bytes | bytearray] | None = None  # while the core decides what follows from it
        self._seq = 0
        self._finished = False
        self._unsettled: list[_thread.LockType] = []  # the lock that the submit waits for; whoever takes it out releases it
        self._server: dict[str, int] = {}  # "thread": the identity of the one that serves
        self._thread: threading.Thread | None = None  # that one, if it is a proper one
        # The threads on which a finalizer must not wait for the pool; 0 as soon as one ends, whose number another one gets.
        self._ident = self._ident_of_boot = 0
        # Set at the very end of the loop. No lock, which who waits for it would hold for a moment, and may be interrupted then.
        self._gone = threading.Event()

    # --- life of the thread ----------------------------------------------------------------------------

    def boot(self, settled: _thread.LockType) -> None:
        """First function of the thread that `submit` starts: become a proper `threading.Thread`.

        `settled` is released when some supervisor serves the pool, or when this one cannot: `error` tells why.
        """
        self._unsettled.append(settled)
        try:
            if self._try_open() and self._claim(self):
                self._begin()
                return
            self._close()
        except BaseException as error:
            self.error = error
        finally:
            self._ident_of_boot = 0
        self._settle()

    def _settle(self) -> None:
        with contextlib.suppress(IndexError):
            self._unsettled.pop().release()

    def _begin(self) -> None:
        """Serve the pool, which nobody else will do from now on."""
        try:
            self._intake.waker = self.waker
            self._pin()
            self._start_thread()
        except BaseException as error:
            self.error = error
            break_pool(error, self._machine, self._intake, self._endings, self._log)
            self._give_back()
            self._gone.set()

    def _start_thread(self) -> None:
        try:
            threading.Thread(target=self._serve, args=(True,), name="forkpool-supervisor", daemon=True).start()
        except Exception:  # no more threads (3.12.1 says so at exit), or no memory for one: this one serves
            self._serve(False)

    def _try_open(self) -> bool:
        try:
            self._open()
        except BaseException as error:  # `submit` raises it
            self.error = error
        return self.error is None

    def _open(self) -> None:
        """Take what the loop needs. Here, and not in the constructor: no signal handler can interrupt this thread half-way.

        Raises:
            OSError: No descriptor, or no memory for one, to be had.
            RuntimeError: There is no Python to run as fork server.
        """
        self._crew.servers.open(self._path_of_calls)
        self._stdio.open()
        self.waker = Waker()
        self._reactor.open()
        self._reactor.watch(self.waker.fd, self.waker.clear)

    def _pin(self) -> None:
        """Choose the workers' CPUs. Not before this supervisor serves: two of one pool must not compete for them."""
        self._ident_of_boot = _thread.get_ident()
        try:
            self.pinning.choose()
            self._crew.servers.pin(self.pinning)
        except Exception as error:  # `submit` raises it, this one and each that comes after it
            self.error = why = error
            self._intake.broken = lambda: type(why)(*why.args)
            self._machine.on_break()

    def _close(self) -> None:
        self._crew.forget_initializer()
        self._reactor.close()
        self._stdio.close()
        self.waker = None

    def is_current_thread(self) -> bool:
        return _thread.get_ident() in (self._ident, self._ident_of_boot)

    def join(self) -> None:
        """Wait for the threads, after `pool.done` is set; not in a finalizer that keeps a future from ending."""
        if self._endings.any_is_held_here():
            return
        self._gone.wait()  # of the loop nothing runs any more, whatever its thread is
        if self._thread is not None:
            self._thread.join()
        self._endings.join()
        self._log.join()  # the last one: a callback may wait for the pool, too
        let_go()

    def find_run(self, seq: int) -> Run | None:
        """What is known of a task that runs. Any thread."""
        return self._crew.find_run(seq)

    def in_slots(self) -> list[WorkerLink]:
        """The workers that live now and have a slot. Any thread, which only reads what does not change."""
        return self._crew.in_slots()

    def signal_worker(self, link: WorkerLink, send: Callable[[], object]) -> None:
        """Send it a signal, if it lives."""
        if link in self._crew.living():
            send()

    def look(self) -> PoolSnapshot:
        """What the pool holds: exact on this thread and when it has ended, else as it appears."""
        crew = self._crew
        threads = [self._thread, self._log.side.thread, *self._endings.threads, *crew.servers.threads]
        waker = -1 if self.waker is None else self.waker.fd
        fds = [*crew.fds(), (self._reactor.fileno(), "epoll"), (waker, "waker"), (self.pinning.fileno(), "claims on CPUs")]
        return PoolSnapshot(
            tasks=tuple(self._reports.open_tasks(self._intake)),
            processes=describe_processes(crew.servers.pids, crew.worker_pids().items()),
            threads=tuple(thread for thread in threads if thread is not None and thread.is_alive()),
            descriptors=describe_descriptors(fds),
            shared_memory=tuple(crew.servers.shared_memory()),
        )

    def statistics(self) -> PoolStatistics:
        """What became of all calls: exact on this thread and when it has ended, else as it appears."""
        return self._reports.statistics()

    def _answer_askers(self) -> None:
        for item in list(self._intake.items):
            if isinstance(item, Task):
                continue
            if item[0] is Request.ASK:
                item[1](self)
            if item[0] is Request.RESTART:
                item[1].done(shut_down_error)

    def close_in_fork(self) -> None:
        """In a fork of the host, where this thread does not exist."""
        self.pinning.close_in_fork()
        self._crew.close_in_fork()
        self._reactor.close()

    def _serve(self, is_proper: bool) -> None:
        """
        Args:
            is_proper: This thread is known to `threading`; another would be for ever, once it was looked up there.
        """
        me = _thread.get_ident()
        if self._server.setdefault("thread", me) != me:
            return  # the proper one was started, and then there was no memory to say so
        try:
            self._ident = me
            self._thread = threading.current_thread() if is_proper else None
            self._run()
        finally:
            self._ident = 0
            self._gone.set()

    def _run(self) -> None:
        try:
            self._settle()
            self._endings.begin()
            self._guard_group()
            if self._intake.broken is None:
                self._crew.servers.preload()
            while not self._finished:
                self._step()
        except BaseException as error:
            break_pool(error, self._machine, self._intake, self._endings, self._log)
        finally:
            self._give_back()

    def _give_back(self) -> None:
        intake = self._intake
        intake.closed = True
        for step in (self._crew.close, self.pinning.close, self._answer_askers, self._close):
            self._try_step(step)
        intake.waker = None
        intake.gate.open()
        self._settle()
        intake.done.set()
        self._try_step(self._endings.stop)  # it may run callbacks and wait for other threads: all else was given back
        self._log.stop()

    def _try_step(self, step: Callable[[], None]) -> None:
        """Whatever becomes of it, the next one follows: somebody waits for the last."""
        try:
            step()
        except BaseException as error:
            self._log.critical("forkpool's supervisor could not give back all that its pool held", error)

    def _guard_group(self) -> None:
        """Have no task fill a control group that the kernel would kill as a whole, this program included."""
        self._groups = find_groups()
        if self._groups is not None:
            self._machine.guard_group()

    # --- the loop --------------------------------------------------------------------------------------

    def _step(self) -> None:
        intake, machine = self._intake, self._machine
        intake.sleeping = True
        ready = self._reactor.wait(0.0 if intake.items else self._patience())
        intake.sleeping = False
        self._reactor.handle(ready)
        if intake.items:
            self._take_intake()
        now = clock.now()
        self._on_time(now)
        self._endings.on_time(now)
        machine.dispatch(now)
        while machine.actions:  # what they brought about (a task taken back, a failed fork) is decided on before we sleep
            self._act()
            machine.dispatch(now)
        self._crew.bury()
        while self._askers:  # now each task is in exactly one place
            self._askers.pop()(self)
        if self._finished:
            self._last_look()

    def _patience(self) -> float | None:
        """Seconds until something is due; None: nothing is."""
        all_times = self._machine.next_time(), self._crew.next_time(), *self._endings.next_times()
        times = [when for when in all_times if when is not None]
        return max(0.0, min(times) - clock.now()) if times else None

    def _on_time(self, now: float) -> None:
        due = self._machine.next_time()
        if due is not None and due <= now:
            self._machine.on_time(now)
        due = self._crew.next_time()
        if due is not None and due <= now:
            self._crew.on_time(now)

    def _last_look(self) -> None:
        """See the head of `intake`: no task may be left in it when it is closed."""
        self._intake.closed = True
        if self._intake.has_task():
            self._intake.closed = self._finished = False
            self._machine.reopen()

    # --- facts -----------------------------------------------------------------------------------------

    def _take_intake(self) -> None:
        machine, items = self._machine, self._intake.items
        while items:
            item = items.popleft()
            if isinstance(item, Task):
                machine.on_submit(item)
            else:
                self._obey(*item)

    def _obey(self, request: Request, argument: Any) -> None:
        machine = self._machine
        if request in ENDS_THE_POOL:
            self._intake.closing = True  # who asked for it may have been interrupted before he did that
        match request:
            case Request.KILL:
                machine.on_kill(argument)
            case Request.CANCEL:
                machine.on_cancel(argument)
            case Request.CLOSE:
                machine.on_close(cancel_queued=argument)
            case Request.ABORT:
                machine.on_abort(clock.now())
            case Request.KILL_ALL:
                machine.on_kill_all(Verdict.POOL_KILLED)
            case Request.TERMINATE_ALL:
                machine.on_terminate_all(clock.now())
                self._crew.terminate_all()
            case Request.RECYCLE:
                machine.on_recycle(Expiry.RECYCLE, clock.now())
            case Request.RESTART:
                self._crew.servers.restart(argument)
            case Request.ASK:
                self._askers.append(argument)

    def _on_answer(self, worker: Worker, answer: Answer) -> None:
        kind, flags, micros, seq, payload = answer
        if worker.state is WorkerState.SPAWNED and kind == Kind.READY:
            if payload:
                self._on_unpinned(worker.slot, bytes(payload).decode(errors="replace"))
            self._machine.on_ready(worker, clock.now())
        elif worker.state is WorkerState.SPAWNED and kind == Kind.INIT_FAILED:
            data = bytes(payload)
            self._intake.broken = lambda: initializer_error(data)
            self._machine.on_break()
        elif worker.tasks and worker.tasks[0].seq == seq and kind == Kind.LACKING and not worker.first_is_whole:
            self._machine.on_lacking(worker, clock.now())
        elif worker.tasks and worker.tasks[0].seq == seq and kind in ANSWER_KINDS:
            if flags & TRACKED:
                self._crew.servers.hear_relay()
            link, now = self._crew.links[worker.generation], clock.now()
            began = link.began_ns(worker.tasks_done)
            seconds = micros / 1e6 if micros < MAX_MICROS else now - began / 1e9
            self._tally.busy[worker.slot] += seconds
            task = self._machine.on_answer(worker, now, seconds)
            task.future._run = (link.seat, began, seconds)
            if kind == Kind.VALUE or not task.options.retries or not self._is_repeated(task, worker, kind, payload):
                self._endings.answer(task, kind, flags, payload)
        elif (kind in ANSWER_KINDS or kind == Kind.LACKING) and seq in [task.seq for task in islice(worker.tasks, 1, None)]:
            self._crew.lookout.on_skipped(worker, seq)
            if worker.tasks[0].seq != seq:
                raise MalformedFrame(f"an answer (call {seq}) that came before those of earlier calls")
            self._on_answer(worker, answer)
        else:
            raise MalformedFrame(f"an answer (kind {kind}, call {seq}) that this worker has no reason to give")

    def _on_unpinned(self, slot: int, why: str) -> None:
        if self.pinning.on_refused(slot, why):
            self._log.warning("the workers of slot %d run unpinned: %s", slot, why)

    def _is_repeated(self, task: Task, worker: Worker, kind: int, payload: bytes | bytearray) -> bool:
        self._failed_answer = kind, payload
        try:
            return self._machine.on_failure(task, worker, kind_of(kind, payload))
        finally:
            self._failed_answer = None

    def _repeat(self, task: Task, worker: Worker) -> bool:
        """The core has this task run again."""
        run = task.future._run  # of an attempt that was answered
        if not task.future._repeat():
            return False
        if self._failed_answer is not None:
            self._endings.answered_in_vain(task, *self._failed_answer, run)
        else:
            self._endings.lost_in_vain(task, worker, self._crew.links[worker.generation])
        return True

    def _on_preload_failure(self, data: bytes, text: str) -> None:
        self._intake.broken = lambda: preload_error(data, text)
        self._machine.on_break()
        self._intake.gate.open()

    # --- actions ---------------------------------------------------------------------------------------

    def _act(self) -> None:
        machine, crew = self._machine, self._crew
        actions = machine.actions
        for verb, worker, task in actions:  # acting may append to it
            if verb is Verb.SEND or verb is Verb.SEND_WHOLE:
                assert worker is not None
                assert task is not None
                self._seq += 1
                task.seq = self._seq
                crew.send(worker, task, whole=verb is Verb.SEND_WHOLE)
            elif verb is Verb.END:
                assert task is not None
                link = crew.links[worker.generation] if worker is not None else None
                self._endings.without_answer(task, worker, link)
            elif verb is Verb.FINISHED:
                self._finished = True
            elif verb is Verb.LOOK_AT_GROUP:
                assert self._groups is not None
                machine.on_group_memory(clock.now(), self._groups.look(), crew.private_memory)
            else:
                assert worker is not None
                self._act_on_worker(verb, worker)
        crew.flush()
        actions.clear()  # not before: what fails in between must find the futures that are still to be ended
        if machine.broken and self._intake.broken is None:
            reason = crew.start_failure
            self._intake.broken = lambda: broken_error(reason)

    def _act_on_worker(self, verb: Verb, worker: Worker) -> None:
        if worker.state is WorkerState.GONE:
            return  # decided in the same turn, before the news came: an initializer raised, and another worker was not forked
        match verb:
            case Verb.LOOK:
                self._machine.on_memory(worker, clock.now(), self._crew.private_memory(worker))
            case Verb.SPAWN:
                self._crew.spawn(worker)
            case Verb.STOP:
                self._crew.stop(worker)
            case Verb.KILL:
                self._crew.kill(worker)
            case Verb.RECALL:
                self._machine.on_recalled(worker, self._crew.recall(worker), clock.now(), alive=True)

    def _why_broken(self) -> BaseException:
        make = self._intake.broken
        return broken_error(self._crew.start_failure) if make is None else make()


def _draw_task_limit(config: PoolConfig) -> int | None:
    """How many tasks a new worker runs before it is replaced; None: never replaced for that."""
    limit, jitter = config.max_tasks_per_child, config.max_tasks_jitter
    if limit is None or not jitter:
        return limit
    return limit - int.from_bytes(os.urandom(8), "little") % (jitter + 1)  # not `random`: its state is the user's


def _try_start(task: Task) -> bool:
    claimed: bool = task.future._try_start()
    return claimed


def _put_back(task: Task) -> None:
    task.future._put_back()
