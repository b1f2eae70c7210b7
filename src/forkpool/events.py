"""Records that the pool hands out: frozen, plain, and readable when printed.

Runs in: host; any thread. Imports nothing of ours.
Tests: tests/unit/test_placement.py
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SlotPlacement:
    """Where the workers of one slot run."""

    slot: int
    cpus: tuple[int, ...] | None  # logical CPUs, ascending; None: wherever this process may run
    reason: str  # why these, or why none

    def __str__(self) -> str:
        where = "not pinned" if self.cpus is None else f"CPU {', '.join(map(str, self.cpus))}"
        return f"slot {self.slot}: {where}, {self.reason}"


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the workers of a pool run, and why. Print it to read it."""

    pinned: bool  # whether any slot is bound to CPUs
    reason: str  # what was asked for, and why it is as it is
    slots: tuple[SlotPlacement, ...]  # one for each slot, in order

    def __str__(self) -> str:
        if not self.pinned:
            return self.reason
        return "\n".join([self.reason, *(f"  {slot}" for slot in self.slots)])
