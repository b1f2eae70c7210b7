"""Tell what the pool is doing and has done, from what core, crew and tally know.

Runs in: host, supervisor thread, between two of its steps, where each task is in exactly one place. It only reads.
Tests: tests/process/test_statistics.py, tests/process/test_diagnostics.py
"""

from __future__ import annotations

from collections.abc import Iterator
from types import MappingProxyType

from .._core.machine import PoolMachine
from .._core.states import Task, Worker
from .._shared import clock
from ..events import PoolStatistics
from .crew import Crew
from .intake import Intake
from .inventory import TaskSnapshot, TaskState
from .tally import Tally


class Reports:
    """The pool as it is."""

    def __init__(self, machine: PoolMachine, crew: Crew, tally: Tally) -> None:
        self._machine = machine
        self._crew = crew
        self._tally = tally

    def open_tasks(self, intake: Intake) -> Iterator[TaskSnapshot]:
        """Those that were accepted and have not ended: what runs first, then what waits, in order."""
        waiting = []
        for worker in list(self._machine.workers.values()):
            link = self._crew.links.get(worker.generation)
            for position, task in enumerate(list(worker.tasks)):
                started = None if link is None else link.started_at(task.seq)
                ending = task.verdict is not None or (position == 0 and worker.doom is not None)
                if link is None or (started is None and not ending):  # it may have been sent, and can still be taken back
                    waiting.append(task)
                elif not task.future.done():
                    state: TaskState = "ending" if ending else "running"
                    seconds = 0.0 if started is None else clock.now() - started
                    yield TaskSnapshot(task.name, state, worker.slot, link.pid, seconds, task.future)
        waiting += [*self._machine.queue, *(item for item in list(intake.items) if isinstance(item, Task))]
        for task in waiting:
            if not task.future.done():
                yield TaskSnapshot(task.name, "waiting", None, None, 0.0, task.future)

    def statistics(self) -> PoolStatistics:
        """What became of all calls."""
        machine, tally = self._machine, self._tally
        done, failed, crashed, cancelled, timed_out, over_memory = tally.ended
        workers = list(machine.workers.values())
        busy = [worker for worker in workers if worker.tasks]
        return PoolStatistics(
            queued=len(machine.queue) + sum(len(worker.tasks) - 1 for worker in busy),
            running=len(busy),
            done=done,
            failed=failed,
            crashed=crashed,
            cancelled=cancelled,
            timed_out=timed_out,
            over_memory=over_memory,
            workers=sum(worker.is_ready for worker in workers),
            workers_started=machine.started,
            workers_replaced=MappingProxyType(dict(machine.replaced)),
            busy_time=tuple(self._busy_time(busy)),
        )

    def _busy_time(self, busy: list[Worker]) -> list[float]:
        times = list(self._tally.busy)
        for worker in busy:
            started = self._crew.started_at(worker)
            if started is not None:
                times[worker.slot] += clock.now() - started
        return times
