"""A descriptor that tells when a process has ended: its pidfd, or what stands in for one.

Runs in: host and fork server. Owns nothing.
Kernels before Linux 5.3 know no pidfds, nor does a Python that was built for such a one, and a seccomp filter may forbid them.
Then the fork server makes a pipe for each worker, and writes into it when that worker has ended: the reading end takes the
pidfd's place. Whoever polls it sees no difference. But it also tells when the fork server ends, and no signal goes through it.
Tests: tests/unit/test_pidfd.py, tests/process/test_without_pidfds.py
"""

from __future__ import annotations

import errno
import os
import stat


def open_pidfd(pid: int) -> int:
    """A pidfd; -1: this system has none.

    Raises:
        OSError: There is no such process, or no room for another descriptor.
    """
    try:
        return os.pidfd_open(pid)
    except AttributeError:  # this Python was built for a kernel that had none
        return -1
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.EPERM):
            raise
        return -1


def is_stand_in(fd: int) -> bool:
    """Is this a pipe in place of a pidfd?"""
    return stat.S_ISFIFO(os.fstat(fd).st_mode)
