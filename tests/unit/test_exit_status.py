"""How a process ended that is nobody's child here."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from forkpool._host.exit_status import orphan_status
from tests.support import processes


@contextmanager
def grandchild(status: int) -> Iterator[int]:
    """The pid of a process that has ended so, as a wait status, and whose parent has not waited for it."""
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        pid = os.fork()
        if pid == 0:
            if os.WIFSIGNALED(status):
                os.kill(os.getpid(), os.WTERMSIG(status))
            os._exit(os.WEXITSTATUS(status))
        os.write(tell, b"%d" % pid)
        signal.pause()
        os._exit(0)
    try:
        pid = int(os.read(told, 20))
        processes.wait_state(pid, "Z")
        yield pid
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(told)
        os.close(tell)


@pytest.mark.parametrize("status", [7 << 8, signal.SIGKILL, signal.SIGTERM])
def test_one_that_nobody_has_waited_for(status: int) -> None:
    with grandchild(status) as pid:
        pidfd = os.pidfd_open(pid)
        assert orphan_status(pidfd, pid) == status
        os.close(pidfd)


def test_another_process_that_has_its_number_now_is_not_asked() -> None:
    """The pidfd is of one that was waited for; its number belongs to a zombie."""
    ended = os.fork()
    if ended == 0:
        os._exit(0)
    pidfd = os.pidfd_open(ended)
    os.waitpid(ended, 0)
    with grandchild(7 << 8) as pid:
        assert orphan_status(pidfd, pid) in (0, None)  # 0: of the right one, since Linux 6.15
    os.close(pidfd)
