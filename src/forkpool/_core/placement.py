"""Choose the CPUs of each slot.

Runs in: host, the thread that starts the supervisor. Pure: what the machine looks like and who claims what are arguments.
In this order: CPUs that nobody claims before those of other users' pools; a physical core of its own before a hyper-thread
of a core in use; one NUMA node before several, the one with the least room that suffices.
Hard part: a slot with several CPUs. They must lie in one node, and be whole cores where the pool needs hyper-threads at
all. So slots are first dealt to nodes, one after the other, and then each node's share is cut into sets core by core.
Tests: tests/unit/test_placement.py
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from ..config import number_list
from ..events import Placement, SlotPlacement

CpuSet = tuple[int, ...]
_NO_MEANS = "this system cannot bind a process to CPUs"
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
_FOLLOW_OPENMP = THREAD_VARIABLES[1:5]  # their libraries read OMP_NUM_THREADS where their own variable is not set


@dataclass(frozen=True, slots=True)
class Cpu:
    """A logical CPU that this process may use."""

    number: int
    siblings: tuple[int, ...]  # the logical CPUs of its core, itself and unusable ones included, ascending
    node: int = 0  # NUMA


@dataclass(frozen=True, slots=True)
class Machine:
    """What there is to choose from."""

    cpus: tuple[Cpu, ...]  # of the affinity mask, ascending
    quota: float | None = None  # CPUs' worth of time that a cgroup grants; None: no limit
    nested: bool = False  # this process is itself a worker
    start: int = 0  # where to begin; see `_host.topology.read_machine`

    @property
    def usable(self) -> int:
        """How many processes can run at a time."""
        return whole_cpus(len(self.cpus), self.quota)


def whole_cpus(mask: int, quota: float | None) -> int:
    """CPUs of the mask, or as many as can use up the quota: 1.5 CPUs' worth of time keep two processes busy."""
    granted = mask if quota is None else -int(-quota // 1)
    return max(1, min(mask, granted))


def choose_sets(
    slots: int, width: int, machine: Machine, taken: Collection[int] = (), foreign: Collection[int] = ()
) -> tuple[CpuSet, ...] | None:
    """Choose a set for each slot, all disjoint; None: there are not enough CPUs.

    Args:
        width: CPUs in each set.
        taken: CPUs that are not to be had: other pools of this user claim them.
        foreign: CPUs that other users' pools claim: last choice.
    """
    free = [cpu for cpu in machine.cpus if cpu.number not in taken]
    if len(free) < slots * width:
        return None
    cost = _costs(free, {*taken, *foreign}, foreign)
    position = _positions(machine)
    nodes = _nodes_in_order(free, cost, position, slots * width)
    for cpus in nodes:
        cpus.sort(key=lambda cpu: (cost[cpu.number], position[cpu.number]))
    rank = {cpu.number: (at, position[cpu.number]) for at, cpus in enumerate(nodes) for cpu in cpus}
    sets = [*_deal(nodes, slots, width, cost)]
    return tuple(sorted(sets, key=lambda one: (max(cost[cpu] for cpu in one), rank[one[0]])))


Cost = tuple[bool, int]  # claimed by another user; CPUs of the same core that are used before it


def _costs(free: list[Cpu], busy: Collection[int], foreign: Collection[int]) -> dict[int, Cost]:
    usable = {cpu.number for cpu in free}
    costs = {}
    for cpu in free:
        before = [other for other in cpu.siblings if other in busy or (other in usable and other < cpu.number)]
        costs[cpu.number] = (cpu.number in foreign, len(before) - (cpu.number in busy))
    return costs


def _positions(machine: Machine) -> dict[int, int]:
    """Every CPU's place in the order of numbers, begun at `start`."""
    count = len(machine.cpus)
    return {cpu.number: (at - machine.start) % count for at, cpu in enumerate(machine.cpus)}


def _nodes_in_order(free: list[Cpu], cost: Mapping[int, Cost], position: Mapping[int, int], wanted: int) -> list[list[Cpu]]:
    """The CPUs of each node: first the tightest one with a core for each CPU that is wanted, else the roomiest."""
    nodes: dict[int, list[Cpu]] = {}
    for cpu in free:
        nodes.setdefault(cpu.node, []).append(cpu)

    def order(cpus: list[Cpu]) -> tuple[bool, int, int]:
        room = sum(cost[cpu.number] == (False, 0) for cpu in cpus)
        fits = room >= wanted
        return not fits, room if fits else -room, min(position[cpu.number] for cpu in cpus)

    return sorted(nodes.values(), key=order)


def _deal(nodes: list[list[Cpu]], slots: int, width: int, cost: Mapping[int, Cost]) -> Iterable[CpuSet]:
    """Cut sets out of the nodes; each node's CPUs are sorted, the best first. Consumes `nodes`."""
    shares: list[list[Cpu]] = [[] for _ in nodes]
    for done in range(slots):
        having = [at for at, cpus in enumerate(nodes) if len(cpus) >= width]
        if not having:
            yield from _leftovers(nodes, slots - done, width, cost)
            break
        best = min(having, key=lambda at: (_total(nodes[at][:width], cost), at))
        shares[best] += nodes[best][:width]
        del nodes[best][:width]
    for share in shares:
        share.sort(key=lambda cpu: (cpu.siblings, cpu.number))
        for at in range(0, len(share), width):
            yield tuple(sorted(cpu.number for cpu in share[at : at + width]))


def _leftovers(nodes: list[list[Cpu]], slots: int, width: int, cost: Mapping[int, Cost]) -> Iterable[CpuSet]:
    """No node has room for a whole set any more: these span several."""
    rest = [cpu for cpus in nodes for cpu in cpus]
    rest.sort(key=lambda cpu: cost[cpu.number])
    for at in range(0, slots * width, width):
        yield tuple(sorted(cpu.number for cpu in rest[at : at + width]))


def _total(cpus: list[Cpu], cost: Mapping[int, Cost]) -> tuple[int, int]:
    return sum(cost[cpu.number][0] for cpu in cpus), sum(cost[cpu.number][1] for cpu in cpus)


# --- reasons -------------------------------------------------------------------------------------------


def why_auto_stays_free(slots: int, width: int, machine: Machine) -> str | None:
    """Say why `pin="auto"` leaves the pool free before it looks at claims; None: nothing speaks against pinning."""
    mask = len(machine.cpus)
    if not mask:
        return _NO_MEANS
    if machine.nested:
        return "this process is itself a worker of a pool, which has chosen already"
    if machine.quota is not None and machine.quota < mask:
        return f"a cgroup grants the time of {machine.quota:g} CPUs on any of {mask}: bound workers could not use it up"
    if slots * width > mask:
        return f"{_needs(slots, width)}, and this process may use {mask}"
    if slots * width == mask:
        return f"{_workers(slots, width)} would take every CPU that this process may use, itself included (pin=True binds)"
    return None


def why_not_enough(slots: int, width: int, machine: Machine, taken: Collection[int]) -> str:
    """Say why `choose_sets` found nothing."""
    numbers = tuple(cpu.number for cpu in machine.cpus)
    if not numbers:
        return _NO_MEANS
    if slots * width > len(numbers):
        return f"{_needs(slots, width)}, and this process may use {len(numbers)} (CPU {number_list(numbers)})"
    claimed = tuple(number for number in numbers if number in taken)
    return f"{_needs(slots, width)}, and of CPU {number_list(numbers)} other pools have claimed {number_list(claimed)}"


def _needs(slots: int, width: int) -> str:
    count = slots * width
    return f"{_workers(slots, width)} need{'s' * (slots == 1)} {count} CPU{'s' * (count != 1)}"


def _workers(slots: int, width: int) -> str:
    each = "" if width == 1 else f" with {width} threads each"
    return f"{slots} worker{'s' * (slots != 1)}{each}"


def placement_of(
    sets: tuple[CpuSet, ...], reason: str, machine: Machine, taken: Collection[int], foreign: Collection[int]
) -> Placement:
    """Describe what was chosen."""
    used = {*taken, *foreign, *(cpu for one in sets for cpu in one)}
    siblings = {cpu.number: cpu.siblings for cpu in machine.cpus}

    def why(one: CpuSet) -> str:
        if any(cpu in foreign for cpu in one):
            return "which another user's pool has claimed too: all others are taken"
        beside = {other for cpu in one for other in siblings.get(cpu, ()) if other in used} - {*one}
        if beside:
            return f"sharing a core with CPU {number_list(tuple(beside))}: no free core was left"
        return "no other worker shares its core" if len(one) == 1 else "no other worker shares its cores"

    return Placement(True, reason, tuple(SlotPlacement(slot, one, why(one)) for slot, one in enumerate(sets)))


def named_placement(sets: tuple[CpuSet, ...], reason: str) -> Placement:
    """Describe what the user chose himself."""
    return Placement(True, reason, tuple(SlotPlacement(slot, one, "as named") for slot, one in enumerate(sets)))


def free_placement(slots: int, asked: str, why: str) -> Placement:
    """Describe a pool that runs wherever the scheduler puts it."""
    free = tuple(SlotPlacement(slot, None, why) for slot in range(slots))
    return Placement(False, f"{asked}: not pinned, because {why}", free)


# --- threads -------------------------------------------------------------------------------------------


def thread_variables(count: int, kept: Mapping[str, str]) -> dict[str, str]:
    """Environment variables that give BLAS, OpenMP and numba this many threads.

    Args:
        kept: Variables that stay as they are. Where OMP_NUM_THREADS is among them, those stay unset whose libraries follow it.
    """
    following = _FOLLOW_OPENMP if "OMP_NUM_THREADS" in kept else ()
    return {name: str(count) for name in THREAD_VARIABLES if name not in kept and name not in following}
