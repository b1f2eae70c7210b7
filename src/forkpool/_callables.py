"""Refuse what a worker would call and nobody would run: async and generator functions, whose call only makes an object.

Runs in: host; any thread that submits, and who makes an executor.
Must not let an error of user code out: a callable may have any `__getattr__`, and it is called, not looked at.
Hard part: it is asked for each submit, so a plain function costs one look at its flags.
Tests: tests/unit/test_callables.py
"""

from __future__ import annotations

import functools
from inspect import CO_ASYNC_GENERATOR, CO_COROUTINE, CO_GENERATOR
from types import BuiltinFunctionType, FunctionType
from typing import Any

_NEVER_RUNS = CO_COROUTINE | CO_ASYNC_GENERATOR | CO_GENERATOR
_COLLECT = "[item async for item in ...]"


def check_task(fn: object) -> None:
    """Raise TypeError unless `fn` is what submit and map can run."""
    if type(fn) is BuiltinFunctionType or (type(fn) is FunctionType and not fn.__code__.co_flags & _NEVER_RUNS):
        return
    if not callable(fn):
        raise TypeError(f"submit and map need a callable, not {type(fn).__name__}: pass the function itself, not its result")
    _check(fn, "", "Submit")


def check_initializer(fn: object) -> None:
    """Raise TypeError unless `fn` is what each worker can call."""
    if not callable(fn):
        raise TypeError("initializer must be a callable")
    _check(fn, "initializer ", "Give")


def _check(fn: Any, subject: str, verb: str) -> None:
    name, flags = _code_of(fn)
    if flags & CO_COROUTINE:
        raise TypeError(
            f"{subject}{name!r} is an async function: a worker has no event loop. {verb} a function that calls "
            "asyncio.run(...)" + ("." if subject else ", or await it where the loop is.")
        )
    if flags & CO_ASYNC_GENERATOR:
        raise TypeError(
            f"{subject}{name!r} is an async generator function: a worker has no event loop. {verb} a function that calls "
            f"asyncio.run(...) of an async function that returns {_COLLECT}."
        )
    if flags & CO_GENERATOR:
        why = "its body would never run" if subject else "a generator cannot leave its process"
        how = "is no generator." if subject else "returns list(...) of it."
        raise TypeError(f"{subject}{name!r} is a generator function: {why}. {verb} a function that {how}")


def _code_of(fn: Any) -> tuple[str, int]:
    """Name and flags of the code that a call of `fn` runs first; the flags are 0 where that is not Python code, or hidden."""
    while issubclass(type(fn), functools.partial):  # not `isinstance`, which asks for `__class__`
        fn = fn.func
    try:
        code = getattr(fn, "__code__", None)
        if code is None:  # an object whose class has `__call__`
            fn = type(fn).__call__
            code = getattr(fn, "__code__", None)
        return ("", 0) if code is None else (getattr(fn, "__qualname__", None) or code.co_qualname, code.co_flags)
    except Exception:
        return "", 0
