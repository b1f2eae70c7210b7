"""Find out whether the kernel's out-of-memory killer acted.

Runs in: host, supervisor thread; a few small files of /proc and /sys, read at the pool's start and after a SIGKILL.
A killed process does not tell who killed it. The kernel counts, per memory cgroup (v2 `memory.events`, v1
`memory.oom_control`) and for the whole machine (/proc/vmstat). Workers live in the host's cgroup, so a count that rose
there points to them; the machine's count may be about anybody, and the text says so.
Hard part: the cgroup's path as /proc/self/cgroup gives it is not where the files are: in a container the mount shows
a part of the tree, whose root is in /proc/self/mountinfo.
Tests: tests/unit/test_oom.py, tests/process/test_oom.py
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

_COUNT = re.compile(rb"^oom_kill (\d+)$", re.MULTILINE)
_OCTAL = re.compile(r"\\([0-7]{3})")


class OomWatch:
    """Counts of kills, now and at the last look."""

    def __init__(self, root: str = "/") -> None:
        """Choose the file to watch.

        Args:
            root: Where /proc and /sys are looked for; tests put recorded trees there.
        """
        self._root = root
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
        found = _COUNT.search(self._read(path))
        return int(found[1]) if found else None

    def _read(self, path: str) -> bytes:
        try:
            with open(os.path.join(self._root, path.lstrip("/")), "rb") as file:
                return file.read()
        except OSError:
            return b""

    def _cgroup_files(self) -> Iterator[str]:
        """The counters of our cgroup, the hierarchy with the memory controller first."""
        paths = dict(_parse_cgroups(os.fsdecode(self._read("/proc/self/cgroup"))))
        mounts = list(_parse_mounts(os.fsdecode(self._read("/proc/self/mountinfo"))))
        for controller, file in (("memory", "memory.oom_control"), ("", "memory.events")):
            for kind, root, point in mounts:
                if kind == controller and controller in paths:
                    yield os.path.join(_place(point, root, paths[controller]), file)


def _parse_cgroups(text: str) -> Iterator[tuple[str, str]]:
    """Controller and path from /proc/self/cgroup; the controller of version 2 is ""."""
    for line in text.splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if path:
            for controller in controllers.split(","):
                yield controller, path


def _parse_mounts(text: str) -> Iterator[tuple[str, str, str]]:
    """Controller ("memory", or "" for version 2), root and mount point from /proc/self/mountinfo."""
    for line in text.splitlines():
        fields, _, tail = line.partition(" - ")
        words, system = fields.split(" "), tail.split(" ")
        if len(words) < 5 or len(system) < 3:
            continue
        if system[0] == "cgroup2":
            yield "", _unescape(words[3]), _unescape(words[4])
        elif system[0] == "cgroup" and "memory" in system[2].split(","):
            yield "memory", _unescape(words[3]), _unescape(words[4])


def _unescape(path: str) -> str:
    return _OCTAL.sub(lambda found: chr(int(found[1], 8)), path)


def _place(point: str, root: str, path: str) -> str:
    """Where the cgroup `path` is, in a mount at `point` that shows the tree from `root` down."""
    if root != "/" and (path == root or path.startswith(root + "/")):
        path = path[len(root) :]
    return os.path.normpath(point + "/" + path)
