"""Choose what runs the calls of an executor: worker processes, or the thread that submits.

Runs in: host; the constructor. Imports the one that is chosen, and no other: the pool of processes needs what Linux has.
Tests: tests/process/test_inline.py, tests/process/test_host.py
"""

from __future__ import annotations

import _thread
import os
import sys

from .._shared.importing import importing
from .any_pool import AnyPool
from .main_program import main_program

INLINE_VARIABLE = "FORKPOOL_INLINE"
_INSTEAD = (
    f"use forkpool.InlineExecutor, or set {INLINE_VARIABLE}=1, to run calls one by one in this process; "
    "or concurrent.futures.ProcessPoolExecutor"
)


def pool_kind() -> type[AnyPool]:
    """What runs the calls of a ForkPoolExecutor.

    Raises:
        RuntimeError: This platform, or this interpreter, has not the means for worker processes, and inline was not asked for.
        ValueError: The environment variable FORKPOOL_INLINE is neither 1 nor 0.
    """
    if inline_is_asked_for():
        return inline_kind()
    check_platform()
    check_interpreter()
    with importing:
        from .pool import Pool

    return Pool


def inline_kind() -> type[AnyPool]:
    """What runs the calls of an InlineExecutor."""
    with importing:
        from .inline import InlinePool

    return InlinePool


def inline_is_asked_for() -> bool:
    """Whether FORKPOOL_INLINE=1 is set. Raises ValueError if it is set to what is not understood."""
    value = os.environ.get(INLINE_VARIABLE, "")
    if value not in ("", "0", "1"):
        raise ValueError(f"the environment variable {INLINE_VARIABLE} must be 1 or 0, not {value!r}")
    return value == "1"


def check_platform() -> None:
    """Raise RuntimeError where there can be no worker processes."""
    if sys.platform == "win32":
        raise RuntimeError(f"forkpool needs fork, which Windows does not have: {_INSTEAD}")
    if not hasattr(os, "memfd_create"):
        raise RuntimeError(
            f"forkpool needs Linux with memfd_create and packet pipes, which this Python on {sys.platform} lacks: {_INSTEAD}"
        )


def check_interpreter() -> None:
    """Raise RuntimeError in a subinterpreter whose threads must not be daemons.

    A pool would have bare threads there, which nobody joins: a subinterpreter that ends a moment too early aborts the process
    ("not the last thread"). Python 3.11 does not tell; there the first submit says that no thread can be started at all.
    """
    allowed = getattr(_thread, "daemon_threads_allowed", None)  # from Python 3.12 on
    if allowed is not None and not allowed():
        raise RuntimeError(
            "this subinterpreter allows no daemon threads, and forkpool's must be such: make the pool in the main interpreter, "
            "or use forkpool.InlineExecutor to run calls one by one here"
        )


def check_preload(names: tuple[str, ...]) -> None:
    """Raise ValueError if the program is to be preloaded, and is none that can be run once more."""
    if "__main__" in names and main_program() is None:
        raise ValueError(
            'preload=("__main__",) runs the program once more in the fork server, and this one is no file (python -c, standard '
            'input, a notebook). Leave "__main__" out, and put the set-up into a module or into the initializer.'
        )
