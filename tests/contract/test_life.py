"""The life of an executor: arguments, initializer, with block, shutdown, garbage collection.

Differences, each with its reason:
- max_workers that is no int ("2", 2.5): the standard library fails somewhere with a TypeError, or takes 2.5; forkpool
  says TypeError in the constructor.
- A broken pool: forkpool's InitializerError is a BrokenProcessPool and carries the user's exception as its cause; the
  standard library logs it in the worker.
- max_tasks_per_child with many calls waiting: the standard library's forkserver pool deadlocks now and then
  (3.11 to 3.13), so forkpool only.
- shutdown from two threads at once: the standard library's process pool closes its pipe twice (3.11), so not tried on it.
- A call that shutdown(cancel_futures=True) cancelled: the standard library tells those who wait() for it only when a
  worker comes by; forkpool at once (tests/process/test_shutdown.py).
- submit after terminate_workers or kill_workers (new in 3.14): only forkpool has them on every Python.
"""

import os
import threading
from concurrent.futures import BrokenExecutor, CancelledError, Future
from typing import Any

import pytest

from forkpool import ForkPoolExecutor
from tests.contract.conftest import Make, beside, make_forkpool, make_threads
from tests.support import tasks
from tests.support.gate import Gate, Marks

_initialized_with: list[Any] = []


def initialize(*args: Any) -> None:
    _initialized_with.append(args)


def initialized_with() -> list[Any]:
    return list(_initialized_with)


def fail_to_initialize() -> None:
    raise ValueError("no such database")


@pytest.mark.parametrize("count", [0, -1])
def test_max_workers_must_be_positive(make: Make, count: int) -> None:
    with pytest.raises(ValueError, match="max_workers must be greater than 0"):
        make(count)


def test_max_workers_must_be_a_number(make: Make) -> None:
    with pytest.raises(TypeError):
        make("2")


def test_initializer_must_be_callable(make: Make) -> None:
    with pytest.raises(TypeError, match="initializer must be a callable"):
        make(1, initializer=3)


def test_unknown_argument(make: Make) -> None:
    with pytest.raises(TypeError):
        make(1, no_such_argument=1)


def test_default_number_of_workers(make: Make) -> None:
    with make() as ex:
        assert ex._max_workers >= len(os.sched_getaffinity(0))  # type: ignore[attr-defined]


@pytest.mark.parametrize("value", [0, -1])
def test_max_tasks_per_child_must_be_positive(make_process_pool: Make, value: int) -> None:
    with pytest.raises(ValueError, match="max_tasks_per_child"):
        make_process_pool(1, max_tasks_per_child=value)


def test_max_tasks_per_child_must_be_an_int(make_process_pool: Make) -> None:
    with pytest.raises(TypeError, match="max_tasks_per_child"):
        make_process_pool(1, max_tasks_per_child="2")


@beside
def test_max_tasks_per_child(make_process_pool: Make) -> None:
    with make_process_pool(1, max_tasks_per_child=3) as ex:
        pids = [ex.submit(tasks.pid).result() for _ in range(9)]
    assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [3, 3, 3]


def test_max_tasks_per_child_with_everything_submitted_at_once() -> None:
    with ForkPoolExecutor(2, max_tasks_per_child=2) as ex:
        pids = [future.result() for future in [ex.submit(tasks.pid) for _ in range(21)]]
    assert max(pids.count(pid) for pid in pids) <= 2


def test_initializer_runs_once_in_each_worker(make_process_pool: Make) -> None:
    with make_process_pool(1, initializer=initialize, initargs=("a", 2)) as ex:
        assert ex.submit(initialized_with).result() == [("a", 2)]
        assert ex.submit(initialized_with).result() == [("a", 2)]


