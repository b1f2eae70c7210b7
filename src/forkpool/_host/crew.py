"""The workers of one pool: have them forked, talk with them, learn how they end.

Runs in: host, supervisor thread. Owns the links to the workers. Reports facts to the core; decides nothing.

Hard part: the order of facts about one death. The fork server tells of it only after the worker and its group are dead,
so everything that the worker wrote is in the pipes by then: read the answers, look for untaken tasks, then report. A task is
untaken if it still lies in the pipe, and also if a worker that was killed between two tasks took it out as it died. The pidfd
may be readable first: the status is then waited for, for a bounded time, and the end of a killed server ends the wait too.
Or much later than the channel's end: a process that ends closes its pipes, and then gives back what memory it had.
A fork server that is stopped (SIGSTOP) neither forks nor tells: it is killed when it was waited for, for that costs nothing.
Where there are no pidfds it costs what its workers run: only it could tell of their ends, so they end with it.
Tests: tests/process/test_crash.py, tests/process/test_kill_and_timeout.py
"""

from __future__ import annotations

import os
from collections.abc import Callable

from .._core.control import Ask
from .._core.machine import PoolMachine
from .._core.states import Expiry, Task, Worker, WorkerState
from .._core.wire import Answer, Kind, MalformedFrame
from .._shared import clock
from .._shared.descriptors import close_all
from .._shared.owning_payload import OwningPayload
from ..config import PoolConfig
from ..future import Run
from .fd_server import FdServer
from .last_words import finish_lines
from .log import Log
from .lookout import Lookout
from .preload_gate import PreloadGate
from .reactor import Reactor
from .server_link import SERVER_PATIENCE_S
from .servers import Servers
from .task_sender import Payload
from .worker_link import Death, WorkerLink

_DEATH_WAIT_S = 0.2  # arbitrary: a process that ends closes its pipes before its pidfd tells, mostly a moment before
_CLOSED = "the worker's channel was closed: the task closed file descriptors that are not its own, or called exec"
_ELSEWHERE = "its answer went to another file, which it (or what an earlier task left running) put in place of forkpool's pipe"
_MALFORMED = "it wrote a malformed frame (this task, or what an earlier one left running, wrote to forkpool's file descriptors)"
_NO_PIDFDS = (
    "the system call pidfd_open (Linux 5.3) is missing, or a seccomp filter forbids it. The pool works; what is missing: when "
    "its fork server is killed, the tasks that run at that moment fail with WorkerCrashedError."
)
_LEFT_ALONE = "its fork server was gone, and without pidfds nobody could tell when it ends"
_NO_LOOK = "memory_limit cannot be watched (%s): a task that has one runs without it"
_ROBBED = (
    "its call left the pipe and was not begun, for the second time (what reads file descriptors that are not its own, or stops "
    "workers?)"
)
_TOO_LARGE = "this process has no memory for its answer"


