"""The fork servers of one pool: the one that forks, one that is to take over, and those whose workers have yet to leave.

Runs in: host, supervisor thread. Owns the links to the servers, the lines that all workers hang on, and what servers are
made like. Tells the crew what it hears; which worker is wanted is for the core to say.

Hard part: each worker belongs to the server that forked it, which reaps it. So a server that was replaced stays until its last
worker is gone. It is replaced only when its successor is ready: until then it forks, and if the successor fails it goes on.
How long a server takes to be ready nobody can tell, for it preloads what the user wants. So a clock says when to look whether
it was stopped (SIGSTOP), and never that it takes too long.
Tests: tests/process/test_fork_server.py, tests/process/test_restart.py
"""

from __future__ import annotations

import errno
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from .._core.control import HAS_INITIALIZER, Ask, Report, Tell
from .._core.states import Worker
from .._shared import clock
from .._shared.descriptors import close_all
from .._shared.own_proc import numbers_as_we_do
from ..config import PoolConfig
from .log import Log
from .pinning import Pinning
from .plausible import can_be_true
from .pool_lines import PoolLines
from .preload_gate import PreloadGate
from .reactor import Reactor
from .server_link import NONSENSE, SERVER_PATIENCE_S, ServerGone, ServerLink
from .snapshot import interpreter_command, take_snapshot
from .verdicts import preload_error, restart_error, shut_down_error
from .worker_link import Death, WorkerLink

_MOST_ASKED = 32  # unanswered requests to a fork server: far from what fills the socket, where we would block
_THREADS = (
    "forkpool's fork server has threads besides its own: {}. A fork copies only the thread that forks, so a lock that one of "
    "them holds at that moment stays locked in the worker. Start threads in the initializer instead, or preload another "
    "module. The pool goes on."
)
_NO_PROC = (
    "/proc is not mounted, or cannot be read. The pool works; what is missing: limits of control groups, hints at the "
    "out-of-memory killer, memory_limit, warnings of threads that preloading leaves, and the tracking of shared memory that "
    "tasks make."
)
_FOREIGN_PROC = (
    "/proc shows the processes of another pid namespace than this program's. The pool works; what is missing: memory_limit, "
    "warnings of threads that preloading leaves, and the processes in forkpool.diagnostics. Mount a /proc of this namespace "
    "(`unshare --pid --fork --mount-proc`)."
)
MakeError = Callable[[], BaseException]


class Forks(Protocol):
    """What the servers tell: the crew's side."""

    links: dict[int, WorkerLink]

    def on_spawned(self, generation: int, pid: int, pidfd: int) -> None: ...
    def on_spawn_failed(self, generation: int, reason: str) -> None: ...
    def on_not_started(self, worker: Worker, reason: str) -> None: ...
    def on_exited(self, generation: int, death: Death) -> None: ...
    def on_orphaned(self, generation: int, reason: str) -> None: ...
    def on_renewed(self) -> None: ...


@dataclass(slots=True, frozen=True)
class Restart:
    """A wish for another fork server, like the host was at `snapshot`."""

    snapshot: dict[str, Any]
    done: Callable[[MakeError | None], None]  # called once: with None when it has taken over, else with why it has not


