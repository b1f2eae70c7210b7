"""The pipes between host and workers that outlive a fork server: the lifeline and the resource tracker's relay.

Runs in: host, supervisor thread. Owns both ends of the lifeline, the relay, and two descriptors for each orphan and server.

Hard part: when the lifeline's last writer is gone, the kernel signals the owners of all its read descriptions that are armed
and open (`pipe_release` in its fs/pipe.c). A task may close its worker's own. The fork server keeps a copy of that one; when
the server is dead, the worker is an orphan, and we arm descriptions of our own for it. They are closed with us, so one of them
must be closed after the write end. The kernel closes in the order of the numbers, but lets go of what was closed last first
(`close_files` in fs/file.c, `task_work_run`; seen with 6.18), and neither is promised: so one lies below the write end and one
above it. A second number for one description would not do: what counts is when the last one is closed.
Tests: tests/process/test_orphans.py, tests/process/test_lifeline.py
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal

from .._shared.descriptors import close_all
from .tracker_relay import TrackerRelay


class PoolLines:
    """One for all fork servers of a pool: were the lifeline's write end closed with one, the kernel would kill its workers."""

    def __init__(self) -> None:
        """Make them.

        Raises:
            OSError: No descriptors to be had; nothing is left open.
        """
        self.guards: dict[int, tuple[int, int]] = {}  # by the pid of an orphan or server: below and above the write end
        self.relay = TrackerRelay()
        try:
            self.lifeline_read, self.write_fd = os.pipe2(os.O_CLOEXEC)
        except BaseException:
            self.relay.close()
            raise

    @property
    def fds(self) -> list[int]:
        guards = [fd for pair in self.guards.values() for fd in pair]
        fds = (self.lifeline_read, self.write_fd, self.relay.fileno(), self.relay.child_fd, *guards)
        return [fd for fd in fds if fd >= 0]

    def guard(self, pid: int) -> None:
        """Have the kernel kill the group of this worker or server when we are gone. Call while it lives; `unguard` it after.

        Where there is no /proc, and where descriptors are lacking, it hangs on what it holds itself.
        """
        if pid not in self.guards:
            with contextlib.suppress(OSError):
                self._guard(pid)

    def _guard(self, pid: int) -> None:
        opened = [self._open_armed(pid)]
        try:
            if opened[0] > self.write_fd:
                self._move_write_end(opened[0] + 1)
            opened.append(self._open_armed(pid))
            if opened[1] < self.write_fd:
                opened.append(self._above(opened[1]))
        except BaseException:
            close_all(opened)
            raise
        self.guards[pid] = opened[0], opened[-1]
        close_all(opened[1:-1])

    def _open_armed(self, pid: int) -> int:
        """A read description; its end makes the kernel send SIGKILL to the group, see `arm_lifeline` of the fork server."""
        fd = os.open(f"/proc/self/fd/{self.lifeline_read}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            fcntl.fcntl(fd, fcntl.F_SETOWN, -pid)
            fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGKILL)
            fcntl.fcntl(fd, fcntl.F_SETFL, os.O_NONBLOCK | os.O_ASYNC)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _move_write_end(self, lowest: int) -> None:
        old, self.write_fd = self.write_fd, fcntl.fcntl(self.write_fd, fcntl.F_DUPFD_CLOEXEC, lowest)
        os.close(old)
        for pid, (low, high) in self.guards.copy().items():
            if high < self.write_fd:
                self.guards[pid] = low, self._above(high)
                os.close(high)

    def _above(self, fd: int) -> int:
        """Another number for it, above the write end's."""
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, self.write_fd + 1)

    def unguard(self, pid: int) -> None:
        """The worker is gone; nothing happens if it was not guarded."""
        close_all(self.guards.pop(pid, ()))

    def close_in_fork(self) -> None:
        """In a fork of the host: let go of the descriptors."""
        close_all(self.fds)

    def cut(self) -> None:
        """Have the kernel kill whoever still hangs on the lifeline."""
        fd, self.write_fd = self.write_fd, -1
        close_all([fd] if fd >= 0 else [])

    def close(self) -> None:
        """Give everything back."""
        self.cut()
        close_all([fd for pair in self.guards.values() for fd in pair])
        close_all([self.lifeline_read])
        self.relay.close()
