"""What must hold in a PoolMachine between any two facts. It looks at what the machine keeps to itself.

Runs in: pytest.
"""

from forkpool._core.ahead import MAX_AHEAD
from forkpool._core.machine import PoolMachine
from forkpool._core.states import WorkerState


def check_invariants(machine: PoolMachine) -> None:
    """Raise AssertionError if the machine's state contradicts itself."""
    workers = list(machine.workers.values())
    for generation, worker in machine.workers.items():
        assert generation == worker.generation
        assert worker.state is not WorkerState.GONE
        assert bool(worker.tasks) == (worker.state is WorkerState.BUSY)
        assert len(worker.tasks) <= 1 + MAX_AHEAD
        assert (worker in machine._idle) == (worker.state is WorkerState.READY and not worker.leaving)
        assert generation not in machine._ahead.loaded or len(worker.tasks) > 1
        assert worker.deadline is None or worker.doom is None
        assert not worker.first_is_whole or len(worker.tasks) <= 1
    assert len(machine._idle) == len(set(map(id, machine._idle)))
    assert machine._ahead.loaded.keys() <= machine.workers.keys()
    machine._memory.check_invariants(machine.workers)
    machine._staffing.check_invariants(workers)
    assert all(worker.owns_slot for worker in workers if worker.state in (WorkerState.READY, WorkerState.BUSY))
    tasks = [task for worker in workers for task in worker.tasks] + list(machine.queue)
    assert len(tasks) == len(set(map(id, tasks)))
    machine.queue.check_invariants()
    assert all(task.seq == 0 for task in machine.queue)
    assert machine._lost_before <= set(tasks)
    assert not machine.queue or not (machine.broken or machine._begins_nothing)
    assert not machine._finished or not workers
