"""Read how much memory our control groups have, where the kernel kills all of one at once.

Runs in: host, supervisor thread; small files of /sys, only where there is `memory.oom.group` (version 2).
Hard part: which limits count. When a group is out of memory, the kernel looks from the victim's group up to that one for the
highest with `memory.oom.group` (cgroup-v2.rst). So a limit counts if the mark is on its group, or below it; and of those that
count any may be reached first, for others may live in the groups above ours.
All of it is read anew at each look: a container may be resized while it runs, and the mark set.
Used is what cannot be taken back: without the page cache, with what was swapped out.
Tests: tests/unit/test_group_memory.py
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator

from .._core.states import GroupMemory
from .cgroups import Cgroups

_FREE_AT_NEED = re.compile(r"^(?:inactive_file|active_file|slab_reclaimable) (\d+)$", re.MULTILINE)
_SWAP_TOTAL = re.compile(r"^SwapTotal: +(\d+) kB$", re.MULTILINE)


class GroupWatch:
    """Our control group, and those above it."""

    def __init__(self, cgroups: Cgroups, folders: list[str]) -> None:
        """
        Args:
            folders: From ours upwards.
        """
        self._cgroups = cgroups
        self._folders = folders

    def look(self) -> GroupMemory | None:
        """The group that has the least room, of those that would be killed, this program included; None: there is none."""
        found = [(limit + swap, self._used(folder, swaps=swap > 0), folder) for limit, swap, folder in self._limits()]
        if not found:
            return None
        limit, used, folder = min(found, key=lambda one: math.inf if one[1] is None else one[0] - one[1])
        return GroupMemory(limit, used, os.path.join(folder, "memory.max"), min(one[0] for one in found))

    def _limits(self) -> Iterator[tuple[int, int, str]]:
        """Bytes that a group may have in memory, and that it may swap out."""
        cgroups, marked = self._cgroups, False
        for folder in self._folders:
            marked = marked or cgroups.read(f"{folder}/memory.oom.group").strip() == "1"
            limit = cgroups.number(f"{folder}/memory.max") if marked else None
            if limit is not None:
                yield limit, self._swap(folder), folder

    def _swap(self, folder: str) -> int:
        limit = self._cgroups.number(f"{folder}/memory.swap.max")
        if limit == 0:
            return 0  # as in most containers; the other file is a long one
        total = _SWAP_TOTAL.search(self._cgroups.read("/proc/meminfo"))
        here = 0 if total is None else int(total[1]) << 10
        return here if limit is None else min(limit, here)

    def _used(self, folder: str, *, swaps: bool) -> int | None:
        """Bytes that it has and would not give back; None: nobody can tell."""
        current = self._cgroups.number(f"{folder}/memory.current")
        if current is None:
            return None
        free_at_need = sum(map(int, _FREE_AT_NEED.findall(self._cgroups.read(f"{folder}/memory.stat"))))
        swapped = self._cgroups.number(f"{folder}/memory.swap.current") or 0 if swaps else 0
        return max(0, current - free_at_need) + swapped


def find_groups(root: str = "/") -> GroupWatch | None:
    """What is to be looked at; None: the kernel of this machine does not kill a group that we are in as a whole.

    Args:
        root: Where /proc and /sys are looked for; tests put recorded trees there.
    """
    cgroups = Cgroups(root)
    folders = list(cgroups.upwards(""))
    # A value can change, but a group has no memory controller, or the kernel (before 4.19) no such file, for good.
    can_be_marked = any(cgroups.read(f"{folder}/memory.oom.group") for folder in folders)
    return GroupWatch(cgroups, folders) if can_be_marked else None
