"""User code that the pool has to call: done-callbacks, unpickling of results, in whatever mood.

Rows "a done-callback blocks", "a done-callback raises", "unpickling a result blocks, or calls back into the pool",
"two short tasks wait for each other".
"""

import _thread
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from typing import Any

import pytest

import forkpool.future as future_module
from forkpool import ForkPoolExecutor, TaskTimeoutError
from tests.support import processes, tasks
from tests.support.gate import Gate
from tests.support.script import Script
from tests.support.supervision import kills_timeouts_and_crashes_go_on

# What a result does in the host when it is unpickled: set by a test, called there (and only there).
at_unpickle: list[Any] = []
HOST = os.getpid()


def call_hook() -> str:
    return str(at_unpickle[0]()) if at_unpickle else "in a worker"


def hooked_result() -> Any:
    return tasks.DoesWhileUnpickled(call_hook)


@pytest.fixture
def hook() -> Any:
    def set_hook(do: Any) -> None:
        at_unpickle[:] = [do]

    yield set_hook
    at_unpickle.clear()


def test_a_callback_that_blocks_delays_nothing_but_callbacks(gate: Gate) -> None:
    blocked, go_on = threading.Event(), threading.Event()

    def block(_: Future[Any]) -> None:
        blocked.set()
        go_on.wait()

    with ForkPoolExecutor(2) as ex:
        first = ex.submit(tasks.enter, gate, "first")
        first.add_done_callback(block)
        gate.wait_inside()
        gate.release()
        blocked.wait()
        assert first.result() == "first"
        assert [ex.submit(tasks.add, n, n).result() for n in range(10)] == [2 * n for n in range(10)]
        kills_timeouts_and_crashes_go_on(ex, gate)
        go_on.set()


@pytest.fixture
def no_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """No thread can be had, as under a limit of processes, once `refuse_threads` was called; `undo` ends that."""
    with monkeypatch.context() as patch:
        yield patch


