"""Swap the pool in, and make locks that a worker can open, when the program imports the modules in question.

Runs in: host; at start, then in whatever thread imports. A program that uses no pool gets nothing imported, and one that does
gets it where it imports it itself: what these modules register for the interpreter's end keeps its place in the order.

Hard part: locks. `multiprocessing.Lock()` of the default context, "fork", is a semaphore whose name is taken away as soon as it
was made: only forks of this process can have it, and forkpool never forks this process. So here it is made as for a "spawn"
context, with a name that the standard library's tracker takes away at the end. Forks get it as before.
A fork makes its own locks as ever: one that is killed would leave its names to the tracker, which complains of them.
Tests: tests/process/test_run_swap.py
"""

from __future__ import annotations

import functools
import os
import sys
from typing import Any

from .._shared.on_import import ImportWatch
from .pool_options import PoolOptions


def swap(watch: ImportWatch, options: PoolOptions) -> None:
    """From now on, the program finds our pool and reopenable locks."""

    def put_ours_in_place(process: Any) -> None:
        from .standard_pool import ProcessPoolExecutor

        ProcessPoolExecutor._chosen = options
        process.ProcessPoolExecutor = ProcessPoolExecutor
        futures: Any = sys.modules["concurrent.futures"]
        if "ProcessPoolExecutor" in vars(futures):  # looked up already, by a .pth file
            futures.ProcessPoolExecutor = ProcessPoolExecutor

    watch.when_imported("concurrent.futures.process", put_ours_in_place)
    watch.when_imported("multiprocessing.synchronize", make_locks_reopenable)


def make_locks_reopenable(synchronize: Any) -> None:
    """Locks, semaphores, conditions, events of a fork context, and what is made of them, can be sent to workers."""
    host = os.getpid()
    make = synchronize.SemLock.__init__
    default = synchronize.context._default_context

    @functools.wraps(make)
    def make_named(self: Any, kind: Any, value: Any, maxvalue: Any, *, ctx: Any) -> None:
        chosen = default.get_context() if ctx is None else ctx
        if os.getpid() == host and chosen.get_start_method() == "fork":
            chosen = default.get_context("spawn")
        make(self, kind, value, maxvalue, ctx=chosen)

    synchronize.SemLock.__init__ = make_named
