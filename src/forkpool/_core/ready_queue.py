"""Hold the tasks that wait for a worker, in the order in which they will get one: by priority, then as they came.

Runs in: host, supervisor thread; pure. Called by PoolMachine alone.
Each priority has a line of its own. The highest that is not empty is at hand (`_top`): while all tasks have one priority, this
is one deque and a comparison. The others are found through a heap.
Hard part: a task may leave from anywhere (`cancel()`, `kill()`), and a deque finds one by looking at all. So a removed task
keeps its place as a husk without payload, recognised by its verdict, which no waiting task has. Husks never stand at the front,
and a line is rebuilt when they are its majority: each removal costs a constant on average. Lines that were emptied
so keep their place in the heap, and are swept out likewise.
Tests: tests/unit/test_ready_queue.py
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from heapq import heapify, heappop, heappush

from .states import Task, Verdict


class Line:
    """A deque of tasks of one priority that lets go of any of them at once. Its length counts those that still wait."""

    __slots__ = ("husks", "places", "priority")

    def __init__(self, priority: int) -> None:
        self.priority = priority
        self.places: deque[Task] = deque()
        self.husks = 0  # removed, and still in `places`

    def __len__(self) -> int:
        return len(self.places) - self.husks

    def __iter__(self) -> Iterator[Task]:
        return (task for task in self.places if task.verdict is None)

    def remove_one(self) -> None:
        """A task of this line has got a verdict."""
        self.husks += 1
        self.tidy()

    def tidy(self) -> None:
        places = self.places
        while places and places[0].verdict is not None:
            places.popleft()
            self.husks -= 1
        if self.husks > len(self):
            self.places = deque(self)
            self.husks = 0


class ReadyQueue:
    """The tasks that wait. Its length counts them."""

    __slots__ = ("_behind", "_emptied", "_heap", "_lines", "_top")

    def __init__(self) -> None:
        self._top = Line(0)  # empty only if all are
        self._lines: dict[int, Line] = {}  # the other ones, by priority; all lower than the top one's, if anything waits
        self._heap: list[int] = []  # their priorities, negative: the highest comes first
        self._behind = 0  # tasks in them
        self._emptied = 0  # how many of them hold nothing any more

    def __len__(self) -> int:
        top = self._top
        return len(top.places) - top.husks + self._behind

    def __iter__(self) -> Iterator[Task]:
        yield from self._top
        for priority in sorted(self._lines, reverse=True):
            yield from self._lines[priority]

    @property
    def first(self) -> Task:
        return self._top.places[0]

    def append(self, task: Task) -> None:
        top = self._top
        if task.options.priority == top.priority:
            top.places.append(task)
        else:
            self._line_for(task).append(task)

    def appendleft(self, task: Task) -> None:
        """Put it in front of those of its priority."""
        if task.options.priority == self._top.priority:
            self._top.places.appendleft(task)
        else:
            self._line_for(task).appendleft(task)

    def popleft(self) -> Task:
        top = self._top
        task = top.places.popleft()
        if top.husks:
            top.tidy()
        if self._behind and not top.places:
            self._advance()
        return task

    def remove(self, task: Task, verdict: Verdict) -> None:
        """Take out a task that waits here, and give its payload back."""
        task.verdict = verdict
        task.payload = b""
        top, priority = self._top, task.options.priority
        if priority == top.priority:
            top.remove_one()
            if self._behind and not top.places:
                self._advance()
            return
        line = self._lines[priority]
        line.remove_one()
        self._behind -= 1
        if not line.places:
            self._emptied += 1
            self._sweep()

    def _line_for(self, task: Task) -> deque[Task]:
        """Where a task belongs that is not of the top line's priority."""
        top, priority = self._top, task.options.priority
        if not top.places:  # nothing waits at all
            self._lines.clear()
            self._heap.clear()
            self._emptied = 0
            self._top = Line(priority)
            return self._top.places
        if priority > top.priority:
            self._lines[top.priority] = top
            heappush(self._heap, -top.priority)
            self._behind += len(top)
            self._top = Line(priority)
            return self._top.places
        self._behind += 1
        line = self._lines.get(priority)
        if line is None:
            line = self._lines[priority] = Line(priority)
            heappush(self._heap, -priority)
        elif not line.places:
            self._emptied -= 1
        return line.places

    def _advance(self) -> None:
        """The top line is empty, and another is not."""
        while not self._top.places:
            self._top = self._lines.pop(-heappop(self._heap))
            self._emptied -= not self._top.places
        self._behind -= len(self._top)
        self._sweep()

    def _sweep(self) -> None:
        """Drop the lines that were emptied, when they are the majority."""
        if self._emptied <= len(self._lines) // 2:
            return
        self._lines = {priority: line for priority, line in self._lines.items() if line.places}
        self._heap = [-priority for priority in self._lines]
        heapify(self._heap)
        self._emptied = 0

    def check_invariants(self) -> None:
        """For tests: what the head of this file says of husks and lines."""
        for line in (self._top, *self._lines.values()):
            assert line.husks == sum(task.verdict is not None for task in line.places)
            assert line.husks <= len(line)
            assert not line.places or line.places[0].verdict is None
            assert all(task.options.priority == line.priority for task in line.places)
        assert sorted(-priority for priority in self._heap) == sorted(self._lines)
        assert self._behind == sum(map(len, self._lines.values()))
        assert self._emptied == sum(not line.places for line in self._lines.values())
        assert self._emptied <= len(self._lines) // 2
        assert self._top.places or not self._behind
        assert not self._top.places or all(priority < self._top.priority for priority in self._lines)
