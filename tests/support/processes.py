"""Facts about processes, read from the kernel: who lives, who belongs to this test, who has ended.

Runs in: the pytest process. Linux only (pidfd, /proc).
A process belongs to a test when its initial environment carries the mark of the test: this also finds
what was reparented to init. Children are found by their parent as well, which shows zombies (whose
environment is gone).
"""

import contextlib
import os
import select
import signal
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_pidfd_open = getattr(os, "pidfd_open", None)  # kept: tests take it away, and their workers never had it
MARK_VARIABLE = "FORKPOOL_TEST_MARK"
PATIENCE_S = 20.0


class StillThere(AssertionError):
    """A process outlived the alarm that a test set for its end."""


@dataclass(frozen=True, slots=True)
class Stat:
    pid: int
    name: str
    state: str
    parent: int
    group: int
    session: int


def new_mark() -> str:
    return uuid.uuid4().hex


def read_stat(pid: int) -> Stat | None:
    """The head of /proc/<pid>/stat; None when there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    head, _, tail = text.rpartition(")")
    state, parent, group, session = tail.split()[:4]
    return Stat(pid, head.partition("(")[2], state, int(parent), int(group), int(session))


def all_pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def children(pid: int | None = None) -> set[int]:
    """Direct children, zombies included."""
    parent = os.getpid() if pid is None else pid
    stats = (read_stat(one) for one in all_pids())
    return {stat.pid for stat in stats if stat is not None and stat.parent == parent}


def marked(mark: str | None = None) -> set[int]:
    """Living processes that were started by the test with this mark, this one apart."""
    return {pid for pid in all_pids() if pid != os.getpid() and is_marked(pid, mark)}


def is_marked(pid: int, mark: str | None = None) -> bool:
    """Whether this is a living process that was started by the test with this mark, or the test itself."""
    wanted = f"{MARK_VARIABLE}={mark or os.environ.get(MARK_VARIABLE)}".encode()
    return wanted in _environment(pid)


def _environment(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return []


def kill_marked(mark: str | None = None) -> None:
    for pid in marked(mark):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def has_ended(pid: int) -> bool:
    """Whether the process is gone or a zombie, without waiting."""
    stat = read_stat(pid)
    return stat is None or stat.state in "ZX"


def wait_exit(pid: int, patience_s: float = PATIENCE_S) -> None:
    """Return when the process has ended (it may still be a zombie)."""
    try:
        assert _pidfd_open is not None
        fd = _pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if not select.select([fd], [], [], patience_s)[0]:
            raise StillThere(f"still there after {patience_s} s:\n{describe([pid])}")
    finally:
        os.close(fd)


def wait_state(pid: int, states: str) -> None:
    """Return when the process is in one of these states (letters of /proc/<pid>/stat).

    The kernel has no event for it that a non-parent can wait for, so this one looks again and again, giving up the CPU
    in between; the alarm bounds it.
    """
    while (stat := read_stat(pid)) is not None and stat.state not in states:
        os.sched_yield()


def wait_fds(pid: int, most: int) -> None:
    """Return when the process has at most so many descriptors open.

    A worker may answer before its fork server and host have closed what the last one had, and they read files at times.
    Looks again and again, as above. A leak takes for ever, and the alarm tells it.
    """
    while len(os.listdir(f"/proc/{pid}/fd")) > most:
        os.sched_yield()


def times_asleep(pid: int) -> int:
    """How often the main thread of the process has gone to sleep so far."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith("voluntary_ctxt_switches"))
    return int(line.split()[1])


def wait_none_marked(mark: str | None = None, patience_s: float = PATIENCE_S) -> None:
    """Return when no process of the test lives; children that they start meanwhile count too."""
    while left := {pid for pid in marked(mark) if not has_ended(pid)}:
        for pid in left:
            wait_exit(pid, patience_s)


def describe(pids: Iterable[int]) -> str:
    """One line per process, for a failure message."""
    return "\n".join(filter(None, (_line(pid) for pid in sorted(pids)))) or "(none)"


def _line(pid: int) -> str:
    stat = read_stat(pid)
    if stat is None:
        return ""
    command = _text(f"/proc/{pid}/cmdline").replace("\0", " ")[:80]
    where = _text(f"/proc/{pid}/wchan")
    return f"{stat} waits in {where or '?'}: {command}"


def _text(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""
