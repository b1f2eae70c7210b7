"""Decide where the workers of one pool run, and hold the claims on their CPUs.

Runs in: host; `choose` in the thread that starts the supervisor, the rest on the supervisor's; any thread may read `placement`.
It is decided once, before the fork server starts: a slot keeps its CPUs when its worker is replaced, and workers are told
in the snapshot. They bind themselves (forkpool._child.pinning): nobody else can do it before their first import.
Tests: tests/unit/test_pinning.py, tests/process/test_pinning.py
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from .._core.placement import (
    CpuSet,
    Machine,
    choose_sets,
    free_placement,
    named_placement,
    placement_of,
    thread_variables,
    why_auto_stays_free,
    why_not_enough,
)
from ..config import PoolConfig, number_list
from ..events import Placement, SlotPlacement
from .cpu_claims import CpuClaims
from .topology import affinity_mask, read_machine

_ATTEMPTS = 20  # arbitrary: each but the last was lost to a pool that got its CPUs
NOT_YET = "nothing has been submitted yet"


def placement_before_start(config: PoolConfig) -> Placement:
    """What can be said of a pool that has not chosen yet."""
    return free_placement(config.max_workers, _asked(config), NOT_YET if config.pin is not False else "it was not asked for")


class Pinning:
    """One per pool that runs. Owns the claims."""

    def __init__(self, config: PoolConfig, look: Callable[[], Machine] | None = None) -> None:
        """
        Args:
            look: Tells what the machine is like; tests have their own.
        """
        self.placement = placement_before_start(config)
        self._config = config
        self._look = look or _this_machine
        self._claims = CpuClaims()
        self._usable = 1

    @property
    def sets(self) -> tuple[CpuSet, ...] | None:
        """The CPUs of each slot; None: the pool is free."""
        if not self.placement.pinned:
            return None
        return tuple(slot.cpus or () for slot in self.placement.slots)

    def choose(self) -> None:
        """Decide, and claim. What `placement` says holds from then on.

        Raises:
            RuntimeError: The user demands CPUs that cannot be had. Nothing is claimed.
        """
        config = self._config
        if config.pin is False and config.threads_per_worker != "auto":
            return
        machine = self._look()
        self._usable = machine.usable
        if config.pin is False:
            return
        try:
            if isinstance(config.pin, tuple):
                self._take_named(config.pin, machine)
            else:
                self._take_chosen(machine)
        except BaseException:
            self._claims.close()
            raise

    def write_into(self, snapshot: dict[str, Any]) -> None:
        """Tell the workers their CPUs and, by the environment, how many threads their libraries should start."""
        sets = self.sets
        snapshot["cpu_sets"] = None if sets is None else [list(one) for one in sets]
        counts = self._thread_counts(sets)
        if not counts:
            return
        kept = self._kept_variables(snapshot["environ"])
        snapshot["environ"] = {**snapshot["environ"], **thread_variables(min(counts), kept)}
        if len(set(counts)) > 1:
            snapshot["thread_variables"] = [thread_variables(count, kept) for count in counts]

    def on_refused(self, slot: int, why: str) -> bool:
        """A worker could not bind itself to its CPUs; it runs all the same. Returns whether that is news of its slot."""
        before = self.placement.slots
        slots = (*before[:slot], SlotPlacement(slot, None, why), *before[slot + 1 :])
        self.placement = dataclasses.replace(self.placement, slots=slots)
        return before[slot].cpus is not None

    def fileno(self) -> int:
        """The descriptor that the claims hang on; -1: none."""
        return self._claims.fd

    def close(self) -> None:
        """Give the claims back. `placement` goes on saying what it was."""
        self._claims.close()

    def close_in_fork(self) -> None:
        """In a fork of the host: the claims stay the host's."""
        self._claims.close_in_fork()

    def _take_named(self, sets: tuple[CpuSet, ...], machine: Machine) -> None:
        mask = {cpu.number for cpu in machine.cpus}
        gone = [cpu for one in sets for cpu in one if cpu not in mask]
        if gone:
            raise RuntimeError(f"{_asked(self._config)}: CPU {number_list(gone)} can no longer be used by this process")
        self.placement = named_placement(sets, _asked(self._config))
        try:
            self._claims.open()
            self._claims.take_free({cpu for one in sets for cpu in one})
        except OSError:  # the claims are for the pools that look for free CPUs; this one has been told
            self._claims.close()

    def _take_chosen(self, machine: Machine) -> None:
        demanded = self._config.pin is True
        why = None if demanded else why_auto_stays_free(self._config.max_workers, self._width, machine)
        why = why or self._try_claims(machine)
        if why is None:
            return
        self._claims.close()
        if demanded:
            raise RuntimeError(
                f'{_asked(self._config)} cannot be: {why}. pin="auto" would run unpinned instead; '
                "pin=[...] takes CPUs whoever has claimed them."
            )
        self.placement = free_placement(self._config.max_workers, _asked(self._config), why)

    def _try_claims(self, machine: Machine) -> str | None:
        """Claim CPUs for every slot; why not, if it cannot be."""
        slots, claims = self._config.max_workers, self._claims
        numbers = [cpu.number for cpu in machine.cpus]
        try:
            claims.open()
            for _ in range(_ATTEMPTS):
                taken, foreign = claims.look(numbers)
                sets = choose_sets(slots, self._width, machine, taken, foreign)
                if sets is None:
                    return why_not_enough(slots, self._width, machine, taken) + self._names(taken)
                if claims.take([cpu for one in sets for cpu in one]):
                    self.placement = placement_of(sets, _asked(self._config), machine, taken, foreign)
                    return None
        except OSError as error:
            return f"CPUs cannot be claimed in {claims.path} ({error})"
        return "other pools claim CPUs at this very moment"

    def _names(self, cpus: set[int]) -> str:
        """Who holds them; only for an error, since it looks through all processes."""
        if self._config.pin is not True or not cpus:
            return ""
        pids = sorted(set(self._claims.holders(cpus).values()))
        return f" (pid {', '.join(map(str, pids))})" if pids else ""

    @property
    def _width(self) -> int:
        """CPUs of each slot: as many as its threads."""
        threads = self._config.threads_per_worker
        return threads if isinstance(threads, int) else 1

    def _thread_counts(self, sets: tuple[CpuSet, ...] | None) -> list[int]:
        """Threads of each slot's libraries; empty: nobody tells them."""
        threads, slots = self._config.threads_per_worker, self._config.max_workers
        if threads is None:
            return []
        if isinstance(threads, int):
            return [threads] * slots
        return [max(1, self._usable // slots)] * slots if sets is None else [len(one) for one in sets]

    def _kept_variables(self, environ: Mapping[str, str]) -> Mapping[str, str]:
        """What the user set stays; but a number that he gave this pool wins over what his shell says."""
        return (self._config.env or {}) if isinstance(self._config.threads_per_worker, int) else environ


def _asked(config: PoolConfig) -> str:
    if not isinstance(config.pin, tuple):
        return f"pin={config.pin!r}"
    return f"pin={[list(one) if len(one) > 1 else one[0] for one in config.pin]}"


def _this_machine() -> Machine:
    return read_machine(affinity_mask())
