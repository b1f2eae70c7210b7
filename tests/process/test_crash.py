"""Crash rows: one future is lost, the facts are right, the pool goes on.

Failure table: "segfault, abort, SIGKILL, OOM kill, os._exit in a task", "idle worker killed", "all workers killed at
once", "worker stopped", "task that started processes".
"""

import itertools
import os
import pickle
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from forkpool import ForkPoolExecutor, WorkerCrashedError
from forkpool._host import worker_link
from forkpool._host.crew import Crew
from tests.support import processes, tasks
from tests.support.gate import Gate, Marks

# how a worker ends: task, arguments, exit code, signal
ENDS: dict[str, tuple[Callable[..., Any], tuple[Any, ...], int, str | None]] = {
    "segfault": (tasks.segfault, (), -signal.SIGSEGV, "SIGSEGV"),
    "faulthandler": (tasks.segfault_of_faulthandler, (), -signal.SIGSEGV, "SIGSEGV"),
    "abort": (tasks.abort, (), -signal.SIGABRT, "SIGABRT"),
    "SIGKILL": (tasks.kill_myself, (signal.SIGKILL,), -signal.SIGKILL, "SIGKILL"),
    "SIGUSR1": (tasks.kill_myself, (signal.SIGUSR1,), -signal.SIGUSR1, "SIGUSR1"),
    "exit-0": (tasks.leave, (0,), 0, None),
    "exit-3": (tasks.leave, (3,), 3, None),
}


def crash_error(future: Any) -> WorkerCrashedError:
    error = future.exception()
    assert type(error) is WorkerCrashedError, repr(error)
    return error


@pytest.mark.parametrize("how", ENDS)
def test_facts_of_a_crash(how: str, gate: Gate) -> None:
    task, args, exitcode, signal_name = ENDS[how]
    with ForkPoolExecutor(1) as ex:
        gate.open_for_all()
        future = ex.submit(tasks.tell_then, gate, task, *args)
        pid = gate.wait_inside()
        error = crash_error(future)
        assert ex.submit(tasks.add, 1, 1).result() == 2
    assert (error.pid, error.slot) == (pid, 0)
    assert (error.exitcode, error.signal) == (exitcode, signal_name)
    assert "tell_then" in error.task_name
    assert 0 < error.seconds < 40
    assert error.peak_rss is not None
    assert error.peak_rss > 1 << 20
    assert error.may_have_run == "maybe"
    assert error.oom_hint is None
    assert error.pool_usable is True


@pytest.mark.parametrize("how", ENDS)
def test_message_of_a_crash(how: str) -> None:
    task, args, exitcode, signal_name = ENDS[how]
    with ForkPoolExecutor(1) as ex:
        error = crash_error(ex.submit(task, *args))
    text = str(error)
    assert f"(pid {error.pid})" in text
    assert task.__name__ in text
    assert (signal_name or f"{exitcode}") in text


@pytest.mark.parametrize("how", ["segfault", "faulthandler", "abort"])
def test_stack_at_the_fault(how: str) -> None:
    task, args, _, _ = ENDS[how]
    with ForkPoolExecutor(1) as ex:
        error = crash_error(ex.submit(tasks.call, task, *args))
    assert error.crash_traceback is not None
    assert f"in {task.__name__}" in error.crash_traceback
    assert "in call" in error.crash_traceback


@pytest.mark.parametrize("how", ["SIGKILL", "exit-0", "exit-3"])
def test_no_stack_without_a_fault(how: str) -> None:
    task, args, _, _ = ENDS[how]
    with ForkPoolExecutor(1) as ex:
        assert crash_error(ex.submit(task, *args)).crash_traceback is None


def test_stack_is_of_this_crash_and_not_of_an_earlier_one() -> None:
    with ForkPoolExecutor(1) as ex:
        assert crash_error(ex.submit(tasks.segfault)).crash_traceback is not None
        assert crash_error(ex.submit(tasks.kill_myself)).crash_traceback is None


def test_the_name_that_options_gave() -> None:
    with ForkPoolExecutor(1) as ex:
        error = crash_error(ex.options(name="thumb").submit(tasks.leave, 3))
    assert error.task_name == "thumb"
    assert "thumb" in str(error)


