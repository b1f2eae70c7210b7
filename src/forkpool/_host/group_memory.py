"""Read how much memory our control group has, where the kernel kills all of it at once.

Runs in: host, supervisor thread; small files of /sys, only where `memory.oom.group` (version 2) is set.
Hard part: which limit counts. When a group is out of memory, the kernel looks from the victim's group up to that one for the
highest with `memory.oom.group` (cgroup-v2.rst). So a limit counts if the mark is on its group, or below it.
Used is what cannot be taken back: without the page cache, with what was swapped out.
Tests: tests/unit/test_group_memory.py
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from .cgroups import Cgroups

_FREE_AT_NEED = re.compile(r"^(?:inactive_file|active_file|slab_reclaimable) (\d+)$", re.MULTILINE)
_SWAP_TOTAL = re.compile(r"^SwapTotal: +(\d+) kB$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class GroupMemory:
    """A control group that is killed as a whole when it is out of memory."""

    limit: int  # bytes, with what it may swap out
    file: str  # that says so
    _folder: str
    _swaps: bool
    _cgroups: Cgroups = field(repr=False)

    def used(self) -> int | None:
        """Bytes that it has and would not give back; None: nobody can tell."""
        cgroups, folder = self._cgroups, self._folder
        current = cgroups.number(f"{folder}/memory.current")
        if current is None:
            return None
        free_at_need = sum(map(int, _FREE_AT_NEED.findall(cgroups.read(f"{folder}/memory.stat"))))
        swapped = cgroups.number(f"{folder}/memory.swap.current") or 0 if self._swaps else 0
        return max(0, current - free_at_need) + swapped


def find_group_memory(root: str = "/") -> GroupMemory | None:
    """The tightest limit whose breach would end this program; None: there is none.

    Args:
        root: Where /proc and /sys are looked for; tests put recorded trees there.
    """
    cgroups = Cgroups(root)
    found, marked = [], False
    for folder in cgroups.upwards(""):
        marked = marked or cgroups.read(f"{folder}/memory.oom.group").strip() == "1"
        limit = cgroups.number(f"{folder}/memory.max")
        if marked and limit is not None:
            swap = _swap(cgroups, folder)
            found.append(GroupMemory(limit + swap, f"{folder}/memory.max", folder, swap > 0, cgroups))
    return min(found, key=lambda one: one.limit, default=None)


def _swap(cgroups: Cgroups, folder: str) -> int:
    """Bytes that it may swap out."""
    total = _SWAP_TOTAL.search(cgroups.read("/proc/meminfo"))
    here = 0 if total is None else int(total[1]) << 10
    limit = cgroups.number(f"{folder}/memory.swap.max")
    return here if limit is None else min(limit, here)
