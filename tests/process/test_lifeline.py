"""Nobody outlives the host: {what the worker does} x {server alive, killed first} x {how the host ends}.

Failure table: "host killed (SIGKILL)", "host ends by SIGTERM, SIGHUP, os._exit, execv, segfault".
The wait for the end is for a fact, bounded by an alarm that is far above what the kernel needs.
"""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import processes
from tests.support.gate import Gate
from tests.support.script import Script

Start = Callable[..., Script]

PROGRAM = """
import forkpool, signal, time
from tests.support import tasks
from tests.support.gate import GateInTask
gate = GateInTask(sys.argv[1], sys.argv[2])
ending = GateInTask(sys.argv[3], sys.argv[4])
what, how = sys.argv[5:]

def close_fds_and_be_busy():
    gate.tell()
    os.closerange(0, 1 << 20)
    tasks.busy_in_python()

def daemon_thread():
    import threading
    threading.Thread(target=tasks.busy_in_python, daemon=True).start()
    gate.tell()
    threading.Event().wait()

TASKS = {
    "idle": lambda: gate.tell(),
    "waits": lambda: gate.enter(),
    "busy in C": lambda: (gate.tell(), tasks.busy_in_c()),
    "stopped": lambda: (gate.tell(), tasks.stop_myself()),
    "closed fds": close_fds_and_be_busy,
    "own child": lambda: tasks.start_child(gate),
    "thread": daemon_thread,
}
ex = forkpool.ForkPoolExecutor(1)
future = ex.submit(TASKS[what])
ending.enter()
tasks.end_as(how)
if how == "SIGKILL with a fork child":
    if os.fork() == 0:
        ending.tell(os.getpid())
        gate.wait_go()
        os._exit(0)
    ending.wait_go()
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def ending(tmp_path: Path, nothing_is_left: None) -> Iterator[Gate]:
    """Where the program waits to be told to end."""
    gate = Gate(tmp_path, "ending")
    yield gate
    gate.close()


WHATS = ["idle", "waits", "busy in C", "stopped", "closed fds", "own child", "thread"]
HOWS = ["SIGKILL", "os._exit", "execv", "SIGKILL with a fork child"]
SERVERS = ["server alive", "server killed"]
# Left out: the host that hears of its server's death arms the lifeline of a worker that closed every descriptor, which takes
# it a moment; one that ends in that moment does not. The failure table says so; test_orphans.py has those that end later.
CELLS = [(what, server) for what in WHATS for server in SERVERS if (what, server) != ("closed fds", "server killed")]


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize(("what", "server"), CELLS)
def test_nobody_outlives_the_host(start: Start, gate: Gate, ending: Gate, what: str, server: str, how: str) -> None:
    script = start(PROGRAM, args=[gate.inside_path, gate.go_path, ending.inside_path, ending.go_path, what, how])
    seen = gate.wait_inside()
    assert ending.wait_inside() == script.pid
    if what == "stopped":
        processes.wait_state(seen, "T")
    if server == "server killed":
        kill_server(seen)
    ending.release()
    if how == "SIGKILL with a fork child":
        child = ending.wait_inside()
        ending.release()
        processes.wait_exit(script.pid)
        wait_all_but(child)
        gate.open_for_all()
        processes.wait_exit(child)
    script.finish(status=None)
    processes.wait_none_marked()


@pytest.mark.parametrize("server", SERVERS)
def test_no_shared_memory_outlives_the_host(start: Start, gate: Gate, ending: Gate, server: str) -> None:
    """Neither ours, of which nothing has a name, nor what a task has made and nobody unlinked."""
    script = start(
        """
import forkpool
from tests.support import tasks
from tests.support.gate import GateInTask
gate, ending = GateInTask(*sys.argv[1:3]), GateInTask(*sys.argv[3:5])
def make():
    from multiprocessing.shared_memory import SharedMemory
    memory = SharedMemory(create=True, size=64)
    memory.close()
    return memory.name
ex = forkpool.ForkPoolExecutor(1)
mark("name", ex.submit(make).result())
future = ex.submit(gate.enter)
ending.enter()
tasks.end_as("SIGKILL")
""",
        args=[gate.inside_path, gate.go_path, ending.inside_path, ending.go_path],
    )
    name, worker = script.wait_mark("name"), gate.wait_inside()
    ending.wait_inside()
    assert name in os.listdir("/dev/shm")
    if server == "server killed":
        kill_server(worker)
    ending.release()
    script.finish(status=-signal.SIGKILL)  # to the end of the resource tracker too, which has the program's output
    processes.wait_none_marked()
    assert name not in os.listdir("/dev/shm")


def kill_server(pid: int) -> None:
    """The server is the ancestor of this worker, or of its child, that leads its own session and is no worker."""
    host = {stat.pid for stat in map(processes.read_stat, processes.marked()) if stat and stat.parent == os.getpid()}
    stat = processes.read_stat(pid)
    while stat is not None and stat.parent not in host:
        stat = processes.read_stat(stat.parent)
    assert stat is not None
    os.kill(stat.pid, signal.SIGKILL)
    processes.wait_exit(stat.pid)


def wait_all_but(child: int) -> None:
    while left := {pid for pid in processes.marked() if pid != child and not processes.has_ended(pid)}:
        for pid in left:
            processes.wait_exit(pid)


# --- fork servers that are stopped

STOPPED_SERVER = """
import forkpool.diagnostics, signal
from tests.support import processes, tasks
from tests.support.gate import GateInTask
gate = GateInTask(sys.argv[1], sys.argv[2])
ending = GateInTask(sys.argv[3], sys.argv[4])
when, how = sys.argv[5:]

def stop(pid):
    os.kill(pid, signal.SIGSTOP)
    processes.wait_state(pid, "T")

spawn = os.posix_spawn
def spawn_and_stop(*args, **more):
    pid = spawn(*args, **more)
    stop(pid)
    return pid

ex = forkpool.ForkPoolExecutor(2)
if when == "before it is ready":
    os.posix_spawn = spawn_and_stop
    ex.submit(abs, 1)
    forkpool.diagnostics.snapshot(ex)  # by the supervisor, when it has started the server
else:
    old = ex.submit(os.getppid).result()
    ex.submit(gate.enter)
    ending.wait_go()  # it runs: its worker keeps the old server
    ex.restart_workers()
    stop(old)
    ex.submit(abs, 1).result()
ending.enter()
tasks.end_as(how)
"""


@pytest.mark.parametrize("how", ["SIGKILL", "os._exit", "execv"])
@pytest.mark.parametrize("when", ["before it is ready", "when another one has taken over"])
def test_no_stopped_fork_server_outlives_the_host(start: Start, gate: Gate, ending: Gate, when: str, how: str) -> None:
    """Neither hangs on the lifeline by itself: one has not armed it yet, and the last one that did so is its owner."""
    script = start(STOPPED_SERVER, args=[gate.inside_path, gate.go_path, ending.inside_path, ending.go_path, when, how])
    if when == "when another one has taken over":
        gate.wait_inside()
        ending.release()
    ending.wait_inside()
    ending.release()
    script.finish(status=None)
    processes.wait_none_marked()
