"""Bind workers to the CPUs of their slot.

Runs in: a worker, first of all that it does; `prepare` and `as_a_worker` in the fork server.
The server itself stays unbound: who forks for all slots must not live on the CPUs of one. Its children inherit that, and
narrow it. psutil is imported in the server, before the first fork and only if it is needed (27 ms, and 2 MB that are shared).
Hard part: libraries that count CPUs when they are loaded (OpenBLAS, OpenMP, numba). What a worker loads sees the worker's CPUs.
What the server preloads must not see all of the machine, or each worker would start as many threads: it is loaded as if by
a worker, bound for that time to the smallest set.
Tests: tests/process/test_pinning.py, tests/process/test_threads.py
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

Snapshot = dict[str, Any]


def prepare(snapshot: Snapshot) -> None:
    """Import what binds, if anything is bound. In the fork server, once."""
    if snapshot["cpu_sets"]:
        with contextlib.suppress(Exception):  # a worker will say why it is not bound
            import psutil

            psutil.Process().cpu_affinity()  # what it keeps between calls is then shared too


@contextlib.contextmanager
def as_a_worker(snapshot: Snapshot) -> Iterator[None]:
    """While modules are preloaded: see as many CPUs as the workers will."""
    sets = snapshot["cpu_sets"]
    if not sets:
        yield
        return
    before = os.sched_getaffinity(0)
    why_not = _bind(min(sets, key=len))
    try:
        yield
    finally:
        if not why_not:
            _bind(sorted(before))


def bind_worker(snapshot: Snapshot, slot: int) -> str:
    """Bind this process as its slot demands; why that cannot be, or nothing."""
    if snapshot["thread_variables"]:
        os.environ.update(snapshot["thread_variables"][slot])
    sets = snapshot["cpu_sets"]
    return _bind(sets[slot]) if sets else ""


def _bind(cpus: list[int]) -> str:
    try:
        import psutil

        psutil.Process().cpu_affinity(cpus)
    except Exception as error:  # a CPU that went offline, a seccomp filter, no /proc: slower, not wrong
        return f"it cannot be bound to CPU {', '.join(map(str, cpus))}: {type(error).__name__}: {error}"
    return ""
