"""Workers are replaced after so many tasks, and when the user asks: no stall, no gap, no task lost.

Runs in: pytest, with real workers. The core's side of it under hypothesis is tests/unit/test_machine_stateful.py.
"""

import os
from collections import Counter

import pytest

from forkpool import ForkPoolExecutor

pytestmark = pytest.mark.slow


def pid_after(_number: int) -> int:
    return os.getpid()


@pytest.mark.alarm(200)
@pytest.mark.parametrize("max_workers", [1, 2, 8])
@pytest.mark.parametrize("of_workers", [False, True], ids=["N", "N x workers"])
@pytest.mark.parametrize("max_tasks", [1, 2, 3, 10])
@pytest.mark.parametrize("backlog", [1, 2, 7, 100])
def test_no_backlog_stalls(max_workers: int, of_workers: bool, max_tasks: int, backlog: int) -> None:
    limit = max_tasks * max_workers if of_workers else max_tasks
    with ForkPoolExecutor(max_workers, max_tasks_per_child=limit) as ex:
        pids = Counter(ex.map(pid_after, range(backlog)))
    assert pids.total() == backlog
    assert max(pids.values()) <= limit
