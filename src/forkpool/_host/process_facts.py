"""What the kernel tells of a process, and how it is signalled: through its pidfd, never one that got the number later.

Runs in: host, any thread. Owns nothing. What is called a pidfd here may be what stands in for one, see `_shared.pidfd`.
Tests: tests/unit/test_worker_link.py, tests/process/test_diagnostics.py, tests/process/test_degraded.py
"""

from __future__ import annotations

import os
import signal
from typing import NamedTuple

from .._shared.own_proc import folder_of
from .ready import is_readable

_EXITING = 1 << 2  # PF_EXITING, linux/sched.h; among the flags of proc_pid_stat(5)


class Stat(NamedTuple):
    """From /proc/PID/stat."""

    name: str
    state: str  # a letter
    parent: int
    started: int  # ticks since boot: tells it from a later process of that number
    status: int  # as of waitpid(2), once it has ended; 0 also for who may not know it


def read_stat(pid: int) -> Stat | None:
    """None: there is no such process, no /proc of ours, or no descriptor for it."""
    try:
        name, fields = _read_fields(folder_of(pid))
    except OSError:
        return None
    return Stat(name, fields[0], int(fields[1]), int(fields[19]), int(fields[-1])) if fields else None


def is_exiting(pid: int) -> bool | None:
    """Has each of its threads begun to end, or ended? None: nobody can tell, or it is gone.

    Such a process has no descriptors, or loses them now, though its end may be told much later: the kernel first gives back
    what only this one had, half a second for a gigabyte of shared memory. One thread may end alone, the first one too.
    """
    try:
        folder = f"{folder_of(pid)}/task"
        return all(_is_thread_exiting(f"{folder}/{thread}") for thread in os.listdir(folder))
    except OSError:
        return None


def _is_thread_exiting(folder: str) -> bool:
    try:
        _, fields = _read_fields(folder)
    except (FileNotFoundError, ProcessLookupError):  # gone meanwhile
        return True
    return not fields or bool(int(fields[6]) & _EXITING)


def _read_fields(folder: str) -> tuple[str, list[str]]:
    """The name in a `stat`, and the fields behind it. No fields: no /proc of ours."""
    with open(f"{folder}/stat", encoding="utf-8", errors="replace") as file:
        head, _, tail = file.read().rpartition(")")
    return head.partition("(")[2], tail.split()


def has_open(pid: int, fd: int) -> bool | None:
    """Does the process have a descriptor of the pipe that we have open as `fd`? None: nobody can tell."""
    try:
        pipe = os.readlink(f"/proc/self/fd/{fd}")
        folder = f"{folder_of(pid)}/fd"  # links are read, not followed: a file system that is gone would keep us waiting
        return any(_target(f"{folder}/{name}") == pipe for name in os.listdir(folder))
    except OSError:
        return None


def leads_to(pid: int, number: int, fd: int) -> bool | None:
    """Is that descriptor of the process one of the pipe that we have open as `fd`? None: it has no such, or nobody can tell."""
    try:
        return os.readlink(f"{folder_of(pid)}/fd/{number}") == os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return None


def _target(link: str) -> str:
    try:
        return os.readlink(link)
    except OSError:  # closed meanwhile
        return ""


def has_ended(pidfd: int) -> bool:
    """Is the process gone, reaped or not?"""
    return is_readable(pidfd)


def send_signal(pidfd: int, pid: int, number: int) -> bool:
    """Signal it, if it is still there. False: this process may not, since it gave up its rights (kill(2), EPERM)."""
    try:
        signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        pass
    except (OSError, AttributeError):  # no such call, a seccomp filter, no pidfd: only while the process is known to be there
        return has_ended(pidfd) or _kill(pid, number)
    return True


def _kill(pid: int, number: int) -> bool:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass
    except PermissionError:
        return False
    return True
