"""Bind workers to the CPUs of their slot.

Runs in: a worker, first of all that it does; `prepare` and `as_a_worker` in the fork server.
The server itself stays unbound: who forks for all slots must not live on the CPUs of one. Its children inherit that, and
narrow it. psutil's system call is loaded in the server, before the first fork and only if it is needed.
Hard part: libraries that count CPUs when they are loaded (OpenBLAS, OpenMP, numba). What a worker loads sees the worker's CPUs.
What the server preloads must not see all of the machine, or each worker would start as many threads: it is loaded as if by
a worker, bound for that time to the smallest set.
Tests: tests/unit/test_binding.py, tests/process/test_pinning.py, tests/process/test_threads.py
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from importlib.machinery import PathFinder
from typing import Any

Snapshot = dict[str, Any]
SetAffinity = Callable[[int, list[int]], object]


def set_affinity_by_psutil() -> SetAffinity:
    """psutil's function that binds a process: (pid, CPUs) -> None.

    The compiled part of psutil alone, if it is where psutil 5.9 to 7.2 have it: 0.5 ms. The package takes 27 ms of every
    pool's start (seen), and 0.8 MB of memory that each worker has for itself.
    """
    package = PathFinder.find_spec("psutil")
    found = package and PathFinder.find_spec("psutil._psutil_linux", package.submodule_search_locations)
    if found and found.loader and hasattr(found.loader, "create_module"):
        compiled = found.loader.create_module(found)
        found.loader.exec_module(compiled)  # type: ignore[arg-type]  # never None for a compiled module
        function: SetAffinity | None = getattr(compiled, "proc_cpu_affinity_set", None)
        if function is not None:
            return function
    return set_affinity_by_the_package


def set_affinity_by_the_package(pid: int, cpus: list[int]) -> None:
    """The same by psutil's public interface."""
    import psutil

    psutil.Process(pid).cpu_affinity(cpus)


_set_affinity: SetAffinity = set_affinity_by_the_package


def prepare(snapshot: Snapshot) -> None:
    """Load what binds, if anything is bound. In the fork server, once."""
    global _set_affinity
    if snapshot["cpu_sets"]:
        with contextlib.suppress(Exception):  # a worker will say why it is not bound
            _set_affinity = set_affinity_by_psutil()


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
        _set_affinity(os.getpid(), cpus)
    except Exception as error:  # a CPU that went offline, a seccomp filter: slower, not wrong
        return f"it cannot be bound to CPU {', '.join(map(str, cpus))}: {type(error).__name__}: {error}"
    return ""
