"""A test that freezes time, in the host or in its workers, stops no timeout and no timer of the pool.

Runs in: pytest and workers, with freezegun, which replaces `time.monotonic` wherever it was imported to.
"""

import time
from collections.abc import Iterator
from typing import Any

import pytest
from freezegun import freeze_time

from forkpool import ForkPoolExecutor, TaskTimeoutError, WorkerCrashedError
from tests.support import tasks
from tests.support.gate import Gate

_frozen: list[Any] = []


def freeze() -> None:
    """For the rest of this process."""
    _frozen.append(freeze_time("2012-01-14"))
    _frozen[-1].start()


@pytest.fixture(params=["host", "worker", "both"])
def pool(request: pytest.FixtureRequest) -> Iterator[ForkPoolExecutor]:
    """Two workers. Time stands still before the pool is made."""
    initializer = None if request.param == "host" else freeze
    if request.param == "worker":
        with ForkPoolExecutor(2, initializer=initializer) as ex:
            yield ex
        return
    with freeze_time("2012-01-14"), ForkPoolExecutor(2, initializer=initializer) as ex:
        yield ex


def stands_still() -> bool:
    return time.monotonic() == time.monotonic()


def test_somebody_is_frozen(pool: ForkPoolExecutor) -> None:
    assert stands_still() or pool.submit(stands_still).result()


def test_a_timeout_ends_the_call(pool: ForkPoolExecutor) -> None:
    error = pool.options(timeout=0.05).submit(tasks.busy_in_c).exception()
    assert isinstance(error, TaskTimeoutError)
    assert 0 < error.seconds < 3600
    assert pool.submit(pow, 2, 3).result() == 8


def test_a_timeout_is_no_earlier_than_it_should_be(pool: ForkPoolExecutor, gate: Gate) -> None:
    """By a frozen worker's clock the call began years ago."""
    future = pool.options(timeout=3600).submit(tasks.enter, gate, 7)
    gate.wait_inside()
    assert pool.submit(pow, 2, 3).result() == 8
    gate.release()
    assert future.result() == 7


def test_when_a_call_began_and_how_long_it_took(pool: ForkPoolExecutor) -> None:
    before = time.clock_gettime(time.CLOCK_MONOTONIC)
    first, second = pool.submit(abs, -1), pool.submit(tasks.kill_myself)
    error = second.exception()
    assert first.result() == 1
    assert isinstance(error, WorkerCrashedError)
    after = time.clock_gettime(time.CLOCK_MONOTONIC)
    assert 0 <= error.seconds <= after - before
    assert first.started_at is not None
    assert first.duration is not None
    assert before <= first.started_at <= first.started_at + first.duration <= after


def test_a_call_behind_one_that_stays_goes_to_another_worker(pool: ForkPoolExecutor, gate: Gate) -> None:
    """Sent ahead, for its function was short until now: it is recalled when a moment has passed."""
    assert [pool.submit(tasks.call, abs, -n).result() for n in range(50)] == list(range(50))
    calls = [pool.submit(tasks.call, abs, -n) for n in range(20)]
    calls.insert(10, pool.submit(tasks.call, tasks.enter, gate, 7))
    calls += [pool.submit(tasks.call, abs, -n) for n in range(20, 40)]
    gate.wait_inside()
    assert [future.result() for number, future in enumerate(calls) if number != 10] == list(range(40))
    gate.release()
    assert calls[10].result() == 7


def test_a_map_with_a_timeout(pool: ForkPoolExecutor, gate: Gate) -> None:
    with pytest.raises(TimeoutError):
        list(pool.map(tasks.enter, [gate], timeout=0.05))
    gate.open_for_all()


def test_a_pool_that_is_left_waits_no_longer_than_its_grace(gate: Gate) -> None:
    with freeze_time("2012-01-14"):
        ex = ForkPoolExecutor(1, grace_period=0.05)
        future = ex.submit(tasks.enter, gate)
        gate.wait_inside()
        with pytest.raises(KeyboardInterrupt), ex:
            raise KeyboardInterrupt
        assert future.done()
