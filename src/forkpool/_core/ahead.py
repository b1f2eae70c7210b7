"""Decide which short tasks may be sent ahead, to stand in a worker's pipe behind the one that runs.

Runs in: host, supervisor thread; pure. Called by PoolMachine alone, which takes back what must not stay there.
A worker that has the next task in its pipe need not sleep and be woken. But a task that was sent waits for those before
it, whatever other workers do: so only tasks that are known to be short are sent ahead, behind such as are, and no more of
them than surely take less time than a wake-up or two.
Tests: tests/unit/test_machine.py
"""

from __future__ import annotations

from .durations import Durations
from .states import Task, Worker
from .wire import INLINE_BYTES

MAX_AHEAD = 28  # tasks behind the first: the fewer wake-ups, the more room; twice as many gain little more
MAX_AHEAD_S = 0.001  # expected work behind the first
RECALL_AFTER_S = 0.005


class SendAhead:
    """What is known of the tasks behind each worker's first."""

    def __init__(self) -> None:
        self.durations = Durations()
        self.hungry: dict[int, Worker] = {}  # by generation: busy, and may have room; looked at when there is more work
        self.loaded: dict[int, Worker] = {}  # by generation: may have tasks in its pipe behind the first

    def expected(self, worker: Worker, task: Task) -> float | None:
        """Seconds that the task will take behind what the worker has; None: it may not stand there."""
        tasks = worker.tasks
        if not 0 < len(tasks) <= MAX_AHEAD or worker.doom is not None or worker.expiry is not None or worker.terminated:
            return None
        if worker.first_is_whole or self._short(tasks[0]) is None or worker.lacks(task.payload):
            return None
        expected = self._short(task)
        return None if expected is None or worker.ahead_s + expected > MAX_AHEAD_S else expected

    def _short(self, task: Task) -> float | None:
        """Seconds that the task will take, if it may stand in a pipe with others; None: it may not."""
        options = task.options
        if options.timeout is not None or options.memory_limit is not None or task.verdict is not None:
            return None
        if len(task.payload) > INLINE_BYTES:
            return None
        return self.durations.short(task.name)

    def on_sent(self, worker: Worker, expected: float) -> None:
        """A task was sent ahead."""
        worker.ahead_s += expected
        self.loaded[worker.generation] = worker

    def on_next(self, worker: Worker) -> None:
        """The worker goes on with what was sent ahead: that is now its first."""
        expected = self.durations.short(worker.tasks[0].name)
        worker.ahead_s = max(0.0, worker.ahead_s - (expected or 0.0))
        self.settle(worker)
        if len(worker.tasks) <= MAX_AHEAD // 2:
            self.hungry[worker.generation] = worker

    def settle(self, worker: Worker) -> None:
        """Tasks of the worker have gone: nothing may be left behind the first."""
        if len(worker.tasks) <= 1:
            self.on_recalled(worker)

    def on_recalled(self, worker: Worker) -> None:
        """Its pipe is empty: what it still has behind the first it has taken, or lost."""
        worker.ahead_s = 0.0
        self.loaded.pop(worker.generation, None)

    def forget(self, worker: Worker) -> None:
        """The worker is gone."""
        self.loaded.pop(worker.generation, None)
        self.hungry.pop(worker.generation, None)

    def overdue(self, now: float) -> list[Worker]:
        """Workers whose first task takes too long for the others to wait behind it."""
        late = [worker for worker in self.loaded.values() if worker.head_since + RECALL_AFTER_S <= now]
        for worker in late:
            self.durations.learn(worker.tasks[0].name, now - worker.head_since)
        return late

    def times(self) -> list[float]:
        """When workers become overdue (monotonic seconds)."""
        return [worker.head_since + RECALL_AFTER_S for worker in self.loaded.values()]
