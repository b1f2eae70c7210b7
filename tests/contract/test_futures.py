"""Futures: cancel, wait, as_completed, callbacks, exceptions, asyncio.

Differences, each with its reason:
- cancel(): the standard library's process pool calls max_workers + 1 waiting calls "running" and cannot cancel them;
  forkpool takes back whatever no worker has read. The tests cancel the last of many, which all of them can.
- A callback that raises BaseException (SystemExit ...): the standard library lets it end the thread that ran it;
  forkpool logs it (tests/process/test_callbacks.py).
- A KeyboardInterrupt in a call that runs inline goes through `submit`: it cannot be told from the user's Ctrl-C.
"""

import asyncio
import gc
import logging
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import (
    ALL_COMPLETED,
    FIRST_COMPLETED,
    FIRST_EXCEPTION,
    CancelledError,
    Executor,
    Future,
    InvalidStateError,
    as_completed,
    wait,
)
from typing import Any

import pytest

from tests.contract.conftest import Make, beside
from tests.support import tasks
from tests.support.gate import Gate, Marks


@beside
def test_cancel_of_a_waiting_call(make: Make, gate: Gate, marks: Marks) -> None:
    with make(1) as ex:
        running = ex.submit(tasks.enter, gate, "ran")
        gate.wait_inside()
        waiting = [ex.submit(tasks.leave_mark, marks, str(number)) for number in range(20)]
        assert waiting[-1].cancel()
        assert waiting[-1].cancelled()
        assert waiting[-1].done()
        assert waiting[-1].cancel()
        with pytest.raises(CancelledError):
            waiting[-1].result()
        with pytest.raises(CancelledError):
            waiting[-1].exception()
        gate.open_for_all()
        assert running.result() == "ran"
    assert marks.words() == [str(number) for number in range(19)]


@beside
def test_cancel_of_a_running_or_done_call(make: Make, gate: Gate) -> None:
    with make(1) as ex:
        future = ex.submit(tasks.enter, gate, "ran")
        gate.wait_inside()
        assert future.running()
        assert not future.cancel()
        gate.release()
        assert future.result() == "ran"
        assert not future.cancel()
        assert not future.cancelled()


@beside
def test_result_and_exception_time_out(make: Make, gate: Gate) -> None:
    with make(1) as ex:
        future = ex.submit(tasks.enter, gate, "ran")
        with pytest.raises(TimeoutError):
            future.result(timeout=0)
        with pytest.raises(TimeoutError):
            future.exception(timeout=0.001)
        gate.open_for_all()
        assert future.result(timeout=50) == "ran"


@pytest.mark.parametrize(
    "error", [ValueError("a", 1), KeyError("k"), OSError(2, "no such"), StopIteration(3), SystemExit(4), GeneratorExit()]
)
def test_exceptions_come_back(make: Make, error: BaseException) -> None:
    with make(1) as ex:
        future = ex.submit(tasks.raise_this, error)
        found = future.exception()
        assert type(found) is type(error)
        assert found.args == error.args
        assert ex.submit(tasks.add, 1, 1).result() == 2


def test_result_raises_the_exception(make: Make) -> None:
    with make(1) as ex, pytest.raises(KeyError, match="missing"):
        ex.submit(tasks.raise_this, KeyError("missing")).result()


class Oops(Exception):
    """One that can be referred to weakly."""


def of_a_future(ex: Executor) -> Any:
    return ex.submit(tasks.raise_new, Oops).result()


def of_a_map(ex: Executor) -> Any:
    return next(ex.map(tasks.raise_new, [Oops]))


@pytest.mark.parametrize("ask", [of_a_future, of_a_map])
def test_what_was_raised_is_freed_without_the_garbage_collector(ask: Callable[[Executor], Any], make: Make) -> None:
    gc.disable()
    try:
        with make(1) as ex:
            try:
                ask(ex)
            except Oops as error:
                raised = weakref.ref(error)
        assert raised() is None
    finally:
        gc.enable()


@beside
def test_keyboard_interrupt_in_a_task_is_its_own(make: Make) -> None:
    with make(1) as ex:
        assert type(ex.submit(tasks.raise_this, KeyboardInterrupt()).exception()) is KeyboardInterrupt
        assert ex.submit(tasks.add, 1, 1).result() == 2


def test_remote_traceback_is_the_cause(make_process_pool: Make) -> None:
    with make_process_pool(1) as ex:
        error = ex.submit(tasks.raise_this, ValueError("x")).exception()
    assert error is not None
    assert type(error.__cause__).__name__ in ("_RemoteTraceback", "RemoteTraceback")
    assert "in raise_this" in str(error.__cause__)


@beside
def test_wait_first_completed(make: Make, gate: Gate) -> None:
    with make(2) as ex:
        stuck = ex.submit(tasks.enter, gate)
        gate.wait_inside()
        quick = ex.submit(tasks.add, 1, 1)
        assert wait([stuck, quick], return_when=FIRST_COMPLETED) == ({quick}, {stuck})
        gate.open_for_all()


@beside
def test_wait_first_exception(make: Make, gate: Gate) -> None:
    with make(2) as ex:
        stuck = ex.submit(tasks.enter, gate)
        gate.wait_inside()
        good = ex.submit(tasks.add, 1, 1)
        bad = ex.submit(tasks.raise_this, ValueError())
        done, waiting = wait([stuck, good, bad], return_when=FIRST_EXCEPTION)
        assert bad in done
        assert waiting == {stuck}
        gate.open_for_all()


