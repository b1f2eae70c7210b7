"""Signals to the host, its group, its whole family, and Ctrl-C. The programs run in sessions of their own.

Rows "SIGTERM to the host's whole process group, session or cgroup", "Ctrl-C in the terminal", "host ends by SIGTERM,
SIGHUP, os._exit, execv, segfault", "host killed".
"""

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

from forkpool import ForkPoolExecutor
from tests.support import processes, tasks
from tests.support.gate import Gate, Marks
from tests.support.script import Script

Start = Callable[..., Script]

IMPORTS = """
import forkpool, signal
from concurrent.futures import CancelledError
from tests.support import tasks
from tests.support.gate import GateInTask, Marks
gate = GateInTask(sys.argv[1], sys.argv[2])
"""


def paths(gate: Gate) -> dict[str, list[str]]:
    return {"args": [gate.inside_path, gate.go_path]}


def family(script: Script) -> set[int]:
    """The program, its server and its workers, as a cgroup would have them."""
    return processes.marked()


def session(script: Script) -> set[int]:
    """Whoever is in the program's session, which it leads."""
    return {pid for pid in processes.all_pids() if (stat := processes.read_stat(pid)) and stat.session == script.pid}


@pytest.mark.parametrize("reach", ["group", "session", "cgroup"])
@pytest.mark.parametrize("where", ["task", "C code", "between"])
def test_sigterm_to_everybody_while_the_host_drains(start: Start, gate: Gate, reach: str, where: str) -> None:
    """systemd and docker stop a service so: running tasks finish, the host closes as it wants."""
    script = start(
        f"""{IMPORTS}
stop = False
def on_term(*_):
    global stop
    stop = True
signal.signal(signal.SIGTERM, on_term)
with forkpool.ForkPoolExecutor(2) as ex:
    if {where!r} == "between":
        assert [ex.submit(tasks.add, n, n).result() for n in range(3)] == [0, 2, 4]
    futures = [ex.submit(tasks.enter, gate, n) for n in range(4)]
    mark("ready")
    while not stop:
        os.sched_yield()  # not pause(): it would miss a signal that came just before
    mark("stopping")
mark("results", [f.result() for f in futures])
mark("after", stop)
""",
        **paths(gate),
    )
    script.wait_mark("ready")
    for _ in range(2):
        gate.wait_inside()
    if reach == "group":
        os.killpg(script.pid, signal.SIGTERM)  # not `send_group`: it never sleeps
    for pid in {"group": set(), "session": session(script), "cgroup": family(script)}[reach]:
        os.kill(pid, signal.SIGTERM)
    script.wait_mark("stopping")
    gate.open_for_all()
    script.finish()
    assert script.value("results") == "[0, 1, 2, 3]"
    assert script.errors == ""


def sleep_in_c(gate: Any) -> str:
    import select

    gate.tell()
    select.select([], [], [], 0.05)
    return "slept"


def test_sigterm_to_a_worker_is_no_end_of_its_task(gate: Gate) -> None:
    with ForkPoolExecutor(1) as ex:
        future = ex.submit(tasks.enter, gate, "ran")
        pid = gate.wait_inside()
        for _ in range(5):
            os.kill(pid, signal.SIGTERM)
        gate.open_for_all()
        assert future.result() == "ran"
        assert ex.submit(tasks.pid).result() == pid


def own_handler(gate: Any) -> list[int]:
    seen: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: seen.append(number))
    gate.tell()
    while not seen:
        os.sched_yield()  # as above
    return seen


def handler_of_sigterm() -> str:
    return repr(signal.getsignal(signal.SIGTERM))


def test_a_task_may_have_its_own_handler_and_it_is_undone(gate: Gate) -> None:
    with ForkPoolExecutor(1) as ex:
        before = ex.submit(handler_of_sigterm).result()
        future = ex.submit(own_handler, gate)
        os.kill(gate.wait_inside(), signal.SIGTERM)
        assert future.result() == [signal.SIGTERM]
        assert ex.submit(handler_of_sigterm).result() == before


CTRL_C = f"""{IMPORTS}
def main():
    with forkpool.ForkPoolExecutor(1, grace_period=float(sys.argv[3])) as ex:
        running = ex.submit(tasks.enter, gate, "ran")
        queued = [ex.submit(tasks.leave_mark, Marks(sys.argv[4]), str(n)) for n in range(20)]
        queued[-1].add_done_callback(lambda _: mark("cancelled"))
        main.futures = [running, *queued]
        mark("ready")  # from here on Ctrl-C may come
        running.result()
try:
    main()
except KeyboardInterrupt:
    mark("interrupted")
running, *queued = main.futures
mark("queued", {{f.cancelled() for f in queued}})
mark("running", "cancelled" if running.cancelled() else running.result())
"""


