"""Rows "task exceeds `timeout`", "`future.kill()`", "`cancel()` while queued".

The timeouts here are short so that the tests are; none asserts how long something took.
"""

import itertools
import os
import signal
import sys
import threading
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, Executor, wait
from pathlib import Path
from typing import Any

import pytest

from forkpool import ForkPoolExecutor, TaskTimeoutError
from tests.support import processes, tasks
from tests.support.gate import Gate, Marks

SHORT_S = 0.2
ENOUGH_S = 3.0  # also on a loaded machine, for a call that does next to nothing

STUCK: dict[str, Any] = {
    "waits": tasks.enter,
    "busy in C": lambda gate: tasks.tell_then(gate, tasks.busy_in_c),
    "stopped": lambda gate: tasks.tell_then(gate, tasks.stop_myself),
    "busy in Python": lambda gate: tasks.tell_then(gate, tasks.busy_in_python),
    "swallows": lambda gate: tasks.tell_then(gate, tasks.swallow_everything),
}


@pytest.mark.parametrize("how", STUCK)
def test_timeout_of_a_stuck_task(how: str, gate: Gate) -> None:
    with ForkPoolExecutor(1) as ex:
        pid = ex.submit(lambda: os.getpid()).result()  # by value, as the stuck ones: what that imports takes its time
        future = ex.options(timeout=SHORT_S, name="stuck").submit(STUCK[how], gate)
        error = future.exception()
        assert type(error) is TaskTimeoutError, repr(error)
        assert processes.has_ended(pid)
        assert (error.pid, error.slot, error.task_name) == (pid, 0, "stuck")
        assert error.seconds >= SHORT_S
        assert error.may_have_run == "maybe" or not gate.was_told()  # on a loaded machine its time may be up before it begins
        assert error.pool_usable is True
        assert ex.submit(tasks.pid).result() != pid


def test_a_timeout_is_a_timeout_error() -> None:
    with ForkPoolExecutor(1) as ex, pytest.raises(TimeoutError, match="busy_in_python"):
        ex.options(timeout=SHORT_S).submit(tasks.busy_in_python).result()


def test_timeout_counts_running_time_only(gate: Gate) -> None:
    """Twenty calls wait behind one another for longer than the timeout of each."""
    with ForkPoolExecutor(1) as ex:
        view = ex.options(timeout=30)
        futures = [view.submit(tasks.enter, gate, number) for number in range(20)]
        stuck = ex.options(timeout=SHORT_S).submit(tasks.busy_in_python)
        after = view.submit(tasks.add, 1, 1)
        gate.open_for_all()
        assert [future.result() for future in futures] == list(range(20))
        assert type(stuck.exception()) is TaskTimeoutError
        assert after.result() == 2


def test_timeouts_of_two_workers(gate: Gate) -> None:
    with ForkPoolExecutor(2) as ex:
        slow = ex.options(timeout=30).submit(tasks.enter, gate, "slow")
        gate.wait_inside()
        quick = ex.options(timeout=SHORT_S).submit(tasks.enter, gate)
        assert type(quick.exception()) is TaskTimeoutError
        assert not slow.done()
        gate.open_for_all()
        assert slow.result() == "slow"


def test_timeout_while_unpickling_the_call() -> None:
    with ForkPoolExecutor(1) as ex:
        error = ex.options(timeout=SHORT_S).submit(tasks.identity, tasks.DoesWhileUnpickled(tasks.busy_in_python)).exception()
        assert type(error) is TaskTimeoutError, repr(error)
        assert error.may_have_run == "no"
        assert ex.submit(tasks.add, 1, 1).result() == 2


def test_a_view_is_an_executor(gate: Gate) -> None:
    with ForkPoolExecutor(1) as ex:
        view = ex.options(timeout=30, name="view")
        assert isinstance(view, Executor)
        assert list(view.map(tasks.add, range(5), range(5))) == [0, 2, 4, 6, 8]
        assert view.submit(tasks.add, 1, b=2).result() == 3


def test_no_option_is_taken_from_the_callers_keywords() -> None:
    with ForkPoolExecutor(1) as ex:
        keywords = {
            "timeout": 0,
            "name": 1,
            "priority": "x",
            "cancel_running": 2,
            "retries": -1,
            "retry_on": None,
            "memory_limit": 0,
            "fn": 3,
            "self": 4,
        }
        assert ex.options(retries=1, timeout=30).submit(dict, **keywords).result() == keywords


@pytest.mark.parametrize("bad", [{"timeout": 0}, {"timeout": -1}, {"timeout": float("nan")}])
def test_bad_values_of_options(bad: dict[str, Any]) -> None:
    with ForkPoolExecutor(1) as ex, pytest.raises(ValueError, match="timeout"):
        ex.options(**bad)


