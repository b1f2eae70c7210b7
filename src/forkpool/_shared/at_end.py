"""Let go of what is the program's before the interpreter takes the program apart.

Runs in: host, where the module `__main__` is freed: behind all exit hooks, when no task can be submitted any more.
Must not hold a module that could be `__main__`, nor fail: nobody is there to be told.
Hard part: the moment. At its end the interpreter drops all modules, collects garbage, and sets the globals of those modules
that are left to None, one by one (`finalize_modules` in CPython's pylifecycle.c). A `__del__` of a global works in the first
two steps, and finds None instead of `os` in the third. What we remember of functions and classes holds the globals of their
modules. It is wanted as long as exit hooks may ask for results, which atexit runs in an order that we have no say in. So it is
forgotten in the first step, which `__main__` does not survive.
Tests: tests/process/test_shutdown.py
"""

from __future__ import annotations

import sys
import types
import weakref
from collections.abc import Callable

forget: list[Callable[[], object]] = []  # called when `__main__` is gone for good


def _watch(_gone: object = None) -> None:
    """Wait for the end of the present `__main__`: a program may have put another one in place of the first."""
    global _watched
    main = sys.modules.get("__main__")
    if isinstance(main, types.ModuleType):
        _watched = weakref.ref(main, _watch)
    elif main is None:
        for each in forget:
            each()


_watched: weakref.ref[types.ModuleType]
_watch()