def test_a_crash_is_a_broken_process_pool_and_pickles() -> None:
    with ForkPoolExecutor(1) as ex:
        error = crash_error(ex.submit(tasks.segfault))
    assert isinstance(error, BrokenProcessPool)
    assert isinstance(error, BrokenExecutor)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is WorkerCrashedError
    assert str(again) == str(error)
    assert again.__dict__ == error.__dict__


@pytest.mark.parametrize("how", ENDS)
def test_a_crash_costs_one_future(how: str, marks: Marks) -> None:
    task, args, _, _ = ENDS[how]
    words = [str(number) for number in range(60)]
    with ForkPoolExecutor(2) as ex:
        first = [ex.submit(tasks.leave_mark, marks, word) for word in words[:30]]
        crash = ex.submit(task, *args)
        second = [ex.submit(tasks.leave_mark, marks, word) for word in words[30:]]
        crash_error(crash)
        assert [future.result() for future in first + second] == words
    assert sorted(marks.words()) == sorted(words)


def test_many_crashes_among_many_tasks(marks: Marks) -> None:
    with ForkPoolExecutor(2) as ex:
        futures = [
            ex.submit(tasks.leave, 3) if number % 5 == 0 else ex.submit(tasks.leave_mark, marks, str(number))
            for number in range(100)
        ]
        wait(futures)
        for number, future in enumerate(futures):
            if number % 5 == 0:
                assert crash_error(future).exitcode == 3
            else:
                assert future.result() == str(number)
    assert sorted(map(int, marks.words())) == [number for number in range(100) if number % 5]


def test_blame_is_exact_when_both_workers_crash_at_once(gate: Gate) -> None:
    with ForkPoolExecutor(2) as ex:
        futures = {code: ex.options(name=f"leave {code}").submit(tasks.enter_then, gate, tasks.leave, code) for code in (3, 4)}
        pids = {gate.wait_inside() for _ in futures}
        gate.release(2)
        errors = {code: crash_error(future) for code, future in futures.items()}
    assert {code: (error.exitcode, error.task_name) for code, error in errors.items()} == {
        3: (3, "leave 3"),
        4: (4, "leave 4"),
    }
    assert {error.pid for error in errors.values()} == pids
    assert {error.slot for error in errors.values()} == {0, 1}


def test_result_before_the_crash_counts(gate: Gate) -> None:
    """An answered task is done, whatever becomes of its worker."""
    with ForkPoolExecutor(1) as ex:
        for _ in range(20):
            pid = ex.submit(tasks.pid).result()
            os.kill(pid, signal.SIGKILL)
            processes.wait_exit(pid)
        assert ex.submit(tasks.add, 1, 1).result() == 2


def test_idle_worker_killed(gate: Gate) -> None:
    with ForkPoolExecutor(1) as ex:
        pid = ex.submit(tasks.pid).result()
        os.kill(pid, signal.SIGKILL)
        assert ex.submit(tasks.add, 1, 1).result() == 2
        assert ex.submit(tasks.pid).result() != pid


def test_idle_worker_that_takes_a_task_with_it_as_it_dies(gate: Gate, marks: Marks) -> None:
    """Idle means that it did not begin with anything.

    1. The host sends a task. 2. The worker's read takes it out of the pipe. 3. The worker dies before its next instruction.
    With SIGKILL at 2 that is one time in some hundred (the kernel looks for data before it looks for signals). Here a thread
    that an earlier task left holds the interpreter lock, so that the worker's own thread cannot come out of its read.
    """
    with ForkPoolExecutor(1) as ex:
        pid = ex.submit(tasks.leave_a_thread, gate, tasks.tell_then, gate, tasks.busy_in_c).result()
        processes.wait_state(pid, "S")  # in its read
        gate.release()
        assert gate.wait_inside() == pid
        sleeps = processes.times_asleep(pid)
        future = ex.submit(tasks.leave_mark, marks, "ran")
        while processes.times_asleep(pid) == sleeps:  # it came out of its read, and waits for the lock
            os.sched_yield()
        os.kill(pid, signal.SIGKILL)
        assert future.result() == "ran"
    assert marks.words() == ["ran"]