def refuse_threads(patch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> int:
        raise RuntimeError("can't start new thread")

    patch.setattr(_thread, "start_new_thread", refuse)


def test_a_callback_that_blocks_where_no_thread_can_be_had(gate: Gate, no_threads: pytest.MonkeyPatch) -> None:
    """It ran on the supervisor, and stopped the pool. Now it waits for a thread."""
    blocked, go_on = threading.Event(), threading.Event()
    with ForkPoolExecutor(2) as ex:
        assert ex.submit(tasks.add, 1, 1).result() == 2
        first = ex.submit(tasks.enter, gate, "first")
        first.add_done_callback(lambda _: (blocked.set(), go_on.wait()))
        gate.wait_inside()
        refuse_threads(no_threads)
        gate.release()
        wait([first])
        kills_timeouts_and_crashes_go_on(ex, gate)
        assert not blocked.is_set()
        no_threads.undo()
        blocked.wait()
        kills_timeouts_and_crashes_go_on(ex, gate)
        go_on.set()


def test_callbacks_for_which_no_thread_could_ever_be_had(gate: Gate, no_threads: pytest.MonkeyPatch) -> None:
    """They run before `shutdown` returns, which waits for them as for others."""
    seen: list[Any] = []

    def see_and_ask_the_pool(future: Future[int]) -> None:
        ex.shutdown()
        seen.append(future.result())

    with ForkPoolExecutor(2) as ex:
        assert ex.submit(tasks.add, 1, 1).result() == 2
        futures = [ex.submit(tasks.enter, gate, number) for number in range(5)]
        for future in futures:
            future.add_done_callback(see_and_ask_the_pool)
        refuse_threads(no_threads)
        gate.open_for_all()
        wait(futures)
    assert sorted(seen) == list(range(5))


def test_callbacks_while_the_interpreter_exits_and_no_thread_can_be_had(start: Callable[..., Script]) -> None:
    """As in Python 3.12.1, always: what the pool waits for may be ended by a callback."""
    program = start("""
        import _thread, signal
        from forkpool import ForkPoolExecutor

        def refuse(*_):
            raise RuntimeError("can't start new thread at interpreter shutdown")

        ex = ForkPoolExecutor(2)
        ex.submit(int).result()
        stuck, quick = ex.submit(signal.pause), ex.submit(int)
        _thread.start_new_thread = refuse
        quick.add_done_callback(lambda _: mark("killed", stuck.kill()))
        """).finish()
    assert program.value("killed") == "True"


@pytest.mark.parametrize("error", [ValueError("mine"), SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
def test_a_callback_that_raises(error: BaseException, gate: Gate, caplog: pytest.LogCaptureFixture) -> None:
    second = threading.Event()

    def fail(_: Future[Any]) -> None:
        raise error

    with ForkPoolExecutor(1) as ex:
        future = ex.submit(tasks.enter, gate, "ran")
        future.add_done_callback(fail)
        future.add_done_callback(lambda _: second.set())
        gate.open_for_all()
        assert future.result() == "ran"
        second.wait()
        assert ex.submit(tasks.add, 1, 1).result() == 2
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.exc_info is not None
    assert record.exc_info[1] is error
    del record
    error.__traceback__ = None
    caplog.clear()  # the traceback in the record holds the frame of the test, and so the pool


@pytest.mark.parametrize("error", [ValueError("of the handler"), SystemExit(3), KeyboardInterrupt()])
def test_a_callback_raises_and_so_does_who_logs_it(error: BaseException, gate: Gate) -> None:
    """It ended the thread that runs the callbacks of all futures of the pool."""
    told: list[Any] = []

    def fail(_: Any) -> bool:
        raise error

    logger = logging.getLogger("concurrent.futures")
    logger.addFilter(fail)
    try:
        with ForkPoolExecutor(1) as ex:
            for number in range(3):
                future = ex.submit(tasks.enter, gate, number)
                gate.wait_inside()
                future.add_done_callback(lambda _: 1 // 0)
                future.add_done_callback(told.append)
                gate.release()
                wait([future])
    finally:
        logger.removeFilter(fail)
    assert [future.result() for future in told] == [0, 1, 2]


def test_callbacks_run_although_nobody_asks_for_results(gate: Gate) -> None:
    seen: list[int] = []
    all_seen = threading.Event()

    def note(future: Future[int]) -> None:
        seen.append(future.result())
        if len(seen) == 100:
            all_seen.set()

    with ForkPoolExecutor(2) as ex:
        for number in range(100):
            ex.submit(tasks.add, number, 0).add_done_callback(note)
        all_seen.wait()
    assert sorted(seen) == list(range(100))


def test_who_has_a_result_finds_its_callbacks_run() -> None:
    """Nobody promises it, but the standard library's pool behaves so, and programs count in callbacks (tqdm does)."""
    with ForkPoolExecutor(2) as ex:
        for round_number in range(50):
            seen: list[Any] = []
            futures = [ex.submit(tasks.add, n, 1) for n in range(3)]
            failing = ex.submit(tasks.add, 1, "x")
            for future in (*futures, failing):
                future.add_done_callback(seen.append)
            assert [future.result() for future in futures] == [1, 2, 3]
            assert set(futures) <= set(seen), round_number
            assert failing.exception() is not None
            assert set(seen) == {*futures, failing}


def test_callbacks_that_are_stuck_delay_who_waits_once(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked, go_on = threading.Event(), threading.Event()
    waits: list[float] = []
    wait_for_event = threading.Event.wait

    def note_patience(event: threading.Event, timeout: float | None = None) -> bool:
        if timeout == future_module.CALLBACK_PATIENCE_S:
            waits.append(timeout)
        return wait_for_event(event, timeout)

    def block(_: Future[Any]) -> None:
        blocked.set()
        go_on.wait()

    monkeypatch.setattr(future_module, "CALLBACK_PATIENCE_S", 0.0625)
    monkeypatch.setattr(threading.Event, "wait", note_patience)
    with ForkPoolExecutor(1) as ex:
        first = ex.submit(tasks.enter, gate, "first")
        first.add_done_callback(block)
        gate.wait_inside()
        gate.release()
        assert first.result() == "first"
        for n in range(5):
            later = ex.submit(tasks.enter, gate, n)
            later.add_done_callback(lambda future: future.result())
            gate.wait_inside()
            gate.release()
            assert later.result() == n
        assert len(waits) == 1
        go_on.set()


def test_shutdown_waits_for_callbacks_that_were_due() -> None:
    seen: list[int] = []
    with ForkPoolExecutor(2) as ex:
        for number in range(50):
            ex.submit(tasks.add, number, 0).add_done_callback(lambda future: seen.append(future.result()))
    assert sorted(seen) == list(range(50))


def test_a_callback_waits_for_another_task() -> None:
    results: list[int] = []
    done = threading.Event()

    def chain(future: Future[int]) -> None:
        results.append(ex.submit(tasks.add, future.result(), 1).result())
        done.set()

    with ForkPoolExecutor(1) as ex:
        ex.submit(tasks.add, 1, 1).add_done_callback(chain)
        done.wait()
    assert results == [3]


def test_unpickling_that_blocks_delays_its_callers_only(hook: Any) -> None:
    inside, go_on = threading.Event(), threading.Event()

    def block() -> str:
        inside.set()
        go_on.wait()
        return "unblocked"

    hook(block)
    with ForkPoolExecutor(1) as ex:
        pid = ex.submit(tasks.pid).result()
        future = ex.submit(hooked_result)
        found: list[Any] = []
        readers = [threading.Thread(target=lambda: found.append(future.result())) for _ in range(3)]
        for reader in readers:
            reader.start()
        inside.wait()
        assert [ex.submit(tasks.add, n, n).result() for n in range(10)] == [2 * n for n in range(10)]
        assert ex.submit(tasks.pid).result() == pid
        assert type(ex.options(timeout=0.1).submit(tasks.busy_in_python).exception()) is TaskTimeoutError
        assert len(found) == 0
        go_on.set()
        for reader in readers:
            reader.join()
    assert found == ["unblocked"] * 3


def test_unpickling_that_calls_the_pool(hook: Any) -> None:
    hook(lambda: ex.submit(tasks.add, 1, 1).result())
    with ForkPoolExecutor(1) as ex:
        assert ex.submit(hooked_result).result() == "2"


def test_unpickling_that_reads_its_own_future(hook: Any) -> None:
    """It can only wait for itself: an error, not a hang."""
    hook(lambda: future.result(timeout=0))
    with ForkPoolExecutor(1) as ex:
        future = ex.submit(hooked_result)
        assert future.exception() is not None
        assert ex.submit(tasks.add, 1, 1).result() == 2


def test_unpickling_happens_once(hook: Any) -> None:
    calls: list[int] = []

    def count() -> str:
        calls.append(1)
        return "unpickled"

    hook(count)
    with ForkPoolExecutor(1) as ex:
        future = ex.submit(hooked_result)
        wait([future])
        readers = [threading.Thread(target=future.result) for _ in range(8)]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
        assert future.result() is future.result()
    assert len(calls) == 1


def test_unread_results_are_not_unpickled(hook: Any) -> None:
    """Nobody asks, nothing of the user's runs: also not on the way out."""
    calls: list[int] = []
    hook(lambda: calls.append(1))
    with ForkPoolExecutor(1) as ex:
        future = ex.submit(hooked_result)
        wait([future])
        assert future.done()
    del future
    assert calls == []


def meet(mine: Any, other: Any) -> str:
    """Tell the other one that we are here and wait until it is."""
    other.tell()
    mine.wait_told()
    return "met"


@pytest.mark.parametrize("round_number", range(5))
def test_two_short_tasks_that_wait_for_each_other(tmp_path: Any, round_number: int) -> None:
    """Measured as short before, then in need of each other: no order of sending may deadlock them."""
    with ForkPoolExecutor(2) as ex:
        left, right = Gate(tmp_path, "left"), Gate(tmp_path, "right")
        for _ in range(300):
            assert ex.submit(meet, left, left).result() == "met"
        assert [f.result() for f in [ex.submit(meet, left, right), ex.submit(meet, right, left)]] == ["met", "met"]
        left.close()
        right.close()


def test_kill_inside_a_callback(gate: Gate) -> None:
    killed: list[bool] = []
    with ForkPoolExecutor(2) as ex:
        stuck = ex.submit(tasks.enter, gate)
        gate.wait_inside()
        quick = ex.submit(tasks.add, 1, 1)
        quick.add_done_callback(lambda _: killed.append(stuck.kill()))
        assert wait([stuck]).done == {stuck}
        assert stuck.cancelled()
    assert killed == [True]


def test_signal_during_result(gate: Gate) -> None:
    """A signal handler that raises ends result() and harms nothing."""

    class Ring(Exception): ...

    def ring(*_: Any) -> None:
        raise Ring

    previous = signal.signal(signal.SIGUSR1, ring)
    try:
        with ForkPoolExecutor(1) as ex:
            future = ex.submit(tasks.enter_then, gate, signal_host, HOST, gate)
            gate.wait_inside()

            def let_go_and_wait() -> None:  # the signal may come before result() has begun
                gate.release()
                future.result()

            with pytest.raises(Ring):
                let_go_and_wait()
            gate.open_for_all()
            assert future.result() == "after"
    finally:
        signal.signal(signal.SIGUSR1, previous)


def signal_host(pid: int, gate: Any) -> str:
    processes.wait_state(pid, "S")  # see `Script._await_sleep`
    os.kill(pid, signal.SIGUSR1)
    gate.wait_go()
    return "after"
