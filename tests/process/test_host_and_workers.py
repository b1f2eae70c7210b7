"""What happens to the host while its workers are idle (and stopped), wait, hold the GIL, or are stopped in a task.

{what happens} x {fork server alive, killed before}. The rows of the page on failures that are about the host; each has tests
of its own with one worker elsewhere (test_lifeline, test_signals, test_host, test_fork, test_shutdown).
"""

from collections.abc import Callable

import pytest

from tests.support import processes
from tests.support.gate import Gate
from tests.support.script import Script

Start = Callable[..., Script]

PROGRAM = """
import collections, forkpool, itertools, signal
from concurrent.futures import wait
from tests.support import processes, tasks
from tests.support.gate import GateInTask
gate = GateInTask(sys.argv[1], sys.argv[2])
server_is, what = sys.argv[3:5]

def holds_the_gil(seconds=0.3):
    import time
    gate.tell()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        collections.deque(itertools.repeat(None, 3_000_000), maxlen=0)
    return "counted"

def stop_when_idle(ex):
    pid = ex.submit(tasks.pid).result()
    os.kill(pid, signal.SIGSTOP)
    processes.wait_state(pid, "T")

ex = forkpool.ForkPoolExecutor(5, grace_period=0.3)
waits = ex.submit(tasks.enter, gate, "waited")
holds = ex.submit(holds_the_gil, 1000 if what in ("ends", "kills") else 0.3)
"""
ENDINGS = {
    "SIGTERM": "os.kill(os.getpid(), signal.SIGTERM)",
    "SIGHUP": "os.kill(os.getpid(), signal.SIGHUP)",
    "segfault": "import faulthandler; faulthandler._sigsegv()",
    "os._exit": "os._exit(0)",
}
STUCK = """
stopped = ex.submit(tasks.tell_then, gate, tasks.stop_myself)
server = ex.submit(os.getppid).result()  # the fourth worker: it is idle from now on
stop_when_idle(ex)  # the last one used is used first: the same
GateInTask(*sys.argv[5:7]).enter()
"""
KILL_THE_SERVER = """
if server_is == "killed":
    os.kill(server, signal.SIGKILL)
    processes.wait_exit(server)
"""


def args(gate: Gate, server: str, what: str, ready: Gate | None = None) -> list[str]:
    more = [] if ready is None else [ready.inside_path, ready.go_path]
    return [gate.inside_path, gate.go_path, server, what, *more]


def wait_until_all_are_in_their_states(gate: Gate, ready: Gate) -> None:
    for _ in range(3):
        gate.wait_inside()
    ready.wait_inside()
    ready.release()


servers = pytest.mark.parametrize("server", ["alive", "killed"])


@servers
@pytest.mark.parametrize("how", ENDINGS)
def test_the_host_ends(start: Start, gate: Gate, second_gate: Gate, server: str, how: str) -> None:
    source = f"{PROGRAM}{STUCK}{KILL_THE_SERVER}mark('ready')\n{ENDINGS[how]}\n"
    script = start(source, args=args(gate, server, "ends", second_gate))
    wait_until_all_are_in_their_states(gate, second_gate)
    script.finish(status=None)
    assert script.all("ready") == [""]
    processes.wait_none_marked()


@servers
@pytest.mark.parametrize("handling", ["SIG_IGN", "thief"])
def test_each_can_be_ended_whoever_reaps_the_children_of_the_host(
    start: Start, gate: Gate, second_gate: Gate, server: str, handling: str
) -> None:
    preparation = {
        "SIG_IGN": "signal.signal(signal.SIGCHLD, signal.SIG_IGN)",
        "thief": """
def steal(*_):
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass
signal.signal(signal.SIGCHLD, steal)
""",
    }[handling]
    script = start(
        f"""{PROGRAM}{preparation}{STUCK}{KILL_THE_SERVER}
for future in (waits, holds, stopped):
    assert future.kill()
    mark("kill", wait([future]).done == {{future}} and future.cancelled())
mark("timeout", type(ex.options(timeout=0.05).submit(holds_the_gil, 1000).exception()).__name__)
mark("crash", type(ex.submit(tasks.kill_myself).exception()).__name__)
mark("after", [f.result() for f in [ex.submit(abs, -n) for n in range(20)]] == list(range(20)))
ex.shutdown()
mark("children", [pid for pid in processes.children() if pid != server])
""",
        args=args(gate, server, "kills", second_gate),
    )
    wait_until_all_are_in_their_states(gate, second_gate)
    script.finish()
    assert script.all("kill") == ["True"] * 3
    assert script.value("timeout") == "TaskTimeoutError"
    assert script.value("crash") == "WorkerCrashedError"
    assert script.value("after") == "True"
    assert script.value("children") == "[]"
    processes.wait_none_marked()


PENDING = """
ex.submit(abs, -1).result()
server = processes.read_stat(next(iter(ex._processes))).parent
queued = [ex.submit(abs, -n) for n in range(20)]  # some need a new worker
for name, futures in (("waits", [waits]), ("holds", [holds]), ("queued", queued)):
    for future in futures:
        future.add_done_callback(lambda f, name=name: mark(name, f.result()))
"""


@servers
def test_the_interpreter_exits_with_work_pending(start: Start, gate: Gate, server: str) -> None:
    """One worker is idle, one holds the GIL, one waits."""
    script = start(f"{PROGRAM}{PENDING}{KILL_THE_SERVER}mark('ends')\n", args=args(gate, server, "exits"))
    script.wait_mark("ends")
    gate.open_for_all()
    script.finish()
    assert script.value("waits") == "waited"
    assert script.value("holds") == "counted"
    assert sorted(map(int, script.all("queued"))) == list(range(20))
    processes.wait_none_marked()


@servers
@pytest.mark.parametrize("how", ["fork", "SIGTERM"])
def test_the_host_forks_or_drains(start: Start, gate: Gate, server: str, how: str) -> None:
    """A fork of the host ends at once. A SIGTERM goes to all processes of the service. The host's pool is untouched."""
    do = {
        "fork": "pid = os.fork()\nif pid == 0:\n    os._exit(0)\nos.waitpid(pid, 0)\n",
        "SIGTERM": """
signal.signal(signal.SIGTERM, lambda *_: mark("told"))
for pid in processes.marked() | {os.getpid()}:
    os.kill(pid, signal.SIGTERM)
""",
    }[how]
    script = start(f"{PROGRAM}{PENDING}{KILL_THE_SERVER}{do}\nmark('ends')\nex.shutdown()\n", args=args(gate, server, "drains"))
    script.wait_mark("ends")
    gate.open_for_all()
    script.finish()
    assert script.value("waits") == "waited"
    assert script.value("holds") == "counted"
    assert sorted(map(int, script.all("queued"))) == list(range(20))
    assert script.all("told") == ([""] if how == "SIGTERM" else [])
    processes.wait_none_marked()
