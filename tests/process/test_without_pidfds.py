"""Row "`pidfd_open` is missing": the fork server tells of deaths, and blame, kills and timeouts are as exact as elsewhere.

Host and fork server are made to believe that their Python knows no pidfds; tests/process/test_degraded.py has a real filter.
"""

import os
import signal
from collections.abc import Callable
from concurrent.futures import CancelledError
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from forkpool import ForkPoolExecutor, TaskTimeoutError, WorkerCrashedError
from tests.process.test_hostile_tasks import daemonize
from tests.support import processes, tasks
from tests.support.gate import Gate, Marks
from tests.support.script import Script

MODULE = "tests.support.without_pidfds"
Pool = partial(ForkPoolExecutor, preload=(MODULE,), pin=False)


@pytest.fixture(autouse=True)
def _no_pidfds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "pidfd_open")


def server_of(pid: int) -> int:
    stat = processes.read_stat(pid)
    assert stat is not None
    return stat.parent


def has_ended(pid: int) -> None:
    """Wait for it."""
    processes.wait_state(pid, "ZX")


@pytest.mark.parametrize(
    ("do", "exitcode", "signame"),
    [
        (tasks.segfault, -signal.SIGSEGV, "SIGSEGV"),
        (tasks.kill_myself, -signal.SIGKILL, "SIGKILL"),
        (partial(tasks.leave, 0), 0, None),
        (partial(tasks.leave, 3), 3, None),
    ],
)
def test_a_crash_costs_one_future(do: Callable[[], None], exitcode: int, signame: str | None, gate: Gate, marks: Marks) -> None:
    with Pool(1) as ex:
        crash = ex.submit(tasks.enter_then, gate, do)
        pid = gate.wait_inside()
        behind = [ex.submit(tasks.leave_mark, marks, str(number)) for number in range(20)]
        gate.release()
        error = crash.exception()
        assert isinstance(error, WorkerCrashedError)
        assert (error.pid, error.exitcode, error.signal, error.may_have_run) == (pid, exitcode, signame, "maybe")
        assert error.peak_rss > 0
        assert [future.result() for future in behind] == [str(number) for number in range(20)]
    assert sorted(marks.words(), key=int) == [str(number) for number in range(20)]


def test_an_idle_worker_is_replaced() -> None:
    with Pool(1) as ex:
        pid = ex.submit(tasks.pid).result()
        os.kill(pid, signal.SIGKILL)
        has_ended(pid)
        assert ex.submit(tasks.pid).result() != pid


def test_deaths_one_after_the_other() -> None:
    with Pool(2) as ex:
        errors = [ex.submit(tasks.leave, 3).exception() for _ in range(100)]
        assert {(type(error), error.exitcode) for error in errors} == {(WorkerCrashedError, 3)}


def test_workers_die_while_others_are_forked(marks: Marks) -> None:
    """A worker that was just forked holds, for a moment, what tells of the deaths of the others."""
    with Pool(4) as ex:
        crashes = [ex.submit(tasks.kill_myself) for _ in range(200)]
        marked = [ex.submit(tasks.leave_mark, marks, str(number)) for number in range(200)]
        assert {type(future.exception()) for future in crashes} == {WorkerCrashedError}
        assert [future.result() for future in marked] == [str(number) for number in range(200)]
        assert ex.statistics().workers_replaced == {"crashed": 200}
    assert sorted(marks.words(), key=int) == [str(number) for number in range(200)]


@pytest.mark.parametrize("do", [tasks.busy_in_c, tasks.stop_myself])
def test_a_stuck_task_is_ended(do: Callable[[], None], gate: Gate) -> None:
    with Pool(1) as ex:
        killed = ex.submit(tasks.tell_then, gate, do)
        pid = gate.wait_inside()
        assert killed.kill()
        with pytest.raises(CancelledError):
            killed.result()
        assert processes.has_ended(pid)
        error = ex.options(timeout=0.05).submit(tasks.call, do).exception()
        assert isinstance(error, TaskTimeoutError)
        assert processes.has_ended(error.pid)
        assert ex.submit(tasks.add, 1, 1).result() == 2


