"""Import what `preload=` names, once, before the fork server's first fork.

Runs in: fork server, main thread, after it became like the host; `leave_exits_to_the_server` in each worker.

Hard part: what an import leaves behind besides modules. Threads are counted (`threads`). Exit handlers and finalizers that
preloaded code registered (a temporary folder to be deleted) belong to this process: were they run by the first worker that
leaves, it would delete what all the others use. Those that the standard library registers for itself stay, since
`multiprocessing` needs its own in each process.
A program that is preloaded runs a second time: were it to reach a `submit`, it would start a fork server that preloads it
again, without end. Hence `running`, at which a pool looks before it starts anything.
Tests: tests/process/test_preload.py, tests/process/test_preload_main.py
"""

from __future__ import annotations

import atexit
import faulthandler
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from .output import flush_output
from .threads import Census

running = ""  # the name that is being preloaded

# numpy imports it when it is first touched: a megabyte in each worker instead of one in all.
_LAZY = {"numpy": ("numpy.random",)}
_foreign_exits: list[Callable[..., object]] = []


class PreloadFailed(Exception):
    """Carries, as its cause, what the host is to raise."""


def preload(names: list[str], main: dict[str, str] | None, tell_next: Callable[[str], None]) -> list[str]:
    """Import all names, in order. Returns a description of each thread that must not be there at a fork.

    Args:
        main: How to run the program, if its name is among them.
        tell_next: Called with each name before its import, which may be the end of this process.
    Raises:
        PreloadFailed: One of them raised; what the user is to get is the cause.
    """
    census = Census()
    census.attribute("the interpreter's start (sitecustomize, a .pth file, an agent)")
    with _watched_exits():
        for name in names:
            tell_next(name)
            try:
                _load(name, main)
            except BaseException as error:
                raise PreloadFailed from _for_the_user(name, error)
            census.attribute(f"preload {name!r}")
        _import_what_is_lazy()
    # faulthandler's thread would end the server some day; and each worker, which has only its locks, would wait for it for ever
    # when it undoes what a task left.
    faulthandler.cancel_dump_traceback_later()
    return census.dangerous()


def _load(name: str, main: dict[str, str] | None) -> None:
    global running
    running, pid = name, os.getpid()
    try:
        if name != "__main__":
            __import__(name)  # not import_module: its frames would stand in the user's traceback
        elif main is not None:
            from .preload_main import run_program

            run_program(main)
    finally:
        running = ""
        if os.getpid() != pid:  # a child that it forked came back, by an exception or not: it is no fork server
            flush_output()
            os._exit(0)


def _import_what_is_lazy() -> None:
    for name, parts in _LAZY.items():
        if name in sys.modules:
            for part in parts:
                with suppress(ImportError):
                    __import__(part)


def _for_the_user(name: str, error: BaseException) -> Exception:
    what = "ran the program as __mp_main__" if name == "__main__" else "imported it"
    if isinstance(error, Exception):
        from forkpool._shared.notes import add_note

        add_note(error, f"Raised in forkpool's fork server, which {what} for preload={name!r}.")
        return error
    # sys.exit() in a module must not end the host.
    wrapped = ImportError(f"preload {name!r} raised {error!r}", name=name)
    wrapped.__cause__ = error
    return wrapped


@contextmanager
def _watched_exits() -> Iterator[None]:
    """Remember the exit handlers that code outside the standard library registers meanwhile."""
    register = atexit.register

    def watched(func: Any, /, *args: Any, **kwargs: Any) -> Any:
        caller = sys._getframe(1).f_globals.get("__name__") or ""
        if caller.partition(".")[0] not in sys.stdlib_module_names:
            _foreign_exits.append(func)
        return register(func, *args, **kwargs)

    atexit.register = watched
    try:
        yield
    finally:
        atexit.register = register


def leave_exits_to_the_server() -> None:
    """In a worker, after the fork: forget exit handlers and finalizers that are another process's."""
    for func in _foreign_exits:
        atexit.unregister(func)
    weakref = sys.modules.get("weakref")
    if weakref is not None:
        for finalizer in list(weakref.finalize._registry):
            finalizer.atexit = False
