"""Find out whether the kernel's out-of-memory killer acted.

Runs in: host, supervisor thread; a few small files of /proc and /sys, read at the pool's start and after a SIGKILL.
A killed process does not tell who killed it. The kernel counts, per memory cgroup (v2 `memory.events`, v1
`memory.oom_control`) and for the whole machine (/proc/vmstat). Workers live in the host's cgroup, so a count that rose
there points to them; the machine's count may be about anybody, and the text says so.
Tests: tests/unit/test_oom.py, tests/process/test_oom.py
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from .cgroups import Cgroups

_COUNT = re.compile(r"^oom_kill (\d+)$", re.MULTILINE)


class OomWatch:
    """Counts of kills, now and at the last look."""

    def __init__(self, root: str = "/") -> None:
        """Choose the file to watch.

        Args:
            root: Where /proc and /sys are looked for; tests put recorded trees there.
        """
        self._cgroups = Cgroups(root)
        self._path, self._scope = self._choose()
        self._seen: int | None = None

    def baseline(self) -> None:
        """Count from now on."""
        self._seen = self._count(self._path)

    def hint(self) -> str | None:
        """Say what points to the killer since the baseline or the last hint; None if nothing does.

        Each hint accounts for one kill: of two workers killed at once, each gets one.
        """
        count = self._count(self._path)
        if count is None or self._seen is None or count <= self._seen:
            return None
        kills, self._seen = count - self._seen, self._seen + 1
        times = "once" if kills == 1 else f"{kills} times"
        return f"the kernel's out-of-memory killer acted {times} {self._scope} ({self._path}: oom_kill {count})"

    def _choose(self) -> tuple[str, str]:
        for path in self._cgroup_files():
            if self._count(path) is not None:
                return path, "in this process's memory cgroup"
        return "/proc/vmstat", "on this machine, which may have been about another program"

    def _count(self, path: str) -> int | None:
        found = _COUNT.search(self._cgroups.read(path))
        return int(found[1]) if found else None

    def _cgroup_files(self) -> Iterator[str]:
        """The counters of our cgroup, the hierarchy with the memory controller first."""
        for controller, file in (("memory", "memory.oom_control"), ("", "memory.events")):
            for _, folder in self._cgroups.folders(controller):
                yield os.path.join(folder, file)
