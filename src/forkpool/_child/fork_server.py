"""The process that forks workers, and reaps them.

Runs in: a process of its own, started by exec (never forked from the host), one thread. It owns: its end of the control
socket, the read end of the lifeline, a pidfd of the host, an epoll, and for each worker a pidfd and one description of the
lifeline. What it does where there are no pidfds is in `death_watch`.

Hard part: nobody outlives the host.
- Each worker arms a lifeline of its own: a read description of a pipe whose only write end the host holds, with F_SETOWN
  minus its process group, F_SETSIG SIGKILL, O_ASYNC. When the host is gone, however it went, the kernel kills the group,
  also when it is stopped or busy in C. The server keeps each description open, because a task may close every descriptor.
- The server polls a pidfd of the host (a fork child of the host may hold the pipes) and the control socket (`execv` keeps
  the pid), and then kills every worker's group. If it fails itself, it leaves them alone: the host has another one started.
- Every process has a session of its own: killing the server with a stopped worker in its session would make an orphaned
  process group, to which the kernel sends SIGHUP.
A worker is reaped by its pid only, after its whole group was killed: until then the number cannot be used again.
Tests: tests/process/test_lifeline.py, tests/process/test_crash.py
"""

from __future__ import annotations

import _socket
import contextlib
import gc
import os
import pickle
import signal
import socket
import sys
import warnings
from fcntl import F_GETFL, F_SETFL, F_SETOWN, F_SETSIG, fcntl
from select import EPOLLIN, POLLIN, epoll, poll  # names of our own: a preloaded module may have gevent replace theirs
from typing import TYPE_CHECKING

from .._core.control import HAS_INITIALIZER, Ask, Report, Request, Tell, pack_report, unpack_request
from .._shared.descriptors import close_all, move_high, recv_packet, send_packet
from . import packing
from .death_watch import open_watch

if TYPE_CHECKING:
    from .worker import WorkerProcess

_REQUEST_FDS = 3
_OOM_ADJUSTMENT = 100  # arbitrary: counts like a tenth of the memory there is; 1000 is the most, see proc(5)
_SIGKILL = int(signal.SIGKILL)
_WITH_LIFELINE = 4  # where there is no /proc, the host brings one for each worker
_FORK_WARNS = sys.version_info >= (3, 12)  # of other threads, after the fact
_detach = _socket.socket.detach  # the method of the base: what Python adds to it costs each worker four pages of memory


def main(control_fd: int, lifeline_fd: int, host_fd: int, config_fd: int, tracker_fd: int) -> None:
    """Serve until the host is gone or closes the control socket."""
    _quiet_signals()
    _die_before_the_host()
    control = socket.socket(fileno=move_high(control_fd))
    control.setblocking(True)  # a sitecustomize may have told socket.setdefaulttimeout() something
    lifeline_fd = move_high(lifeline_fd)
    arm_lifeline(lifeline_fd, os.getpid())
    try:
        process, host_pid = _prepare(config_fd, move_high(tracker_fd), control)
    except BaseException as error:
        text = f"{type(error).__name__}: {error}"
        send_packet(control, pack_report(Report(Tell.START_FAILED, text=text)))
        raise
    ForkServer(control, lifeline_fd, move_high(host_fd), host_pid, process).serve()


def arm_lifeline(fd: int, owner: int) -> None:
    """Have the kernel send SIGKILL to `owner` (a pid, or minus a process group) when the host's write end closes."""
    host_is_gone = prepare_lifeline(fd)
    own_lifeline(fd, owner, host_is_gone)


def prepare_lifeline(fd: int) -> poll:
    """Do what can be done before there is an owner; the answer looks whether the end of the host came already.

    fcntl(2), F_SETSIG and O_ASYNC: nothing is sent as long as nobody owns the descriptor.
    """
    fcntl(fd, F_SETSIG, _SIGKILL)
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | os.O_ASYNC | os.O_NONBLOCK)
    host_is_gone = poll()
    host_is_gone.register(fd, POLLIN)
    return host_is_gone


def own_lifeline(fd: int, owner: int, host_is_gone: poll) -> None:
    """The rest. No signal comes for what happened before, hence the poll."""
    fcntl(fd, F_SETOWN, owner)
    if host_is_gone.poll(0):
        os._exit(1)


def _quiet_signals() -> None:
    # SIG_IGN and the mask survive exec: a host that ignores SIGCHLD would make wait4 fail.
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        if signal.getsignal(number) is signal.SIG_IGN and number not in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    # A SIGTERM to the whole cgroup is the host's to handle. A handler, not SIG_IGN, which children would inherit.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)


