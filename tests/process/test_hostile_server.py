"""A fork server in which a preloaded module writes to forkpool's socket, as long as it is there: the pool starts another.

Row "a preloaded module writes to our descriptors".
"""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from forkpool import ForkPoolExecutor, PoolBrokenError
from forkpool._core.control import Report, Tell, pack_report
from tests.support import tasks
from tests.support.gate import Gate

Write = Callable[[str, str], Path]

SCRIBBLE = """
import os, socket

def sockets():
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{{name}}")
        except OSError:
            continue
        if target.startswith("socket:"):
            yield int(name)

def scribble():
    for fd in sockets():
        os.write(fd, {data!r})

{when}
"""
NOW = "scribble()"
AT_THE_SECOND_FORK = """
fork, forks = os.fork, []

def once():
    forks.append(1)
    if len(forks) == 2 and not os.path.exists({mark!r}):
        open({mark!r}, "w").close()
        scribble()
    return fork()

os.fork = once
"""
LATE = {
    "text": b"garbage",
    "cut": pack_report(Report(Tell.EXITED, 1))[:20],
    "long": b"x" * 100_000,
    "HELLO": pack_report(Report(Tell.HELLO)),
    "SPAWNED again": pack_report(Report(Tell.SPAWNED, 1, pid=1)),
    "SPAWNED for nobody": pack_report(Report(Tell.SPAWNED, 99, pid=4711)),
    "SPAWNED as 0": pack_report(Report(Tell.SPAWNED, 2, pid=0)),
    "SPAWN_FAILED of a living one": pack_report(Report(Tell.SPAWN_FAILED, 1, text="no")),
    "EXITED of a living one": pack_report(Report(Tell.EXITED, 1)),
    "EXITED of an unborn one": pack_report(Report(Tell.EXITED, 2, status=9)),
    "EXITED somehow": pack_report(Report(Tell.EXITED, 99, status=1 << 40)),
}


@pytest.mark.parametrize("data", LATE.values(), ids=LATE.keys())
def test_nonsense_costs_the_server_and_no_future(data: bytes, write: Write, tmp_path: Path, gate: Gate) -> None:
    """Most of these ended the supervisor with an internal error; one was believed, and a living worker's task was lost."""
    when = AT_THE_SECOND_FORK.format(mark=str(tmp_path / "mark"))
    write("scribbles", SCRIBBLE.format(data=data, when=when))
    with ForkPoolExecutor(2, preload=["scribbles"]) as ex:
        innocent = ex.submit(tasks.enter_then, gate, os.getppid)
        gate.wait_inside()
        others = [ex.submit(tasks.enter_then, gate, os.getppid) for _ in range(2)]
        gate.wait_inside()
        gate.open_for_all()
        orphaned, server, _ = innocent.result(), others[0].result(), others[1].result()
        assert orphaned != server
        assert ex.submit(tasks.add, 1, 1).result() == 2


def test_nonsense_from_the_start_breaks_the_pool_with_the_reason(write: Write) -> None:
    write("scribbles", SCRIBBLE.format(data=b"garbage", when=NOW))
    with ForkPoolExecutor(1, preload=["scribbles"]) as ex, pytest.raises(PoolBrokenError, match="malformed message"):
        ex.submit(tasks.add, 1, 1).result()
