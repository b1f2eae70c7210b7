"""A program that starts as root and gives that up (setuid) while its pool lives, as servers do once their port is open.

From then on it may not signal its workers, kill(2): whatever it stops, the fork server or the kernel stops for it.
Such a program must be started by root.
"""

import os
import signal
from collections.abc import Callable

import pytest

from tests.support import processes
from tests.support.gate import Gate
from tests.support.script import Script

Start = Callable[..., Script]

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root has rights to give up")

NOBODY = 65534
GIVE_UP = f"""
import ctypes, struct
import forkpool
from tests.support import tasks
from tests.support.gate import GateInTask

def give_up():
    # It keeps the capability to read all files, for where Python is installed: capset(2), CAP_DAC_READ_SEARCH.
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(8, 1, 0, 0, 0) == 0  # PR_SET_KEEPCAPS
    os.setgroups([])
    os.setresgid({NOBODY}, {NOBODY}, {NOBODY})
    os.setresuid({NOBODY}, {NOBODY}, {NOBODY})
    assert libc.capset(struct.pack("Ii", 0x20080522, 0), struct.pack("6I", 4, 4, 0, 0, 0, 0)) == 0
    try:
        os.kill(os.getppid(), 0)
    except PermissionError:
        mark("gave-up")

gate = GateInTask(*sys.argv[1:3])
"""


def begin(start: Start, gate: Gate, source: str) -> Script:
    return start(GIVE_UP + source, args=[gate.inside_path, gate.go_path])


def test_calls_are_stopped_as_before(start: Start, gate: Gate) -> None:
    """The first kill ended the supervisor: the pool was broken, and its processes stayed."""
    script = begin(
        start,
        gate,
        """
ex = forkpool.ForkPoolExecutor(2)
ex.submit(os.getpid).result()
give_up()
stuck = ex.submit(tasks.tell_then, gate, tasks.busy_in_c)
behind = [ex.submit(abs, -n) for n in range(50)]
mark("behind", [f.result() for f in behind] == list(range(50)))
mark("inside")
gate.wait_go()
mark("kill", stuck.kill())
try:
    stuck.result()
except Exception as error:
    mark("killed", type(error).__name__)
mark("timeout", type(ex.options(timeout=0.05).submit(tasks.busy_in_c).exception()).__name__)
mark("crash", ex.submit(os._exit, 3).exception().exitcode)
ex.shutdown()
""",
    )
    script.wait_mark("inside")
    gate.wait_inside()
    gate.release()
    script.finish()
    assert script.all("gave-up")
    assert [script.value(name) for name in ("behind", "kill", "killed", "timeout", "crash")] == [
        "True", "True", "CancelledError", "TaskTimeoutError", "3",
    ]  # fmt: skip
    assert script.errors == ""
    processes.wait_none_marked()


def test_tasks_keep_the_rights_of_the_first_submit(start: Start, gate: Gate) -> None:
    """Also on a worker that was started later: the fork server has them still."""
    script = begin(
        start,
        gate,
        """
with forkpool.ForkPoolExecutor(1) as ex:
    mark("before", ex.submit(os.getresuid).result())
    give_up()
    ex.submit(os._exit, 3).exception()
    mark("after", ex.submit(os.getresuid).result())
""",
    ).finish()
    assert script.all("gave-up")
    assert script.value("before") == script.value("after") == "(0, 0, 0)"


@pytest.mark.parametrize("server_is", ["alive", "stopped", "killed"])
@pytest.mark.parametrize("end", ["ex.kill_workers()", "ex.terminate_workers()", "os.kill(os.getpid(), 9)"])
def test_nothing_is_left(start: Start, gate: Gate, end: str, server_is: str) -> None:
    """One worker is stuck (of a fork server that was killed, idle), another was asked for when the server was stopped."""
    first = "abs, -1" if server_is == "killed" else "tasks.busy_in_c"
    script = begin(
        start,
        gate,
        f"""
ex = forkpool.ForkPoolExecutor(2, grace_period=0.2)
mark("server", ex.submit(os.getppid).result())
give_up()
futures = [ex.submit(tasks.tell_then, gate, {first})]
gate.wait_go()
futures.append(ex.submit(abs, -1))
{end}
ex.shutdown()
mark("ended", all(future.done() for future in futures))
""",
    )
    server = int(script.wait_mark("server"))
    script.wait_mark("gave-up")
    gate.wait_inside()
    if server_is != "alive":
        os.kill(server, signal.SIGSTOP if server_is == "stopped" else signal.SIGKILL)
    if server_is == "stopped":
        processes.wait_state(server, "T")
    gate.release()
    script.finish(status=-9 if "9" in end else 0)
    assert script.all("ended") == ([] if "9" in end else ["True"])
    assert "Traceback" not in script.errors
    processes.wait_none_marked()