@pytest.mark.parametrize("how", [how for how in ENDS if how != "segfault"])  # which first imports ctypes: that is too slow
def test_waiting_tasks_of_a_killed_worker_run_once_elsewhere(how: str, marks: Marks, tmp_path: Path) -> None:
    """Those in its pipe too: it ends in a call that is taken for short, so others were sent ahead behind it."""
    task, args, _, _ = ENDS[how]
    seen, numbers = Marks(tmp_path / "seen"), itertools.count()
    with ForkPoolExecutor(1) as ex:

        def submit(count: int) -> dict[str, Any]:
            words = [str(next(numbers)) for _ in range(count)]
            return {word: ex.submit(tasks.mark_then, marks, word) for word in words}

        while len(seen.words()) < 3:  # a busy machine now and then sends nothing ahead
            short = submit(50)
            crash = ex.submit(tasks.mark_then, marks, str(next(numbers)), tasks.do_before_others, seen, task, *args)
            behind = submit(20)
            crash_error(crash)
            assert all(future.result() == word for word, future in {**short, **behind}.items())
    assert sorted(map(int, marks.words())) == list(range(next(numbers)))


def test_a_worker_that_is_killed_from_outside_while_tasks_wait(gate: Gate, marks: Marks) -> None:
    words = [str(number) for number in range(40)]
    with ForkPoolExecutor(1) as ex:
        running = ex.submit(tasks.enter, gate)
        pid = gate.wait_inside()
        waiting = [ex.submit(tasks.leave_mark, marks, word) for word in words]
        os.kill(pid, signal.SIGKILL)
        assert crash_error(running).pid == pid
        assert [future.result() for future in waiting] == words
    assert marks.words() == words


def test_all_workers_killed_at_once(gate: Gate, marks: Marks) -> None:
    with ForkPoolExecutor(3) as ex:
        running = [ex.submit(tasks.enter, gate) for _ in range(3)]
        pids = [gate.wait_inside() for _ in running]
        waiting = [ex.submit(tasks.leave_mark, marks, str(number)) for number in range(9)]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        errors = [crash_error(future) for future in running]
        assert {error.pid for error in errors} == set(pids)
        assert {error.slot for error in errors} == {0, 1, 2}
        assert {error.signal for error in errors} == {"SIGKILL"}
        assert {error.may_have_run for error in errors} == {"maybe"}
        assert [future.result() for future in waiting] == [str(number) for number in range(9)]
        again = [ex.submit(tasks.enter, gate, number) for number in range(3)]
        refilled = {gate.wait_inside() for _ in again}
        assert len(refilled - set(pids)) == 3
        gate.open_for_all()
        assert [future.result() for future in again] == [0, 1, 2]
    assert sorted(marks.words()) == [str(number) for number in range(9)]


