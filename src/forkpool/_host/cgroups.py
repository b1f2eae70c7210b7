"""Find the files of our own control groups.

Runs in: host; two small files of /proc.
Hard part: the path that /proc/self/cgroup gives is not where the files are: in a container the mount shows a part of the
tree, whose root is in /proc/self/mountinfo. And a machine may have version 1, version 2, or both.
Not found: our folder in a cgroup namespace whose mount is older than it (`unshare -C` alone). The root is `/..` then, and the
name of our group below it is told nowhere; so the files of a group above are read for ours.
Tests: tests/unit/test_oom.py, tests/unit/test_topology.py, tests/unit/test_limits.py
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

_OCTAL = re.compile(r"\\([0-7]{3})")


class Cgroups:
    """Where our control groups are, at the time of the look."""

    def __init__(self, root: str = "/") -> None:
        """
        Args:
            root: Where /proc and /sys are looked for; tests put recorded trees there.
        """
        self._root = root
        self._paths = dict(_parse_cgroups(self.read("/proc/self/cgroup")))
        self._mounts = list(_parse_mounts(self.read("/proc/self/mountinfo")))

    def read(self, path: str) -> str:
        """The text of a file; empty if it cannot be read."""
        try:
            with open(os.path.join(self._root, path.lstrip("/")), "rb") as file:
                return os.fsdecode(file.read())
        except OSError:
            return ""

    def number(self, path: str) -> int | None:
        """What a file limits or counts; None for `max`, and for what is not there."""
        text = self.read(path).strip()
        return int(text) if text.isdigit() else None

    def folders(self, controller: str) -> Iterator[tuple[str, str]]:
        """Mount point of a hierarchy, and our folder in or below it.

        Args:
            controller: A controller of version 1 ("memory", "cpu"); "": version 2.
        """
        for kind, root, point in self._mounts:
            if kind == controller and controller in self._paths:
                yield point, _place(point, root, self._paths[controller])

    def upwards(self, controller: str) -> Iterator[str]:
        """Our folder and all above it, as far as they can be seen: a limit of any of them counts."""
        for point, folder in self.folders(controller):
            while folder.startswith(point):
                yield folder
                if folder == point:
                    break
                folder = os.path.dirname(folder)


def _parse_cgroups(text: str) -> Iterator[tuple[str, str]]:
    """Controller and path from /proc/self/cgroup; the controller of version 2 is ""."""
    for line in text.splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if path:
            for controller in controllers.split(","):
                yield controller, path


def _parse_mounts(text: str) -> Iterator[tuple[str, str, str]]:
    """Controller ("" for version 2), root and mount point from /proc/self/mountinfo."""
    for line in text.splitlines():
        fields, _, tail = line.partition(" - ")
        words, system = fields.split(" "), tail.split(" ")
        if len(words) < 5 or len(system) < 3:
            continue
        if system[0] == "cgroup2":
            yield "", _unescape(words[3]), _unescape(words[4])
        elif system[0] == "cgroup":
            for option in system[2].split(","):
                yield option, _unescape(words[3]), _unescape(words[4])


def _unescape(path: str) -> str:
    return _OCTAL.sub(lambda found: chr(int(found[1], 8)), path)


def _place(point: str, root: str, path: str) -> str:
    """Where the cgroup `path` is, in a mount at `point` that shows the tree from `root` down."""
    if root != "/" and (path == root or path.startswith(root + "/")):
        path = path[len(root) :]
    inside = os.path.normpath("/" + path)  # "/../x": a group outside of what our cgroup namespace shows
    return os.path.normpath(point + inside)