@pytest.mark.parametrize("bad", [{"timeout": "1"}, {"timeout": True}, {"name": 3}, {"tiemout": 1}])
def test_bad_types_of_options(bad: dict[str, Any]) -> None:
    with ForkPoolExecutor(1) as ex, pytest.raises(TypeError, match=next(iter(bad))):
        ex.options(**bad)


LARGE = 8 << 20  # far more than a pipe holds


@pytest.mark.slow
@pytest.mark.parametrize("size", [10, LARGE])
def test_a_stopped_worker_that_takes_nothing_costs_a_call_with_a_timeout_nothing(size: int, marks: Marks) -> None:
    """A large call waited without end: its timeout was to begin when the pipe had all of it."""
    with ForkPoolExecutor(1) as ex:
        pid = ex.submit(tasks.pid).result()
        os.kill(pid, signal.SIGSTOP)
        processes.wait_state(pid, "T")
        future = ex.options(timeout=ENOUGH_S).submit(tasks.mark_then, marks, "ran", len, bytes(size))
        assert future.result() == size
        assert processes.has_ended(pid)
    assert marks.words() == ["ran"]


@pytest.mark.parametrize("how", ["kill", "kill_workers", "abort"])
def test_a_large_call_to_a_stopped_worker_can_be_ended(how: str, marks: Marks) -> None:
    with ForkPoolExecutor(1, grace_period=SHORT_S) as ex:
        pid = ex.submit(tasks.pid).result()
        os.kill(pid, signal.SIGSTOP)
        processes.wait_state(pid, "T")
        future = ex.submit(tasks.mark_then, marks, "ran", len, bytes(LARGE))
        {"kill": future.kill, "kill_workers": ex.kill_workers, "abort": ex._pool.abort}[how]()
        assert wait([future]).done == {future}
        assert future.cancelled()
    assert marks.words() == []


def test_a_worker_that_is_stopped_while_it_reads_a_large_call() -> None:
    """It has begun with that call, and so might each worker be stopped there: the timeout ends it."""
    with ForkPoolExecutor(1) as ex:
        pid = ex.submit(stop_at_the_next_part).result()
        error = ex.options(timeout=SHORT_S).submit(len, bytes(LARGE)).exception()
        assert type(error) is TaskTimeoutError, repr(error)
        assert (error.pid, error.may_have_run) == (pid, "no")
        assert ex.submit(tasks.pid).result() != pid


def stop_at_the_next_part() -> int:
    """This worker reads one part of a large call and is stopped."""
    readv = os.readv

    def read_and_stop(*args: Any) -> int:
        count = readv(*args)
        os.kill(os.getpid(), signal.SIGSTOP)
        return count

    os.readv = read_and_stop
    return os.getpid()


@pytest.mark.parametrize("how", STUCK)
def test_kill_of_a_stuck_task(how: str, gate: Gate) -> None:
    with ForkPoolExecutor(1) as ex:
        future = ex.submit(STUCK[how], gate)
        pid = gate.wait_inside()
        assert future.kill() is True
        assert wait([future]).done == {future}
        assert future.cancelled()
        assert processes.has_ended(pid)
        with pytest.raises(CancelledError):
            future.result()
        assert ex.submit(tasks.pid).result() != pid


def test_kill_of_a_waiting_task(gate: Gate, marks: Marks) -> None:
    with ForkPoolExecutor(1) as ex:
        running = ex.submit(tasks.enter, gate, "ran")
        gate.wait_inside()
        waiting = [ex.submit(tasks.leave_mark, marks, str(number)) for number in range(10)]
        assert waiting[3].kill() is True
        assert wait([waiting[3]]).done == {waiting[3]}
        assert waiting[3].cancelled()
        gate.open_for_all()
        assert running.result() == "ran"
    assert marks.words() == ["0", "1", "2", "4", "5", "6", "7", "8", "9"]


def test_kill_of_a_done_task() -> None:
    with ForkPoolExecutor(1) as ex:
        future = ex.submit(tasks.add, 1, 1)
        assert future.result() == 2
        assert future.kill() is False
        assert future.result() == 2
        assert not future.cancelled()


def test_kill_leaves_what_waits_behind_unharmed(gate: Gate, marks: Marks) -> None:
    with ForkPoolExecutor(1) as ex:
        running = ex.submit(tasks.enter, gate)
        gate.wait_inside()
        words = [str(number) for number in range(20)]
        waiting = [ex.submit(tasks.leave_mark, marks, word) for word in words]
        assert running.kill()
        assert [future.result() for future in waiting] == words
    assert marks.words() == words