def test_children_of_the_task_go_with_it(gate: Gate) -> None:
    with Pool(1) as ex:
        future = ex.submit(tasks.start_child, gate)
        child = gate.wait_inside()
        assert future.kill()
        has_ended(child)


def test_a_daemon_keeps_our_pipes_open_and_its_worker_dies(gate: Gate) -> None:
    with Pool(1) as ex:
        daemon = ex.submit(daemonize, gate).result()
        gate.wait_inside()
        assert ex.submit(tasks.leave, 3).exception().exitcode == 3
        gate.open_for_all()
    processes.wait_state(daemon, "ZX")


def test_signals_in_a_worker_are_its_own() -> None:
    with Pool(1) as ex:
        ex.submit(tasks.leave, 3).exception()  # the next one is forked after a death was told
        assert ex.submit(lambda: signal.getsignal(signal.SIGCHLD)).result() is signal.SIG_DFL
        assert ex.submit(lambda: signal.set_wakeup_fd(-1)).result() == -1


def test_the_fork_server_is_killed_while_all_are_idle() -> None:
    with Pool(1) as ex:
        pid = ex.submit(tasks.pid).result()
        os.kill(server_of(pid), signal.SIGKILL)
        assert [ex.submit(tasks.add, n, n).result() for n in range(10)] == [2 * n for n in range(10)]
        has_ended(pid)


@pytest.mark.parametrize("do", [tasks.enter, tasks.start_child])
def test_the_fork_server_is_killed_while_tasks_run(do: Any, gate: Gate, marks: Marks, caplog: pytest.LogCaptureFixture) -> None:
    """Nobody could tell of their ends: they end with it, what they started too, and what they had not taken runs elsewhere."""
    with Pool(2) as ex:
        running = [ex.submit(do, gate) for _ in range(2)]
        inside = [gate.wait_inside() for _ in running]
        waiting = [ex.submit(tasks.leave_mark, marks, str(number)) for number in range(20)]
        pids = [future.pid for future in running]
        os.kill(server_of(pids[0]), signal.SIGKILL)
        errors = [future.exception() for future in running]
        assert {type(error) for error in errors} == {WorkerCrashedError}
        assert sorted(error.pid for error in errors) == sorted(pids)
        assert {error.may_have_run for error in errors} == {"maybe"}
        assert all("its fork server was gone" in str(error) for error in errors)
        assert [future.result() for future in waiting] == [str(number) for number in range(20)]
        for pid in {*pids, *inside}:
            has_ended(pid)
        gate.open_for_all()
    assert sorted(marks.words(), key=int) == [str(number) for number in range(20)]
    assert caplog.text.count("pidfd_open") == 1


@pytest.mark.parametrize("answers_stay_open", [True, False])
def test_the_fork_server_is_killed_and_a_daemon_has_our_pipes(answers_stay_open: bool, gate: Gate, second_gate: Gate) -> None:
    with Pool(1) as ex:
        if answers_stay_open:
            ex.submit(daemonize, second_gate).result()
            second_gate.wait_inside()
        future = ex.submit(tasks.enter, gate)
        os.kill(server_of(gate.wait_inside()), signal.SIGKILL)
        assert isinstance(future.exception(), WorkerCrashedError)
        assert ex.submit(tasks.add, 1, 1).result() == 2
        second_gate.open_for_all()
        gate.open_for_all()