class Crew:
    """Workers, and the servers that fork them. `machine` learns what happens; `on_answer` gets what the workers say."""

    def __init__(
        self,
        config: PoolConfig,
        machine: PoolMachine,
        reactor: Reactor,
        on_answer: Callable[[Worker, Answer], None],
        init_payload: bytes | None,
        gate: PreloadGate,
        on_preload_failure: Callable[[bytes, str], None],
        address: bytes,
        log: Log,
    ) -> None:
        """
        Args:
            address: Where workers ask for the descriptors that are in their calls.
        """
        self.links: dict[int, WorkerLink] = {}  # by generation
        self.start_failure = "no attempt was made"  # why the last worker that could not be started could not
        self._machine = machine
        self._reactor = reactor
        self._on_answer = on_answer
        self._log = log
        self._init_payload = init_payload  # of the initializer's call, the same for each worker
        self.servers = Servers(config, reactor, self, gate, on_preload_failure, log)
        self._fd_server = FdServer(address, reactor, self._calls_of)
        self.lookout = Lookout(machine, self.links, self._read_answers, self._hang_up, self._on_answer_elsewhere, log)
        self._unflushed: dict[int, Worker] = {}  # by generation: was sent something that is not written yet
        self._dead: list[int] = []  # reported; their links are still needed for what the core decides
        self._warned = False
        self._warned_of_memory = False
        self._warned_of_pidfds = False

    # --- actions ---------------------------------------------------------------------------------------

    def spawn(self, worker: Worker) -> None:
        """Have a worker forked."""
        self.servers.fork(worker)

    def send(self, worker: Worker, task: Task, *, whole: bool) -> None:
        """Take on a task for a worker's pipe, with all contents or only what is not noted as sent; `flush` writes it."""
        payload: Payload = task.payload
        if type(payload) is OwningPayload:
            payload = self._prepare(payload, whole=whole)
        self.links[worker.generation].send(Kind.TASK, task.seq, payload, task.attempt - 1)
        self._unflushed[worker.generation] = worker

    def _prepare(self, payload: OwningPayload, *, whole: bool) -> Payload:
        if payload.holding is not None:
            self._fd_server.open()
        return payload.whole() if whole and payload.contents else payload

    def flush(self) -> None:
        """Write what `send` took on: all that is for one worker at once."""
        unflushed = self._unflushed
        if unflushed:
            self.lookout.on_sent()
        while unflushed:
            generation, worker = unflushed.popitem()
            link = self.links.get(generation)
            if link is not None:
                self._flush(link, worker)

    def stop(self, worker: Worker) -> None:
        """Ask a worker to leave. One that is being born is asked when it is."""
        link = self.links.get(worker.generation)
        if link is None:
            self.servers.forget(worker)
            self._machine.on_not_spawned(worker)
        elif link.pidfd >= 0 and not link.has_hung_up:  # else it leaves by itself
            self._send_control(link, Kind.STOP, b"")

    def kill(self, worker: Worker) -> None:
        """SIGKILL a worker. One that is being born for so long waits for a fork server that hangs: that one is killed."""
        link = self.links.get(worker.generation)
        if link is None:
            self.servers.forget(worker)
            self._machine.on_not_spawned(worker)
        elif link.pidfd >= 0:
            if not link.kill() and self._machine.ends_all:
                self.servers.cut()
        elif link.server is not None and not link.server.kill():
            self.on_spawn_failed(worker.generation, "the fork server does not answer, and this process may not kill it")

    def terminate_all(self) -> None:
        """Send SIGTERM to all workers."""
        for link in self.links.values():
            if link.pidfd >= 0:
                link.terminate()

    def recall(self, worker: Worker) -> list[int]:
        """Take back what a worker has not taken."""
        return self.links[worker.generation].recall()

    def bury(self) -> None:
        """Give back what dead workers held: the core has decided on them."""
        while self._dead:
            self._drop(self._dead.pop())

    def close(self) -> None:
        """End everything that is left. Blocks until the fork servers are gone."""
        self.bury()
        for generation in list(self.links):
            self.links[generation].kill_group()
            self._drop(generation)
        self.servers.close()
        self._fd_server.close()

    def forget_initializer(self) -> None:
        """No worker will be started any more: let go of the descriptors in initargs."""
        self._init_payload = None

    # --- what the supervisor asks ----------------------------------------------------------------------

    def started_at(self, worker: Worker) -> float | None:
        """When (monotonic seconds) the worker took its first task; None: it has not."""
        return self.links[worker.generation].started_at(worker.tasks[0].seq)

    def private_memory(self, worker: Worker) -> int | None:
        """Bytes that the worker has for itself; None: it has ended, or nobody can tell, which is said once."""
        try:
            return self.links[worker.generation].private_memory()
        except OSError as error:
            if not self._warned_of_memory:
                self._warned_of_memory = True
                self._log.warning(_NO_LOOK, str(error))
            return None

    def find_run(self, seq: int) -> Run | None:
        """What is known of a task that some worker has taken and not answered. Any thread."""
        found = (link.find_run(seq) for link in list(self.links.values()))
        return next((run for run in found if run is not None), None)

    def next_time(self) -> float | None:
        """When `on_time` is needed next (monotonic seconds)."""
        times = [link.patience_end for link in self.links.values() if link.patience_end is not None]
        times += [due for due in (self.lookout.due, self.servers.due) if due is not None]
        return min(times, default=None)

    def on_time(self, now: float) -> None:
        """Stop waiting for what should have followed by now."""
        if self.lookout.due is not None and self.lookout.due <= now:
            self.lookout.look(now)
        if self.servers.due is not None and self.servers.due <= now:
            self.servers.look(now)
        for generation, link in self.links.copy().items():
            if link.patience_end is None or link.patience_end > now:
                continue
            link.patience_end = None
            told = link.pidfd >= 0
            is_ending = told and link.is_ending()  # first: what had not begun to by now does not end by itself
            if (not told or link.ended()) and link.server is not None and link.server.kill_if_stopped():
                continue  # its end is a fact that we will hear of, and it tells of this worker as well
            if not told:
                link.patience_end = now + SERVER_PATIENCE_S  # slow, or looked at in a debugger
            elif link.ended():
                self._report_unseen_death(generation)
            elif is_ending:
                link.patience_end = now + _DEATH_WAIT_S
            else:
                link.note = link.note or _CLOSED
                link.kill()

    def worker_pids(self) -> dict[int, int]:
        """Slot by pid. Any thread."""
        return {link.pid: link.slot for link in self.living()}

    def in_slots(self) -> list[WorkerLink]:
        """Those of them that have a slot: not who leaves, and not who waits for the slot of one that works. Any thread."""
        workers = self._machine.workers.copy()
        owners = {generation for generation, worker in workers.items() if worker.owns_slot}
        return [link for generation, link in self.links.copy().items() if generation in owners and _lives(link)]

    def living(self) -> list[WorkerLink]:
        """Those that were forked and have not ended. Any thread."""
        return [link for link in list(self.links.values()) if _lives(link)]

    def fds(self) -> list[tuple[int, str]]:
        """Number and purpose of each descriptor."""
        found = [(fd, f"channel of worker {link.slot}") for link in list(self.links.values()) for fd in link.fds]
        found += self.servers.fds()
        found += [(fd, "hands descriptors to workers") for fd in self._fd_server.fds()]
        return found

    def close_in_fork(self) -> None:
        """In a fork of the host, where the supervisor does not exist: let go of everything."""
        for link in list(self.links.values()):
            close_all(link.fds)
        self.servers.close_in_fork()
        self._fd_server.close_in_fork()

    # --- facts: workers --------------------------------------------------------------------------------

    def _read_answers(self, generation: int) -> bool:
        """Process what a worker wrote. False: nothing more is there."""
        link = self.links[generation]
        try:
            answers = link.read_answers()
        except BlockingIOError:
            return False
        except (EOFError, OSError):
            self._reactor.unwatch(link.answer_fd)
            self._on_channel_end(link)
            return False
        except MemoryError:
            self._reactor.unwatch(link.answer_fd)
            link.note = _TOO_LARGE
            self._give_up_first(link, self._machine.workers[generation])
            link.kill()
            return False
        self._process(generation, link, answers)  # what fails there is no matter of this worker's channel
        return True

    def _on_channel_end(self, link: WorkerLink) -> None:
        if link.death is not None:
            return
        if link.was_left_alone:
            link.patience_end = clock.now()
        elif link.patience_end is None:  # without pidfds, the server has to wake before we know
            link.patience_end = clock.now() + (SERVER_PATIENCE_S if link.without_pidfd else _DEATH_WAIT_S)

    def _process(self, generation: int, link: WorkerLink, answers: list[Answer]) -> None:
        while True:
            try:
                for answer in answers:
                    if answer[3] not in link.void:
                        self._on_answer(self._machine.workers[generation], answer)
                if answers and (seq := answers[-1][3]):  # READY is no task's answer
                    link.answered = seq
                link.check_stream()
                return
            except MalformedFrame as error:
                self._on_malformed(generation, link, error)
            answers = link.read_on()

    def _on_malformed(self, generation: int, link: WorkerLink, error: MalformedFrame) -> None:
        """The first task did it, as far as we know: it gets no answer. Others of this worker do, if they were taken already."""
        link.note = link.note or f"{_MALFORMED}: {error}"
        worker = self._machine.workers[generation]
        if worker.tasks:
            self._give_up_first(link, worker)
        else:
            link.kill()

    def _give_up_first(self, link: WorkerLink, worker: Worker) -> None:
        """Its first task gets no answer, whatever comes for it now; those behind it do."""
        if worker.tasks:
            link.void.add(worker.tasks[0].seq)
            self._machine.on_malformed(worker)

    def _on_answer_elsewhere(self, worker: Worker) -> None:
        link = self.links[worker.generation]
        link.note = link.note or _ELSEWHERE
        self._on_malformed(worker.generation, link, MalformedFrame(_ELSEWHERE))

    def _send_control(self, link: WorkerLink, kind: Kind, payload: Payload) -> None:
        link.send(kind, 0, payload)
        self._flush(link, None)

    def _hang_up(self, link: WorkerLink) -> None:
        self._reactor.release(link.task_fd)
        link.hang_up()

    def _flush(self, link: WorkerLink, worker: Worker | None) -> None:
        if link.is_full:  # what was added goes behind what waits already
            return
        if not link.flush():
            link.is_full = True
            self._reactor.watch(link.task_fd, lambda: self._go_on(link, worker), writable=True)
        if worker is not None:
            self._on_sent(worker)

    def _go_on(self, link: WorkerLink, worker: Worker | None) -> None:
        """There is room: the worker has read something."""
        if link.flush():
            link.is_full = False
            self._reactor.unwatch(link.task_fd)
        if worker is not None:
            self._on_sent(worker)

    def _on_sent(self, worker: Worker) -> None:
        if worker.tasks and worker.tasks[0].options.timeout is not None:
            self._machine.on_sent(worker, clock.now())

    def _on_pidfd(self, generation: int) -> None:
        link = self.links[generation]
        self._reactor.unwatch(link.pidfd)
        if link.orphan:
            self._report_unseen_death(generation)
        else:
            link.patience_end = clock.now() + SERVER_PATIENCE_S

    def _report_unseen_death(self, generation: int) -> None:
        """No fork server reaped this one, and none killed its group."""
        link = self.links[generation]
        link.kill_group()
        self._report_death(generation, Death(link.orphan_status(), None))

    def _report_death(self, generation: int, death: Death) -> None:
        link = self.links[generation]
        if link.death is not None:
            return
        link.death, link.patience_end = death, None
        while self._read_answers(generation):
            pass
        self._unwatch(link)
        finish_lines(link)
        worker = self._machine.workers[generation]
        if not worker.tasks_done:
            before = "it was ready" if worker.state is WorkerState.SPAWNED else "its first task"
            self.start_failure = link.note or f"worker {link.pid} ended before {before} ({_status_text(death.status)})"
        self._dead.append(generation)
        self._machine.on_recalled(worker, link.recall(), clock.now(), alive=False)
        never_took = link.never_took([task.seq for task in worker.tasks])
        if never_took and (link.is_robbed or link.has_hung_up):
            self.lookout.warn(link, certain=len(never_took) > 1)
            self._machine.on_lost(worker, never_took, clock.now(), alive=False)
            link.note = _ROBBED if worker.tasks else link.note
        else:
            self._machine.on_recalled(worker, never_took, clock.now(), alive=False)
        self._machine.on_gone(worker, clock.now())

    # --- facts: what the fork servers tell ---------------------------------------------------------------

    def on_spawned(self, generation: int, pid: int, pidfd: int) -> None:
        """A worker was forked; its pidfd, or what stands in for it, is ours now (-1: there was no room for it)."""
        link = self.links[generation]
        if pidfd < 0:
            link.ask_server(Ask.KILL)
            self.on_spawn_failed(generation, "this process has no file descriptors left")
            return
        link.begin(pid, pidfd)
        if link.without_pidfd and not self._warned_of_pidfds:
            self._warned_of_pidfds = True
            self._log.warning(_NO_PIDFDS)
        try:
            self._watch(generation, link)
        except OSError as error:
            link.kill()
            link.ask_server(Ask.KILL)  # the whole group
            self.on_spawn_failed(generation, f"this process cannot watch another worker: {error}")
            return
        worker = self._machine.workers[generation]
        if self._init_payload is not None:
            self._send_initializer(link, worker, self._init_payload)
        if worker.doom is not None:
            link.kill()
        elif worker.leaving:
            self._send_control(link, Kind.STOP, b"")

    def _send_initializer(self, link: WorkerLink, worker: Worker, payload: Payload) -> None:
        if type(payload) is OwningPayload:
            worker.note_contents(payload)
            payload = self._prepare(payload, whole=True)
        self._send_control(link, Kind.INIT, payload)

    def on_exited(self, generation: int, death: Death) -> None:
        """A worker is dead and reaped, and its process group with it."""
        if generation in self.links:
            self._report_death(generation, death)

    def on_orphaned(self, generation: int, reason: str) -> None:
        """The server that forked this worker, or was to fork it, is gone."""
        link = self.links[generation]
        link.orphan = True
        if link.pidfd < 0:
            self.on_spawn_failed(generation, reason)
        elif link.death is None and link.was_left_alone:
            self._end_orphan(link)
        elif link.death is None:
            self.servers.guard(link)
            if link.ended():  # asked now: if it lives, its pid was its own when it was guarded
                self._report_unseen_death(generation)

    def _end_orphan(self, link: WorkerLink) -> None:
        """The end of its channel tells that it is dead; something that it left may keep that open."""
        self._reactor.unwatch(link.pidfd)
        link.note = _LEFT_ALONE
        link.kill_orphan()
        link.patience_end = clock.now() + _DEATH_WAIT_S

    def on_renewed(self) -> None:
        """Another server forks from now on: what the last one forked is to be replaced."""
        self._machine.on_recycle(Expiry.RESTART, clock.now())

    def on_spawn_failed(self, generation: int, reason: str) -> None:
        """There is no worker for this link."""
        worker = self._machine.workers[generation]
        self._drop(generation)
        self.on_not_started(worker, reason)

    def on_not_started(self, worker: Worker, reason: str) -> None:
        """A worker cannot be had now."""
        self.start_failure = reason
        if not self._warned:
            self._warned = True
            self._log.warning("a worker could not be started (%s); trying again, with the workers that exist meanwhile", reason)
        self._machine.on_spawn_failed(worker, clock.now())

    def _calls_of(self, pid: int) -> list[tuple[bytes, bool]] | None:
        """What a worker was sent, and whether that may be sent again; None: there is no such worker."""
        generation = next((number for number, link in self.links.items() if link.pid == pid and link.death is None), None)
        if generation is None:
            return None
        tasks = self._machine.workers[generation].tasks
        calls = [(task.payload, task.attempt <= task.options.retries) for task in tasks]
        return [*calls, (self._init_payload, True)] if self._init_payload is not None else calls

    # --- descriptors -----------------------------------------------------------------------------------

    def _watch(self, generation: int, link: WorkerLink) -> None:
        """All that the worker will ever need: later there must be no failing."""
        self._reactor.watch(link.pidfd, lambda: self._on_pidfd(generation))
        self._reactor.watch(link.answer_fd, lambda: self._read_answers(generation))
        self._reactor.reserve(link.task_fd)

    def _unwatch(self, link: WorkerLink) -> None:
        for fd in (link.pidfd, link.answer_fd):
            self._reactor.unwatch(fd)
        if not link.has_hung_up:
            self._reactor.release(link.task_fd)

    def _drop(self, generation: int) -> None:
        link = self.links.pop(generation)  # first: a fork of the host that comes now leaves its numbers alone
        self._unwatch(link)
        self._fd_server.forget(link.pid)
        link.close()
        self.servers.on_dropped(link)


def _status_text(status: int | None) -> str:
    if status is None:
        return "how is unknown"
    code = os.waitstatus_to_exitcode(status)
    return f"exit status {code}" if code >= 0 else f"signal {-code}"


def _lives(link: WorkerLink) -> bool:
    """Was it forked, and has not ended?"""
    return link.pid > 0 and link.death is None
