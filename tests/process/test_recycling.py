"""Workers are replaced after so many tasks, and when the user asks: no stall, no gap, no task lost.

Runs in: pytest, with real workers. The core's side of it under hypothesis is tests/unit/test_machine_stateful.py.
"""

import os
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forkpool import ForkPoolExecutor
from tests.support import tasks
from tests.support.gate import Gate

pytestmark = pytest.mark.slow


def pids_of(ex: ForkPoolExecutor, count: int) -> Counter[int]:
    """Run so many tasks: which worker ran how many."""
    return Counter(future.result() for future in [ex.submit(tasks.pid) for _ in range(count)])


@pytest.mark.alarm(120)
@pytest.mark.parametrize("max_workers", [1, 2, 8])
@pytest.mark.parametrize("max_tasks", [1, 2, 3, 10])
def test_no_backlog_stalls(max_workers: int, max_tasks: int) -> None:
    for backlog in (1, 2, max_tasks * max_workers, max_tasks * max_workers + 1):
        with ForkPoolExecutor(max_workers, max_tasks_per_child=max_tasks) as ex:
            pids = pids_of(ex, backlog)
        assert pids.total() == backlog
        assert max(pids.values()) <= max_tasks


@pytest.mark.alarm(120)
@settings(max_examples=30, deadline=None)
@given(
    max_tasks=st.integers(1, 12),
    jitter=st.integers(0, 11),
    max_workers=st.integers(1, 4),
    backlog=st.integers(1, 60),
    recycle_at=st.none() | st.integers(0, 59),
)
def test_nothing_stalls_whatever_is_asked_for(
    max_tasks: int, jitter: int, max_workers: int, backlog: int, recycle_at: int | None
) -> None:
    """Few examples, for each starts a pool; the decisions alone have their thousands in test_machine_stateful.py."""
    jitter = min(jitter, max_tasks - 1)
    with ForkPoolExecutor(max_workers, max_tasks_per_child=max_tasks, max_tasks_jitter=jitter) as ex:
        futures = []
        for number in range(backlog):
            futures.append(ex.submit(tasks.pid))
            if number == recycle_at:
                ex.recycle_workers()
        pids = Counter(future.result() for future in futures)
    counts = ex.statistics()
    assert max(pids.values()) <= max_tasks
    assert (counts.done, counts.submitted) == (backlog, backlog)
    assert counts.workers_started >= len(pids) >= -(-backlog // max_tasks)
    assert counts.workers_replaced.keys() <= {"max_tasks_per_child", "recycle_workers"}


def test_a_jitter_makes_limits_differ_and_never_larger() -> None:
    with ForkPoolExecutor(1, max_tasks_per_child=10, max_tasks_jitter=9) as ex:
        pids = list(pids_of(ex, 100).values())[:-1]
    assert max(pids) <= 10
    assert len(set(pids)) > 1


def test_the_replacement_is_ready_before_the_old_worker_has_answered_its_last_task(gate: Gate, tmp_path: Path) -> None:
    births = Gate(tmp_path, "births")
    try:
        with ForkPoolExecutor(1, max_tasks_per_child=1, initializer=births.tell) as ex:
            first = ex.submit(gate.enter)
            second = ex.submit(os.getpid)
            old = births.wait_inside()
            assert gate.wait_inside() == old
            heir = births.wait_inside()
            assert not second.running(), "one busy worker on a slot"
            gate.release()
            first.result()
            assert second.result() == heir != old
    finally:
        births.close()
