"""The host's end of its fork server.

Runs in: host, supervisor thread. A `ServerLink` owns two descriptors: the control socket and the server's pidfd (-1 where the
system has none). What workers need also when their server is gone is in `pool_lines`: one for all servers of a pool.
The server is started by exec in a session of its own. `-c` puts an empty entry (the cwd) on `sys.path`, where a user's
`random.py` would hide the standard library's: the first statement takes it out again.
Tests: tests/process/test_lifeline.py, tests/process/test_fork_server.py, tests/process/test_shortage.py
"""

from __future__ import annotations

import _socket
import os
import pickle
import signal
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .._core.control import PACKET, Ask, Report, Tell, pack_request, unpack_report
from .._shared.descriptors import close_all, recv_packet, send_packet
from .._shared.pidfd import open_pidfd
from .pool_lines import PoolLines
from .process_facts import has_ended, read_stat, send_signal
from .spawned import SpawnedProcess, inheritable

SERVER_PATIENCE_S = 2.0  # arbitrary: when an answer of the server is late, we look whether somebody stopped it
_BOOT = (
    "import sys; sys.flags.safe_path or sys.path.pop(0); import os; {leave}sys.path.append({root!r}); "
    "[os.closerange(fd, fd + 1) for fd in {strangers}]; "
    "from forkpool._child.fork_server import main; main({fds})"
)


STOPPED = "the fork server was stopped by a signal, so forkpool killed it"
NONSENSE = "the fork server sent a malformed message (a preloaded module wrote to forkpool's file descriptors)"
_WITH_DESCRIPTOR = (Tell.SPAWNED, Tell.PRELOAD_FAILED)


class ServerGone(Exception):
    """The fork server is dead, closed its socket, or talks nonsense."""


class ServerLink:
    """One fork server: start, ask, listen, reap."""

    def __init__(self, command: list[str], snapshot: dict[str, Any], lines: PoolLines) -> None:
        """Start a server that is like the host was at `snapshot`. It answers HELLO or START_FAILED when it is configured.

        Args:
            command: The interpreter and its options.
            snapshot: What the server and its workers take over of the host.
            lines: What they hang on.

        Raises:
            OSError: No process, descriptor or memory to be had; nothing is left open.
        """
        self.ready = False  # it said HELLO
        self.asked = 0  # requests that it has not answered
        self.was_at = "before it was ready"  # for the message of one that ends unexpectedly
        self.failure = ""  # what it said of its failure, or why we killed it
        self.make_error: Callable[[], BaseException] | None = None  # what the user is to get of it
        # Not of `socket`'s class: gevent's would wait where we ask not to.
        self._control, their_socket = _socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (self._control, their_socket):
            end.setblocking(True)  # whatever the program told socket.setdefaulttimeout()
        for_server = [their_socket.detach()]  # the server's; closed here
        try:
            host_fd = open_pidfd(os.getpid())
            # The lifeline also ends with us, unless a fork of ours keeps it open; the server knows what else to look at.
            for_server.append(host_fd if host_fd >= 0 else os.dup(lines.lifeline_read))
            for_server.append(_memory_file(pickle.dumps(snapshot)))
            theirs, host_fd, config_fd = for_server
            self._process = _start(command, snapshot, (theirs, lines.lifeline_read, host_fd, config_fd, lines.relay.child_fd))
            self.pid = self._process.pid
            self.pidfd = _pidfd_of(self._process)
        except BaseException:
            self._control.close()
            raise
        finally:
            close_all(for_server)

    def close_in_fork(self) -> None:
        """In a fork of the host: let go of the descriptors."""
        close_all(fd for fd in (self._control.detach(), self.pidfd) if fd >= 0)

    def fileno(self) -> int:
        return self._control.fileno()

    def ask(self, ask: Ask, generation: int, slot: int, flags: int, fds: tuple[int, ...] = ()) -> None:
        """Send a request.

        Raises:
            ServerGone: It was not received.
        """
        try:
            send_packet(self._control, pack_request(ask, generation, slot, flags), fds)
        except OSError as error:
            raise ServerGone(str(error)) from error

    def receive(self) -> tuple[Report, int]:
        """The next report and its descriptor (the caller owns it; -1: none, or no room for it here).

        SPAWNED brings the worker's pidfd, or what stands in for it, PRELOAD_FAILED a file.

        Raises:
            BlockingIOError: None is waiting.
            ServerGone: None will come.
        """
        try:
            data, fds, _ = self._receive_packet()
        except ConnectionError as error:
            raise ServerGone(str(error)) from error
        if not data:
            raise ServerGone
        try:
            report = unpack_report(data)
        except (struct.error, ValueError) as error:
            close_all(fds)
            self.failure = self.failure or NONSENSE
            raise ServerGone(NONSENSE) from error
        if report.tell not in _WITH_DESCRIPTOR:
            close_all(fds)
            fds = []
        return report, fds[0] if fds else -1

    def _receive_packet(self) -> tuple[bytes, list[int], bool]:
        try:
            return recv_packet(self._control, PACKET, 1, socket.MSG_DONTWAIT)
        except ConnectionResetError:  # told once, and before what the server had still written
            return recv_packet(self._control, PACKET, 1, socket.MSG_DONTWAIT)

    def kill(self) -> bool:
        """SIGKILL the server. Its workers live on; their lifelines still hang on the host. False: we may not."""
        if self.pidfd < 0:
            return self._process.kill()
        return send_signal(self.pidfd, self.pid, signal.SIGKILL)

    def kill_if_stopped(self) -> bool:
        """Kill a server that was stopped by a signal (not one that a debugger holds); whether that was done."""
        stat = None if self._process.is_reaped else read_stat(self.pid)
        if stat is None or stat.state != "T" or not self.kill():
            return False
        self.failure = self.failure or STOPPED
        return True

    def has_ended(self) -> bool:
        """Is it gone, reaped or not? False if nobody can tell."""
        return self.pidfd >= 0 and has_ended(self.pidfd)

    def how_it_ended(self) -> str:
        """After `close`; SIGKILL may have been ours, if it was just about to leave."""
        code = self._process.exitcode
        if code is None:
            return "how is unknown"
        return f"exit status {code}" if code >= 0 else signal.Signals(-code).name

    def close(self) -> None:
        """Kill it, reap it, give everything back. Blocks until it is gone."""
        self.kill()
        self._control.close()  # whom we may not kill ends now, and its workers with it
        self._process.wait()
        fd, self.pidfd = self.pidfd, -1  # first: a fork of the host that comes now leaves the number alone
        close_all([fd] if fd >= 0 else [])