def _die_before_the_host() -> None:
    """When memory runs out, the kernel is to choose among us and our workers, who inherit this, before it looks at the host."""
    path = "/proc/self/oom_score_adj"
    with contextlib.suppress(OSError):  # no /proc
        with open(path, encoding="ascii") as file:
            ours = int(file.read())
        with open(path, "w", encoding="ascii") as file:
            file.write(str(min(ours + _OOM_ADJUSTMENT, 1000)))


def _prepare(config_fd: int, tracker_fd: int, control: socket.socket) -> tuple[WorkerProcess, int]:
    """Become like the host; import what every worker needs, once, and what the user wants preloaded. Also the host's pid."""
    with open(config_fd, "rb") as config:
        snapshot = pickle.load(config)
    packing.begin_new_pages()
    # Before all else: what workers run lies together then. 10 ms; and once a task has spoiled `sys.meta_path` or the table of
    # descriptors, a worker cannot import any more.
    from .._shared import rebuild, remote_exceptions  # noqa: F401
    from . import inherit, pinning, worker

    snapshot["tracker_fd"] = tracker_fd
    inherit.apply_in_server(snapshot)
    import cloudpickle  # noqa: F401  # 60 ms that each worker would otherwise spend

    from .._shared import session  # noqa: F401  # 5 ms likewise

    pinning.prepare(snapshot)
    with pinning.as_a_worker(snapshot):
        _preload(snapshot, control)
    process = worker.WorkerProcess(snapshot)
    gc.enable()  # a preloaded module may have disabled it
    gc.collect()
    packing.begin_new_pages()
    gc.freeze()  # what workers share stays shared: no collection in them touches it
    return process, snapshot["host_pid"]


def _preload(snapshot: dict[str, object], control: socket.socket) -> None:
    """Does not return when it fails: the host is told why, and raises that."""
    from . import preload

    def tell_next(name: str) -> None:
        send_packet(control, pack_report(Report(Tell.PRELOADING, text=name)))

    try:
        threads = preload.preload(snapshot["preload"], snapshot["main"], tell_next)  # type: ignore[arg-type]
    except preload.PreloadFailed as failure:
        _tell_of_failure(control, failure.__cause__)
        _flush()
        os._exit(1)  # no exit handler of theirs, no waiting for their threads
    _flush()
    _quiet_signals()  # they may have set handlers
    if threads:
        send_packet(control, pack_report(Report(Tell.THREADS, text="; ".join(threads))))


def _tell_of_failure(control: socket.socket, error: BaseException | None) -> None:
    from .._shared.payload import ResultEncoder

    assert error is not None
    file = os.memfd_create("forkpool-error", os.MFD_CLOEXEC)
    with open(file, "wb", closefd=False) as whole:  # a traceback may be longer than a packet
        whole.write(ResultEncoder().encode_exception(error))
    text = f"{type(error).__name__}: {error}"
    send_packet(control, pack_report(Report(Tell.PRELOAD_FAILED, text=text)), (file,))


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:  # noqa: SIM105  # for each fork: a context manager costs more than the rest
            stream.flush()
        except Exception:  # replaced by a preloaded module: its own business
            pass


