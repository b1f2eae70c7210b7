"""Learn in the fork server that a worker has ended, or that the host has.

Runs in: fork server, main thread. A watch owns what it registers in the server's epoll; the descriptors of workers are the
server's. A worker is named by a descriptor: its pidfd or, where there are none, the writing end of what stands in for it.

Hard part, without pidfds: who ended is looked at when SIGCHLD comes, child by child and without reaping (`WNOWAIT`), for a
preloaded module may have children of its own. The kernel sends the same signal when the host has ended (PR_SET_PDEATHSIG), and
then our parent is another process. It also sends it when merely the *thread* that started us has: our parent is the same then.
Tests: tests/process/test_without_pidfds.py
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # unknown to typeshed; gevent replaces functions of `signal`
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from select import EPOLLIN, epoll  # names of our own, see `fork_server`
from typing import Protocol

from .._shared.descriptors import close_all, move_high
from .._shared.pidfd import open_pidfd

_PR_SET_PDEATHSIG = 1  # prctl(2)
_BELL_BYTES = 4096
Workers = Mapping[int, tuple[int, int, int]]  # by what names them: generation, pid, lifeline description


class DeathWatch(Protocol):
    """What the fork server asks."""

    def add(self, pid: int) -> tuple[int, int]:
        """Watch a child. What names it here, and what tells the host of its end: both the caller's, and perhaps the same.

        Raises:
            OSError: It cannot be watched; nothing is left open.
        """

    def ended(self, ready: set[int], workers: Workers) -> Iterable[int]:
        """Which of the workers have ended, when the epoll says that these descriptors are ready."""

    def drop(self, fd: int) -> None:
        """This worker has ended: tell whom it concerns. Before it is reaped, and its number another's."""

    def host_is_gone(self) -> bool:
        """Has the host ended? Asked when something has happened."""

    def leave(self) -> None:
        """In a worker, right after the fork."""


def open_watch(poll: epoll, host_pid: int) -> DeathWatch:
    """The watch that this system has the means for. `host_pid`: our parent, unless it has ended."""
    pidfd = open_pidfd(os.getpid())
    if pidfd < 0:
        return SignalWatch(poll, host_pid)
    os.close(pidfd)
    return PidfdWatch(poll)


class PidfdWatch:
    """By pidfds. The host's own is watched by the server itself."""

    def __init__(self, poll: epoll) -> None:
        self._epoll = poll

    def add(self, pid: int) -> tuple[int, int]:
        fd = os.pidfd_open(pid)
        try:
            self._epoll.register(fd, EPOLLIN)
        except BaseException:
            os.close(fd)
            raise
        return fd, fd

    def ended(self, ready: set[int], workers: Workers) -> Iterable[int]:
        return ready & workers.keys()

    def drop(self, fd: int) -> None:
        self._epoll.unregister(fd)

    def host_is_gone(self) -> bool:
        return False

    def leave(self) -> None:
        pass


class SignalWatch:
    """By SIGCHLD, see the module."""

    def __init__(self, poll: epoll, host_pid: int) -> None:
        self._host_pid = host_pid
        self._bell, self._rope = map(move_high, os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK))
        poll.register(self._bell, EPOLLIN)
        _signal.set_wakeup_fd(self._rope, warn_on_full_buffer=False)
        _have_end_of_parent_signalled(_signal.SIGCHLD)
        self._take_signal()

    def _take_signal(self) -> None:
        _signal.signal(_signal.SIGCHLD, lambda *_: None)
        os.write(self._rope, b"\0")  # look at once: we are told nothing of what happened before

    def add(self, pid: int) -> tuple[int, int]:
        self._take_signal()  # again: gevent's `os.fork`, where it is preloaded, takes it away
        read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        return write, read

    def ended(self, ready: set[int], workers: Workers) -> Iterable[int]:
        if self._bell not in ready:
            return ()
        os.read(self._bell, _BELL_BYTES)  # if more is there, it rings again
        return [fd for fd, (_, pid, _) in workers.items() if _has_ended(pid)]

    def drop(self, fd: int) -> None:
        # Not by the end of the file alone: a worker that was just forked may have a copy of this end for a moment.
        with suppress(BrokenPipeError):
            os.write(fd, b"\0")

    def host_is_gone(self) -> bool:
        return os.getppid() != self._host_pid

    def leave(self) -> None:
        _signal.set_wakeup_fd(-1)
        _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
        close_all([self._bell, self._rope])


def _has_ended(pid: int) -> bool:
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:  # a preloaded module reaped it
        return True


def _have_end_of_parent_signalled(number: int) -> None:
    import ctypes

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
