"""The processes of one pool: start them, talk with them, learn how they end.

Runs in: host, supervisor thread. Owns the links to fork server and workers. Reports facts to the core; decides nothing.

Hard part: the order of facts about one death. The fork server tells of it only after the worker and its group are dead,
so everything that the worker wrote is in the pipes by then: read the answers, look for untaken tasks, then report. A task is
untaken if it still lies in the pipe, and also if a worker that was killed between two tasks took it out as it died. The pidfd
may be readable first: the status is then waited for, for a bounded time, and the end of a killed server ends the wait too.
Tests: tests/process/test_crash.py, tests/process/test_fork_server.py
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from .._core.control import HAS_INITIALIZER, Ask, Report, Tell
from .._core.machine import PoolMachine
from .._core.states import Task, Worker, WorkerState
from .._core.wire import Answer, Kind, MalformedFrame
from .._shared.descriptors import close_all
from .._shared.payload import is_single_use
from ..config import PoolConfig
from .exit_status import orphan_status
from .pinning import Pinning
from .preload_gate import PreloadGate
from .reactor import Reactor
from .server_link import PoolLines, ServerGone, ServerLink
from .snapshot import interpreter_command, take_snapshot
from .worker_link import Death, WorkerLink

_LOGGER = logging.getLogger("forkpool")
_STATUS_WAIT_S = 2.0  # arbitrary: only a stopped fork server lets it pass
_DEATH_WAIT_S = 0.2  # arbitrary: a process that ends closes its pipes a moment before its pidfd tells
_MOST_ASKED = 32  # unanswered requests to the fork server: far from what fills the socket, where we would block
_CLOSED = "the worker's channel was closed: the task closed file descriptors that are not its own"
_MALFORMED = "it wrote a malformed frame (a task wrote to forkpool's file descriptors)"

_THREADS = (
    "forkpool's fork server has threads besides its own: {}. A fork copies only the thread that forks, so a lock that one of "
    "them holds at that moment stays locked in the worker. Start threads in the initializer instead, or preload another "
    "module. The pool goes on."
)


class Crew:
    """Fork server and workers. `machine` learns what happens; `on_answer` gets what the workers say."""

    def __init__(
        self,
        config: PoolConfig,
        machine: PoolMachine,
        reactor: Reactor,
        on_answer: Callable[[Worker, Answer], None],
        encode_initializer: Callable[[], bytes] | None,
        gate: PreloadGate,
        on_preload_failure: Callable[[bytes, str], None],
    ) -> None:
        self.links: dict[int, WorkerLink] = {}  # by generation
        self.start_failure = "no attempt was made"  # why the last worker that could not be started could not
        self._machine = machine
        self._reactor = reactor
        self._on_answer = on_answer
        self._encode_initializer = encode_initializer
        self._init_payload = encode_initializer() if encode_initializer is not None else None
        self._server: ServerLink | None = None
        self._server_ready = False
        self._server_was_at = ""  # for the message of one that ends unexpectedly
        self._lines: PoolLines | None = None  # likewise one for the pool's life
        self._config = config
        self._gate = gate
        self._on_preload_failure = on_preload_failure
        self._command: list[str] = []  # from `open` on
        self._snapshot: dict[str, Any] = {}  # from `open` on; one for the pool's life: replacements are like the first
        self._spawns: deque[Worker] = deque()  # waiting for the server's HELLO, or for room
        self._asked = 0  # requests that the server has not answered
        self._dead: list[int] = []  # reported; their links are still needed for what the core decides
        self._warned = False
        self._warned_of_threads = False

    def open(self) -> None:
        """Look at the host. While the first submit waits, so that what its thread does next does not show.

        Raises:
            RuntimeError: There is no Python to run as fork server.
        """
        self._command = interpreter_command()
        self._snapshot = take_snapshot(self._config.env, self._config.max_workers, self._config.preload)

    def pin(self, pinning: Pinning) -> None:
        """Have the workers bind themselves as was chosen. Before the first fork server starts."""
        pinning.write_into(self._snapshot)

    # --- actions ---------------------------------------------------------------------------------------

    def preload(self) -> None:
        """Have the fork server started before there is a task: a submit waits until it has preloaded."""
        if self._config.preload:
            self._start_server()

    def spawn(self, worker: Worker) -> None:
        """Have a worker forked."""
        self._spawns.append(worker)
        if self._server is None:
            self._start_server()
        self._ask_for_workers()

    def send(self, worker: Worker, task: Task) -> None:
        """Write a task into a worker's pipe."""
        link = self.links[worker.generation]
        if not link.send(Kind.TASK, task.seq, task.payload):
            self._reactor.watch(link.task_fd, lambda: self._send_more(link, worker), writable=True)
        elif worker.tasks[0].timeout is not None:
            self._machine.on_sent(worker, time.monotonic())

    def stop(self, worker: Worker) -> None:
        """Ask a worker to leave. One that is being born is asked when it is."""
        link = self.links.get(worker.generation)
        if link is None:
            self._spawns.remove(worker)
            self._machine.on_not_spawned(worker)
        elif link.pidfd >= 0:
            self._send_control(link, Kind.STOP, b"")

    def kill(self, worker: Worker) -> None:
        """SIGKILL a worker. One that is being born for so long waits for a fork server that hangs: that one is killed."""
        link = self.links.get(worker.generation)
        if link is None:
            self._spawns.remove(worker)
            self._machine.on_not_spawned(worker)
        elif link.pidfd >= 0:
            link.kill()
        elif self._server is not None:
            self._server.kill()

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
        """End everything that is left. Blocks until the fork server is gone."""
        self.bury()
        for generation in list(self.links):
            self.links[generation].kill_group()
            self._drop(generation)
        if self._server is not None:
            server, self._server = self._server, None
            server.close()
        if self._lines is not None:
            lines, self._lines = self._lines, None
            self._reactor.unwatch(lines.relay.fileno())
            lines.close()

    # --- what the supervisor asks ----------------------------------------------------------------------

    def started_at(self, worker: Worker) -> float | None:
        """When (monotonic seconds) the worker took its first task; None: it has not."""
        return self.links[worker.generation].started_at(worker.tasks[0].seq)

    def next_time(self) -> float | None:
        """When `on_time` is needed next (monotonic seconds)."""
        return min((link.patience_end for link in self.links.values() if link.patience_end is not None), default=None)

    def on_time(self, now: float) -> None:
        """Stop waiting for what should have followed by now."""
        for generation, link in list(self.links.items()):
            if link.patience_end is None or link.patience_end > now:
                continue
            link.patience_end = None
            if link.ended():
                self._report_unseen_death(generation)
            else:
                link.note = _CLOSED
                link.kill()

    def worker_pids(self) -> dict[int, int]:
        """Slot by pid. Any thread."""
        return {link.pid: link.slot for link in list(self.links.values()) if link.pid and link.death is None}

    @property
    def server_pid(self) -> int | None:
        return None if self._server is None else self._server.pid

    @property
    def threads(self) -> list[threading.Thread | None]:
        return [None if self._lines is None else self._lines.relay.thread]

    def fds(self) -> list[tuple[int, str]]:
        """Number and purpose of each descriptor."""
        found = [(fd, f"channel of worker {link.slot}") for link in list(self.links.values()) for fd in link.fds]
        if self._server is not None:
            found += [(self._server.fileno(), "fork server's socket"), (self._server.pidfd, "fork server's pidfd")]
        if self._lines is not None:
            found += [(fd, "lifeline and relay") for fd in self._lines.fds]
        return found

    def shared_memory(self) -> list[str]:
        """Names of what tasks made or attached, and is still there."""
        return [] if self._lines is None else self._lines.relay.names.existing()

    def close_in_fork(self) -> None:
        """In a fork of the host, where the supervisor does not exist: let go of everything."""
        for link in list(self.links.values()):
            close_all(link.fds)
        for owner in (self._server, self._lines):
            if owner is not None:
                owner.close_in_fork()

    # --- facts: workers --------------------------------------------------------------------------------

    def _read_answers(self, generation: int) -> bool:
        """Process what a worker wrote. False: nothing more is there."""
        link = self.links[generation]
        try:
            answers = link.read_answers()
            for answer in answers:
                self._on_answer(self._machine.workers[generation], answer)
            if answers and (seq := answers[-1][3]):  # READY is no task's answer
                link.answered = seq
            link.check_stream()
        except BlockingIOError:
            return False
        except (EOFError, OSError):
            self._reactor.unwatch(link.answer_fd)
            if link.patience_end is None and link.death is None:
                link.patience_end = time.monotonic() + _DEATH_WAIT_S
            return False
        except MalformedFrame as error:
            self._reactor.unwatch(link.answer_fd)
            link.note = f"{_MALFORMED}: {error}"
            link.kill()
            return False
        return True

    def _send_control(self, link: WorkerLink, kind: Kind, payload: bytes) -> None:
        if not link.send(kind, 0, payload):
            self._reactor.watch(link.task_fd, lambda: self._send_more(link, None), writable=True)

    def _send_more(self, link: WorkerLink, worker: Worker | None) -> None:
        if link.write_more():
            self._reactor.unwatch(link.task_fd)
            if worker is not None:
                self._machine.on_sent(worker, time.monotonic())

    def _on_pidfd(self, generation: int) -> None:
        link = self.links[generation]
        self._reactor.unwatch(link.pidfd)
        if link.orphan:
            self._report_unseen_death(generation)
        else:
            link.patience_end = time.monotonic() + _STATUS_WAIT_S

    def _report_unseen_death(self, generation: int) -> None:
        """No fork server reaped this one, and none killed its group."""
        link = self.links[generation]
        link.kill_group()
        self._report_death(generation, Death(orphan_status(link.pidfd), None))

    def _report_death(self, generation: int, death: Death) -> None:
        link = self.links[generation]
        if link.death is not None:
            return
        link.death, link.patience_end = death, None
        while self._read_answers(generation):
            pass
        self._unwatch(link)
        worker = self._machine.workers[generation]
        if worker.state is WorkerState.SPAWNED:
            self.start_failure = link.note or f"worker {link.pid} ended before it was ready ({_status_text(death.status)})"
        self._dead.append(generation)
        back = link.recall() + link.never_took([task.seq for task in worker.tasks])
        self._machine.on_recalled(worker, back, time.monotonic(), alive=False)
        self._machine.on_gone(worker, time.monotonic())

    # --- facts: the fork server ------------------------------------------------------------------------

    def _start_server(self) -> None:
        try:
            lines = self._lines = self._lines or self._open_lines()
            server = self._server = ServerLink(self._command, self._snapshot, lines)
        except OSError as error:
            self._fail_waiting(f"the fork server cannot be started: {error}")
            self._gate.open()  # the task that comes will try again
            return
        self.start_failure, self._server_was_at = "", "before it was ready"
        self._reactor.watch(server.fileno(), self._on_server)

    def _open_lines(self) -> PoolLines:
        lines = PoolLines()
        try:
            self._reactor.watch(lines.relay.fileno(), self.hear_relay)
        except BaseException:
            lines.close()
            raise
        return lines

    def _ask_for_workers(self) -> None:
        while self._spawns and self._server_ready and self._asked < _MOST_ASKED:
            self._ask_for(self._spawns.popleft())

    def _ask_for(self, worker: Worker) -> None:
        assert self._server is not None
        try:
            link = WorkerLink(worker.slot)
        except OSError as error:
            self._on_spawn_failure(worker, f"no descriptors or memory for another worker: {error}")
            return
        self.links[worker.generation] = link
        flags = HAS_INITIALIZER if self._encode_initializer is not None else 0
        try:
            self._server.ask(Ask.SPAWN, worker.generation, worker.slot, flags, link.child_fds)
        except ServerGone as error:
            self._spawn_failed(worker.generation, str(error))
        else:
            self._asked += 1
            link.close_child_fds()

    def _on_server(self) -> None:
        server = self._server
        assert server is not None
        try:
            while True:
                self._on_report(*server.receive())
        except BlockingIOError:
            pass
        except ServerGone as error:
            self._on_server_gone(str(error))

    def hear_relay(self) -> None:
        """Pass on what workers told the resource tracker until now."""
        if self._lines is not None:
            self._lines.relay.on_readable()

    def _on_threads(self, threads: str) -> None:
        """Said once: by the submit that waits, if there is one."""
        if not self._warned_of_threads:
            self._warned_of_threads = True
            if self._gate.is_open:
                _LOGGER.warning("%s", _THREADS.format(threads))
            else:
                self._gate.notices.append(_THREADS.format(threads))

    def _on_preload_failed(self, text: str, fd: int) -> None:
        """The user's error if a submit waits for it; of a server that replaces another, a failure to start like any other."""
        data = b""
        if fd >= 0:
            with open(fd, "rb") as file:
                file.seek(0)
                data = file.read()
        if self._gate.is_open:
            self.start_failure = f"the fork server failed while preloading: {text}"
        else:
            self._on_preload_failure(data, text)

    def _on_report(self, report: Report, pidfd: int) -> None:
        match report.tell:
            case Tell.HELLO:
                self._server_ready = True
                self._gate.open()
                self._ask_for_workers()
            case Tell.PRELOADING:
                self._server_was_at = f"while it preloaded {report.text!r}"
            case Tell.THREADS:
                self._on_threads(report.text)
            case Tell.PRELOAD_FAILED:
                self._on_preload_failed(report.text, pidfd)
            case Tell.START_FAILED:
                self.start_failure = f"the fork server failed: {report.text}"
            case Tell.SPAWNED:
                self._on_spawned(report, pidfd)
                self._on_request_answered()
            case Tell.SPAWN_FAILED:
                self._spawn_failed(report.generation, report.text)
                self._on_request_answered()
            case Tell.EXITED:
                if report.generation in self.links:
                    status = report.status if report.status >= 0 else None
                    self._report_death(report.generation, Death(status, report.peak_rss or None))

    def _on_request_answered(self) -> None:
        self._asked -= 1
        self._ask_for_workers()

    def _on_spawned(self, report: Report, pidfd: int) -> None:
        generation = report.generation
        if pidfd < 0:
            self._refuse_newborn(generation)
            return
        link = self.links[generation]
        link.pid, link.pidfd = report.pid, pidfd
        self._reactor.watch(pidfd, lambda: self._on_pidfd(generation))
        self._reactor.watch(link.answer_fd, lambda: self._read_answers(generation))
        if self._encode_initializer is not None:
            self._send_initializer(link)
        worker = self._machine.workers[generation]
        if worker.doom is not None:
            link.kill()
        elif worker.leaving:
            self._send_control(link, Kind.STOP, b"")

    def _refuse_newborn(self, generation: int) -> None:
        assert self._server is not None
        with contextlib.suppress(ServerGone):
            self._server.ask(Ask.KILL, generation, 0, 0)
        self._spawn_failed(generation, "this process has no file descriptors left")

    def _send_initializer(self, link: WorkerLink) -> None:
        """Pickled anew where it holds descriptors: each copy of one can be fetched once only."""
        assert self._encode_initializer is not None
        try:
            payload = self._init_payload or self._encode_initializer()
        except Exception as error:  # the user's __reduce__ worked once
            link.note = f"the initializer's arguments cannot be pickled again: {error}"
            link.kill()
            return
        self._init_payload = None if is_single_use(payload) else payload
        self._send_control(link, Kind.INIT, payload)

    def _on_server_gone(self, reason: str) -> None:
        server, self._server = self._server, None
        assert server is not None
        self._gate.open()
        was_ready, self._server_ready, self._asked = self._server_ready, False, 0
        self._reactor.unwatch(server.fileno())
        server.close()
        if was_ready:
            reason = reason or "the fork server was killed"
        else:
            reason = self.start_failure or f"the fork server ended {self._server_was_at} ({server.how_it_ended()}); see stderr"
        for generation, link in list(self.links.items()):
            link.orphan = True
            if link.pidfd < 0:
                self._spawn_failed(generation, reason)
            elif link.death is None and link.ended():
                self._report_unseen_death(generation)
        self._fail_waiting(reason)

    # --- failures to start -----------------------------------------------------------------------------

    def _fail_waiting(self, reason: str) -> None:
        while self._spawns:
            self._on_spawn_failure(self._spawns.popleft(), reason)

    def _spawn_failed(self, generation: int, reason: str) -> None:
        worker = self._machine.workers[generation]
        self._drop(generation)
        self._on_spawn_failure(worker, reason)

    def _on_spawn_failure(self, worker: Worker, reason: str) -> None:
        self.start_failure = reason
        if not self._warned:
            self._warned = True
            _LOGGER.warning("a worker could not be started (%s); trying again, with the workers that exist meanwhile", reason)
        self._machine.on_spawn_failed(worker, time.monotonic())

    # --- descriptors -----------------------------------------------------------------------------------

    def _unwatch(self, link: WorkerLink) -> None:
        for fd in (link.pidfd, link.answer_fd, link.task_fd):
            self._reactor.unwatch(fd)

    def _drop(self, generation: int) -> None:
        link = self.links.pop(generation)  # first: a fork of the host that comes now leaves its numbers alone
        self._unwatch(link)
        link.close()


def _status_text(status: int | None) -> str:
    if status is None:
        return "how is unknown"
    code = os.waitstatus_to_exitcode(status)
    return f"exit status {code}" if code >= 0 else f"signal {-code}"
