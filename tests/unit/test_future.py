"""ForkFuture without a pool: who ends it, who is told, where and when it ran.

Runs in: pytest. Races are forced by calling the other side in the middle of a step.
"""

import inspect
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, as_completed, wait
from typing import Any

import pytest

from forkpool._lazy_future import LazyFuture
from forkpool._unpickling import EncodedAnswer
from forkpool.future import ForkFuture
from tests.support.futures import STOPPABLE, TASK, in_thread, make, running

# --- what we rely on


def test_the_base_class_has_the_names_that_we_touch() -> None:
    names = {"_condition", "_state", "_result", "_exception", "_waiters", "_done_callbacks"}
    assert names <= vars(Future()).keys()
    assert vars(Future())["_state"] == "PENDING"


def test_the_base_class_keeps_results_where_we_put_them() -> None:
    source = inspect.getsource(Future)
    for name in ("self._result", "self._exception", "self._waiters", "_invoke_callbacks"):
        assert name in source


def test_no_name_of_ours_hides_one_of_the_base_class() -> None:
    ours = (vars(ForkFuture) | vars(LazyFuture)).keys() - vars(object).keys()
    base = dir(Future) + list(vars(Future()))
    meant = {"cancel", "running", "result", "exception", "done", "_get_snapshot", *vars(Future())}
    assert {name for name in ours if name in base and not name.startswith("__")} <= meant


# --- another attempt


def test_it_waits_again_and_may_be_cancelled() -> None:
    future = running()
    future._run = ((4711, 0), 1, 0.5)
    assert future._repeat()
    future._pool.run = None
    assert (future.attempt, future.pid, future.duration, future.running()) == (2, None, None, False)
    assert future.cancel()
    assert future.cancelled()


def test_it_waits_again_and_is_started_and_finished() -> None:
    future = running()
    assert future._repeat()
    assert future._try_start()
    assert not future.cancel()
    future._finish(7)
    assert (future.result(), future.attempt) == (7, 2)


def test_a_kill_comes_before_another_attempt() -> None:
    future = running()
    assert future.kill()
    assert not future._repeat()
    future._finish(error=RuntimeError("its worker crashed"))
    assert future.cancelled()
    assert future.attempt == 1


# --- where and when it ran


def test_what_is_not_known_is_none() -> None:
    future = make()
    future._pool.run = None
    assert (future.pid, future.slot, future.started_at, future.duration) == (None, None, None, None)
    assert not future.running()


def test_while_it_runs_the_pool_is_asked() -> None:
    future = running()
    assert (future.pid, future.slot, future.started_at, future.duration) == (4711, 3, 2.5, None)
    assert future.running()


def test_sent_to_a_worker_that_has_not_begun_it() -> None:
    future = running()
    future._pool.run = None
    assert not future.running()
    assert not future.cancel(), "whether it can be taken back is not known here"
    assert not future.done()


def test_at_its_end_it_is_noted() -> None:
    future = running()
    future._run = ((4712, 0), 3_000_000_000, 0.25)
    future._finish(1)
    future._pool.run = None
    assert (future.pid, future.slot, future.started_at, future.duration) == (4712, 0, 3.0, 0.25)
    assert not future.running()


def test_it_ends_while_the_pool_is_asked() -> None:
    future = running()

    def finish_and_find_nothing(task: object) -> None:
        future._run = ((4712, 0), 3_000_000_000, 0.25)
        future._finish(1)

    future._pool.find_run = finish_and_find_nothing
    assert future.pid == 4712


def test_a_future_made_by_hand_tells_nothing() -> None:
    future: ForkFuture[int] = ForkFuture()
    future.set_running_or_notify_cancel()
    assert future.running()
    assert (future.pid, future.slot, future.started_at, future.duration) == (None, None, None, None)


# --- who starts, cancels, kills and finishes it


def test_started_then_cancel_is_refused() -> None:
    future = running()
    assert future.running()
    assert not future.cancel()
    assert not future.cancelled()


def test_started_then_cancel_stops_it_if_that_was_asked_for() -> None:
    future = running(STOPPABLE)
    assert future.cancel()
    assert future._pool.killed == [STOPPABLE]
    assert not future.cancelled(), "not before its worker is dead"
    assert future.cancel(), "again"
    future._finish(error=RuntimeError("the worker was killed"))
    assert future.cancelled()
    assert future.cancel(), "and again"


def test_cancel_that_stops_says_false_when_the_answer_was_first() -> None:
    future = running(STOPPABLE)
    future._claim_answer()
    assert not future.cancel()
    future._finish(1)
    assert not future.cancel()
    assert future.result() == 1
    assert future._pool.killed == []


def test_cancel_that_would_stop_it_before_it_runs() -> None:
    future = make(STOPPABLE)
    assert future.cancel()
    assert future.cancelled()
    assert future._pool.killed == []


def test_a_task_that_could_be_stopped_was_put_back() -> None:
    future = running(STOPPABLE)
    assert future.cancel()
    future._put_back()
    assert future.cancel(), "the pool was asked to kill it, and this time it is pending"
    assert future.cancelled()


def test_cancelled_then_it_cannot_be_started() -> None:
    future = make()
    assert future.cancel()
    assert future.cancel(), "again"
    assert not future._try_start()
    assert not future._refuse()
    with pytest.raises(CancelledError):
        future.result(0)


def test_a_task_that_was_put_back_can_be_cancelled_again() -> None:
    future = running()
    future._put_back()
    assert not future.running()
    assert future.cancel()
    assert not future._try_start()


def test_a_task_that_was_put_back_can_be_started_again() -> None:
    future = running()
    future._put_back()
    assert future._try_start()


