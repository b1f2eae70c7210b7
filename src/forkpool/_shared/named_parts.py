"""Name the parts that an object is pickled with.

Runs in: host (the thread that submits) and worker (results), only after pickling failed, or when a payload is big.
Must not fail where code of the user's does (a property, `__reduce__`): then there are no parts to be seen.
Hard part: what an instance holds is not what is pickled. `__getstate__` may have dropped the very attribute that looks guilty,
so its reducer is asked, and what that gives is called by the attribute's name where it is one.
Tests: tests/unit/test_payload_errors.py
"""

from __future__ import annotations

import copyreg
import functools
import io
import itertools
import pickle
import types
import weakref
from collections import deque
from collections.abc import Iterator
from typing import Any

from forkpool._shared.advice import shorten
from forkpool._shared.calls import attribute_of
from forkpool._shared.importable import by_reference, is_importable, module_of_globals

MAX_PARTS = 200  # arbitrary: what a failure may cost in vain

_NOT_SENT = ("__dict__", "__weakref__", "_abc_impl")  # of a class: each process makes its own
_WEAK = (weakref.WeakKeyDictionary, weakref.WeakValueDictionary)
CONTAINERS = (dict, list, tuple, set, frozenset, deque)
Named = Iterator[tuple[str, Any]]


def parts_of(path: str, value: Any, session: Any) -> Named:
    """Name the parts of a value.

    Args:
        path: What the value itself is called.
        session: A new one, which knows how instances are reduced.
    """
    kind = type(value)
    if issubclass(kind, types.FunctionType):
        yield from function_parts(value)
    elif issubclass(kind, (types.MethodType, functools.partial)):
        yield from callable_parts(value)
    elif issubclass(kind, type):
        for name, part in list(vars(value).copy().items())[:MAX_PARTS]:
            if name not in _NOT_SENT:
                yield f"`{value.__qualname__}.{name}`", attribute_of(part, "__func__") or part
    elif issubclass(kind, (property, functools.cached_property)):
        names = ("fget", "fset", "fdel", "func")
        yield from ((path, part) for name in names if (part := attribute_of(value, name)) is not None)
    elif issubclass(kind, _WEAK):
        yield from _elements(path, dict(value.items()))
    else:
        yield from _elements(path, value)
        if kind not in CONTAINERS:
            yield from _pieces(path, value, session)


def callable_parts(value: Any) -> Named:
    """Name the parts of a bound method or a partial."""
    if issubclass(type(value), types.MethodType):
        owner = value.__self__
        yield f"`{name_of(owner if issubclass(type(owner), type) else type(owner))}`", owner
        yield f"`{name_of(value.__func__)}`", value.__func__
        return
    yield f"the function of the partial {name_of(value)}", value.func
    yield from ((f"argument {i} of the partial", part) for i, part in enumerate(value.args, 1))
    yield from ((f"keyword argument {key!r} of the partial", part) for key, part in value.keywords.items())


def function_parts(function: types.FunctionType) -> Named:
    """Name what a function holds and looks up."""
    name = function.__qualname__
    for variable, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False):
        try:
            yield f"closure variable {variable!r} of `{name}`", cell.cell_contents
        except ValueError:
            continue
    defaults = (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values())
    yield from ((f"a default value of `{name}`", value) for value in defaults)
    yield from ((f"attribute `{name}.{key}`", value) for key, value in vars(function).items())
    module = module_of_globals(function.__globals__)
    if module is not None and is_importable(module.__name__):
        return  # a closure of a library: its globals are there
    from forkpool._shared.code_names import names_of

    for variable in names_of(function.__code__).globals:
        if variable in function.__globals__ and function.__globals__[variable] is not function:
            yield f"global {variable!r} used by `{name}`", function.__globals__[variable]


def classes_of(value: Any) -> Named:
    """Name the classes that a value is pickled with, which may hold what cannot travel: its own, and the bases of a class."""
    from forkpool._shared.by_value_classes import is_made_in_c

    bases = value.__bases__ if issubclass(type(value), type) else ()
    for cls in (*bases, type(value)):
        if not by_reference(cls) and not is_made_in_c(cls):
            yield f"`{cls.__qualname__}`", cls


def name_of(fn: Any) -> str:
    """Return how the user calls a function."""
    if issubclass(type(fn), functools.partial):
        return name_of(fn.func)
    if issubclass(type(fn), types.MethodType):
        owner = fn.__self__ if issubclass(type(fn.__self__), type) else type(fn.__self__)
        return f"{owner.__qualname__}.{attribute_of(fn, '__name__') or '?'}"
    name = attribute_of(fn, "__qualname__")
    return name if isinstance(name, str) else type(fn).__qualname__


