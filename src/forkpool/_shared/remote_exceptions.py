"""Describe an exception so that the host can raise it again, whatever it is made of.

Runs in: worker (`describe`) and host (`restore`, from whichever thread asks for the result first).
Must never raise in the worker: an exception that cannot be pickled, printed or formatted is still an answer.
Hard part: three forms travel side by side, the pickled exception, the means to rebuild it without `__init__` (class,
`args`, the attributes that can be pickled), and plain text. The host takes the first one that works.
Tests: tests/unit/test_payload_exceptions.py
"""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import Any

# Frames of these modules come before the user's own in a remote traceback and tell him nothing.
_OUR_PACKAGES = ("forkpool._child", "forkpool._shared", "forkpool._host.inline")


def describe(exc: BaseException, encode: Callable[[Any], bytes]) -> bytes:
    """Return the payload of an exception: a pickled dict of plain data. What `encode` raises is an answer too."""
    return pickle.dumps(
        {
            "type_name": _safely(lambda: f"{type(exc).__module__}.{type(exc).__qualname__}", "<unknown type>"),
            "bases": _safely(lambda: tuple(map(_full_name, type(exc).__mro__)), ()),
            "message": _safely(lambda: str(exc), "<the exception cannot be printed>"),
            "traceback": format_remote(exc),
            "pickled": _safely(lambda: encode(exc), None),
            "parts": _safely(lambda: encode(_parts(exc, encode)), None),
        },
        5,
    )


def _full_name(cls: type) -> str:
    """As in `config`, where it says which errors a call is run again after."""
    module = "__main__" if cls.__module__ == "__mp_main__" else cls.__module__
    return f"{module}.{cls.__qualname__}"


def _safely(make: Callable[[], Any], otherwise: Any) -> Any:
    try:
        return make()
    except BaseException:  # a hostile __str__ or __reduce__ may raise SystemExit
        return otherwise


def _parts(exc: BaseException, encode: Callable[[Any], bytes]) -> Any:
    args = tuple(_or_repr(value, encode) for value in exc.args)
    state = {name: value for name, value in vars(exc).items() if _can_travel(value, encode)}
    return type(exc), args, state


def _can_travel(value: Any, encode: Callable[[Any], bytes]) -> bool:
    return _safely(lambda: encode(value), None) is not None


def _or_repr(value: Any, encode: Callable[[Any], bytes]) -> Any:
    if _can_travel(value, encode):
        return value
    return _safely(lambda: repr(value), "<unprintable>")


def format_remote(exc: BaseException) -> str:
    """Return the traceback as text, from the first frame of user code on."""

    def make() -> str:
        own = _first_user_frame(exc.__traceback__)
        return "".join(traceback.format_exception(type(exc), exc, own))

    return str(_safely(make, f"{type(exc).__name__}: <the traceback cannot be formatted>\n"))


def _first_user_frame(trace: TracebackType | None) -> TracebackType | None:
    while trace is not None and str(trace.tb_frame.f_globals.get("__name__")).startswith(_OUR_PACKAGES):
        trace = trace.tb_next
    return trace