@pytest.mark.parametrize("patience", ["waits", "kills"])
def test_ctrl_c(start: Start, gate: Gate, marks: Marks, patience: str) -> None:
    """The terminal signals the foreground group: the queued are cancelled, the running one gets its grace."""
    grace = "0.1" if patience == "kills" else "30"
    script = start(CTRL_C, args=[gate.inside_path, gate.go_path, grace, marks.path])
    worker = gate.wait_inside()
    script.wait_mark("ready")
    script.send_group(signal.SIGINT)
    if patience == "waits":
        script.wait_mark("cancelled")  # the grace period has begun; before, the queued would be free to run
        gate.open_for_all()
    script.finish()
    assert script.all("interrupted") == [""]
    assert script.value("queued") == "{True}"
    assert script.value("running") == ("ran" if patience == "waits" else "cancelled")
    assert script.errors == ""
    assert marks.words() == []
    processes.wait_exit(worker)


def test_ctrl_c_that_nobody_catches(start: Start, gate: Gate) -> None:
    """One traceback, of the host; none from workers."""
    script = start(
        f"""{IMPORTS}
with forkpool.ForkPoolExecutor(2, grace_period=0.1) as ex:
    futures = [ex.submit(tasks.enter, gate) for _ in range(2)]
    mark("ready")
    futures[0].result()
""",
        **paths(gate),
    )
    for _ in range(2):
        gate.wait_inside()
    script.wait_mark("ready")
    script.send_group(signal.SIGINT)
    script.finish(status=-signal.SIGINT)
    assert script.errors.count("Traceback") == 1
    assert script.errors.rstrip().endswith("KeyboardInterrupt")
    processes.wait_none_marked()


def test_ctrl_c_twice(start: Start, gate: Gate) -> None:
    """The second one breaks the grace period off; nothing is left."""
    script = start(
        f"""{IMPORTS}
try:
    with forkpool.ForkPoolExecutor(2, grace_period=1000) as ex:
        futures = [ex.submit(tasks.enter, gate) for _ in range(2)]
        futures[1].add_done_callback(lambda _: mark("told"))
        queued = ex.submit(abs, 1)
        queued.add_done_callback(lambda _: mark("cancelled"))
        mark("ready")
        futures[0].result()
except KeyboardInterrupt:
    mark("interrupted")
""",
        **paths(gate),
    )
    for _ in range(2):
        gate.wait_inside()
    script.wait_mark("ready")
    script.send_group(signal.SIGINT)
    script.wait_mark("cancelled")
    script.send_group(signal.SIGINT)
    script.finish()
    assert script.all("interrupted") == [""]
    processes.wait_none_marked()


@pytest.mark.parametrize("how", ["SystemExit", "CancelledError", "ValueError"])
def test_other_exceptions_leave_the_with_block_as_in_the_standard_library(start: Start, how: str) -> None:
    script = start(f"""
import forkpool
from asyncio import CancelledError
try:
    with forkpool.ForkPoolExecutor(1) as ex:
        futures = [ex.submit(abs, -n) for n in range(20)]
        raise {how}
except BaseException as error:
    mark("left", type(error).__name__)
mark("results", [f.result() for f in futures] == list(range(20)))
""").finish()
    assert script.value("left") == how
    assert script.value("results") == "True"


HOST_ENDS = {
    "SIGTERM": "os.kill(os.getpid(), signal.SIGTERM)",
    "SIGHUP": "os.kill(os.getpid(), signal.SIGHUP)",
    "SIGKILL": "os.kill(os.getpid(), signal.SIGKILL)",
    "os._exit": "os._exit(0)",
    "execv": "os.execv('/bin/true', ['true'])",
    "segfault": "import faulthandler; faulthandler._sigsegv()",
    "abort": "os.abort()",
}


@pytest.mark.parametrize("how", HOST_ENDS)
def test_host_ends(start: Start, gate: Gate, how: str) -> None:
    script = start(
        f"""{IMPORTS}
ex = forkpool.ForkPoolExecutor(3)
mark("server", ex.submit(os.getppid).result())
futures = [ex.submit(tasks.enter, gate) for _ in range(2)]
mark("ready")
sys.stdin.read()
go = os.open(sys.argv[3], os.O_RDONLY)
{HOST_ENDS[how]}
""",
        args=[gate.inside_path, gate.go_path, os.devnull],
    )
    script.wait_mark("ready")
    script.finish(status=None)
    processes.wait_none_marked()


def test_a_worker_gets_no_sigint_of_the_terminal(start: Start, gate: Gate) -> None:
    script = start(
        f"""{IMPORTS}
signal.signal(signal.SIGINT, lambda *_: mark("seen"))
with forkpool.ForkPoolExecutor(1) as ex:
    future = ex.submit(tasks.enter, gate, "ran")
    mark("ready")
    mark("result", future.result())
""",
        **paths(gate),
    )
    worker = gate.wait_inside()
    stat, host = processes.read_stat(worker), processes.read_stat(script.pid)
    assert stat is not None
    assert host is not None
    assert stat.group == stat.session == worker != host.group
    script.wait_mark("ready")
    script.send_group(signal.SIGINT)
    script.wait_mark("seen")
    gate.open_for_all()
    script.finish()
    assert script.value("result") == "ran"