class Servers:
    """All fork servers of a pool."""

    def __init__(
        self,
        config: PoolConfig,
        reactor: Reactor,
        crew: Forks,
        gate: PreloadGate,
        on_preload_failure: Callable[[bytes, str], None],
        log: Log,
    ) -> None:
        self._config = config
        self._reactor = reactor
        self._crew = crew
        self._gate = gate
        self._on_preload_failure = on_preload_failure
        self._log = log
        self._pinning: Pinning | None = None  # from `pin` on
        self._command: list[str] = []  # from `open` on
        self._snapshot: dict[str, Any] = {}  # from `open` on; replacements are like the first, until the user restarts
        self._lines: PoolLines | None = None  # one for the pool's life
        self._current: ServerLink | None = None
        self._retired: list[ServerLink] = []  # replaced, with workers that have not left
        self._successor: tuple[ServerLink, Restart] | None = None
        self._restarts: deque[Restart] = deque()  # wishes that wait for the successor that is starting
        self._wanted: deque[Worker] = deque()  # to be forked; they wait for HELLO, or for room
        self.due: float | None = None  # monotonic seconds: when `look` is needed; None: no server is about to be ready
        self._warned_of_threads = False
        self._warned_of_proc = False

    def open(self, path_of_calls: list[str]) -> None:
        """Look at the host. While the first submit waits, so that what its thread does next does not show.

        Raises:
            RuntimeError: There is no Python to run as fork server.
        """
        self._command = interpreter_command()
        self._snapshot = take_snapshot(self._config.env, self._config.max_workers, self._config.preload, path_of_calls)

    def pin(self, pinning: Pinning) -> None:
        """Have the workers bind themselves as was chosen. Before the first fork server starts."""
        self._pinning = pinning
        pinning.write_into(self._snapshot)

    # --- what the crew asks ----------------------------------------------------------------------------

    def preload(self) -> None:
        """Have the fork server started before there is a task: a submit waits until it has preloaded."""
        if self._config.preload:
            self._start_current()

    def fork(self, worker: Worker) -> None:
        """Have a worker forked, as soon as a server can."""
        self._wanted.append(worker)
        if self._current is None:
            self._start_current()
        self._ask_for_workers()

    def forget(self, worker: Worker) -> None:
        """No server was asked for this worker yet: none will be."""
        self._wanted.remove(worker)

    def restart(self, restart: Restart) -> None:
        """Start another server; it takes over when it is ready."""
        self._restarts.append(restart)
        self._start_successor()

    def on_dropped(self, link: WorkerLink) -> None:
        """A worker is gone and forgotten: perhaps it was the last one of a server that was replaced."""
        if self._lines is not None:
            self._lines.unguard(link.pid)
        if link.server in self._retired:
            self._close_unused()

    def guard(self, link: WorkerLink) -> None:
        """The server that forked this worker is gone: nobody holds its lifeline any more if a task closes it."""
        if self._lines is not None and not link.without_proc:
            self._lines.guard(link.pid)

    def hear_relay(self) -> None:
        """Pass on what workers told the resource tracker until now."""
        if self._lines is not None:
            self._lines.relay.on_readable()

    def cut(self) -> None:
        """Have the kernel end all, those too that we may not signal, stopped or not. The pool can never fork again."""
        if self._lines is not None:
            self._lines.cut()

    def close(self) -> None:
        """End all. Blocks until they are gone."""
        self.cut()
        for server in self._all():
            self._end(server)
        if self._successor is not None:
            self._restarts.appendleft(self._successor[1])
        self._current, self._successor, self._retired, self.due = None, None, [], None
        while self._restarts:
            self._restarts.popleft().done(shut_down_error)
        if self._lines is not None:
            lines, self._lines = self._lines, None
            self._reactor.unwatch(lines.relay.fileno())
            lines.close()

    def close_in_fork(self) -> None:
        """In a fork of the host, where the supervisor does not exist: let go of everything."""
        for owner in (*self._all(), self._lines):
            if owner is not None:
                owner.close_in_fork()

    # --- what they hold --------------------------------------------------------------------------------

    @property
    def pids(self) -> list[int]:
        return [server.pid for server in self._all()]

    @property
    def threads(self) -> list[threading.Thread | None]:
        return [None if self._lines is None else self._lines.relay.thread]

    def fds(self) -> list[tuple[int, str]]:
        """Number and purpose of each descriptor."""
        found: list[tuple[int, str]] = []
        for server in self._all():
            found += [(server.fileno(), "fork server's socket"), (server.pidfd, "fork server's pidfd")]
        if self._lines is not None:
            found += [(fd, "lifeline and relay") for fd in self._lines.fds]
        return found

    def shared_memory(self) -> list[str]:
        """Names of what tasks made or attached, and is still there."""
        return [] if self._lines is None else self._lines.relay.names.existing()

    def _all(self) -> Iterator[ServerLink]:
        starting = [self._successor[0]] if self._successor is not None else []
        current = [self._current] if self._current is not None else []
        return iter([*current, *starting, *self._retired])

    # --- starting --------------------------------------------------------------------------------------

    def _start_current(self) -> None:
        try:
            self._current = self._start(self._snapshot)
        except OSError as error:
            self._fail_waiting(f"the fork server cannot be started: {_why(error)}")
            self._gate.open()  # the task that comes will try again

    def _start_successor(self) -> None:
        while self._restarts and self._successor is None:
            restart = self._restarts.popleft()
            if self._pinning is not None:
                self._pinning.write_into(restart.snapshot)
            try:
                self._successor = self._start(restart.snapshot), restart
            except OSError as error:
                restart.done(partial(restart_error, f"no fork server can be started: {_why(error)}"))

    def _start(self, snapshot: dict[str, Any]) -> ServerLink:
        lines = self._lines = self._lines or self._open_lines()
        server = ServerLink(self._command, snapshot, lines)
        try:
            self._guard_server(server, lines)
            self._reactor.watch(server.fileno(), lambda: self._on_readable(server))
        except BaseException:
            self._end(server)
            raise
        if self.due is None:
            self.due = clock.now() + SERVER_PATIENCE_S
        return server

    def _guard_server(self, server: ServerLink, lines: PoolLines) -> None:
        """Have the kernel end it with us, if it is stopped: before it can see to that itself, or after another one did so.

        (All servers arm one description of the lifeline, which has one owner.)
        """
        lines.guard(server.pid)
        if server.has_ended():  # asked now: if it lives, its pid was its own when it was guarded
            lines.unguard(server.pid)

    def _end(self, server: ServerLink) -> None:
        """Kill it, and give back what it took. Blocks until it is gone."""
        self._reactor.unwatch(server.fileno())
        server.close()
        if self._lines is not None:
            self._lines.unguard(server.pid)

    def look(self, now: float) -> None:
        """Look whether a server that is not ready was stopped: its end is a fact that we will hear of."""
        starting = self._starting()
        for server in starting:
            server.kill_if_stopped()
        self.due = now + SERVER_PATIENCE_S if starting else None

    def _starting(self) -> list[ServerLink]:
        return [server for server in self._all() if not server.ready]

    def _open_lines(self) -> PoolLines:
        lines = PoolLines()
        try:
            self._reactor.watch(lines.relay.fileno(), self.hear_relay)
        except BaseException:
            lines.close()
            raise
        return lines

    def _take_over(self) -> None:
        """The successor is ready: it forks from now on, and all workers that there are leave as soon as they can."""
        assert self._successor is not None
        (server, restart), self._successor = self._successor, None
        if self._current is not None:
            self._retired.append(self._current)
        self._current, self._snapshot = server, restart.snapshot
        self._crew.on_renewed()
        self._close_unused()
        restart.done(None)
        self._start_successor()

    def _close_unused(self) -> None:
        used = {link.server for link in self._crew.links.values()}
        for server in [server for server in self._retired if server not in used]:
            self._retired.remove(server)
            self._end(server)

    # --- asking ----------------------------------------------------------------------------------------

    def _ask_for_workers(self) -> None:
        server = self._current
        while server is not None and self._wanted and server.ready and server.asked < _MOST_ASKED:
            self._ask_for(server, self._wanted.popleft())

    def _ask_for(self, server: ServerLink, worker: Worker) -> None:
        try:
            link = WorkerLink(worker.slot)
        except OSError as error:
            self._crew.on_not_started(worker, f"no descriptors or memory for another worker: {_why(error)}")
            return
        if not self._warned_of_proc and (link.without_proc or not numbers_as_we_do()):
            self._warned_of_proc = True
            self._log.warning(_NO_PROC if link.without_proc else _FOREIGN_PROC)
        link.server, link.generation = server, worker.generation
        self._crew.links[worker.generation] = link
        flags = HAS_INITIALIZER if self._config.initializer is not None else 0
        try:
            server.ask(Ask.SPAWN, worker.generation, worker.slot, flags, link.child_fds)
        except ServerGone as error:
            self._crew.on_spawn_failed(worker.generation, str(error))
        else:
            server.asked += 1
            link.patience_end = clock.now() + SERVER_PATIENCE_S
            link.close_child_fds()

    def _fail_waiting(self, reason: str) -> None:
        while self._wanted:
            self._crew.on_not_started(self._wanted.popleft(), reason)

    # --- hearing ---------------------------------------------------------------------------------------

    def _on_readable(self, server: ServerLink) -> None:
        try:
            # One that was replaced is closed in between, when it says that it could not fork the last worker it was asked for.
            while server.fileno() >= 0:
                self._on_report(server, *server.receive())
        except BlockingIOError:
            pass
        except ServerGone as error:
            self._on_gone(server, str(error))

    def _on_report(self, server: ServerLink, report: Report, fd: int) -> None:
        if not can_be_true(report, server, self._crew.links.get(report.generation)):
            close_all([fd] if fd >= 0 else [])
            server.failure = server.failure or NONSENSE
            raise ServerGone(NONSENSE)
        match report.tell:
            case Tell.HELLO:
                self._on_hello(server)
            case Tell.PRELOADING:
                server.was_at = f"while it preloaded {report.text!r}"
            case Tell.THREADS:
                self._on_threads(report.text)
            case Tell.PRELOAD_FAILED:
                self._on_preload_failed(server, report.text, fd)
            case Tell.START_FAILED:
                server.failure = f"the fork server failed: {report.text}"
            case Tell.SPAWNED:
                self._crew.on_spawned(report.generation, report.pid, fd)
                self._on_answered(server)
            case Tell.SPAWN_FAILED:
                self._crew.on_spawn_failed(report.generation, report.text)
                self._on_answered(server)
            case Tell.EXITED:
                status = report.status if report.status >= 0 else None
                self._crew.on_exited(report.generation, Death(status, report.peak_rss or None))

    def _on_hello(self, server: ServerLink) -> None:
        server.ready = True
        if self._successor is not None and self._successor[0] is server:
            self._take_over()
        if not self._starting():
            self.due = None
        self._gate.open()
        self._ask_for_workers()

    def _on_answered(self, server: ServerLink) -> None:
        server.asked -= 1
        self._ask_for_workers()

    def _on_threads(self, threads: str) -> None:
        """Said once: by the submit that waits, if there is one."""
        if not self._warned_of_threads:
            self._warned_of_threads = True
            if self._gate.is_open:
                self._log.warning("%s", _THREADS.format(threads))
            else:
                self._gate.notices.append(_THREADS.format(threads))

    def _on_preload_failed(self, server: ServerLink, text: str, fd: int) -> None:
        """The user's error if somebody waits for it; of a server that replaces another, a failure to start like any other."""
        data = b""
        if fd >= 0:
            with open(fd, "rb") as file:
                file.seek(0)
                data = file.read()
        server.failure = f"the fork server failed while preloading: {text}"
        if self._successor is not None and self._successor[0] is server:
            server.make_error = lambda: preload_error(data, text)
        elif not self._gate.is_open:
            self._on_preload_failure(data, text)

    def _on_gone(self, server: ServerLink, reason: str) -> None:
        self._end(server)
        if not server.ready:
            reason = f"the fork server ended {server.was_at} ({server.how_it_ended()}); see stderr"
        reason = server.failure or reason or "the fork server was killed"
        if self._successor is not None and self._successor[0] is server:
            (_, restart), self._successor = self._successor, None
            restart.done(server.make_error or (lambda: restart_error(reason)))
            self._start_successor()
            return
        is_current = server is self._current
        if is_current:
            self._current = None
            self._gate.open()
        else:
            self._retired.remove(server)
        for generation, link in self._crew.links.copy().items():
            if link.server is server:
                self._crew.on_orphaned(generation, reason)
        if is_current:
            self._fail_waiting(reason)


def _why(error: OSError) -> str:
    """The error's text, with what it does not say."""
    if error.errno != errno.EFBIG:
        return str(error)
    return (
        f"{error}, of memory that processes share: the limit on the size of files (RLIMIT_FSIZE) counts there, too. Raise it "
        "(`ulimit -f`) to a megabyte or more"
    )
