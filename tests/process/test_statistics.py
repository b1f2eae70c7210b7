"""What `statistics()` tells: each call is counted once, at every moment.

Runs in: pytest, with real workers.
"""

import os
import signal
import time
from concurrent.futures import CancelledError, wait

import pytest

from forkpool import ForkPoolExecutor, InitializerError, PoolStatistics, TaskTimeoutError, WorkerCrashedError
from tests.support import tasks
from tests.support.gate import Gate

pytestmark = pytest.mark.slow


def fail() -> None:
    raise ValueError("of the user's")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def work_for(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def of(statistics: PoolStatistics, *names: str) -> tuple[object, ...]:
    return tuple(getattr(statistics, name) for name in names)


def test_nothing_has_happened_yet() -> None:
    with ForkPoolExecutor(3) as ex:
        assert ex.statistics() == PoolStatistics(*[0] * 10, {}, (0.0, 0.0, 0.0))


def test_every_end_is_counted_once() -> None:
    ex = ForkPoolExecutor(1)
    with ex:
        assert ex.submit(abs, -1).result() == 1
        assert ex.statistics().done == 1, "before the future tells"
        with pytest.raises(ValueError, match="of the user's"):
            ex.submit(fail).result()
        with pytest.raises(WorkerCrashedError):
            ex.submit(die).result()
        with pytest.raises(TaskTimeoutError):
            ex.options(timeout=0.05).submit(work_for, 60).result()
        ex.submit(tasks.pid).result()
        ended = ex.statistics()
        assert of(ended, "queued", "running") == (0, 0)
        assert of(ended, "done", "failed", "crashed", "cancelled", "timed_out") == (2, 1, 1, 0, 1)
        assert ended.submitted == 5
        assert ended.workers == 1
        assert ended.workers_started == 3
        assert ended.workers_replaced == {"crashed": 1, "timed_out": 1}
    after = ex.statistics()
    assert after.submitted == 5
    assert after.workers == 0


def test_what_runs_what_waits_and_what_is_stopped(gate: Gate) -> None:
    with ForkPoolExecutor(1) as ex:
        running = ex.submit(gate.enter)
        gate.wait_inside()
        waiting = [ex.submit(abs, -1) for _ in range(4)]
        assert of(ex.statistics(), "queued", "running", "cancelled") == (4, 1, 0)
        assert waiting[0].cancel()
        assert of(ex.statistics(), "queued", "running", "cancelled") == (3, 1, 1)
        assert waiting[1].kill()
        assert of(ex.statistics(), "queued", "running", "cancelled") == (2, 1, 2)
        assert running.kill()
        with pytest.raises(CancelledError):
            running.result()
        wait(waiting)
        assert of(ex.statistics(), "queued", "running", "done", "cancelled") == (0, 0, 2, 3)
        assert ex.statistics().workers_replaced == {"killed": 1}


def test_busy_time_is_the_time_in_calls_by_slot(gate: Gate) -> None:
    with ForkPoolExecutor(2) as ex:
        ex.submit(work_for, 0.05).result()
        once = ex.statistics().busy_time
        assert max(once) >= 0.05
        assert min(once) == 0.0
        ex.submit(gate.enter)
        gate.wait_inside()
        running = sum(ex.statistics().busy_time)
        assert sum(once) < running < sum(ex.statistics().busy_time), "it grows while the call runs"
        gate.release()


def test_the_sum_holds_at_every_moment_of_a_storm() -> None:
    with ForkPoolExecutor(2, max_tasks_per_child=7) as ex:
        futures = []
        for number in range(300):
            futures.append(ex.submit(abs, -number))
            if number % 3 == 0:
                futures[number // 2].cancel()
            if number % 50 == 0:
                futures.append(ex.submit(die))
            now = ex.statistics()
            assert now.submitted == len(futures)
        wait(futures)
        end = ex.statistics()
        assert end.submitted == len(futures)
        assert of(end, "queued", "running", "crashed") == (
            0,
            0,
            sum(isinstance(error_of(f), WorkerCrashedError) for f in futures),
        )
        assert end.cancelled == sum(future.cancelled() for future in futures)


def error_of(future: object) -> BaseException | None:
    try:
        return future.exception()  # type: ignore[attr-defined,no-any-return]
    except CancelledError:
        return None


def test_a_broken_pool_counts_what_it_could_not_run() -> None:
    with ForkPoolExecutor(1, initializer=fail) as ex:
        with pytest.raises(InitializerError):
            ex.submit(abs, -1).result()
        assert of(ex.statistics(), "queued", "failed", "workers") == (0, 1, 0)


@pytest.mark.parametrize("method", ["recycle_workers", "restart_workers"])
def test_replacements_by_hand_are_counted(method: str) -> None:
    with ForkPoolExecutor(1) as ex:
        first = ex.submit(os.getpid).result()
        getattr(ex, method)()
        while ex.submit(os.getpid).result() == first:  # when recycled, it goes on until its replacement is ready
            assert method == "recycle_workers"
        assert ex.statistics().workers_replaced == {method: 1}
