"""What the command line says about the program's pools.

Runs in: host, main thread. Texts are checked here, before the program starts: inside it an `except` could swallow the error.
Imports nothing of ours: the pool itself is imported only by a program that makes one.
Tests: tests/unit/test_cli.py
"""

from __future__ import annotations

import os
from argparse import ArgumentTypeError
from typing import Any, Literal, NamedTuple

CpuSets = tuple[tuple[int, ...], ...]
PIN_FORM = "auto, on, off, or CPU numbers for each worker: 0,1 or 0-3,4-7 or 0+4,1+5"


class PoolOptions(NamedTuple):
    """None: as the program says, or as the pool does by itself."""

    max_workers: int | None = None
    max_tasks_per_child: int | None = None
    pin: Literal["auto"] | bool | CpuSets | None = None
    preload: tuple[str, ...] = ()
    timeout: float | None = None  # seconds that each call may run

    def for_pool(self, max_workers: int | None, max_tasks_per_child: int | None) -> dict[str, Any]:
        """The arguments of one pool, whose program asks for these."""
        workers = self.max_workers or max_workers
        arguments: dict[str, Any] = {"max_tasks_per_child": self.max_tasks_per_child or max_tasks_per_child}
        if isinstance(self.pin, tuple) and (workers is None or (isinstance(workers, int) and workers > 0)):
            arguments["pin"] = self.pin[
                :workers
            ]  # a pool of fewer workers takes the first ones, and none has more than there are
            workers = None
        elif self.pin is not None and not isinstance(self.pin, tuple):
            arguments["pin"] = self.pin
        if self.preload:
            arguments["preload"] = self.preload
        return {**arguments, "max_workers": workers}


def count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def seconds(text: str) -> float:
    number = float(text)
    if not number > 0:
        raise ValueError
    return number


def names(text: str) -> tuple[str, ...]:
    found = tuple(name.strip() for name in text.split(","))
    if not all(found):
        raise ValueError
    return found


def pin(text: str) -> Literal["auto"] | bool | CpuSets:
    if text in _PIN_WORDS:
        return _PIN_WORDS[text]
    sets = tuple(_cpu_set(part) for part in text.split(","))
    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    wrong = sorted({cpu for one in sets for cpu in one} - usable)
    if wrong:
        raise ArgumentTypeError(f"this process may not use CPU {wrong[0]}; usable: {', '.join(map(str, sorted(usable)))}")
    return sets


_PIN_WORDS: dict[str, Literal["auto"] | bool] = {"auto": "auto", "on": True, "off": False}


def _cpu_set(text: str) -> tuple[int, ...]:
    cpus: list[int] = []
    for part in text.split("+"):
        first, dash, last = part.partition("-")
        numbers = range(int(first), int(last) + 1) if dash else range(int(first), int(first) + 1)
        if not numbers:
            raise ValueError
        cpus += numbers
    return tuple(sorted(set(cpus)))
