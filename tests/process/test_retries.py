"""Row "retries asked for": attempts, their errors, and what ends them.

A task that is to fail a number of times (`tasks.fail_until`) looks at `current_task().attempt`, which is so checked too.
"""

import os
import pickle
import threading
from concurrent.futures import CancelledError, wait
from typing import Any

import pytest

from forkpool import ForkFuture, ForkPoolExecutor, InlineExecutor, SerializationError, TaskTimeoutError, WorkerCrashedError
from tests.support import tasks
from tests.support.gate import Gate, Marks


@pytest.mark.parametrize(
    ("do", "args"),
    [(tasks.kill_myself, ()), (tasks.leave, (3,)), (tasks.raise_new, (tasks.Flaky, "refused"))],
    ids=["kill", "exit", "raise"],
)
def test_the_third_attempt_succeeds(do: Any, args: tuple[Any, ...], marks: Marks) -> None:
    with ForkPoolExecutor(2) as ex:
        future = ex.options(retries=5, retry_on=(WorkerCrashedError, OSError)).submit(tasks.fail_until, 3, marks, do, *args)
        other = ex.submit(tasks.add, 1, 1)
        assert future.result() == future.pid
        assert (future.attempt, other.attempt, other.result()) == (3, 1, 2)
        assert marks.words() == ["1", "2", "3"]
        counts = ex.statistics()
        assert (counts.done, counts.crashed, counts.failed, counts.submitted) == (2, 0, 0, 2)


def test_the_last_error_tells_of_all_attempts(marks: Marks) -> None:
    with ForkPoolExecutor(2) as ex:
        view = ex.options(retries=2, retry_on=(WorkerCrashedError, tasks.Flaky), name="flaky")
        futures = [
            view.submit(tasks.fail_until, 9, marks, tasks.kill_myself),
            view.submit(tasks.raise_new, tasks.Flaky, "refused\nhere"),
        ]
        crash, raised = [future.exception() for future in futures]
        assert [future.attempt for future in futures] == [3, 3]
        assert isinstance(crash, WorkerCrashedError)
        assert type(raised) is tasks.Flaky
        for error, text in ((crash, "was killed by SIGKILL while running 'flaky'"), (raised, "Flaky: refused (worker")):
            first, second, third = error.__notes__
            assert first.startswith("attempt 1 of 3: ")
            assert second.startswith("attempt 2 of 3: ")
            assert text in first
            assert text in second
            assert third == "attempt 3 of 3: this error"
            assert pickle.loads(pickle.dumps(error)).__notes__ == error.__notes__
        pids = {note.partition("(pid ")[2].partition(")")[0] for note in crash.__notes__[:2]} | {str(crash.pid)}
        assert len(pids) == 3, "each on a worker of its own"
        counts = ex.statistics()
        assert (counts.failed, counts.crashed, counts.submitted) == (1, 1, 2)


def test_nothing_is_run_twice_unless_asked(marks: Marks) -> None:
    with ForkPoolExecutor(1) as ex:
        assert type(ex.submit(tasks.fail_until, 2, marks, tasks.kill_myself).exception()) is WorkerCrashedError
        crash_only = ex.options(retries=5)
        error = crash_only.submit(tasks.fail_until, 2, marks, tasks.raise_new, tasks.Flaky).exception()
        assert type(error) is tasks.Flaky
        assert not hasattr(error, "__notes__")
        late = ex.options(retries=5, timeout=0.2).submit(tasks.fail_until, 2, marks, tasks.busy_in_python)
        assert type(late.exception()) is TaskTimeoutError
    assert marks.words() == ["1", "1", "1"]


