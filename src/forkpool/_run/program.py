"""Become the program: a script, a module, or a folder or zip file with a `__main__.py`.

Runs in: host, main thread. What the interpreter does for `python PROGRAM` is done here once more, in a process that has
begun as another program; what it does at the end (exit status, `sys.excepthook`, exit handlers) is left to it, so that
nothing needs to be imitated there.

Hard part: `__main__`. Others hold the module already (`import __main__` in a .pth file), pickling looks it up in `sys.modules`,
`python -i` goes on in it. So it stays the same module: it is emptied and filled as for a program that is just starting.
`runpy.run_path` and `run_module` make another one for the time of the run, and give it back when the exit handlers need it.
Then tracebacks: an exception passes through us on its way out, and what is shown of it begins at the program's own code.
Tests: tests/process/test_run_program.py
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from importlib.machinery import SourceFileLoader, SourcelessFileLoader
from types import CodeType, TracebackType
from typing import Any

_OF_A_NEW_MAIN = {"__name__": "__main__", "__doc__": None, "__package__": None, "__loader__": None, "__spec__": None}


def run_script(path: str, args: list[str]) -> None:
    """Do what `python PATH ARGS...` does. Raises what the program raises."""
    import pkgutil

    sys.argv[:] = [path, *args]
    _empty_main()
    where = os.path.join(os.getcwd(), path)  # not normalized: as the interpreter does
    if pkgutil.get_importer(where) is not None:  # a folder or a zip file
        sys.path.insert(0, where)
        _run_by_name("__main__", False)
        return
    try:
        code, loader = _load(path, where)
    except OSError as error:
        message = f"{sys.executable}: can't open file {where!r}: [Errno {error.errno}] {error.strerror}\n"
        sys.stderr.write(message)
        sys.exit(2)
    if not sys.flags.safe_path:
        sys.path.insert(0, os.path.dirname(os.path.realpath(path)))
    names = vars(sys.modules["__main__"])
    names.update(__file__=where, __cached__=None, __loader__=loader)
    _pass_through(exec, code, names)


def run_module(name: str, args: list[str]) -> None:
    """Do what `python -m NAME ARGS...` does. Raises what the program raises."""
    sys.argv[:] = ["-m", *args]
    _empty_main()
    if not sys.flags.safe_path:
        sys.path.insert(0, os.getcwd())
    _run_by_name(name, True)


def _run_by_name(name: str, alter_argv: bool) -> None:
    # Private, and what the interpreter itself calls: found in 3.4 to 3.14, and used by debuggers.
    import runpy

    _pass_through(runpy._run_module_as_main, name, alter_argv)  # type: ignore[attr-defined]


def _empty_main() -> None:
    names = vars(sys.modules["__main__"])
    kept = {
        name: value for name, value in names.items() if name in ("__builtins__", "__annotations__")
    }  # as this Python has them
    names.clear()
    names.update(_OF_A_NEW_MAIN)
    names.update(kept)


def _load(path: str, where: str) -> tuple[CodeType, Any]:
    import io

    with io.open_code(where) as file:
        if path.endswith(".pyc"):
            from pkgutil import read_code

            if (code := read_code(file)) is not None:
                return code, SourcelessFileLoader("__main__", where)
        source = file.read()
    return _pass_through(compile, source, where, "exec", 0, True), SourceFileLoader("__main__", where)


def _pass_through(function: Callable[..., Any], *args: Any) -> Any:
    """Call what belongs to the program; what it raises is shown without us."""
    try:
        return function(*args)
    except SystemExit:
        raise
    except BaseException:
        _show_without_us(_pass_through.__code__)
        raise


def _show_without_us(last_of_ours: CodeType) -> None:
    theirs: Any = getattr(sys, "excepthook", None)

    def hook(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        sys.excepthook = theirs
        while traceback is not None and traceback.tb_frame.f_code is not last_of_ours:
            traceback = traceback.tb_next
        if traceback is not None:
            traceback = traceback.tb_next
        error.__traceback__ = sys.last_traceback = traceback
        if theirs is None:  # the program deleted it; what the interpreter says then
            sys.stderr.write("sys.excepthook is missing\n")
        (theirs or sys.__excepthook__)(kind, error, traceback)

    sys.excepthook = hook