@pytest.mark.parametrize("how", ["kill", "timeout", "crash"])
def test_the_fork_server_is_stopped(how: str, gate: Gate, second_gate: Gate) -> None:
    """It does not tell; when it was waited for, it is killed. A daemon has our pipes, so their end tells nothing either."""
    with Pool(1) as ex:
        if how != "crash":
            ex.submit(daemonize, second_gate).result()
            second_gate.wait_inside()
        view = ex.options(timeout=0.05) if how == "timeout" else ex
        future = view.submit(tasks.enter, gate) if how == "kill" else None
        if future is not None:
            server = server_of(gate.wait_inside())
            os.kill(server, signal.SIGSTOP)
            assert future.kill()
            with pytest.raises(CancelledError):
                future.result()
        else:
            server = server_of(ex.submit(tasks.pid).result())
            os.kill(server, signal.SIGSTOP)
            do = tasks.segfault if how == "crash" else tasks.busy_in_c
            error = view.submit(do).exception()
            assert isinstance(error, WorkerCrashedError if how == "crash" else TaskTimeoutError)
        assert ex.submit(tasks.add, 1, 1).result() == 2
        second_gate.open_for_all()


PROGRAM = f"""
import ctypes, signal
import {MODULE}
import forkpool
from tests.support import tasks
from tests.support.gate import GateInTask
gate = GateInTask(*sys.argv[1:3])
ex = forkpool.ForkPoolExecutor(2, preload=({MODULE!r},))
ex.submit(tasks.tell_then, gate, tasks.stop_myself)
ex.submit(tasks.tell_then, gate, tasks.busy_in_c)
gate.wait_go()
if sys.argv[3] == "a fork has our pipes":  # no hook of Python's runs in it, so it keeps them
    if ctypes.CDLL(None).fork() == 0:
        gate.tell()
        ctypes.CDLL(None).pause()
    gate.wait_go()
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("case", ["alone", "a fork has our pipes"])
def test_the_host_is_killed(case: str, start: Callable[..., Script], gate: Gate) -> None:
    script = start(PROGRAM, args=[gate.inside_path, gate.go_path, case])
    workers = {gate.wait_inside(), gate.wait_inside()}
    server = server_of(min(workers))
    gate.release()
    child = gate.wait_inside() if case != "alone" else None
    if child is not None:
        gate.release()
    for pid in (*workers, server):
        has_ended(pid)
    if child is not None:
        os.kill(child, signal.SIGKILL)
    script.finish(status=-9)


@pytest.mark.skipif(os.geteuid() != 0, reason="unshare --pid wants root")
def test_the_host_is_pid_1_and_its_fork_server_is_killed(start: Callable[..., Script]) -> None:
    """The workers become its children, and nobody else reaps them."""
    script = start(
        f"""
import {MODULE}
import forkpool
assert os.getpid() == 1
with forkpool.ForkPoolExecutor(2, preload=({MODULE!r},)) as ex:
    server = ex.submit(os.getppid).result()
    os.kill(server, 9)
    view = ex.options(retries=1)  # one that runs when the host learns of it fails
    mark("results", [f.result() for f in [view.submit(abs, -n) for n in range(5)]])
pids = [pid for pid in os.listdir("/proc") if pid.isdigit() and pid != "1"]
mark("left", [open(f"/proc/{{pid}}/stat").read().split()[2] for pid in pids])
""",
        prefix=["unshare", "--pid", "--fork", "--mount-proc"],
    ).finish()
    assert script.value("results") == "[0, 1, 2, 3, 4]"
    assert script.value("left") == "[]"


def test_no_descriptors_for_a_stand_in(tmp_path: Path, start: Callable[..., Script]) -> None:
    """Here, or in the fork server: the pool makes do with the workers that it has."""
    script = start(f"""
import resource
import {MODULE}
import forkpool
with forkpool.ForkPoolExecutor(4, preload=({MODULE!r},)) as ex:
    ex.submit(abs, -1).result()
    used = max(map(int, os.listdir("/proc/self/fd")))
    for more in range(1, 12):
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + more, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        mark("results", [f.result() for f in [ex.submit(abs, -n) for n in range(50)]] == list(range(50)))
        error = ex.submit(os._exit, 3).exception()
        mark("crash", error.exitcode)
""").finish()
    assert script.all("results") == ["True"] * 11
    assert script.all("crash") == ["3"] * 11
