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


def run_chunk(fn: Callable[..., T], chunk: tuple[tuple[Any, ...], ...]) -> list[T]:
    """One task of `map(chunksize=)`: a call for each item."""
    return [fn(*args) for args in chunk]


def name_of(fn: Callable[..., Any]) -> str:
    """What messages call a task that was given no name: its callable's qualified name."""
    name = getattr(fn, "__qualname__", None)
    if type(name) is str:
        return name
    inner = getattr(fn, "func", None)  # functools.partial
    if inner is run_chunk:
        return name_of(fn.args[0])  # type: ignore[attr-defined]
    return name_of(inner) if inner is not None and inner is not fn else type(fn).__qualname__
