"""Programs that gevent has patched (`monkey.patch_all()`): their threads are greenlets, and there is no epoll."""

from collections.abc import Callable

import pytest

from tests.support import processes
from tests.support.gate import Gate
from tests.support.script import Script

Start = Callable[..., Script]

PATCH = "from gevent import monkey\nmonkey.patch_all()\nimport gevent\n"
WORK = """
import socket
from concurrent.futures import as_completed, wait
from forkpool import ForkPoolExecutor
from tests.support import tasks
from tests.support.gate import GateInTask
gate = GateInTask(*sys.argv[1:3])

def error_of(future):
    try:
        return type(future.exception()).__name__
    except BaseException as error:
        return type(error).__name__

with ForkPoolExecutor(2, max_tasks_per_child=100) as ex:
    greenlets = [gevent.spawn(lambda n=n: ex.submit(lambda: n * n).result()) for n in range(200)]
    gevent.joinall(greenlets)
    mark("greenlets", [one.value for one in greenlets] == [n * n for n in range(200)])
    running = ex.submit(tasks.tell_then, gate, tasks.busy_in_c)
    gevent.get_hub().threadpool.apply(gate.wait_go)  # it blocks, and the supervisor is to run meanwhile
    mark("kill", running.kill() and error_of(running))
    mark("timeout", error_of(ex.options(timeout=0.05).submit(tasks.busy_in_c)))
    mark("crash", ex.submit(os._exit, 3).exception().exitcode)
    mark("map", list(ex.map(abs, range(-20, 0), chunksize=7)) == list(range(20, 0, -1)))
    futures = [ex.submit(pow, n, 2) for n in range(2000)]
    mark("wait", f"{len(wait(futures).not_done)} {len(list(as_completed(futures)))}")
    called = []
    future = ex.submit(abs, -1)
    future.add_done_callback(called.append)
    mark("callback", future.result() == 1 and called == [future])
    mark("large", ex.submit(len, bytes(1 << 22)).result() == len(ex.submit(bytes, 1 << 22).result()))
    ours, theirs = socket.socketpair()
    ex.submit(theirs.__class__.sendall, theirs, b"hello").result()
    mark("socket", ours.recv(5).decode())
    mark("thread", gevent.get_hub().threadpool.apply(lambda: [ex.submit(pow, n, 2).result() for n in range(50)])[-1])
    ex.restart_workers()
    mark("restarted", ex.submit(abs, -2).result())
mark("closed")
ex = ForkPoolExecutor(1)
mark("again", ex.submit(abs, -3).result())
ex.submit(print, "MARK at-exit", flush=True)
"""
MARKS = {
    "greenlets": "True", "kill": "CancelledError", "timeout": "TaskTimeoutError", "crash": "3", "map": "True", "wait": "0 2000",
    "callback": "True", "large": "True", "socket": "hello", "thread": "2401", "restarted": "2", "closed": "", "again": "3",
    "at-exit": "",
}  # fmt: skip


@pytest.mark.parametrize("first", ["", "import forkpool\n"], ids=["patched before the import", "patched after it"])
def test_a_program_works_as_with_threads(start: Start, gate: Gate, first: str) -> None:
    script = start(first + PATCH + WORK, args=[gate.inside_path, gate.go_path])
    gate.wait_inside()
    gate.release()
    script.finish()
    assert {name: script.value(name) for name in MARKS} == MARKS
    assert script.errors == ""
    processes.wait_none_marked()


def test_who_waits_for_a_future_lets_others_run(start: Start, gate: Gate) -> None:
    """The task ends only when another greenlet lets it go."""
    script = start(
        PATCH
        + """
from forkpool import ForkPoolExecutor
from tests.support import tasks
from tests.support.gate import GateInTask
gate = GateInTask(*sys.argv[1:3])
with ForkPoolExecutor(1) as ex:
    running = ex.submit(tasks.enter, gate, "let go")
    gevent.spawn(mark, "other", "ran")
    mark("result", running.result())
""",
        args=[gate.inside_path, gate.go_path],
    )
    gate.wait_inside()
    assert script.wait_mark("other") == "ran"
    gate.release()
    assert script.finish().value("result") == "let go"


def test_a_pool_that_begins_in_another_thread_is_refused(start: Start) -> None:
    """Its supervisor would be a greenlet of a thread that may never run it again."""
    script = start(
        PATCH
        + """
from forkpool import ForkPoolExecutor
with ForkPoolExecutor(1) as ex:
    try:
        gevent.get_hub().threadpool.apply(ex.submit, (abs, -1))
    except RuntimeError as error:
        mark("error", error)
    mark("then", ex.submit(abs, -1).result())
"""
    ).finish()
    assert "the first submit to a pool must come from the main thread" in script.value("error")
    assert script.value("then") == "1"


def test_without_any_poll_it_says_so(start: Start) -> None:
    """As eventlet leaves a process."""
    script = start("""
import forkpool, select
del select.epoll, select.poll
with forkpool.ForkPoolExecutor(1) as ex:
    try:
        ex.submit(abs, -1)
    except RuntimeError as error:
        mark("error", error)
""").finish()
    assert "eventlet" in script.value("error")


@pytest.mark.parametrize("lacks", ["nothing", "pidfds"])
def test_a_module_that_patches_may_be_preloaded(start: Start, tmp_path: str, lacks: str) -> None:
    """The fork server found no epoll. And gevent's fork takes SIGCHLD, which tells it of deaths where there are no pidfds."""
    take_away = "import os; del os.pidfd_open" if lacks == "pidfds" else ""
    script = start(f"""
import sys
{take_away}
sys.path.insert(0, {str(tmp_path)!r})
open({str(tmp_path)!r} + "/patches.py", "w").write("from gevent import monkey; monkey.patch_all()\\n{take_away}")
from forkpool import ForkPoolExecutor

def use():
    import gevent, socket
    greenlets = [gevent.spawn(abs, -n) for n in range(10)]
    gevent.joinall(greenlets)
    return socket.socket.__module__.split(".")[0], sum(one.value for one in greenlets)

with ForkPoolExecutor(2, preload=("patches",)) as ex:
    mark("use", ex.submit(use).result())
    mark("crash", ex.submit(os._exit, 3).exception().exitcode)
    mark("many", [f.result() for f in [ex.submit(pow, n, 2) for n in range(100)]][-1])
""").finish()
    assert [script.value(name) for name in ("use", "crash", "many")] == ["('gevent', 45)", "3", "9801"]
