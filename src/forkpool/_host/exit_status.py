"""Find out how a worker ended when its fork server is not there to tell.

Runs in: host, supervisor thread.
Three sources, all exact. A host that is PID 1 or a subreaper inherits the orphans: it waits for this one. As long as nobody has
waited for it, /proc/PID/stat has its status (proc(5), exit_code). Since Linux 6.15 the kernel keeps the status of a reaped
process for whoever holds its pidfd (PIDFD_GET_INFO, ioctl_pidfd). Else it is unknown.
Tests: tests/unit/test_exit_status.py, tests/process/test_fork_server.py
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import struct
import sys

from .process_facts import read_stat

_INFO_SIZE = 64  # PIDFD_INFO_SIZE_VER0
_GET_INFO = 0xC000FF0B | (_INFO_SIZE << 16)  # _IOWR(0xFF, 11, struct pidfd_info)
_INFO_EXIT = 1 << 3
_EXIT_CODE_OFFSET = 60
_REAP_WAIT_MS = 100  # init reaps an orphan at once; a busy one may not, and then the status stays unknown


def orphan_status(pidfd: int, pid: int) -> int | None:
    """The wait status of a process that has ended, or None."""
    status = reap(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
    if status is None:
        status = _of_zombie(pidfd, pid)
    return status if status is not None else _kept_by_kernel(pidfd)


def reap(kind: int, number: int, options: int) -> int | None:
    """The wait status of a child of ours that has ended; None: it is none, or has not. Arguments as of waitid(2)."""
    try:
        result = os.waitid(kind, number, options)
    except OSError:
        return None
    if result is None:
        return None
    if result.si_code == os.CLD_EXITED:
        return result.si_status << 8
    return result.si_status | (0x80 if result.si_code == os.CLD_DUMPED else 0)


def _of_zombie(pidfd: int, pid: int) -> int | None:
    stat = read_stat(pid)
    try:
        signal.pidfd_send_signal(pidfd, 0)  # nobody has waited for it yet, so the number was its own
    except OSError:
        return None
    return (stat.status or None) if stat is not None and stat.state == "Z" else None


def _kept_by_kernel(pidfd: int) -> int | None:
    poll = select.poll()
    poll.register(pidfd, 0)  # POLLHUP: it was reaped
    with contextlib.suppress(OSError):  # RLIMIT_NOFILE is 0
        poll.poll(_REAP_WAIT_MS)
    try:
        return ask_kernel(pidfd)
    except OSError:
        return None


def ask_kernel(pidfd: int) -> int | None:
    """The wait status of a process that was reaped; None: it was not. Raises OSError where the kernel cannot be asked."""
    info = bytearray(_INFO_SIZE)
    struct.pack_into("=Q", info, 0, _INFO_EXIT)
    fcntl.ioctl(pidfd, _GET_INFO, info)
    (mask,) = struct.unpack_from("=Q", info, 0)
    if not mask & _INFO_EXIT:
        return None
    return int.from_bytes(info[_EXIT_CODE_OFFSET : _EXIT_CODE_OFFSET + 4], sys.byteorder)