def test_failing_initializer_breaks_the_pool(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    with make(1, initializer=fail_to_initialize) as ex:
        future = ex.submit(tasks.add, 1, 1)
        with pytest.raises(BrokenExecutor):
            future.result()
        with pytest.raises(BrokenExecutor):
            ex.submit(tasks.add, 1, 1)


@beside
def test_with_block_waits(make: Make, gate: Gate) -> None:
    with make(1) as ex:
        assert isinstance(ex, type(ex))
        futures = [ex.submit(tasks.enter, gate, number) for number in range(5)]
        gate.open_for_all()
    assert [future.done() for future in futures] == [True] * 5
    assert [future.result() for future in futures] == list(range(5))


def test_with_block_lets_the_exception_through(make: Make) -> None:
    with pytest.raises(KeyError, match="mine"), make(1) as ex:  # noqa: PT012  # the with block is what is tested
        ex.submit(tasks.add, 1, 1)
        raise KeyError("mine")


def test_submit_after_shutdown(make: Make) -> None:
    ex = make(1)
    assert ex.submit(tasks.add, 1, 1).result() == 2
    ex.shutdown()
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        ex.submit(tasks.add, 1, 1)
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        ex.map(tasks.identity, [1])


def test_shutdown_of_a_pool_that_was_never_used(make: Make) -> None:
    ex = make(1)
    ex.shutdown()
    ex.shutdown(wait=False, cancel_futures=True)
    with pytest.raises(RuntimeError):
        ex.submit(tasks.add, 1, 1)


@pytest.mark.parametrize("make", [make_threads, make_forkpool])
def test_shutdown_twice_and_from_two_threads(make: Make, gate: Gate) -> None:
    ex = make(1)
    future = ex.submit(tasks.enter, gate, "ran")
    threads = [threading.Thread(target=ex.shutdown) for _ in range(2)]
    for thread in threads:
        thread.start()
    gate.open_for_all()
    for thread in threads:
        thread.join()
    ex.shutdown()
    assert future.result() == "ran"


@beside
def test_shutdown_without_waiting_finishes_the_work(make: Make, gate: Gate) -> None:
    ex = make(1)
    futures = [ex.submit(tasks.enter, gate, number) for number in range(5)]
    gate.wait_inside()
    ex.shutdown(wait=False)
    assert not futures[0].done()
    gate.open_for_all()
    assert [future.result() for future in futures] == list(range(5))


@beside
def test_shutdown_that_cancels(make: Make, gate: Gate, marks: Marks) -> None:
    ex = make(1)
    running = ex.submit(tasks.enter, gate, "ran")
    gate.wait_inside()
    waiting = [ex.submit(tasks.leave_mark, marks, str(number)) for number in range(20)]
    told = threading.Event()
    waiting[-1].add_done_callback(lambda _: told.set())
    closer = threading.Thread(target=ex.shutdown, kwargs={"cancel_futures": True})
    closer.start()
    told.wait()
    gate.open_for_all()
    closer.join()
    assert running.result() == "ran"
    cancelled = [future for future in waiting if future.cancelled()]
    finished = [future.result() for future in waiting if not future.cancelled()]
    # the standard library's processes hold a few calls that they cannot take back any more
    assert len(cancelled) >= 18
    assert marks.words() == finished


def test_shutdown_from_a_callback(make: Make) -> None:
    ex = make(1)
    called = threading.Event()

    def close(_: Future[int]) -> None:
        ex.shutdown(wait=False)
        called.set()

    future = ex.submit(tasks.add, 1, 1)
    future.add_done_callback(close)
    called.wait()
    assert future.result() == 2
    with pytest.raises(RuntimeError):
        ex.submit(tasks.add, 1, 1)
    ex.shutdown()


@beside
def test_garbage_collected_pool_finishes_its_work(make: Make, gate: Gate) -> None:
    futures = [make(1).submit(tasks.enter, gate, "ran")]
    gate.open_for_all()
    assert futures[0].result() == "ran"


def test_two_pools_at_once(make: Make) -> None:
    with make(1) as one, make(1) as two:
        assert one.submit(tasks.add, 1, 1).result() + two.submit(tasks.add, 2, 2).result() == 6


@beside
def test_a_worker_that_dies_is_a_broken_process_pool(make_process_pool: Make) -> None:
    with make_process_pool(1) as ex, pytest.raises(BrokenExecutor):
        ex.submit(tasks.leave, 3).result()


@pytest.mark.parametrize("method", ["terminate_workers", "kill_workers"])
def test_terminate_and_kill_workers(method: str, gate: Gate) -> None:
    ex = ForkPoolExecutor(1)
    running = ex.submit(tasks.enter, gate)
    gate.wait_inside()
    waiting = ex.submit(tasks.add, 1, 1)
    getattr(ex, method)()
    with pytest.raises(BrokenExecutor):
        running.result()
    with pytest.raises(CancelledError):
        waiting.result()
    with pytest.raises(RuntimeError):
        ex.submit(tasks.add, 1, 1)
    ex.shutdown()
