"""Find out whether the kernel's out-of-memory killer acted.

Runs in: host, supervisor thread; a small file of /proc or /sys, read after a SIGKILL, and now and then while calls are sent.
A killed process does not tell who killed it. The kernel counts, per memory cgroup (v2 `memory.events`, v1
`memory.oom_control`) and for the whole machine (/proc/vmstat). Workers live in the host's cgroup, so a count that rose
there points to them; the machine's count may be about anybody, and the text says so.
Hard part: a kill that was counted before a task began was not of its worker; it may have been of a child of an earlier task. To
read the count before each task would cost more than many a task. So it is read at most every 50 ms, and it is known since when
it is what it is; what remains is in the text: the killer *may* have chosen this worker.
Tests: tests/unit/test_oom.py, tests/process/test_oom.py
"""

from __future__ import annotations

import math
import os
import re
from collections import deque
from collections.abc import Iterator

from .._shared import clock
from .cgroups import Cgroups

_COUNT = re.compile(r"^oom_kill (\d+)$", re.MULTILINE)
LOOK_EVERY_S = 0.05  # arbitrary: some 10 µs each, and to fill the memory takes longer
_MEMORY = 100  # arbitrary: counts that are remembered; of a task that began before them, later kills only are told


class OomWatch:
    """Counts of kills, and when they were seen."""

    def __init__(self, root: str = "/") -> None:
        """Choose the file to watch.

        Args:
            root: Where /proc and /sys are looked for; tests put recorded trees there.
        """
        self._cgroups = Cgroups(root)
        self._path, self._scope = self._choose()
        self._seen: deque[tuple[float, int]] = deque(maxlen=_MEMORY)  # when (monotonic seconds) a count was seen first, and it
        self._told = 0  # so many kills are accounted for by hints
        self._look_at = math.inf  # monotonic seconds

    def baseline(self) -> None:
        """Count from now on."""
        if self._count(self._path) is not None:  # else there is nothing to look at, later neither
            self.look(clock.now())

    def look_if_due(self, now: float) -> None:
        """What is counted by now was not of a worker whose task begins later."""
        if self._look_at <= now:
            self.look(now)

    def look(self, now: float) -> int | None:
        """Read and remember the count."""
        self._look_at = now + LOOK_EVERY_S
        count = self._count(self._path)
        if count is not None and (not self._seen or self._seen[-1][1] < count):
            self._seen.append((now, count))
        return count

    def hint(self, began: float) -> str | None:
        """Say what points to the killer since the task began (monotonic seconds); None if nothing does.

        Each hint accounts for one kill: of two workers killed at once, each gets one.
        """
        if not self._seen:
            return None
        before = [count for when, count in self._seen if when <= began] or [self._seen[0][1]]
        count, before_it = self.look(clock.now()), max(before[-1], self._told)
        if count is None or count <= before_it:
            return None
        kills, self._told = count - before_it, before_it + 1
        times = "once" if kills == 1 else f"{kills} times"
        return f"the kernel's out-of-memory killer acted {times} {self._scope} ({self._path}: oom_kill {count})"

    def _choose(self) -> tuple[str, str]:
        for path in self._cgroup_files():
            if self._count(path) is not None:
                return path, "in this process's memory cgroup, and may have chosen this worker"
        return "/proc/vmstat", "on this machine, which may have been about another program"

    def _count(self, path: str) -> int | None:
        found = _COUNT.search(self._cgroups.read(path))
        return int(found[1]) if found else None

    def _cgroup_files(self) -> Iterator[str]:
        """The counters of our cgroup, the hierarchy with the memory controller first.

        A group without that controller is part of the next one above that has it, which is where its kills are counted.
        """
        for controller, file in (("memory", "memory.oom_control"), ("", "memory.events")):
            for folder in self._cgroups.upwards(controller):
                yield os.path.join(folder, file)
