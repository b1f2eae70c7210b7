"""The process that forks workers, and reaps them.

Runs in: a process of its own, started by exec (never forked from the host), one thread. It owns: its end of the control
socket, the read end of the lifeline, a pidfd of the host, an epoll, and for each worker a pidfd and one description of the
lifeline.

Hard part: nobody outlives the host.
- Each worker arms a lifeline of its own: a read description of a pipe whose only write end the host holds, with F_SETOWN
  minus its process group, F_SETSIG SIGKILL, O_ASYNC. When the host is gone, however it went, the kernel kills the group,
  also when it is stopped or busy in C. The server keeps each description open, because a task may close every descriptor.
- The server polls a pidfd of the host (a fork child of the host may hold the pipes) and the control socket (`execv` keeps
  the pid), and then kills every worker's group.
- Every process has a session of its own: killing the server with a stopped worker in its session would make an orphaned
  process group, to which the kernel sends SIGHUP.
A worker is reaped by its pid only, after its whole group was killed: until then the number cannot be used again.
Tests: tests/process/test_lifeline.py, tests/process/test_crash.py
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import os
import pickle
import select
import signal
import socket
import sys
import warnings
from collections.abc import Callable

from .._core.control import HAS_INITIALIZER, Ask, Report, Request, Tell, pack_report, unpack_request
from .._shared.descriptors import close_all, move_high, recv_packet, send_packet

_REQUEST_FDS = 3
_OOM_ADJUSTMENT = 100  # arbitrary: counts like a tenth of the memory there is; 1000 is the most, see proc(5)
_WITH_LIFELINE = 4  # where there is no /proc, the host brings one for each worker
RunWorker = Callable[[int, list[int], bool], int]  # slot, descriptors, is an initializer coming? -> exit status


def main(control_fd: int, lifeline_fd: int, host_fd: int, config_fd: int, tracker_fd: int) -> None:
    """Serve until the host is gone or closes the control socket."""
    _quiet_signals()
    _die_before_the_host()
    control = socket.socket(fileno=move_high(control_fd))
    control.setblocking(True)  # a sitecustomize may have told socket.setdefaulttimeout() something
    lifeline_fd = move_high(lifeline_fd)
    arm_lifeline(lifeline_fd, os.getpid())
    try:
        run_worker = _prepare(config_fd, move_high(tracker_fd), control)
    except BaseException as error:
        text = f"{type(error).__name__}: {error}"
        send_packet(control, pack_report(Report(Tell.START_FAILED, text=text)))
        raise
    ForkServer(control, lifeline_fd, move_high(host_fd), run_worker).serve()


def arm_lifeline(fd: int, owner: int) -> None:
    """Have the kernel send SIGKILL to `owner` (a pid, or minus a process group) when the host's write end closes.

    fcntl(2), F_SETOWN and F_SETSIG. No signal comes for what happened before, hence the poll.
    """
    fcntl.fcntl(fd, fcntl.F_SETOWN, owner)
    fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_ASYNC | os.O_NONBLOCK)
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    if poll.poll(0):
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
        with open(path) as file:
            ours = int(file.read())
        with open(path, "w") as file:
            file.write(str(min(ours + _OOM_ADJUSTMENT, 1000)))


def _prepare(config_fd: int, tracker_fd: int, control: socket.socket) -> RunWorker:
    """Become like the host; import what every worker needs, once, and what the user wants preloaded."""
    with open(config_fd, "rb") as config:
        snapshot = pickle.load(config)
    from . import inherit

    snapshot["tracker_fd"] = tracker_fd
    inherit.apply_in_server(snapshot)
    import cloudpickle  # noqa: F401  # 60 ms that each worker would otherwise spend

    # 10 ms likewise; and once a task has spoiled `sys.meta_path` or the table of descriptors, a worker cannot import any more.
    from .._shared import rebuild, remote_exceptions, session  # noqa: F401
    from . import pinning, worker

    pinning.prepare(snapshot)
    with pinning.as_a_worker(snapshot):
        _preload(snapshot, control)
    gc.collect()
    gc.freeze()  # what workers share stays shared: no collection in them touches it
    return worker.WorkerProcess(snapshot).run


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
        with contextlib.suppress(Exception):  # replaced by a preloaded module: its own business
            stream.flush()


class ForkServer:
    """The loop. Invariant: every pid in `_workers` is a child that was not reaped."""

    def __init__(self, control: socket.socket, lifeline_fd: int, host_fd: int, run_worker: RunWorker) -> None:
        self._control = control
        self._lifeline_fd = lifeline_fd
        self._host_fd = host_fd
        self._run_worker = run_worker
        self._workers: dict[int, tuple[int, int, int]] = {}  # pidfd: generation, pid, lifeline description
        # Not poll(2), which refuses to watch more descriptors than RLIMIT_NOFILE, and that may be lowered while we run.
        self._epoll = select.epoll()

    def serve(self) -> None:
        for fd in (self._control.fileno(), self._host_fd):
            self._epoll.register(fd, select.EPOLLIN)
        self._tell(Report(Tell.HELLO, pid=os.getpid()))
        try:
            while self._step():
                pass
        finally:
            for _, pid, _ in self._workers.values():
                _kill_group(pid)

    def _step(self) -> bool:
        ready = {fd for fd, _ in self._epoll.poll()}
        if self._host_fd in ready:
            return False
        for pidfd in ready & self._workers.keys():
            self._reap(pidfd)
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
            if request.ask is Ask.KILL:
                self._kill(request.generation)
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
            _flush()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 warns of other threads, after the fact
                pid = os.fork()
        except OSError as error:
            close_all([lifeline] if lifeline >= 0 else [])
            self._refuse(request, f"fork failed: {error}")
            return
        if pid == 0:
            self._become_worker(request, fds, lifeline)
        self._register(request, pid, lifeline)

    def _open_lifeline(self, fds: list[int]) -> int:
        if len(fds) == _WITH_LIFELINE:
            return fds.pop()
        return os.open(f"/proc/self/fd/{self._lifeline_fd}", os.O_RDONLY | os.O_NONBLOCK)

    def _register(self, request: Request, pid: int, lifeline: int) -> None:
        pidfd = -1
        try:
            pidfd = os.pidfd_open(pid)
            self._epoll.register(pidfd, select.EPOLLIN)
        except OSError as error:
            _kill_group(pid)
            os.wait4(pid, 0)
            close_all([lifeline, pidfd])
            self._refuse(request, f"the new worker cannot be watched: {error}")
            return
        self._workers[pidfd] = (request.generation, pid, lifeline)
        self._tell(Report(Tell.SPAWNED, request.generation, pid), (pidfd,))

    def _become_worker(self, request: Request, fds: list[int], lifeline: int) -> None:
        """Never returns."""
        status = 1
        try:
            os.setsid()
            arm_lifeline(lifeline, -os.getpid())
            close_all([self._host_fd, self._lifeline_fd])
            self._control.close()
            self._epoll.close()
            for pidfd, (_, _, other) in self._workers.items():
                close_all([pidfd, other])
            has_initializer = bool(request.flags & HAS_INITIALIZER)
            status = self._run_worker(request.slot, fds, has_initializer)
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(status)

    def _reap(self, pidfd: int) -> None:
        generation, pid, lifeline = self._workers.pop(pidfd)
        self._epoll.unregister(pidfd)
        _kill_group(pid)  # a worker's process group ends with it; the zombie still holds the number
        try:
            _, status, usage = os.wait4(pid, 0)
            report = Report(Tell.EXITED, generation, pid, status, usage.ru_maxrss * 1024)
        except ChildProcessError:  # a preloaded module reaped it
            report = Report(Tell.EXITED, generation, pid, -1)
        close_all([pidfd, lifeline])
        self._tell(report)

    def _kill(self, generation: int) -> None:
        for known, pid, _ in self._workers.values():
            if known == generation:
                _kill_group(pid)

    def _refuse(self, request: Request, reason: str) -> None:
        self._tell(Report(Tell.SPAWN_FAILED, request.generation, text=reason))

    def _tell(self, report: Report, fds: tuple[int, ...] = ()) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the poll tells that the host is gone
            send_packet(self._control, pack_report(report), fds)


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)  # it may not have called setsid yet
