"""Read which CPUs this process may use, how they hang together, and how much of their time it may take.

Runs in: host; the caller's thread for `usable_cpus`, the thread that starts the supervisor for the rest. Small files of
/proc and /sys, each of which may be missing: then every CPU counts as a core of one node, and nothing limits time.
The mask is that of the calling thread, which threads and processes that it starts inherit.
Hard part: a cgroup's quota is that of the tightest of all groups above it, as far as they can be seen.
Tests: tests/unit/test_topology.py
"""

from __future__ import annotations

import os
from collections.abc import Collection

from .._core.placement import Cpu, Machine, whole_cpus
from .._shared.current_task import SLOT_VARIABLE
from .cgroups import Cgroups

_FIRST_PID_NAMESPACE = 0xEFFFFFFC  # include/linux/proc_ns.h, PROC_PID_INIT_INO
_CPUS = "sys/devices/system/cpu"
_NODES = "sys/devices/system/node"


def affinity_mask() -> frozenset[int]:
    """The CPUs that the calling thread may run on (`taskset`, docker's cpuset); empty: this system does not tell."""
    try:
        return frozenset(os.sched_getaffinity(0))
    except (AttributeError, OSError):
        return frozenset()


def usable_cpus(root: str = "/") -> int:
    """How many processes can run at a time: affinity mask and cgroup quota, rounded up; at least 1."""
    return whole_cpus(len(affinity_mask()) or os.cpu_count() or 1, cpu_quota(root))


def cpu_quota(root: str = "/") -> float | None:
    """How many CPUs' worth of time our control groups grant, version 1 or 2; None: no limit is known."""
    return tightest_quota(root)[0]


def tightest_quota(root: str = "/") -> tuple[float | None, str]:
    """The same, and the file that says so; "" without a limit."""
    cgroups = Cgroups(root)
    found = [(_limit(cgroups.read(file)), file) for file in (f"{folder}/cpu.max" for folder in cgroups.upwards(""))]
    for folder in cgroups.upwards("cpu"):
        quota, period = (f"{folder}/cpu.cfs_{name}_us" for name in ("quota", "period"))
        found.append((_limit(f"{cgroups.read(quota)} {cgroups.read(period)}"), quota))
    return min(((limit, file) for limit, file in found if limit is not None), default=(None, ""))


def _limit(text: str) -> float | None:
    """`200000 100000` is two CPUs; version 2's `max 100000` and version 1's `-1 100000` are no limit."""
    words = text.split()
    try:
        quota, period = (int(word) for word in words)
    except ValueError:
        return None
    return quota / period if quota > 0 and period > 0 else None


def read_machine(mask: Collection[int], root: str = "/") -> Machine:
    """Describe the CPUs of this mask.

    In a container `start` differs from container to container: pools in two of them cannot see each other's claims, and
    should not all begin with the same CPU.
    """
    nodes = _nodes(root)
    siblings: dict[int, tuple[int, ...]] = {}
    for number in sorted(mask):
        if number not in siblings:
            siblings.update(dict.fromkeys(core := _core_of(number, root), core))
    cpus = tuple(Cpu(number, siblings[number], nodes.get(number, 0)) for number in sorted(mask))
    return Machine(cpus, cpu_quota(root), bool(os.environ.get(SLOT_VARIABLE)), _start(root))


def _core_of(number: int, root: str) -> tuple[int, ...]:
    """The CPUs of this one's core, itself included. The kernel renamed the file in 5.3 and kept the old name."""
    for name in ("core_cpus_list", "thread_siblings_list"):
        found = parse_numbers(_read(root, f"{_CPUS}/cpu{number}/topology/{name}"))
        if number in found:
            return tuple(found)
    return (number,)


def _nodes(root: str) -> dict[int, int]:
    """Node by CPU."""
    found = {}
    for node in parse_numbers(_read(root, f"{_NODES}/online")):
        for number in parse_numbers(_read(root, f"{_NODES}/node{node}/cpulist")):
            found[number] = node
    return found


def _start(root: str) -> int:
    try:
        name = os.readlink(os.path.join(root, "proc/self/ns/pid"))
        inode = int(name.partition("[")[2].rstrip("]"))
    except (OSError, ValueError):
        return 0
    return 0 if inode == _FIRST_PID_NAMESPACE else inode


def parse_numbers(text: str) -> list[int]:
    """The kernel's list format, `0-3,8`; nothing at all for what is not one."""
    numbers: list[int] = []
    try:
        for span in text.strip().split(",") if text.strip() else ():
            first, _, last = span.partition("-")
            numbers += range(int(first), int(last or first) + 1)
    except ValueError:
        return []
    return numbers


def _read(root: str, path: str) -> str:
    try:
        with open(os.path.join(root, path), "rb") as file:
            return file.read().decode("ascii", "replace")
    except OSError:
        return ""
