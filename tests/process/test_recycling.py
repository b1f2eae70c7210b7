"""Workers are replaced after so many tasks, and when the user asks: no stall, no gap, no task lost.

Runs in: pytest, with real workers. The core's side of it under hypothesis is tests/unit/test_machine_stateful.py.
"""

import os
from collections import Counter
from pathlib import Path

import pytest

from forkpool import ForkPoolExecutor
from tests.support.gate import Gate

pytestmark = pytest.mark.slow


def pid_for(_number: int) -> int:
    return os.getpid()


@pytest.mark.alarm(120)
@pytest.mark.parametrize("max_workers", [1, 2, 8])
@pytest.mark.parametrize("max_tasks", [1, 2, 3, 10])
def test_no_backlog_stalls(max_workers: int, max_tasks: int) -> None:
    for backlog in (1, 2, max_tasks * max_workers, max_tasks * max_workers + 1):
        with ForkPoolExecutor(max_workers, max_tasks_per_child=max_tasks) as ex:
            pids = Counter(ex.map(pid_for, range(backlog)))
        assert pids.total() == backlog
        assert max(pids.values()) <= max_tasks


def test_a_jitter_makes_limits_differ_and_never_larger() -> None:
    with ForkPoolExecutor(1, max_tasks_per_child=10, max_tasks_jitter=9) as ex:
        pids = list(Counter(ex.map(pid_for, range(100))).values())[:-1]
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