def _elements(path: str, value: Any) -> Named:
    """Name what a container holds, in the order in which it is pickled."""
    kind = type(value)
    if issubclass(kind, dict):
        for key, part in list(dict.items(value))[:MAX_PARTS]:
            yield f"{path}, key {shorten(key)}", key
            yield _join(path, f"[{shorten(key)}]"), part
    elif issubclass(kind, (list, tuple, deque)):
        for position, part in enumerate(itertools.islice(value, MAX_PARTS)):
            yield _join(path, f"[{position}]"), part
    elif issubclass(kind, (set, frozenset)):
        yield from ((f"{path}, element {shorten(part)}", part) for part in itertools.islice(value, MAX_PARTS))


# -- what an instance is pickled with besides its elements


def _pieces(path: str, value: Any, session: Any) -> Named:
    is_module = issubclass(type(value), types.ModuleType)
    base = path if path.startswith("`") else f"`{attribute_of(value, '__name__') if is_module else type(value).__qualname__}`"
    reducer = _reducer_of(value, session)
    try:
        reduced = None if is_module else reducer(value) if reducer is not None else value.__reduce_ex__(5)
    except (TypeError, pickle.PicklingError):  # `__getstate__` may copy in depth what it holds, which fails like pickling it
        reduced = None
    except Exception:  # the user's `__reduce__` is what fails
        return
    if not isinstance(reduced, tuple):
        yield from ((_join(base, f".{name}"), part) for name, part in _attributes(value))
    elif reducer is not None:
        yield from _made_of(path, reduced)
    else:
        yield from _told_by_class(base, value, reduced)


def _reducer_of(value: Any, session: Any) -> Any:
    """Return the function that is registered for instances of a class (`copyreg.pickle`), or None."""
    if session.by_value:
        from forkpool._shared.by_value import ByValuePickler

        pickler: Any = ByValuePickler(io.BytesIO(), session)
    else:
        pickler = session.pickler(io.BytesIO())
    return getattr(pickler, "dispatch_table", copyreg.dispatch_table).get(type(value))


def _made_of(path: str, reduced: tuple[Any, ...]) -> Named:
    """Name what somebody else's reducer gives. A container stands for the value (a view of a dict for the dict)."""
    yield f"`{name_of(reduced[0])}`", reduced[0]
    for part in (*reduced[1], *reduced[2:3]):
        yield (path if isinstance(part, CONTAINERS) else f"a part of {path}"), part


def _told_by_class(base: str, value: Any, reduced: tuple[Any, ...]) -> Named:
    """Name what the class itself gives."""
    function, args, state, items, pairs = (*reduced, None, None, None)[:5]
    cls = type(value)
    told = _join(base, ".__reduce_ex__(5)" if attribute_of(cls, "__reduce__") is object.__reduce__ else ".__reduce__()")
    if issubclass(cls, BaseException) and args is value.args:
        yield _join(base, ".args"), args
    else:
        yield from ((_join(told, f"[1][{at}]"), part) for at, part in enumerate(args) if part is not cls)
    yield from _state(base, cls, state, _join(told, "[2]"))
    if function is not cls:
        yield f"`{name_of(function)}`", function
    if not issubclass(cls, CONTAINERS):
        for at, each in ((3, items), (4, pairs)):
            yield _join(told, f"[{at}]"), list(itertools.islice(each or (), MAX_PARTS))


def _state(base: str, cls: type, state: Any, otherwise: str) -> Named:
    """Name the parts of a state: most are a dict of attributes, or such a dict and that of the slots."""
    both = state if type(state) is tuple and len(state) == 2 else (state, None)
    if all(each is None or type(each) is dict for each in both):
        for name, part in itertools.islice({**(both[0] or {}), **(both[1] or {})}.items(), MAX_PARTS):
            yield _join(base, f".{name}"), part
    else:
        has_own = getattr(cls, "__getstate__", None) is not getattr(object, "__getstate__", None)
        yield (_join(base, ".__getstate__()") if has_own else otherwise), state


def _attributes(value: Any) -> Named:
    own = attribute_of(value, "__dict__")
    found = dict(own) if type(own) is dict else {}
    for cls in type(value).__mro__:
        slots = vars(cls).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if (part := attribute_of(value, name)) is not None:
                found.setdefault(name, part)
    yield from list(found.items())[:MAX_PARTS]


def _join(path: str, more: str) -> str:
    return f"{path[:-1]}{more}`" if path.endswith("`") and path.startswith("`") else f"{path}{more}"
