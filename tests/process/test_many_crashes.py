"""500 workers die one after the other, in every way: the host and the fork server hold as much as before.

There the host is a program of its own, so that what pytest does meanwhile is not counted. And crash loops: what a pool does
when workers die again and again, in a task or before they are ready.
"""

import contextlib
import fcntl
import json
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import wait
from pathlib import Path
from typing import Any

import pytest

from forkpool import ForkFuture, ForkPoolExecutor, PoolBrokenError, WorkerCrashedError
from forkpool._core.staffing import START_FAILURES_IN_A_ROW
from tests.support import processes, tasks
from tests.support.gate import Gate, Marks

CYCLES = """
    import gc, json, threading
    from pathlib import Path
    from forkpool import ForkPoolExecutor, TaskTimeoutError, WorkerCrashedError
    from tests.support import processes, tasks
    from tests.support.gate import Gate

    CRASHES = [(tasks.segfault,), (tasks.leave, 3), (tasks.kill_myself,), (tasks.abort,), (tasks.leave, 0)]

    def crash_40(ex):
        crashing = [ex.submit(*CRASHES[number % len(CRASHES)]) for number in range(40)]
        adding = [ex.submit(tasks.add, number, 1) for number in range(40)]
        assert {type(future.exception()) for future in crashing} == {WorkerCrashedError}
        assert [future.result() for future in adding] == list(range(1, 41))

    def stop_10(ex):
        limited = [ex.options(timeout=0.01).submit(tasks.busy_in_python) for _ in range(5)]
        assert {type(future.exception()) for future in limited} == {TaskTimeoutError}
        for _ in range(5):
            future = ex.submit(tasks.busy_in_python)
            while not future.running():
                pass
            assert future.kill()
            try:
                future.result()
            except BaseException as error:
                assert type(error).__name__ == "CancelledError", repr(error)

    def held(pid):
        text = Path(f"/proc/{pid}/status").read_text()
        rss = next(int(line.split()[1]) for line in text.splitlines() if line.startswith("VmRSS"))
        return {"fds": count_fds(pid), "threads": threading.active_count(), "rss": rss}

    def count_fds(pid):
        return len(os.listdir(f"/proc/{pid}/fd"))

    # The last ones that died have been replaced.
    def meet_both(ex):
        entering = [ex.submit(gate.enter) for _ in range(2)]
        for _ in entering:
            gate.wait_inside()
        gate.release(2)
        for future in entering:
            future.result()

    def wait_until_closed(pid, who):
        if samples:
            processes.wait_fds(pid, min(sample[who]["fds"] for sample in samples))

    gate = Gate(sys.argv[1])
    with ForkPoolExecutor(2) as ex:
        samples = []
        for _ in range(10):
            crash_40(ex)
            stop_10(ex)
            server = ex.submit(os.getppid).result()
            meet_both(ex)
            gc.collect()
            wait_until_closed(server, "server")
            wait_until_closed(os.getpid(), "host")
            samples.append({"host": held(os.getpid()), "server": held(server)})
        statistics = ex.statistics()
    mark("ended", statistics.crashed + statistics.timed_out + statistics.cancelled)
    mark("samples", json.dumps(samples))
"""
MOST_GROWTH_KIB = 512  # over 400 deaths: a leak of 1.3 KiB each would show


@pytest.mark.slow
@pytest.mark.alarm(120)
def test_500_deaths_leave_nothing(start: Callable[..., Any], tmp_path: Path) -> None:
    script = start(CYCLES, args=[str(tmp_path)]).finish()
    assert script.value("ended") == "500"
    samples = json.loads(script.value("samples"))
    for who in ("host", "server"):
        held = [sample[who] for sample in samples[2:]]
        assert len({(one["fds"], one["threads"]) for one in held}) == 1, held
        assert held[-1]["rss"] - held[0]["rss"] < MOST_GROWTH_KIB, held


