"""Claim CPUs, so that no other pool of this user binds workers to them.

Runs in: host; the thread that starts the supervisor takes claims, the supervisor gives them back. Owns one descriptor.
A claim is an open-file-description lock (fcntl(2), F_OFD_SETLK) on one byte of /dev/zero. Its place in the "file" is made of
CPU and user, so each user may claim each CPU once, and sees who else did. The kernel drops it with the last descriptor of the
description, however the owner ends. Nothing is created, so nothing can be left behind, squatted on or cleaned away.
Who does not share the device node (most containers have their own) is not seen: FORKPOOL_CPU_CLAIMS names another file.

Hard part: two pools that choose at the same time. There is no lock to wait for, since its holder may be stopped: each looks,
chooses, and takes its CPUs in ascending order; who finds one taken meanwhile gives back what it took, and looks again.
A fork of the host inherits the descriptor: it closes it (`close_in_fork`), and the owner unlocks before it closes.
Tests: tests/unit/test_cpu_claims.py, tests/process/test_pinning.py
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
from collections.abc import Collection, Iterator

from .._shared.own_proc import numbers_as_we_do

PATH_VARIABLE = "FORKPOOL_CPU_CLAIMS"
_DEFAULT_PATH = "/dev/zero"
_FLOCK = "hhqqi0q"  # struct flock: l_type, l_whence, l_start, l_len, l_pid; the last item pads it to the kernel's size
_USERS = 1 << 32  # user ids have 32 bits
_TAKEN = (errno.EAGAIN, errno.EACCES)


class CpuClaims:
    """The claims of one pool."""

    def __init__(self) -> None:
        self.path = os.environ.get(PATH_VARIABLE) or _DEFAULT_PATH
        self.fd = -1  # ours; -1: nothing is claimed

    def open(self) -> None:
        """Take what `look` and `take` need.

        Raises:
            OSError: There is no such file, it is not for us to write, or no descriptor is left.
        """
        # O_NONBLOCK: a FIFO by that name must not stop us.
        self.fd = os.open(self.path, os.O_RDWR | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK)

    def look(self, cpus: Collection[int]) -> tuple[set[int], set[int]]:
        """Which of these CPUs other pools have claimed: those of this user, those of others.

        Raises:
            OSError: The file system knows no such locks.
        """
        taken = {cpu for cpu in cpus if self._is_locked(_place(cpu), 1)}
        return taken, {cpu for cpu in cpus if cpu not in taken and self._is_locked(cpu * _USERS, _USERS)}

    def take(self, cpus: Collection[int]) -> bool:
        """Claim all of these or, if another pool has one of them, none.

        Raises:
            OSError: As `look`.
        """
        done: list[int] = []
        for cpu in sorted(cpus):
            if not self._try_lock(cpu):
                self._unlock(done)
                return False
            done.append(cpu)
        return True

    def take_free(self, cpus: Collection[int]) -> None:
        """Claim those of these that nobody has.

        Raises:
            OSError: As `look`.
        """
        for cpu in sorted(cpus):
            self._try_lock(cpu)

    def holders(self, cpus: Collection[int]) -> dict[int, int]:
        """Pids of the processes of this user that hold claims on these CPUs, by CPU, as far as /proc shows them.

        Looks through every process: for error messages and diagnosis only.
        """
        places = {_place(cpu): cpu for cpu in cpus}
        return {places[start]: pid for pid, start in _locks_of_all(self.path) if start in places}

    def close(self) -> None:
        """Give the claims back."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            with contextlib.suppress(OSError):
                fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _lock(fcntl.F_UNLCK, 0, 0))
            os.close(fd)

    def close_in_fork(self) -> None:
        """In a fork of the host: the claims stay the host's."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def _is_locked(self, start: int, length: int) -> bool:
        answer = fcntl.fcntl(self.fd, fcntl.F_OFD_GETLK, _lock(fcntl.F_WRLCK, start, length))
        return bool(struct.unpack(_FLOCK, answer)[0] != fcntl.F_UNLCK)

    def _try_lock(self, cpu: int) -> bool:
        try:
            fcntl.fcntl(self.fd, fcntl.F_OFD_SETLK, _lock(fcntl.F_WRLCK, _place(cpu), 1))
        except OSError as error:
            if error.errno not in _TAKEN:
                raise
            return False
        return True

    def _unlock(self, cpus: Collection[int]) -> None:
        for cpu in cpus:
            fcntl.fcntl(self.fd, fcntl.F_OFD_SETLK, _lock(fcntl.F_UNLCK, _place(cpu), 1))


def _place(cpu: int) -> int:
    return cpu * _USERS + os.getuid()


def _lock(kind: int, start: int, length: int) -> bytes:
    """A `struct flock`; a length of 0 reaches to the end."""
    return struct.pack(_FLOCK, kind, os.SEEK_SET, start, length, 0)


def _locks_of_all(path: str) -> Iterator[tuple[int, int]]:
    """Pid and place of each lock on this file. F_OFD_GETLK does not tell the pid: a description has no owner."""
    try:
        status = os.stat(path)
        pids = [int(name) for name in os.listdir("/proc") if name.isdigit()] if numbers_as_we_do() else []
    except OSError:
        return
    file = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    for pid in pids:
        for line in _lock_lines(pid):
            words = line.split()  # lock: 1: OFDLCK ADVISORY WRITE -1 00:06:4 12884902888 12884902888
            if len(words) == 9 and words[6] == file and words[7].isdigit():
                yield pid, int(words[7])


def _lock_lines(pid: int) -> Iterator[str]:
    folder = f"/proc/{pid}/fdinfo"
    with contextlib.suppress(OSError):  # another user's, or gone meanwhile
        for name in os.listdir(folder):
            with contextlib.suppress(OSError), open(f"{folder}/{name}", encoding="utf-8") as file:
                yield from (line for line in file if line.startswith("lock:"))
