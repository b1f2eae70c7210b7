"""What host and worker both know of a call: its name, and how several calls run as one task.

Runs in: host (any thread that submits) and worker. Imports nothing that a worker has not got anyway.
Hard part: errors (host) and `current_task()` (worker) must call a task the same, and the name of each task must not travel:
so both sides ask `name_of` about the same callable.
Tests: tests/process/test_current_task.py
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


class _Forks:
    """How often this process and its ancestors were forked since one of them became a worker."""

    count = 0


def count_fork() -> None:
    """For `os.register_at_fork`, in a worker: this process is a child that a task forked."""
    _Forks.count += 1


def run_chunk(fn: Callable[..., T], chunk: tuple[tuple[Any, ...], ...]) -> list[T]:
    """One task of `map(chunksize=)`: a call for each item.

    A child that an item forks, and that comes back from it, must not run the other items too. It leaves in the worker's loop.
    """
    before, results = _Forks.count, []
    for args in chunk:
        results.append(fn(*args))
        if _Forks.count != before:  # not `os.getpid`, a system call that costs as much as a small item
            break
    return results


def name_of(fn: Callable[..., Any]) -> str:
    """What messages call a task that was given no name: its callable's qualified name."""
    name = getattr(fn, "__qualname__", None)
    if type(name) is str:
        return name
    inner = getattr(fn, "func", None)  # functools.partial
    if inner is run_chunk:
        return name_of(fn.args[0])  # type: ignore[attr-defined]
    return name_of(inner) if inner is not None and inner is not fn else type(fn).__qualname__
