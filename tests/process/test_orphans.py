"""No orphan outlives the host either: its fork server was killed, and it has closed every descriptor, the lifeline's too.

Row "the host is killed (SIGKILL)". A host that lives kills such a worker within a moment, for its channel is closed; these
hosts have much patience. tests/process/test_lifeline.py has all other cases.
"""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from forkpool import ForkPoolExecutor
from forkpool._host.pool_lines import PoolLines
from tests.support import processes, tasks
from tests.support.gate import Gate
from tests.support.script import Script

Start = Callable[..., Script]

PROGRAM = """
import forkpool, signal
from forkpool._host import crew
from tests.support import tasks
from tests.support.gate import GateInTask
gate = GateInTask(sys.argv[1], sys.argv[2])
ending = GateInTask(sys.argv[3], sys.argv[4])
what, how, descriptors, servers = sys.argv[5:]
crew._DEATH_WAIT_S = 1000.0

def close_fds_and_be_busy():
    gate.enter()
    os.closerange(0, 1 << 20)
    tasks.busy_in_python()

def become_another():
    gate.enter()
    os.execv("/bin/sleep", ["sleep", "1000"])

TASKS = {"closed fds": close_fds_and_be_busy, "exec": become_another}
if descriptors == "many descriptors":  # and few free numbers below them
    many = [os.open(os.devnull, os.O_RDONLY) for _ in range(200)]
ex = forkpool.ForkPoolExecutor(3)
ex.submit(TASKS[what])
ending.enter()
for _ in range(int(servers)):  # when a worker was forked by the next server, we know that the last one is dead
    ex.submit(tasks.tell_then, ending, tasks.busy_in_python)
    ending.wait_go()
ending.wait_go()
tasks.end_as(how)
"""


@pytest.fixture
def ending(tmp_path: Path, nothing_is_left: None) -> Iterator[Gate]:
    """Where the program waits to be told to end."""
    gate = Gate(tmp_path, "ending")
    yield gate
    gate.close()


def has_descriptors(pid: int) -> bool:
    """Any but the standard ones."""
    return any(int(name) > 2 for name in os.listdir(f"/proc/{pid}/fd"))


def kill_server_of(pid: int) -> None:
    stat = processes.read_stat(pid)
    assert stat is not None
    os.kill(stat.parent, signal.SIGKILL)
    processes.wait_exit(stat.parent)


CASES = [(what, how, "few descriptors", "1") for what in ("closed fds", "exec") for how in ("SIGKILL", "os._exit", "execv")] + [
    ("closed fds", "SIGKILL", "many descriptors", "1"),
    ("closed fds", "SIGKILL", "few descriptors", "2"),
]


@pytest.mark.parametrize(("what", "how", "descriptors", "servers"), CASES)
def test_no_orphan_outlives_the_host(
    start: Start, gate: Gate, ending: Gate, what: str, how: str, descriptors: str, servers: str
) -> None:
    arguments = [gate.inside_path, gate.go_path, ending.inside_path, ending.go_path, what, how, descriptors, servers]
    script = start(PROGRAM, args=arguments)
    orphan = worker = gate.wait_inside()
    assert ending.wait_inside() == script.pid
    kill_server_of(orphan)
    ending.release()
    for number in range(int(servers)):
        if number:
            kill_server_of(worker)
            ending.release()
        worker = ending.wait_inside()
    gate.release()
    while processes.read_stat(orphan) is not None and has_descriptors(orphan):  # the kernel has no event for it
        os.sched_yield()
    ending.release(2)
    script.finish(status=None)
    processes.wait_none_marked()


# --- the descriptors that it takes


def open_fds() -> set[int]:
    return {int(name) for name in os.listdir("/proc/self/fd")}


def test_an_orphan_costs_the_host_two_descriptors_more_until_it_is_gone(gate: Gate) -> None:
    with ForkPoolExecutor(2) as ex, contextlib.ExitStack() as stack:
        stack.callback(gate.open_for_all)
        first = ex.submit(tasks.enter, gate)
        orphan = gate.wait_inside()
        ex.submit(tasks.pid).result()
        before = len(open_fds())
        kill_server_of(orphan)
        other = ex.submit(tasks.enter, gate)
        gate.wait_inside()
        while len(open_fds()) < before:  # the killed server's socket and pidfd are given back first
            os.sched_yield()
        os.kill(orphan, signal.SIGKILL)
        assert first.exception() is not None
        assert ex.submit(tasks.pid).result() > 0
        stack.close()
        other.result()


@pytest.mark.parametrize("taken", [0, 50])
def test_one_lies_below_and_one_above_the_write_end_whatever_numbers_are_free(taken: int) -> None:
    # Before the pipes are made: a child closes what it inherits a moment after posix_spawn has returned.
    child, other = (os.posix_spawn("/bin/sleep", ["sleep", "1000"], {}, setsid=True) for _ in range(2))
    lines = PoolLines()
    before = open_fds()
    null = [os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC) for _ in range(taken)]
    for pid in (child, other, child):
        lines.guard(pid)
        assert all(low < lines.write_fd < high for low, high in lines.guards.values())
    assert len(open_fds()) == len(before) + taken + 4
    for pid in (child, other, child):
        lines.unguard(pid)
    for fd in null:
        os.close(fd)
    assert len(open_fds()) == len(before)
    lines.guard(child)
    lines.close()
    processes.wait_exit(child)
    os.kill(other, signal.SIGTERM)
    ended = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in (child, other)]
    assert ended == [-signal.SIGKILL, -signal.SIGTERM], "the second one was given up"


@pytest.mark.parametrize("taken", [0, 50])
def test_a_number_that_is_closed_is_listed_no_more(taken: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a fork of the host that comes at that moment closes it in the child, whoever has got it by then."""
    pids = [os.posix_spawn("/bin/sleep", ["sleep", "1000"], {}, setsid=True) for _ in range(3)]
    lines, close, listed = PoolLines(), os.close, []

    def look_and_close(fd: int) -> None:
        listed.extend([fd] if fd in lines.fds else [])
        close(fd)

    null = [os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC) for _ in range(taken)]
    monkeypatch.setattr(os, "close", look_and_close)
    for pid in pids:
        lines.guard(pid)
    lines.unguard(pids[0])
    lines.cut()
    monkeypatch.undo()
    assert listed == []
    lines.close()
    for fd in null:
        os.close(fd)
    os.kill(pids[0], signal.SIGKILL)
    for pid in pids:
        os.waitpid(pid, 0)