def test_one_end_only() -> None:
    future = running()
    future._finish(1)
    future._finish(2)
    future._finish_cancelled()
    assert future.result() == 1
    assert not future.cancel()
    assert not future.kill()
    assert future._pool.killed == []


def test_the_pool_is_told_of_a_cancel_once() -> None:
    future = make()
    assert future.cancel()
    assert future.cancel()
    assert future._pool.forgotten == [TASK]


@pytest.mark.parametrize("end", [lambda f: f.cancel(), lambda f: f._finish(1), lambda f: f._finish_cancelled()])
def test_what_has_ended_is_no_cycle(end: Any) -> None:
    future = make()
    end(future)
    assert future._task is None


def test_kill_before_it_began_cancels() -> None:
    future = make()
    assert future.kill()
    assert future.cancelled()
    assert future._pool.killed == []


def test_kill_then_the_end() -> None:
    future = running()
    assert future.kill()
    assert not future.done(), "the worker is not dead yet"
    assert future._pool.killed == [TASK]
    future._finish_cancelled()
    assert future.cancelled()
    assert future.kill(), "it did end cancelled"


@pytest.mark.parametrize("end", [lambda f: f._finish(1), lambda f: f._finish(error=ValueError())])
def test_kill_keeps_its_word_when_an_answer_comes(end: Callable[[ForkFuture[Any]], object]) -> None:
    future = running()
    future.kill()
    end(future)
    with pytest.raises(CancelledError):
        future.result(0)


def test_the_answer_then_kill_says_false() -> None:
    future = running()
    future._finish(1)
    assert not future.kill()
    assert future.result() == 1


def test_cancel_that_was_interrupted_can_be_finished_by_the_pool() -> None:
    # A signal handler raised after `cancel` took the future and before it wrote the end: the pool finds a task
    # that it may not start, and ends it.
    future = make()
    future.__dict__["_owner"] = "user"
    assert not future._try_start()
    assert not future.done()
    future._finish_cancelled()
    assert future.cancelled()
    assert future.cancel()


def test_finishing_does_not_wait_long_for_a_thread_that_holds_the_condition() -> None:
    future = running()
    with future._condition:
        assert in_thread(lambda: future._finish(1, patience=0.001)) == [None]
        assert in_thread(lambda: future._finish_cancelled(patience=0.001)) == [None]
    assert not future.done()
    assert future._finish(1) is False
    assert future.result() == 1


# --- who is told


def test_cancel_tells_waiters_at_once() -> None:
    futures = [make(), make()]
    seen = []
    iterator = as_completed(futures)
    futures[0].cancel()
    seen.append(next(iterator))
    futures[1]._try_start()
    futures[1]._finish(3)
    seen.append(next(iterator))
    assert seen == futures


@pytest.mark.parametrize(
    "end",
    [
        lambda f: f.cancel(),
        lambda f: f._try_start() and f._finish(None),
        lambda f: f._try_start() and f._finish(error=ValueError()),
        lambda f: f._try_start() and f._finish(encoded=EncodedAnswer(b"", bytes, False)),
        lambda f: f._finish_cancelled(),
        lambda f: f._try_start() and f.kill() and f._finish(1),
    ],
)
def test_every_end_wakes_wait_and_result(end: Callable[[ForkFuture[Any]], object]) -> None:
    future = make()
    ready, done = threading.Event(), []

    def waiter() -> None:
        ready.set()
        done.append(wait([future]).done)

    def asker() -> None:
        with pytest.raises((CancelledError, ValueError)) if end_raises else _nothing():
            future.result()
        done.append("result")

    end_raises = _ends_badly(end)
    threads = [threading.Thread(target=waiter), threading.Thread(target=asker)]
    for thread in threads:
        thread.start()
    ready.wait()
    end(future)
    for thread in threads:
        thread.join()
    assert len(done) == 2


def _ends_badly(end: Callable[[ForkFuture[Any]], object]) -> bool:
    probe = make()
    end(probe)
    return probe.cancelled() or probe.exception() is not None


class _nothing:
    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


def test_waiters_are_told_of_a_cancel_before_callbacks_run() -> None:
    future = make()
    told = []
    future.add_done_callback(lambda f: told.append(wait([f], timeout=0).done))
    future.cancel()
    assert told == [{future}]


def test_a_callback_that_exits_does_not_keep_a_cancel_from_the_waiters() -> None:
    future = make()

    def leave(_: object) -> None:
        raise SystemExit

    future.add_done_callback(leave)
    iterator = as_completed([future], timeout=0)
    with pytest.raises(SystemExit):
        future.cancel()
    assert next(iterator) is future


def test_a_cancel_that_was_interrupted_is_completed_by_the_next() -> None:
    future = make()
    future.__dict__["_owner"] = "user"  # as if a signal handler had raised right behind the claim
    assert not future.cancelled()
    assert future.cancel()
    assert wait([future], timeout=0).done == {future}


def test_finish_says_whether_there_are_callbacks() -> None:
    future = running()
    seen: list[object] = []
    future.add_done_callback(seen.append)
    assert future._finish(1) is True
    assert seen == [], "they run where the caller wants them to"
    future._run_callbacks()
    assert seen == [future]
    assert running()._finish(1) is False


def test_a_callback_that_raises_or_exits_keeps_no_other_from_running(caplog: pytest.LogCaptureFixture) -> None:
    future = running()
    seen: list[object] = []

    def fail(_: object) -> None:
        raise KeyboardInterrupt

    future.add_done_callback(fail)
    future.add_done_callback(seen.append)
    future._finish(1)
    future._run_callbacks()
    assert seen == [future]
    assert "exception calling callback" in caplog.text