def test_a_timeout_and_an_unpicklable_result(marks: Marks) -> None:
    with ForkPoolExecutor(1) as ex:
        late = ex.options(retries=1, retry_on=TimeoutError, timeout=1.0)
        future = late.submit(tasks.fail_until, 2, marks, tasks.busy_in_python)
        assert future.result() == future.pid
        error = ex.options(retries=1, retry_on=SerializationError).submit(threading.Lock).exception()
        assert isinstance(error, SerializationError)
        assert error.__notes__[0].startswith("attempt 1 of 2: forkpool.errors.SerializationError: ")


def test_the_next_attempt_goes_to_another_worker(marks: Marks, gate: Gate) -> None:
    with ForkPoolExecutor(2) as ex:
        both = [ex.submit(tasks.enter, gate) for _ in range(2)]
        for _ in both:
            gate.wait_inside()
        gate.open_for_all()
        wait(both)
        future = ex.options(retries=1, retry_on=OSError).submit(tasks.fail_on_first_slot, marks)
        assert future.result() == future.slot
        assert sorted(marks.words()) == ["0", "1"]


def test_if_an_attempt_ran_the_last_error_does_not_say_that_nothing_did(marks: Marks) -> None:
    with ForkPoolExecutor(1) as ex:
        view = ex.options(retries=1)
        error = view.submit(tasks.identity, tasks.DoesWhileUnpickled(tasks.kill_myself)).exception()
        assert isinstance(error, WorkerCrashedError)
        assert error.may_have_run == "no", "in neither attempt"
        error = view.submit(
            tasks.fail_until, 9, marks, tasks.kill_myself, tasks.DoesWhileUnpickled(tasks.crash_if_marked, marks)
        ).exception()
        assert isinstance(error, WorkerCrashedError)
        assert marks.words() == ["1"], "the second time it came no further than its arguments"
        assert error.may_have_run == "maybe"


def test_kill_and_cancel_end_all_attempts(gate: Gate, marks: Marks) -> None:
    with ForkPoolExecutor(1) as ex:
        view = ex.options(retries=9)
        killed = view.submit(tasks.fail_until, 99, marks, tasks.enter, gate)
        gate.wait_inside()
        assert killed.kill()
        cancelled = view.options(cancel_running=True).submit(tasks.fail_until, 99, marks, tasks.enter, gate)
        gate.wait_inside()
        assert cancelled.cancel()
        for future in (killed, cancelled):
            with pytest.raises(CancelledError):
                future.result()
        assert marks.words() == ["1", "1"]
        assert ex.statistics().cancelled == 2


def test_kill_races_with_crashes_and_attempts(marks: Marks) -> None:
    """Whatever attempt it is in: after `kill()` it ends cancelled, and `cancel()` tells what will be."""
    with ForkPoolExecutor(2) as ex:
        for number in range(40):
            future = ex.options(retries=100).submit(tasks.leave, 1)
            if number % 2:
                ex.submit(tasks.add, 1, 1).result()
            told = future.kill() if number % 4 < 2 else future.cancel() or future.kill()
            assert told
            assert wait([future]).done == {future}
            assert future.cancelled()
        assert ex.submit(tasks.add, 1, 1).result() == 2
        assert ex.statistics().cancelled == 40


def test_shutdown_goes_on_trying_unless_it_cancels(gate: Gate, marks: Marks) -> None:
    with ForkPoolExecutor(1) as ex:
        future = ex.options(retries=1).submit(tasks.fail_until, 2, marks, tasks.enter_then, gate, tasks.kill_myself)
        gate.wait_inside()
        ex.shutdown(wait=False)
        gate.open_for_all()
    assert future.result() == future.pid
    assert marks.words() == ["1", "2"]


def test_shutdown_that_cancels_lets_the_attempt_be_the_last(gate: Gate, marks: Marks) -> None:
    with ForkPoolExecutor(1) as ex:
        future = ex.options(retries=1).submit(tasks.fail_until, 2, marks, tasks.enter_then, gate, tasks.kill_myself)
        gate.wait_inside()
        ex.shutdown(wait=False, cancel_futures=True)
        gate.open_for_all()
    error = future.exception()  # whether the crash or the shutdown is heard of first
    assert type(error) is WorkerCrashedError
    assert (future.attempt, future.pid) == (1, error.pid)
    assert marks.words() == ["1"]
    assert ex.statistics().crashed == 1


