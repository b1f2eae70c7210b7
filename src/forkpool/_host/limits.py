"""Read what limits this process: descriptors, processes, locked memory, memory of its control groups, shared memory.

Runs in: host, for `forkpool doctor`. Small files of /proc and /sys, each of which may be missing: then a limit is unknown.
Hard part: `memory.oom.group`. The kernel looks from the victim's group up to the one that is out of memory, and kills all of
the highest that has it set (cgroup-v2.rst): so ours and all above count.
Tests: tests/unit/test_limits.py
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass

from .cgroups import Cgroups

_NO_LIMIT = 1 << 60  # version 1 writes the largest multiple of a page that its counter can hold
# What limits, and what tells how much is used.
_PIDS = ("pids.max", "pids.current")
_MEMORY = ("memory.max", "memory.current")
_MEMORY_OF_V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes")
_LINE = re.compile(r"^(Max [a-z ]+?) {2,}(\S+) +(\S+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Rlimit:
    """A limit of the process (setrlimit(2)). None: unlimited, or unknown."""

    soft: int | None
    hard: int | None


@dataclass(frozen=True, slots=True)
class GroupLimit:
    """The tightest limit of our control group and those above it. None: no limit is known."""

    limit: int | None
    used: int | None  # in the group that has the limit
    file: str | None  # where it stands


@dataclass(frozen=True, slots=True)
class Limits:
    """What there is to be had. Sizes in bytes."""

    descriptors: Rlimit
    descriptors_open: int | None
    processes: Rlimit  # of this user
    locked_memory: Rlimit
    processes_of_group: GroupLimit
    memory_of_group: GroupLimit
    oom_group: str | None  # the file that makes the kernel kill the whole group; None: it kills one process
    shared_memory: int | None  # size of /dev/shm; None: there is none
    shared_memory_free: int | None


def read_limits(root: str = "/") -> Limits:
    """What limits this process.

    Args:
        root: Where /proc, /sys and /dev are looked for; tests put recorded trees there.
    """
    cgroups = Cgroups(root)
    rlimits = {
        name: Rlimit(_number(soft), _number(hard)) for name, soft, hard in _LINE.findall(cgroups.read("/proc/self/limits"))
    }
    unknown = Rlimit(None, None)
    size, free = _shared_memory(root)
    return Limits(
        descriptors=rlimits.get("Max open files", unknown),
        descriptors_open=_count(os.path.join(root, "proc/self/fd")),
        processes=rlimits.get("Max processes", unknown),
        locked_memory=rlimits.get("Max locked memory", unknown),
        processes_of_group=_tightest(_group_limits(cgroups, "pids", _PIDS, _PIDS)),
        memory_of_group=_tightest(_group_limits(cgroups, "memory", _MEMORY, _MEMORY_OF_V1)),
        oom_group=_oom_group(cgroups),
        shared_memory=size,
        shared_memory_free=free,
    )


def _group_limits(cgroups: Cgroups, controller: str, v2: tuple[str, str], v1: tuple[str, str]) -> Iterator[GroupLimit]:
    for kind, (limit, used) in (("", v2), (controller, v1)):
        for folder in cgroups.upwards(kind):
            file = f"{folder}/{limit}"
            number = cgroups.number(file)
            if number is not None and number < _NO_LIMIT:
                yield GroupLimit(number, cgroups.number(f"{folder}/{used}"), file)


def _tightest(limits: Iterator[GroupLimit]) -> GroupLimit:
    return min(limits, key=lambda one: one.limit or 0, default=GroupLimit(None, None, None))


def _oom_group(cgroups: Cgroups) -> str | None:
    files = [f"{folder}/memory.oom.group" for folder in cgroups.upwards("")]
    return next((file for file in reversed(files) if cgroups.read(file).strip() == "1"), None)


def _number(text: str) -> int | None:
    """None for `unlimited`."""
    return int(text) if text.isdigit() else None


def _count(folder: str) -> int | None:
    try:
        return len(os.listdir(folder)) - 1  # the one that lists it
    except OSError:
        return None


def _shared_memory(root: str) -> tuple[int | None, int | None]:
    try:
        found = os.statvfs(os.path.join(root, "dev/shm"))
    except (OSError, AttributeError):
        return None, None
    return found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize
