"""Check that a pool's supervisor is at work while something else of the host blocks.

Runs in: pytest.
"""

from concurrent.futures import wait

from forkpool import ForkPoolExecutor, TaskTimeoutError, WorkerCrashedError
from tests.support import tasks
from tests.support.gate import Gate


def kills_timeouts_and_crashes_go_on(ex: ForkPoolExecutor, gate: Gate) -> None:
    """Each of them ends its call."""
    stuck = ex.submit(tasks.enter, gate)
    gate.wait_inside()
    assert stuck.kill()
    wait([stuck])
    assert type(ex.options(timeout=0.1).submit(tasks.busy_in_python).exception()) is TaskTimeoutError
    assert type(ex.submit(tasks.leave, 3).exception()) is WorkerCrashedError