def test_a_worker_that_takes_long_to_die_is_not_said_to_have_closed_its_channel(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It held the last descriptor of much shared memory: its pipes end at once, its pidfd tells when all that is given back.

    Stands for it: one that is dead, of which neither its fork server nor its pidfd tells yet.
    """
    looks = threading.Semaphore(0)
    with ForkPoolExecutor(1) as ex:
        future = ex.submit(tasks.enter, gate)
        worker = gate.wait_inside()
        stat = processes.read_stat(worker)
        assert stat is not None
        with stopped(stat.parent), monkeypatch.context() as patch:
            patch.setattr(Crew, "_on_pidfd", lambda crew, generation: crew._reactor.unwatch(crew.links[generation].pidfd))
            patch.setattr(worker_link, "has_ended", lambda _: bool(looks.release()))
            os.kill(worker, signal.SIGKILL)
            looks.acquire()
        error = crash_error(future)
        assert (error.signal, error.pid) == ("SIGKILL", worker)
        assert "closed" not in str(error)
        assert ex.submit(tasks.add, 1, 1).result() == 2


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        processes.wait_state(pid, "T")
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_stopped_worker_waits_and_is_ended_by_kill(gate: Gate) -> None:
    with ForkPoolExecutor(2) as ex:
        stopped = ex.submit(tasks.tell_then, gate, tasks.stop_myself)
        gate.wait_inside()
        assert [ex.submit(tasks.add, n, n).result() for n in range(5)] == [0, 2, 4, 6, 8]
        assert not stopped.done()
        assert stopped.kill()
        assert wait([stopped]).done == {stopped}
        assert stopped.cancelled()
        assert ex.submit(tasks.add, 1, 1).result() == 2


def test_stopped_worker_that_goes_on(gate: Gate) -> None:
    with ForkPoolExecutor(1) as ex:
        stopped = ex.submit(tasks.tell_then, gate, tasks.stop_myself)
        pid = gate.wait_inside()
        processes.wait_state(pid, "T")
        os.kill(pid, signal.SIGCONT)
        assert stopped.result() is None
        assert ex.submit(tasks.pid).result() == pid


@pytest.mark.parametrize("how", ["SIGKILL", "kill", "timeout"])
def test_children_of_the_task_go_with_it(how: str, gate: Gate) -> None:
    with ForkPoolExecutor(1) as ex:
        assert ex.submit(tasks.add, 1, 1).result() == 2
        view = ex.options(timeout=2.0) if how == "timeout" else ex
        future = view.submit(tasks.start_child, gate)
        child = gate.wait_inside()
        stat = processes.read_stat(child)
        assert stat is not None
        if how == "SIGKILL":
            os.kill(stat.parent, signal.SIGKILL)
        if how == "kill":
            future.kill()
        processes.wait_exit(child)
        assert wait([future]).done == {future}
        assert ex.submit(tasks.add, 1, 1).result() == 2


def leave_behind_a_child(gate: Any, how: str) -> None:
    import subprocess

    child = subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE)
    gate.tell(child.pid)
    if how == "crash":
        os._exit(3)


@pytest.mark.parametrize("how", ["crash", "shutdown"])
def test_children_that_a_task_left_behind_end_with_the_worker(how: str, gate: Gate) -> None:
    """They keep the worker's pipes open: end of file would never come."""
    with ForkPoolExecutor(1) as ex:
        future = ex.submit(leave_behind_a_child, gate, how)
        child = gate.wait_inside()
        if how == "crash":
            assert crash_error(future).exitcode == 3
            processes.wait_exit(child)
    processes.wait_exit(child)


def test_rebuilding_code_of_the_standard_library_stays_correct(marks: Marks) -> None:
    """`except BrokenProcessPool:` rebuilds the pool and resubmits what has no result: nothing is lost or doubled."""
    todo = {str(number) for number in range(20)}
    crash_once = {"7"}
    done: list[str] = []
    while todo:
        with ForkPoolExecutor(2) as ex:
            futures = {
                word: ex.submit(tasks.leave, 1) if word in crash_once else ex.submit(tasks.leave_mark, marks, word)
                for word in sorted(todo)
            }
            for word, future in futures.items():
                try:
                    done.append(future.result())
                    todo.discard(word)
                except BrokenProcessPool as error:
                    assert error.pool_usable is True  # type: ignore[attr-defined]  # noqa: PT017  # the shape of user code
                    crash_once.discard(word)
    assert sorted(done) == sorted(marks.words()) == sorted(str(number) for number in range(20))


def test_a_crash_wakes_every_waiter(gate: Gate) -> None:
    with ForkPoolExecutor(1) as ex:
        future = ex.submit(tasks.enter_then, gate, tasks.leave, 3)
        gate.wait_inside()
        found: list[Any] = []
        threads = [threading.Thread(target=lambda: found.append(future.exception())) for _ in range(5)]
        for thread in threads:
            thread.start()
        gate.release()
        assert wait([future], return_when=FIRST_COMPLETED).done == {future}
        for thread in threads:
            thread.join()
    assert len(found) == 5
    assert {id(error) for error in found} == {id(crash_error(future))}


def test_no_zombies_after_crashes() -> None:
    with ForkPoolExecutor(2) as ex:
        server = ex.submit(os.getppid).result()
        for _ in range(10):
            crash_error(ex.submit(tasks.leave, 3))
        assert ex.submit(tasks.add, 1, 1).result() == 2
        living = {pid for pid in processes.children(server) if not processes.has_ended(pid)}
        assert living == set(ex._processes)
    assert processes.marked() == set()
