"""ForkFuture without a pool: who ends it, who is told, who unpickles.

Runs in: pytest. `Requests` stands in for the pool; races are forced by calling the other side in the middle of a step.
"""

import concurrent.futures
import errno
import inspect
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, as_completed, wait
from types import SimpleNamespace
from typing import Any

import pytest

from forkpool._lazy_future import LazyFuture
from forkpool.future import EncodedAnswer, ForkFuture, Run


class Requests:
    """What a future wants of its pool."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.killed: list[object] = []
        self.forgotten: list[object] = []
        self.on_supervisor = False
        self.stuck_callbacks: threading.Event | None = None
        self.run: Run | None = ((4711, 3), 2_500_000_000, None)

    def ask_kill(self, task: object) -> None:
        self.killed.append(task)

    def forget(self, task: object) -> None:
        self.forgotten.append(task)

    def find_run(self, task: object) -> Run | None:
        return self.run

    def is_supervisor_thread(self) -> bool:
        return self.on_supervisor


TASK = SimpleNamespace(options=SimpleNamespace(cancel_running=False))
STOPPABLE = SimpleNamespace(options=SimpleNamespace(cancel_running=True))


def make(task: object = TASK) -> ForkFuture[Any]:
    future: ForkFuture[Any] = ForkFuture()
    future._pool, future._task = Requests(), task
    return future


def running(task: object = TASK) -> ForkFuture[Any]:
    future = make(task)
    assert future._try_start()
    return future


def in_thread(work: Callable[[], object]) -> list[object]:
    """Run it in another thread, to its end; what it returned or raised."""
    said: list[object] = []

    def run() -> None:
        try:
            said.append(work())
        except BaseException as error:
            said.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return said


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
    meant = {"cancel", "running", "result", "exception", "done", *vars(Future())}
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


# --- unpickling


class Decoder:
    """Counts, and lets a test do something in the middle."""

    def __init__(self, value: Any, meanwhile: Callable[[], object] | None = None) -> None:
        self.value = value
        self.meanwhile = meanwhile
        self.threads: list[int] = []

    def __call__(self, data: bytes | bytearray) -> Any:
        self.threads.append(threading.get_ident())
        if self.meanwhile is not None:
            self.meanwhile()
        if isinstance(self.value, type):
            raise self.value
        return self.value


def finished_with(decoder: Decoder, *, is_error: bool = False) -> ForkFuture[Any]:
    future = running()
    future._finish(encoded=EncodedAnswer(b"data", decoder, is_error))
    return future


def test_nobody_unpickles_before_somebody_asks() -> None:
    decoder = Decoder(5)
    future = finished_with(decoder)
    assert future.done()
    assert decoder.threads == []
    assert future.result() == 5
    assert future.result() == 5
    assert future.exception() is None
    assert len(decoder.threads) == 1


def test_an_error_is_unpickled_once() -> None:
    decoder = Decoder(ValueError("user's"))
    future = finished_with(decoder, is_error=True)
    error = future.exception()
    assert isinstance(error, ValueError)
    with pytest.raises(ValueError, match="user's"):
        future.result()
    assert future.exception() is error
    assert len(decoder.threads) == 1


def test_many_threads_ask_and_one_unpickles() -> None:
    everybody = threading.Barrier(4)
    gate = threading.Event()
    decoder = Decoder("value", gate.wait)
    future = finished_with(decoder)
    results = []

    def ask() -> None:
        everybody.wait()
        results.append(future.result())

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    everybody.wait()
    gate.set()
    for thread in threads:
        thread.join()
    assert results == ["value"] * 3
    assert len(decoder.threads) == 1


@pytest.mark.parametrize("is_error", [False, True])
@pytest.mark.parametrize("method", ["result", "exception"])
def test_who_asks_while_another_unpickles_gets_the_answer_too(
    monkeypatch: pytest.MonkeyPatch, is_error: bool, method: str
) -> None:
    # 1. A asks the base class: no value, no error yet; 2. B unpickles and is done; 3. A goes on: nothing is left to unpickle.
    value = ValueError("user's") if is_error else "value"
    future = finished_with(Decoder(value), is_error=is_error)
    original = getattr(Future, method)

    def interleaved(self: Future[Any], timeout: float | None = None) -> Any:
        monkeypatch.setattr(Future, method, original)
        found = original(self, timeout)
        in_thread(self.exception)
        return found

    monkeypatch.setattr(Future, method, interleaved)
    if method == "exception":
        assert future.exception() is (value if is_error else None)
    elif is_error:
        with pytest.raises(ValueError, match="user's"):
            future.result()
    else:
        assert future.result() == "value"


@pytest.mark.parametrize("error", [SystemExit, ValueError, GeneratorExit])
def test_what_unpickling_raises_is_the_answer(error: type[BaseException]) -> None:
    future = finished_with(Decoder(error))
    for _ in range(2):
        with pytest.raises(error):
            future.result()
    assert isinstance(future.exception(), error)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.EMFILE, "too many"), OSError(errno.ENFILE, "too many")])
def test_ctrl_c_or_a_shortage_while_unpickling_loses_nothing(error: BaseException) -> None:
    failures = [error]

    def fail_once() -> None:
        if failures:
            raise failures.pop()

    future = finished_with(Decoder("value", fail_once))
    with pytest.raises(type(error)):
        future.result()
    assert future.result() == "value"
    assert in_thread(future.result) == ["value"]


def test_unpickling_that_asks_for_its_own_result_is_told_so() -> None:
    future: ForkFuture[Any] = running()
    decoder = Decoder("value")
    decoder.meanwhile = lambda: future.result()
    future._finish(encoded=EncodedAnswer(b"", decoder, False))
    with pytest.raises(RuntimeError, match="asks for this future's result"):
        future.result()


def test_unpickling_that_asks_for_another_future_is_fine() -> None:
    other = finished_with(Decoder("other"))
    decoder = Decoder("value")
    decoder.meanwhile = other.result
    assert finished_with(decoder).result() == "value"


# --- where it may be waited for


def test_in_a_fork_of_the_host_waiting_says_why_it_cannot_end() -> None:
    future = make()
    future._pool.pid = os.getpid() + 1
    for ask in (future.result, future.exception):
        with pytest.raises(RuntimeError, match=f"process {os.getpid() + 1}, and this is a fork of it"):
            ask()
    future._try_start()
    future._finish(1)
    assert future.result() == 1, "what had arrived before the fork is there"


def test_on_the_pools_own_thread_waiting_says_why_it_cannot_end() -> None:
    future = make()
    future._pool.on_supervisor = True
    with pytest.raises(RuntimeError, match="finalizer"):
        future.result()


def test_a_timeout_of_the_caller_leaves_the_task_alone() -> None:
    future = running()
    for ask in (future.result, future.exception):
        with pytest.raises(concurrent.futures.TimeoutError):
            ask(timeout=0)
    assert future.running()


# --- a condition that is made on demand meets an end that came first


class Halfway(ForkFuture[Any]):
    """The supervisor has published the end, and was interrupted before it wrote it."""

    def _write(self, end: Any) -> None:
        if threading.current_thread() is threading.main_thread():
            super()._write(end)


def ended_halfway(**end: Any) -> ForkFuture[Any]:
    future = Halfway()
    future._try_start()
    in_thread(lambda: future._finish(**end))
    assert not future.done()
    return future


def test_a_future_that_nobody_looks_at_has_no_condition() -> None:
    future = running()
    future._finish(1)
    assert future.done()
    assert future.result() == 1
    assert not any(hasattr(part, "wait") for part in vars(future).values())


@pytest.mark.parametrize(
    "look",
    [
        lambda f: f.result(0) == 1,
        lambda f: f.exception(0) is None,
        lambda f: wait([f, make()], timeout=0).done == {f},
        lambda f: next(as_completed([make(), f], timeout=0)) is f,
        lambda f: not f.cancel(),
        lambda f: not f.kill(),
        lambda f: not f.cancelled() and f.done(),
        lambda f: "returned int" in repr(f),
    ],
)
def test_who_looks_while_the_end_is_being_written_sees_it(look: Callable[[ForkFuture[Any]], bool]) -> None:
    assert look(ended_halfway(result=1))


def test_a_callback_that_comes_while_the_end_is_being_written_runs_at_once() -> None:
    future, seen = ended_halfway(result=1), []
    future.add_done_callback(seen.append)
    assert seen == [future]


def test_an_end_that_is_written_late_once_more_changes_nothing() -> None:
    decoded: list[object] = []

    def decode(data: object) -> None:
        decoded.append(data)

    future = ended_halfway(encoded=EncodedAnswer(b"x", decode, False))
    end = vars(future)["_meeting"]
    assert future.result(0) is None
    future._write(end)
    assert future.result(0) is None
    assert decoded == [b"x"]


def test_a_cancel_and_an_end_of_the_pool_tell_the_waiters_once() -> None:
    future, other = make(), make()
    vars(future)["_owner"] = "user"  # `cancel` in a thread that was not heard of since
    iterator = as_completed([future, other], timeout=0)
    future._finish(error=ValueError())
    assert future.cancel()
    assert next(iterator) is future
    waiter = vars(other)["_meeting"].waiters[0]
    assert waiter.finished_futures == [], "told once"


@pytest.mark.alarm(60)
def test_ends_meet_those_who_wait() -> None:
    """Threads look in every way while another one ends the futures; a lost wake-up would hang, a second one would raise."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(30):
            futures = [running() for _ in range(200)]
            called: list[object] = []
            threads = [
                threading.Thread(target=target)
                for target in (
                    lambda futures=futures: [f._finish(n) and f._run_callbacks() for n, f in enumerate(futures)],
                    lambda futures=futures: wait(futures),
                    lambda futures=futures: list(as_completed(futures)),
                    lambda futures=futures: [future.result() for future in futures],
                    lambda futures=futures, called=called: [f.add_done_callback(called.append) for f in futures],
                )
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert [future.result(0) for future in futures] == list(range(200))
            assert sorted(map(id, called)) == sorted(map(id, futures)), "each once"
    finally:
        sys.setswitchinterval(before)
