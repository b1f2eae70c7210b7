"""Run the host's program as `__mp_main__`, and make it the workers' `__main__`.

Runs in: fork server, main thread, for `preload=("__main__",)`.

Hard part: one namespace. `runpy` returns a copy of the globals, so that a function of the program and a task would write into
different ones (the standard library lives with that); here the program runs in the module's own dictionary, and what the
host ships by value is put into the same. So set-up at the top of the program is seen by tasks. Afterwards the module, its
functions and its classes are called `__main__`, as the host calls its own: equal definitions then look equal on both sides,
and are left alone (`forkpool._shared.applier`).
Tests: tests/process/test_preload_main.py
"""

from __future__ import annotations

import functools
import sys
import types
from collections.abc import Mapping
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader, SourcelessFileLoader
from importlib.util import find_spec
from typing import Any

from .._shared import tracking

NAME = "__mp_main__"
MAIN = "__main__"
_LRU_CACHE = type(functools.lru_cache(len))


def run_program(program: dict[str, str]) -> None:
    """Run it. Raises whatever it raises.

    Args:
        program: From `forkpool._host.main_program`.
    """
    if "file" in program:
        code, attributes = _of_file(program["file"])
    elif "folder" in program:
        code, attributes = _of_spec("__main__", PathFinder.find_spec("__main__", [program["folder"]]))
    else:
        code, attributes = _of_spec(program["module"], find_spec(program["module"]))
    module = types.ModuleType(NAME)
    vars(module).update(attributes)
    sys.modules["__main__"] = sys.modules[NAME] = module
    process: Any = sys.modules["multiprocessing.process"]
    process.current_process()._inheriting = True  # the standard library refuses to start processes, and names the guard
    try:
        exec(code, vars(module))
    finally:
        process.current_process()._inheriting = False
    classes: list[Any] = []
    _rename(vars(module), classes)
    module.__name__ = MAIN
    tracking.adopt_main(module, classes)


def _rename(namespace: Mapping[str, Any], classes: list[Any]) -> None:
    """Give functions and classes that say that they are of `__mp_main__` the host's name for it; collect the classes."""
    for value in list(namespace.values()):
        inner = getattr(value, "__func__", value) if isinstance(value, (staticmethod, classmethod)) else value
        for one in (inner.fget, inner.fset, inner.fdel) if isinstance(inner, property) else (inner,):
            if isinstance(one, (types.FunctionType, type, _LRU_CACHE)) and getattr(one, "__module__", None) == NAME:
                _rename_one(one, classes)


def _rename_one(one: Any, classes: list[Any]) -> None:
    if not isinstance(one, type):
        one.__module__ = MAIN
        if isinstance(one, _LRU_CACHE):
            _rename({"": one.__wrapped__}, classes)
        return
    first_line = vars(one).get("__firstlineno__")
    type.__setattr__(one, "__module__", MAIN)
    if first_line is not None:  # 3.13: setting __module__ deletes it
        type.__setattr__(one, "__firstlineno__", first_line)
    classes.append(one)
    _rename(vars(one), classes)


def _of_file(path: str) -> tuple[types.CodeType, dict[str, Any]]:
    attributes = {"__file__": path, "__cached__": None, "__builtins__": __builtins__}
    if path.endswith(".pyc"):
        code = SourcelessFileLoader(NAME, path).get_code(NAME)
        assert code is not None
        return code, attributes
    loader = SourceFileLoader(NAME, path)
    return loader.source_to_code(loader.get_data(path), path), attributes  # no __pycache__ beside the program


def _of_spec(name: str, spec: ModuleSpec | None) -> tuple[types.CodeType, dict[str, Any]]:
    loader: Any = None if spec is None else spec.loader
    code = None if loader is None else loader.get_code(name)
    if spec is None or code is None:
        raise ImportError(f"the program {name!r} cannot be found, or has no code", name=name)
    return code, {
        "__file__": spec.origin,
        "__cached__": spec.cached,
        "__loader__": loader,
        "__package__": spec.parent,
        "__spec__": spec,
        "__builtins__": __builtins__,
    }
