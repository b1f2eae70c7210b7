"""Hold the tasks that wait for a worker, in the order in which they will get one.

Runs in: host, supervisor thread; pure. Called by PoolMachine alone.
Hard part: a task may leave from anywhere (`cancel()`, `kill()`), and a deque finds one by looking at all. So a removed task
keeps its place as a husk without payload, recognised by its verdict, which no waiting task has. Husks never stand at the front,
and the queue is rebuilt when they are the majority: each removal costs a constant on average.
Tests: tests/unit/test_ready_queue.py
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from .states import Task, Verdict


class ReadyQueue:
    """A deque of tasks that lets go of any of them at once. Its length counts those that still wait."""

    __slots__ = ("_husks", "_places")

    def __init__(self) -> None:
        self._places: deque[Task] = deque()
        self._husks = 0  # removed, and still in `_places`

    def __len__(self) -> int:
        return len(self._places) - self._husks

    def __iter__(self) -> Iterator[Task]:
        return (task for task in self._places if task.verdict is None)

    @property
    def first(self) -> Task:
        return self._places[0]

    def append(self, task: Task) -> None:
        self._places.append(task)

    def appendleft(self, task: Task) -> None:
        self._places.appendleft(task)

    def popleft(self) -> Task:
        task = self._places.popleft()
        if self._husks:
            self._tidy()
        return task

    def remove(self, task: Task, verdict: Verdict) -> None:
        """Take out a task that waits here, and give its payload back."""
        task.verdict = verdict
        task.payload = b""
        self._husks += 1
        self._tidy()

    def _tidy(self) -> None:
        places = self._places
        while places and places[0].verdict is not None:
            places.popleft()
            self._husks -= 1
        if self._husks > len(self):
            self._places = deque(self)
            self._husks = 0

    def check_invariants(self) -> None:
        """For tests: what the head of this file says of husks."""
        assert self._husks == sum(task.verdict is not None for task in self._places)
        assert self._husks <= len(self)
        assert not self._places or self.first.verdict is None
