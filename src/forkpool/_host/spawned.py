"""Start a process by exec, without a moment in which another thread's fork could make us wait.

Runs in: host, supervisor thread.
`subprocess.Popen` waits for the end of a pipe that its child closes by exec. A thread of the host that forks at that moment
(multiprocessing's and pebble's pools do) gives the pipe to its child, and Popen waits until that one ends: seen, a first call
that hung for as long. posix_spawn(3) has no such pipe. It cannot close what the program has made inheritable, if the number is
beyond the present limit: the child does that first of all (`inheritable`).
Tests: tests/process/test_fork_server.py, tests/process/test_shortage.py
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping

_STANDARD = 3  # descriptors below this are stdin, stdout, stderr


class SpawnedProcess:
    """A child in a session of its own, with the null device as stdin and our stdout and stderr."""

    def __init__(self, command: list[str], environ: Mapping[str, str], fds: tuple[int, ...]) -> None:
        """Start it.

        Args:
            command: Path of the program, and its arguments.
            fds: Descriptors that it gets, under the same numbers.
        Raises:
            OSError: There is no such program, or no process or memory to be had.
        """
        self.exitcode: int | None = None  # as subprocess counts it; None before `wait`, and if somebody else reaped it
        self.is_reaped = False  # by `wait`
        actions: list[tuple[object, ...]] = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)]
        actions += [(os.POSIX_SPAWN_DUP2, fd, fd) for fd in fds]  # onto itself: clears close-on-exec
        self.pid = os.posix_spawn(
            command[0],
            command,
            environ,
            file_actions=actions,
            setsid=True,
            setsigmask=(),
            setsigdef=(signal.SIGPIPE, signal.SIGXFSZ),  # which CPython ignores
        )

    def kill(self) -> bool:
        """SIGKILL it, without a pidfd: as long as it is our child, the number is its own. False: we may not."""
        try:
            if self.is_reaped or os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                return True
            os.kill(self.pid, signal.SIGKILL)
        except (ChildProcessError, ProcessLookupError):  # it has ended, and somebody else reaped it
            return True
        except PermissionError:
            return False
        return True

    def wait(self) -> None:
        """Reap it. Blocks until it has ended."""
        if self.is_reaped:
            return
        self.is_reaped = True
        try:
            _, status = os.waitpid(self.pid, 0)
        except ChildProcessError:  # a waitpid(-1) elsewhere in the program, or SIGCHLD is ignored
            return
        self.exitcode = os.waitstatus_to_exitcode(status)


def inheritable() -> Iterator[int]:
    """Descriptors of ours that an exec keeps, but for stdin, stdout and stderr: not meant for the child."""
    try:
        numbers = [int(name) for name in os.listdir("/proc/self/fd")]
    except OSError:  # no /proc: the child keeps what the program has made inheritable
        return
    for fd in numbers:
        try:
            if fd >= _STANDARD and os.get_inheritable(fd):
                yield fd
        except OSError:  # the listing's own
            continue