@beside
def test_wait_for_all_and_timeout(make: Make, gate: Gate) -> None:
    with make(2) as ex:
        stuck = ex.submit(tasks.enter, gate)
        quick = ex.submit(tasks.add, 1, 1)
        assert quick.result() == 2
        assert wait([stuck, quick], timeout=0) == ({quick}, {stuck})
        gate.open_for_all()
        assert wait([stuck, quick], return_when=ALL_COMPLETED) == ({stuck, quick}, set())


@beside
def test_as_completed_gives_each_once_when_done(make: Make, gate: Gate) -> None:
    with make(2) as ex:
        stuck = ex.submit(tasks.enter, gate)
        gate.wait_inside()
        quick = ex.submit(tasks.add, 1, 1)
        order = as_completed([stuck, quick, quick])
        assert next(order) is quick
        gate.open_for_all()
        assert list(order) == [stuck]


@beside
def test_as_completed_times_out(make: Make, gate: Gate) -> None:
    with make(1) as ex:
        stuck = ex.submit(tasks.enter, gate)
        with pytest.raises(TimeoutError, match=r"1 .of 1. futures unfinished"):
            list(as_completed([stuck], timeout=0))
        gate.open_for_all()


def test_many_wait_while_results_come(make: Make) -> None:
    counts: list[int] = []

    def look(futures: list[Future[int]]) -> None:
        counts.append(sum(1 for _ in as_completed(futures)))

    with make(2) as ex:
        futures = [ex.submit(tasks.add, n, n) for n in range(300)]
        threads = [threading.Thread(target=look, args=(futures,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        assert wait(futures).not_done == set()
        for thread in threads:
            thread.join()
    assert counts == [300] * 4


@beside
def test_callback_before_and_after_the_end(make: Make, gate: Gate) -> None:
    seen: list[Any] = []
    called = threading.Event()

    def note(future: Future[Any]) -> None:
        seen.append(future.result())
        called.set()

    with make(1) as ex:
        future = ex.submit(tasks.enter, gate, "ran")
        future.add_done_callback(note)
        gate.open_for_all()
        called.wait()
        future.add_done_callback(lambda done: seen.append(threading.current_thread()))
        assert seen == ["ran", threading.current_thread()]


@beside
def test_callbacks_run_in_order_even_if_one_raises(make: Make, gate: Gate, caplog: pytest.LogCaptureFixture) -> None:
    seen: list[str] = []
    last = threading.Event()

    def fail(_: Future[Any]) -> None:
        seen.append("fail")
        raise ValueError("from a callback")

    with make(1) as ex:
        future = ex.submit(tasks.enter, gate, "ran")
        future.add_done_callback(fail)
        future.add_done_callback(lambda _: seen.append("second"))
        future.add_done_callback(lambda _: last.set())
        gate.open_for_all()
        last.wait()
    assert seen == ["fail", "second"]
    assert future.result() == "ran"
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.name == "concurrent.futures"
    assert "exception calling callback" in record.message
    del record
    caplog.clear()  # the traceback in the record holds the frame of the test, and so the pool


@beside
def test_callback_of_a_cancelled_call(make: Make, gate: Gate) -> None:
    seen: list[bool] = []
    with make(1) as ex:
        ex.submit(tasks.enter, gate)
        waiting = [ex.submit(tasks.add, 1, 1) for _ in range(20)]
        waiting[-1].add_done_callback(lambda future: seen.append(future.cancelled()))
        assert waiting[-1].cancel()
        assert seen == [True]
        gate.open_for_all()


def test_callback_that_submits_more(make: Make) -> None:
    results: list[int] = []
    done = threading.Event()

    def again(future: Future[int]) -> None:
        results.append(future.result())
        if len(results) < 50:
            ex.submit(tasks.add, future.result(), 1).add_done_callback(again)
        else:
            done.set()

    with make(2) as ex:
        ex.submit(tasks.add, 0, 0).add_done_callback(again)
        done.wait()
    assert results == list(range(50))


def test_a_future_is_a_future(make: Make) -> None:
    with make(1) as ex:
        future = ex.submit(tasks.add, 1, 1)
        assert isinstance(future, Future)
        assert len({future, future}) == 1
        assert future.result() == 2
        assert "finished returned int" in repr(future)
        with pytest.raises(InvalidStateError):
            future.set_result(3)
        failed = ex.submit(tasks.raise_this, ValueError())
        assert failed.exception() is not None
        assert "finished raised ValueError" in repr(failed)


def test_the_same_result_each_time(make: Make) -> None:
    with make(1) as ex:
        future = ex.submit(list, "abc")
        assert future.result() is future.result()
        failed = ex.submit(tasks.raise_this, ValueError())
        assert failed.exception() is failed.exception()


def test_asyncio_run_in_executor(make: Make) -> None:
    async def main() -> list[Any]:
        loop = asyncio.get_running_loop()
        calls = [loop.run_in_executor(ex, tasks.add, n, n) for n in range(20)]
        failing = loop.run_in_executor(ex, tasks.raise_this, KeyError("k"))
        return await asyncio.gather(*calls, failing, return_exceptions=True)

    with make(2) as ex:
        *values, error = asyncio.run(main())
    assert values == [2 * n for n in range(20)]
    assert type(error) is KeyError


@beside
def test_asyncio_cancels_a_waiting_call(make: Make, gate: Gate, marks: Marks) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        calls = [loop.run_in_executor(ex, tasks.leave_mark, marks, str(n)) for n in range(20)]
        calls[-1].cancel()
        await asyncio.sleep(0)  # asyncio passes the cancel on in its next turn
        gate.open_for_all()
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert type(results[-1]) is asyncio.CancelledError

    with make(1) as ex:
        ex.submit(tasks.enter, gate)
        gate.wait_inside()
        asyncio.run(main())
    assert marks.words() == [str(n) for n in range(19)]