class ForkServer:
    """The loop. Invariant: every pid in `_workers` is a child that was not reaped."""

    def __init__(self, control: socket.socket, lifeline_fd: int, host_fd: int, host_pid: int, process: WorkerProcess) -> None:
        self._control = control
        self._lifeline_fd = lifeline_fd
        self._host_fd = host_fd
        self._process = process
        self._workers: dict[int, tuple[int, int, int]] = {}  # by pidfd: generation, pid, lifeline description
        # Not poll(2), which refuses to watch more descriptors than RLIMIT_NOFILE, and that may be lowered while we run.
        self._epoll = epoll()
        self._watch = open_watch(self._epoll, host_pid)

    def serve(self) -> None:
        for fd in (self._control.fileno(), self._host_fd):
            self._epoll.register(fd, EPOLLIN)
        self._tell(Report(Tell.HELLO, pid=os.getpid()))
        while self._step():
            pass
        # Not if a step fails: then the workers go on like those of a server that was killed, and end with the host.
        for _, pid, _ in self._workers.values():
            _kill_group(pid)

    def _step(self) -> bool:
        ready = {fd for fd, _ in self._epoll.poll()}
        if self._host_fd in ready or self._watch.host_is_gone():
            return False
        for fd in self._watch.ended(ready, self._workers):
            self._reap(fd)
        return self._control.fileno() not in ready or self._obey()

    def _obey(self) -> bool:
        try:
            data, fds, lost = recv_packet(self._control, 64, _WITH_LIFELINE)
        except ConnectionError:
            return False
        if not data:
            return False
        request = unpack_request(data)
        try:
            if request.ask is not Ask.SPAWN:
                self._signal(request)
            elif lost or len(fds) not in (_REQUEST_FDS, _WITH_LIFELINE):
                self._refuse(request, "the fork server has no file descriptors left")
            else:
                self._spawn(request, fds)
        finally:
            close_all(fds)
        return True

    def _spawn(self, request: Request, fds: list[int]) -> None:
        lifeline = -1
        try:
            lifeline = move_high(self._open_lifeline(fds))
            host_is_gone = prepare_lifeline(lifeline)
            fds[:] = map(move_high, fds)
            # All that the worker need not look up itself: what it touches becomes memory of its own.
            slot, has_initializer = request.slot, bool(request.flags & HAS_INITIALIZER)
            ours = self._fds()
            self._process.before_fork()
            _flush()
            pid = _fork()
        except OSError as error:
            close_all([lifeline] if lifeline >= 0 else [])
            self._refuse(request, f"fork failed: {error}")
            return
        if pid == 0:
            self._become_worker(ours, lifeline, host_is_gone, slot, fds, has_initializer)
        self._register(request, pid, lifeline)

    def _fds(self) -> list[int]:
        """What a worker closes; the control socket and the epoll are objects, which know when they are closed."""
        fds = [self._host_fd, self._lifeline_fd]
        for fd, (_, _, lifeline) in self._workers.items():
            fds += fd, lifeline
        return fds

    def _open_lifeline(self, fds: list[int]) -> int:
        if len(fds) == _WITH_LIFELINE:
            return fds.pop()
        return os.open(f"/proc/self/fd/{self._lifeline_fd}", os.O_RDONLY | os.O_NONBLOCK)

    def _register(self, request: Request, pid: int, lifeline: int) -> None:
        try:
            fd, for_host = self._watch.add(pid)
        except OSError as error:
            self._undo(request, pid, lifeline, f"the new worker cannot be watched: {error}")
            return
        try:
            self._tell(Report(Tell.SPAWNED, request.generation, pid), (for_host,))
        except OSError as error:  # ETOOMANYREFS: other programs of this user have too many descriptors on their way
            self._watch.drop(fd)
            close_all({fd, for_host})
            self._undo(request, pid, lifeline, f"the new worker's file descriptor cannot be sent: {error}")
            return
        self._workers[fd] = (request.generation, pid, lifeline)
        if for_host != fd:
            os.close(for_host)

    def _undo(self, request: Request, pid: int, lifeline: int, why: str) -> None:
        """The host has not heard of this worker, and will not."""
        _kill_group(pid)
        with contextlib.suppress(ChildProcessError):  # a preloaded module reaped it
            os.wait4(pid, 0)
        close_all([lifeline])
        self._refuse(request, why)

    def _become_worker(
        self, ours: list[int], lifeline: int, host_is_gone: poll, slot: int, fds: list[int], has_initializer: bool
    ) -> None:
        """Never returns."""
        status = 1
        try:
            os.setsid()
            own_lifeline(lifeline, -os.getpid(), host_is_gone)
            os.close(_detach(self._control))
            self._epoll.close()
            self._watch.leave()
            close_all(ours)
            status = self._process.run(slot, fds, has_initializer)
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(status)

    def _reap(self, fd: int) -> None:
        generation, pid, lifeline = self._workers.pop(fd)
        self._watch.drop(fd)
        _kill_group(pid)  # a worker's process group ends with it; the zombie still holds the number
        try:
            _, status, usage = os.wait4(pid, 0)
            report = Report(Tell.EXITED, generation, pid, status, usage.ru_maxrss * 1024)
        except ChildProcessError:  # a preloaded module reaped it
            report = Report(Tell.EXITED, generation, pid, -1)
        close_all([fd, lifeline])
        self._tell(report)

    def _signal(self, request: Request) -> None:
        for generation, pid, _ in self._workers.values():
            if generation == request.generation and request.ask is Ask.KILL:
                _kill_group(pid)
            elif generation == request.generation:
                os.kill(pid, signal.SIGTERM)  # not reaped: its number is its own

    def _refuse(self, request: Request, reason: str) -> None:
        self._tell(Report(Tell.SPAWN_FAILED, request.generation, text=reason))

    def _tell(self, report: Report, fds: tuple[int, ...] = ()) -> None:
        try:  # noqa: SIM105  # as in `_flush`
            send_packet(self._control, pack_report(report), fds)
        except (BrokenPipeError, ConnectionResetError):  # the poll tells that the host is gone
            pass


def _fork() -> int:
    if not _FORK_WARNS:
        return os.fork()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def _kill_group(pid: int) -> None:
    try:  # noqa: SIM105  # as in `_flush`
        os.killpg(pid, _SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass
    try:  # noqa: SIM105  # as in `_flush`
        os.kill(pid, _SIGKILL)  # it may not have called setsid yet
    except (ProcessLookupError, PermissionError):
        pass