def _start(command: list[str], snapshot: dict[str, Any], fds: tuple[int, ...]) -> SpawnedProcess:
    environ: dict[str, str] = snapshot["environ"]
    leave = ""
    if _is_nowhere():
        # CPython 3.13.0 cannot import `socket` under `-c` in a deleted directory (SystemError; seen).
        leave = "os.chdir('/'); "
        if "PYTHONPATH" in environ:
            leave += f"os.environ['PYTHONPATH'] = {environ['PYTHONPATH']!r}; "
            environ = {**environ, "PYTHONPATH": _without_relative(environ["PYTHONPATH"])}
    boot = _BOOT.format(
        leave=leave,
        root=str(Path(__file__).parents[2]),
        strangers=list(inheritable()),
        fds=", ".join(map(str, fds)),
    )
    return SpawnedProcess([*command, "-c", boot], environ, fds)


def _is_nowhere() -> bool:
    """Was our working directory deleted?"""
    try:
        os.getcwd()
    except OSError:
        return True
    return False


def _without_relative(path: str) -> str:
    """What an interpreter can start with that is nowhere: one that cannot tell what such an entry means ends (getpath.py).

    Nothing is lost: what it meant to us stands on our `sys.path`, which the server takes over.
    """
    return os.pathsep.join(filter(os.path.isabs, path.split(os.pathsep)))


def _pidfd_of(process: SpawnedProcess) -> int:
    try:
        return open_pidfd(process.pid)
    except OSError:  # other threads took the last descriptors meanwhile
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        raise


def _memory_file(data: bytes) -> int:
    fd = os.memfd_create("forkpool-config", os.MFD_CLOEXEC)
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(data)
        os.lseek(fd, 0, os.SEEK_SET)
    except BaseException:
        os.close(fd)
        raise
    return fd