def test_a_task_that_kills_every_worker_it_meets() -> None:
    """Submitted anew whenever it has failed, as loops of users do it: it costs its own futures, and no other task."""
    most, met, over = 30, [], threading.Event()

    def submit_again(future: ForkFuture[None]) -> None:
        met.append(future.exception())
        if len(met) < most:
            ex.submit(tasks.leave, 3).add_done_callback(submit_again)
        else:
            over.set()

    with ForkPoolExecutor(2) as ex:
        ex.submit(tasks.leave, 3).add_done_callback(submit_again)
        beside = [ex.submit(tasks.add, number, 1) for number in range(200)]
        assert [future.result() for future in beside] == list(range(1, 201))
        assert over.wait(30)
        assert ex.submit(tasks.add, 1, 1).result() == 2
    assert {type(error) for error in met} == {WorkerCrashedError}
    assert len({error.pid for error in met}) == most  # each met a worker of its own


def leave_a_mark_and_go(marks: Marks) -> None:
    marks.add("tried")
    os._exit(3)


def test_workers_that_never_start(marks: Marks) -> None:
    """Pauses between the attempts: tests/unit/test_machine.py."""
    with ForkPoolExecutor(2, initializer=leave_a_mark_and_go, initargs=(marks,)) as ex:
        futures = [ex.submit(tasks.add, 1, 1) for _ in range(20)]
        wait(futures)
        errors = [future.exception() for future in futures]
        assert {type(error) for error in errors} == {PoolBrokenError}
        assert all("ended before it was ready" in str(error) for error in errors)
        assert all("3" in str(error) for error in errors)
        with pytest.raises(PoolBrokenError, match="ended before it was ready"):
            ex.submit(tasks.add, 1, 1)
    # The first attempt is for both workers; each later one is for one.
    assert START_FAILURES_IN_A_ROW <= len(marks.words()) <= START_FAILURES_IN_A_ROW + 1


def start_each_third_time(marks: Marks) -> None:
    marks.add("tried")
    if len(marks.words()) % 3:
        os._exit(3)


def test_failures_to_start_that_are_not_in_a_row(marks: Marks) -> None:
    with ForkPoolExecutor(1, initializer=start_each_third_time, initargs=(marks,)) as ex:
        for _ in range(3):
            assert ex.submit(tasks.add, 1, 1).result() == 2
            assert type(ex.submit(tasks.leave, 3).exception()) is WorkerCrashedError
    failures = len(marks.words()) * 2 // 3
    assert failures > START_FAILURES_IN_A_ROW


def close_what_is_unknown(marks: Marks) -> None:
    """A well-meaning initializer: it closes all pipes that it finds open for reading, ours among them."""
    marks.add("tried")
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            is_pipe = os.readlink(f"/proc/self/fd/{name}").startswith("pipe:")
            if int(name) > 2 and is_pipe and fcntl.fcntl(int(name), fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
                os.close(int(name))


def test_workers_that_are_ready_and_then_end_before_they_take_anything(marks: Marks) -> None:
    """They were forked without a pause and without end, and the calls waited."""
    with ForkPoolExecutor(1, initializer=close_what_is_unknown, initargs=(marks,)) as ex:
        futures = [ex.submit(tasks.add, 1, 1) for _ in range(3)]
        wait(futures)
        errors = [future.exception() for future in futures]
        assert {type(error) for error in errors} == {PoolBrokenError}
        # The second, if it took so long to end by itself that it was helped.
        reasons = "ended before its first task (exit status 1)", "the worker's channel was closed"
        assert all(any(reason in str(error) for reason in reasons) for error in errors), errors
    # More, if the pool saw what one had closed before that ended: then nothing is said of the others, and the row begins anew.
    assert START_FAILURES_IN_A_ROW <= len(marks.words()) <= 2 * START_FAILURES_IN_A_ROW


def test_fresh_workers_are_killed_again_and_again_while_calls_get_done(gate: Gate) -> None:
    """By somebody else, each as it is about to take its first call: that is no sign that workers are of no use."""
    with ForkPoolExecutor(1, initializer=gate.enter) as ex:
        for number in range(2 * START_FAILURES_IN_A_ROW):
            first = ex.submit(os.getpid)
            fresh = gate.wait_inside()
            assert first.cancel()
            gate.release()
            while ex.statistics().workers_started < 2 * number + 1:
                pass
            os.kill(fresh, signal.SIGSTOP)
            processes.wait_state(fresh, "T")
            future = ex.submit(os.getpid)
            while ex.statistics().queued:  # until it is sent
                pass
            os.kill(fresh, signal.SIGKILL)
            assert gate.wait_inside() != fresh
            gate.release()
            os.kill(future.result(), signal.SIGKILL)
            processes.wait_exit(future.result())