def test_kill_twice_from_many_threads(gate: Gate) -> None:
    with ForkPoolExecutor(1) as ex:
        future = ex.submit(tasks.enter, gate)
        gate.wait_inside()
        threads = [threading.Thread(target=future.kill) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wait([future]).done == {future}
        assert future.cancelled()
        assert ex.submit(tasks.add, 1, 1).result() == 2


def test_kill_races_with_the_end_of_the_task(marks: Marks) -> None:
    """Cancelled or a result, never something else, and the next task is never the one that is killed."""
    with ForkPoolExecutor(2) as ex:
        for number in range(200):
            future = ex.submit(tasks.add, number, 1)
            behind = ex.submit(tasks.leave_mark, marks, str(number))
            killed = future.kill()
            assert wait([future]).done == {future}
            assert future.cancelled() or (not killed and future.result() == number + 1)
            assert behind.result() == str(number)
    assert marks.words() == [str(number) for number in range(200)]


def test_cancel_never_lies(marks: Marks) -> None:
    """cancel() returned True: the task never runs. False: it has a result."""
    with ForkPoolExecutor(2) as ex:
        futures = [ex.submit(tasks.leave_mark, marks, str(number)) for number in range(2000)]
        cancelled = {str(number) for number, future in enumerate(futures) if number % 3 == 0 and future.cancel()}
        wait(futures)
        assert {str(number) for number, future in enumerate(futures) if future.cancelled()} == cancelled
    assert sorted(marks.words()) == sorted({str(number) for number in range(2000)} - cancelled)


@pytest.fixture
def eager_threads() -> Iterator[None]:
    """Threads take turns as often as they can."""
    previous = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(previous)


def batches(total: int) -> Iterator[range]:
    """Numbers up to there in batches of 1 to 40."""
    begin = 0
    for size in itertools.cycle(range(1, 42)):
        yield range(begin, min(begin + size, total))
        begin += size
        if begin >= total:
            return


@pytest.mark.slow
@pytest.mark.alarm(180)
@pytest.mark.usefixtures("eager_threads")
def test_cancel_races_with_sending_taking_and_taking_back(tmp_path: Path) -> None:
    """In 10^5 races: cancel() returned True, and the task has not run; False, and it has, once.

    The call is known as short, so that it is sent ahead; now and then one is not, and those behind it are taken back. Half of
    the batches are cancelled at once, where most are not even queued; half when the first call is done, where most were sent.
    """
    runs, said, futures = tmp_path / "runs", [], []
    runs.write_bytes(bytes(100_000))
    with ForkPoolExecutor(2) as ex:
        for batch_number, numbers in enumerate(batches(100_000)):
            pauses = {numbers[0]: 0.006} if len(numbers) == 40 else {}
            batch = [ex.submit(tasks.count_run, str(runs), number, pauses.get(number, 0.0)) for number in numbers]
            if batch_number % 2:
                wait(batch, return_when=FIRST_COMPLETED)
            told = [future.cancel() for future in (batch if batch_number % 4 < 2 else reversed(batch))]
            said += told if batch_number % 4 < 2 else reversed(told)
            futures += batch
            wait(batch)
        assert [future.cancelled() for future in futures] == said
        counts = ex.statistics()
    assert list(runs.read_bytes()) == [not cancelled for cancelled in said]
    assert (counts.cancelled, counts.done) == (sum(said), len(said) - sum(said))
    assert 0 < sum(said) < len(said)


def test_cancel_of_what_waits_behind_a_stuck_task(gate: Gate, marks: Marks) -> None:
    with ForkPoolExecutor(1) as ex:
        ex.submit(tasks.enter, gate)
        gate.wait_inside()
        waiting = [ex.submit(tasks.leave_mark, marks, str(number)) for number in range(20)]
        assert [future.cancel() for future in waiting] == [True] * 20
        gate.open_for_all()
    assert marks.words() == []


@pytest.mark.filterwarnings("ignore::forkpool.PayloadWarning")  # large, again and again: that is what is looked at
def test_what_is_cancelled_gives_its_memory_back_before_its_turn_comes(gate: Gate) -> None:
    # 1. one task runs, one waits, behind it many large ones; 2. those are cancelled; 3. the running one is killed: when the
    # next is inside, the supervisor has heard all that.
    with ForkPoolExecutor(1) as ex:
        running, _ = ex.submit(tasks.enter, gate), ex.submit(tasks.enter, gate)
        gate.wait_inside()
        tracemalloc.start()
        try:
            large = [ex.submit(tasks.identity, bytes(1 << 20)) for _ in range(20)]
            held, _ = tracemalloc.get_traced_memory()
            assert all(future.cancel() for future in large)
            assert running.kill()
            gate.wait_inside()
            left, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
            gate.open_for_all()
        assert held > 20 << 20
        assert left < 2 << 20


def test_kill_signal_comes_through_no_matter_what_the_worker_blocks(gate: Gate) -> None:
    def block_and_enter(gate: Any) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        os.nice(19)
        gate.enter()

    with ForkPoolExecutor(1) as ex:
        future = ex.submit(block_and_enter, gate)
        gate.wait_inside()
        assert future.kill()
        assert wait([future]).done == {future}
        assert future.cancelled()