@pytest.mark.parametrize("how", ["shutdown", "cancel", "kill"])
def test_an_end_between_two_attempts(how: str, gate: Gate, marks: Marks) -> None:
    # 1. the first attempt is inside; 2. a more urgent call is submitted; 3. the attempt fails: now it waits behind that call.
    with ForkPoolExecutor(1) as ex:
        view = ex.options(retries=9, retry_on=tasks.Flaky)
        future = view.submit(tasks.fail_until, 9, marks, tasks.enter_then, gate, tasks.raise_new, tasks.Flaky, "refused")
        gate.wait_inside()
        ex.options(priority=1).submit(tasks.enter, gate)
        gate.release()
        gate.wait_inside()
        assert (future.attempt, future.running(), future.pid, future.done()) == (2, False, None, False)
        if how == "shutdown":
            ex.shutdown(wait=False, cancel_futures=True)
        else:
            assert getattr(future, how)()
            assert future.cancelled()
        gate.open_for_all()
    if how == "shutdown":
        error = future.exception()
        assert type(error) is tasks.Flaky
        assert error.__notes__ == ["attempt 1 of 10: this error", "it is not tried again: the pool was told to stop"]
        assert future.attempt == 1
    counts = ex.statistics()
    assert (counts.done, counts.failed, counts.cancelled) == ((1, 1, 0) if how == "shutdown" else (1, 0, 1))
    assert marks.words() == ["1"]


def test_a_pool_that_breaks_between_attempts_does_not_say_that_it_never_ran(marks: Marks, tmp_path: Any) -> None:
    first = str(tmp_path / "first")

    def initialize(path: str) -> None:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))  # raises in the second worker

    with ForkPoolExecutor(1, initializer=initialize, initargs=(first,)) as ex:
        error = ex.options(retries=3).submit(tasks.fail_until, 9, marks, tasks.kill_myself).exception()
        assert type(error) is WorkerCrashedError, repr(error)
        assert error.may_have_run == "maybe"
        assert error.__notes__ == ["attempt 1 of 4: this error", "it is not tried again: the pool is broken"]
    assert marks.words() == ["1"]


def test_a_task_that_kills_every_worker_takes_nobody_with_it(marks: Marks) -> None:
    with ForkPoolExecutor(2) as ex:
        poison: list[ForkFuture[Any]] = [ex.options(retries=4).submit(tasks.leave, 1) for _ in range(4)]
        good = [ex.submit(tasks.leave_mark, marks, str(number)) for number in range(100)]
        assert [future.result() for future in good] == [str(number) for number in range(100)]
        assert all(type(future.exception()) is WorkerCrashedError for future in poison)
        assert sum(future.attempt for future in poison) == 20
        assert sorted(marks.words()) == sorted(str(number) for number in range(100))


def test_inline_errors_are_tried_again(marks: Marks) -> None:
    with InlineExecutor(1) as ex:
        view = ex.options(retries=2, retry_on=tasks.Flaky)
        assert view.submit(tasks.fail_until, 3, marks, tasks.raise_new, tasks.Flaky).result() == os.getpid()
        future = view.submit(tasks.fail_until, 9, marks, tasks.raise_new, tasks.Flaky, "refused")
        error = future.exception()
        assert type(error) is tasks.Flaky
        assert [note.partition(":")[0] for note in error.__notes__] == ["attempt 1 of 3", "attempt 2 of 3", "attempt 3 of 3"]
        assert future.attempt == 3
        assert type(view.submit(tasks.fail_until, 9, marks, tasks.raise_new, KeyError).exception()) is KeyError
        assert ex.statistics().failed == 2
    assert marks.words() == ["1", "2", "3"] * 2 + ["1"]
