"""Try what forkpool asks of the kernel, one thing after the other.

Runs in: host, for `forkpool doctor`. Each is really done, on descriptors of its own: a version number says nothing about a
container's seccomp filter. Nothing is left behind, no process is started.
Tests: tests/unit/test_kernel_means.py
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .._shared.own_proc import numbers_as_we_do

_WITHOUT_PROC = "limits of control groups, hints at the OOM killer, memory_limit, tracking of shared memory that tasks make"
_PACKETS = (b"one", b"two")


@dataclass(frozen=True, slots=True)
class Means:
    """One thing that the kernel can, or cannot."""

    name: str
    present: bool
    needed: bool  # no pool without it
    purpose: str  # what it is for; of one that is not needed: what is missing without it
    why: str | None  # why it is not there, as the system says it


def try_all(root: str = "/") -> tuple[Means, ...]:
    """Try everything.

    Args:
        root: Where /proc is looked for; tests have their own.
    """
    return tuple(_try(name, needed, purpose, trial) for name, needed, purpose, trial in _trials(root))


def _trials(root: str) -> Iterator[tuple[str, bool, str, Callable[[contextlib.ExitStack], None]]]:
    yield "memfd", True, "status pages of workers", _memfd
    yield "packet pipes", True, "tasks that are taken whole or not at all", _packet_pipe
    yield "eventfd", True, "to wake the supervisor thread", _eventfd
    yield "F_SETSIG lifeline", True, "nobody outlives a host that was killed", _lifeline
    yield "pidfd", False, "tasks that go on when their fork server is killed (Linux 5.3)", _pidfd
    yield "/proc", False, _WITHOUT_PROC, lambda stack: _proc(root)
    yield "PIDFD_GET_INFO", False, "the exit status of a worker whose fork server was killed (Linux 6.15)", _pidfd_info
    yield "pidfd group signal", False, "to kill the process group of a worker that is gone (Linux 6.9)", _group_signal
    yield "OFD locks", False, "claims on CPUs: without them pin=True is an error, and pin='auto' binds nothing", _ofd_locks


def _try(name: str, needed: bool, purpose: str, trial: Callable[[contextlib.ExitStack], None]) -> Means:
    try:
        with contextlib.ExitStack() as stack:
            trial(stack)
    except (OSError, AttributeError, ImportError) as error:
        return Means(name, False, needed, purpose, str(error) or type(error).__name__)
    return Means(name, True, needed, purpose, None)


def _owned(stack: contextlib.ExitStack, *fds: int) -> tuple[int, ...]:
    for fd in fds:
        stack.callback(os.close, fd)
    return fds


def _pidfd(stack: contextlib.ExitStack) -> None:
    import signal

    (fd,) = _owned(stack, os.pidfd_open(os.getpid()))
    signal.pidfd_send_signal(fd, 0)  # signal 0 is none: it only asks for permission


def _memfd(stack: contextlib.ExitStack) -> None:
    import mmap

    (fd,) = _owned(stack, os.memfd_create("forkpool-doctor", os.MFD_CLOEXEC))
    os.ftruncate(fd, mmap.PAGESIZE)
    mmap.mmap(fd, mmap.PAGESIZE).close()


def _packet_pipe(stack: contextlib.ExitStack) -> None:
    read, write = _owned(stack, *os.pipe2(os.O_CLOEXEC | os.O_DIRECT | os.O_NONBLOCK))
    for packet in _PACKETS:
        os.write(write, packet)
    if os.read(read, 4096) != _PACKETS[0]:
        raise OSError("a pipe with O_DIRECT does not keep packets apart")


def _eventfd(stack: contextlib.ExitStack) -> None:
    (fd,) = _owned(stack, os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK))
    os.eventfd_write(fd, 1)
    os.eventfd_read(fd)


def _lifeline(stack: contextlib.ExitStack) -> None:
    import fcntl
    import signal

    read, _ = _owned(stack, *os.pipe2(os.O_CLOEXEC))
    # SIGURG, and nobody arms it (O_ASYNC): this process is not to get anything.
    fcntl.fcntl(read, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(read, fcntl.F_SETSIG, signal.SIGURG)
    if fcntl.fcntl(read, fcntl.F_GETSIG) != signal.SIGURG:
        raise OSError("F_SETSIG has no effect")


def _proc(root: str) -> None:
    os.stat(os.path.join(root, "proc/self/fd"))
    if not numbers_as_we_do(root):
        raise OSError("it shows the processes of another pid namespace: mount one of this namespace (`unshare --mount-proc`)")


def _pidfd_info(stack: contextlib.ExitStack) -> None:
    from .exit_status import ask_kernel

    (fd,) = _owned(stack, os.pidfd_open(os.getpid()))
    ask_kernel(fd)


def _group_signal(stack: contextlib.ExitStack) -> None:
    import signal

    from .worker_link import SIGNAL_GROUP

    (fd,) = _owned(stack, os.pidfd_open(os.getpid()))
    with contextlib.suppress(ProcessLookupError):  # we lead no group; a kernel that does not know the flag says EINVAL
        signal.pidfd_send_signal(fd, 0, None, SIGNAL_GROUP)


def _ofd_locks(stack: contextlib.ExitStack) -> None:
    from .cpu_claims import CpuClaims

    if not sys.platform.startswith("linux"):
        raise OSError("this is not Linux")
    claims = CpuClaims()
    stack.callback(claims.close)
    claims.open()
    claims.look((0,))
