"""What host and worker both know of a call: its name, and how several calls run as one task.

Runs in: host (any thread that submits) and worker. Imports nothing that a worker has not got anyway.
Hard part: errors (host) and `current_task()` (worker) must call a task the same, and the name of each task must not travel:
so both sides ask `name_of` about the same callable.
Tests: tests/process/test_current_task.py
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import FunctionType
from typing import Any, TypeVar

T = TypeVar("T")
_MOST_WRAPPERS = 20  # arbitrary: an object that has every attribute has one that is a wrapper again, without end


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


def without_chunks(fn: Any, args: tuple[Any, ...]) -> tuple[Any, tuple[tuple[Any, ...], ...] | None]:
    """The user's function and the items, each a tuple of arguments, of a task of `map(chunksize=)`; else `fn` and None."""
    if type(fn) is functools.partial and fn.func is run_chunk and len(args) == 1:
        return fn.args[0], args[0]
    return fn, None


def name_of(fn: Any) -> str:
    """What messages call a task that was given no name: its callable's qualified name."""
    if type(fn) is FunctionType:  # most; the rest costs 0.1 µs more
        return fn.__qualname__
    for _ in range(_MOST_WRAPPERS):
        name = attribute_of(fn, "__qualname__")
        if type(name) is str:
            return name
        inner = attribute_of(fn, "func")  # functools.partial, and what is made like it
        if inner is None:
            break
        fn = fn.args[0] if inner is run_chunk else inner
    return type(fn).__qualname__


def attribute_of(value: Any, name: str) -> Any:
    """An attribute, or None where there is none, or code of the user's (`__getattr__`, a property) fails to give it."""
    try:
        return getattr(value, name, None)
    except Exception:
        return None
