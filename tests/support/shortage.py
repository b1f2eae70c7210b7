"""Take descriptors, forks or watches away from a process, and give them back.

Runs in: the pytest process; the text of `FORK_FAILS` in the fork server.
"""

import errno
import itertools
import logging
import math
import os
import resource
import select
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


@contextmanager
def descriptors_left(count: int, pid: int = 0) -> Iterator[None]:
    """This process (or the one with this pid) can open so many more descriptors and no other."""
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    leave_descriptors(count, pid)
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)


def leave_descriptors(count: int, pid: int) -> None:
    """The same, and not given back."""
    _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (_free_number(pid or os.getpid(), count), hard))


def _free_number(pid: int, count: int) -> int:
    """The lowest number below which so many are free: `open` returns none from the limit on, whatever is open there."""
    used = {int(name) for name in os.listdir(f"/proc/{pid}/fd")}
    if pid == os.getpid():
        used -= {number for number in used if not os.path.exists(f"/proc/self/fd/{number}")}  # the listing's own
    free = (number for number in itertools.count() if number not in used)
    return next(itertools.islice(free, count, None))


class Warnings(logging.Handler):
    """What forkpool's logger says while this is entered."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self._said = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())
        self._said.set()

    def wait(self) -> None:
        """Until something is said; the alarm bounds it."""
        self._said.wait()

    def stop_waiting(self) -> None:
        """Nothing will be said: what was waited for went well."""
        self._said.set()

    def __enter__(self) -> "Warnings":
        logging.getLogger("forkpool").addHandler(self)
        return self

    def __exit__(self, *exc_info: object) -> None:
        logging.getLogger("forkpool").removeHandler(self)


class ForkFails:
    """Make `os.fork` fail in fork servers, from `fail` to `work_again`.

    RLIMIT_NPROC does not bind root, and not every machine lets us write a cgroup: a `sitecustomize` does it in the real server.
    """

    def __init__(self, folder: Path, number: int) -> None:
        self._folder, self._switch = folder, folder / "forks fail"
        (folder / "sitecustomize.py").write_text(FORK_FAILS.format(switch=str(self._switch), number=number))

    @property
    def env(self) -> dict[str, str]:
        return {"PYTHONPATH": os.pathsep.join(filter(None, [str(self._folder), os.environ.get("PYTHONPATH", "")]))}

    def fail(self) -> None:
        self._switch.touch()

    def work_again(self) -> None:
        self._switch.unlink()


FORK_FAILS = """
import os

fork = os.fork

def failing():
    if os.path.exists({switch!r}):
        raise OSError({number}, os.strerror({number}))
    return fork()

os.fork = failing
"""


class SendFails:
    """Make packets of fork servers fail: those with descriptors, or all, of the server with this pid.

    The kernel refuses descriptors (ETOOMANYREFS) only to who is not root, and the others when it has no memory.
    """

    def __init__(self, folder: Path, number: int, *, all_packets: bool) -> None:
        self._switch = folder / "sends fail"
        self.source = SEND_FAILS.format(switch=str(self._switch), number=number, all_packets=all_packets)

    def fail(self, pid: int) -> None:
        new = self._switch.with_suffix(".new")
        new.write_text(str(pid))
        new.rename(self._switch)

    def work_again(self) -> None:
        self._switch.unlink()


SEND_FAILS = """
import os
from forkpool._child import fork_server

send = fork_server.send_packet

def failing(sock, data, fds=(), flags=0):
    if (fds or {all_packets}) and os.path.exists({switch!r}) and open({switch!r}).read() == str(os.getpid()):
        raise OSError({number}, os.strerror({number}))
    send(sock, data, fds, flags)

fork_server.send_packet = failing
"""


class FullEpoll:
    """Let epoll refuse more watches than there is room for.

    The limit (/proc/sys/fs/epoll/max_user_watches) is one for the whole machine, so the call fails in this process instead.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, number: int = errno.ENOSPC) -> None:
        self.room: float = math.inf  # watches that can still be had
        real, outer = select.epoll, self

        class Epoll:
            def __init__(self) -> None:
                self._real = real()

            def register(self, fd: int, events: int) -> None:
                if outer.room < 1:
                    raise OSError(number, os.strerror(number))
                self._real.register(fd, events)
                outer.room -= 1

            def unregister(self, fd: int) -> None:
                self._real.unregister(fd)
                outer.room += 1

            def __getattr__(self, name: str) -> Any:
                return getattr(self._real, name)

        monkeypatch.setattr(select, "epoll", Epoll)
