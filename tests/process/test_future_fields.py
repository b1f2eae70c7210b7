"""Where and when a call ran, as its future tells: while it runs by the worker's own page, afterwards by what was noted.

No test asserts how long something took; only the order of moments on one clock.
"""

import time
from collections import defaultdict
from concurrent.futures import wait
from itertools import pairwise
from typing import Any

from forkpool import ForkFuture, ForkPoolExecutor, InlineExecutor, TaskTimeoutError, WorkerCrashedError
from tests.support import tasks
from tests.support.gate import Gate

NOTHING = (None, None, None, None)


def facts(future: ForkFuture[Any]) -> tuple[object, ...]:
    return future.pid, future.slot, future.started_at, future.duration


def test_before_during_and_after_a_call(gate: Gate) -> None:
    with ForkPoolExecutor(1) as ex:
        before = time.monotonic()
        first, second = ex.submit(tasks.enter, gate), ex.submit(tasks.enter, gate)
        pid = gate.wait_inside()
        inside = time.monotonic()
        assert first.running()
        assert (first.pid, first.slot, first.duration) == (pid, 0, None)
        began = first.started_at
        assert began is not None
        assert before < began < inside
        assert not second.running(), "it waits, or was sent in advance"
        assert facts(second) == NOTHING
        gate.release()
        first.result()
        assert gate.wait_inside() == pid
        assert second.running()
        assert not first.running()
        assert (first.pid, first.slot, first.started_at) == (pid, 0, began)
        assert second.started_at is not None
        assert first.duration is not None
        assert began + first.duration < second.started_at
        gate.release()
    assert second.duration is not None, "also when the pool is gone"


def test_short_calls_tell_no_two_times_on_one_worker() -> None:
    """They are sent ahead and answered in batches: what the host sees late is noted by the worker in time."""
    with ForkPoolExecutor(2) as ex:
        futures = [ex.submit(tasks.add, number, 1) for number in range(600)]
        wait(futures)
    by_pid = defaultdict(list)
    for future in futures:
        assert future.started_at is not None
        assert future.duration is not None
        by_pid[future.pid, future.slot].append((future.started_at, future.started_at + future.duration))
    assert len(by_pid) == len({pid for pid, _ in by_pid}) <= 2
    for times in by_pid.values():
        times.sort()
        assert all(end <= begin for (_, end), (begin, _) in pairwise(times))


def test_a_short_call_behind_one_that_lasts_does_not_run(gate: Gate) -> None:
    with ForkPoolExecutor(1) as ex:
        view = ex.options(name="short so far")
        wait([view.submit(tasks.add, 1, 1) for _ in range(100)])
        lasts, *behind = [view.submit(tasks.enter, gate), *(view.submit(tasks.add, 1, 1) for _ in range(3))]
        gate.wait_inside()
        assert lasts.running()
        assert not any(future.running() for future in behind)
        assert [facts(future) for future in behind] == [NOTHING] * 3
        gate.open_for_all()
        assert [future.result() for future in behind] == [2] * 3


def test_calls_that_are_not_answered(gate: Gate) -> None:
    with ForkPoolExecutor(1) as ex:
        crashed = ex.submit(tasks.kill_myself)
        error = crashed.exception()
        assert isinstance(error, WorkerCrashedError)
        assert (crashed.pid, crashed.slot) == (error.pid, 0)
        late = ex.options(timeout=0.2).submit(tasks.enter, gate)
        error = late.exception()
        assert isinstance(error, TaskTimeoutError)
        assert (late.pid, late.slot) == (error.pid, 0)
        assert late.duration is not None
        assert late.duration >= 0.2
        killed = ex.submit(tasks.enter, gate)
        waiting = ex.submit(tasks.add, 1, 1)
        pid = next(pid for pid in iter(gate.wait_inside, None) if pid != late.pid)
        waiting.cancel()
        assert killed.kill()
        wait([killed])
        assert killed.pid == pid
        assert killed.duration is not None
        assert facts(waiting) == NOTHING


def test_a_call_that_raised_and_one_that_ran_inline() -> None:
    with ForkPoolExecutor(1) as ex, InlineExecutor(1) as inline:
        pid = ex.submit(tasks.pid).result()
        raised, here = ex.submit(tasks.raise_new, ValueError), inline.submit(tasks.pid)
        assert isinstance(raised.exception(), ValueError)
        assert (raised.pid, here.pid) == (pid, here.result())
        assert here.slot == 0
        assert here.started_at is not None
        assert here.duration is not None
        assert here.started_at + here.duration <= time.monotonic()
