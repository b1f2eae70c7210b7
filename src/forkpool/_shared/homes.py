"""Find where an object is at home: the global of a module, or the attribute of a class there, that is this very object.

Runs in: host and worker, while they pickle. It only reads namespaces and class dictionaries.
Must not run user code: objects are compared by identity, and their attributes are not asked for.
Hard part: `def get(key, default=MISSING)` compares with the global MISSING by identity, and with the standard library it is
imported, so that both are one. Here the function and the global travel on ways of their own, so a default or a cell that holds
a global's value travels as the name of that global. What an importable module holds is only named where a copy would be of no
use to anybody: when it has no content, so that its identity is all that it has. So is `object()` in a class, by a dotted name.
Tests: tests/unit/test_payload_identity.py
"""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from itertools import repeat
from operator import is_
from typing import Any

from forkpool._shared import at_end, tracking
from forkpool._shared.importable import by_reference, is_importable
from forkpool._shared.plain import IMMUTABLE

KEPT_SENTINELS = 256  # arbitrary: to look through a thousand modules takes 0.1 ms, and a program has a handful of these
_HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE
Namespace = dict[str, Any]
Home = tuple[str, str]  # key of a namespace, and the name there: that of a global, or "Class.attribute"
_imported: dict[int, tuple[object, str, types.ModuleType | None]] = {}
at_end.forget.append(_imported.clear)


class Homes:
    """The homes of what functions hold, each looked for once in a session: a program may have a thousand globals."""

    def __init__(self) -> None:
        self._found: dict[tuple[int, int], tuple[Any, Any, Home | None]] = {}

    def of(self, function: types.FunctionType, value: Any) -> Home | None:
        """Return the home of a default of this function, or of what one of its cells holds."""
        key = (id(function), id(value))
        found = self._found.get(key)
        if found is None:  # both objects are kept, so that their ids stay theirs
            found = self._found[key] = (function, value, _home_of(function, value))
        return found[2]

    def are_shared(self, function: types.FunctionType) -> bool:
        """Tell whether each default of a function is immutable, or something that all functions of its module share."""
        return all(type(value) in IMMUTABLE or self.of(function, value) is not None for value in defaults_of(function))

    def has_own_state(self, function: types.FunctionType) -> bool:
        """Tell whether a task could leave traces in the function itself, which is fresh for each task then."""
        return bool(function.__closure__) or not self.are_shared(function)


def defaults_of(function: types.FunctionType) -> tuple[Any, ...]:
    """Return all default values."""
    return (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values())


def name_in(namespace: Namespace, value: Any) -> str | None:
    """Return the first name of an object, as it counts between globals (`Session.shared_in`)."""
    if not any(map(is_, list(namespace.values()), repeat(value))):  # as most: a global costs 20 ns, in a loop twice that
        return None
    return next((name for name, found in namespace.copy().items() if found is value), None)


def _home_of(function: types.FunctionType, value: Any) -> Home | None:
    if type(value) in IMMUTABLE or _has_a_name(value):
        return None
    for namespace in _namespaces_of(function):
        space = tracking.key_of_globals(namespace)
        imported = space.startswith("r:")
        if imported and not is_bare(value):
            continue
        name = name_in(namespace, value)
        if name is None and type(value) is object and not imported:
            name = name_in_class(namespace, value)
        if name is not None:
            return space, name
    return None


def is_bare(value: Any) -> bool:
    """Tell whether an object is nothing but itself: `object()`, or an instance of a class of one's own without attributes."""
    cls = type(value)
    if cls is object:
        return True
    if cls.__basicsize__ > _Bare.__basicsize__ or cls.__itemsize__ or not cls.__flags__ & _HEAP_TYPE:
        return False
    if any(vars(base).get("__slots__") for base in cls.__mro__):
        return False
    return not (cls.__dictoffset__ and object.__getattribute__(value, "__dict__"))


class _Bare:
    """As large as an instance without slots can be."""


def _has_a_name(value: Any) -> bool:
    """Tell whether it has an identity in the other process anyway."""
    if isinstance(value, (type, types.ModuleType)):
        return True
    return type(value) is types.FunctionType and by_reference(value)


def _namespaces_of(function: types.FunctionType) -> Iterator[Namespace]:
    """A decorator's wrapper has the globals of the decorator, and says that it is of the module of what it wraps."""
    yield function.__globals__
    name = function.__module__
    module = sys.modules.get(name) if type(name) is str and not is_importable(name) else None
    if module is not None and vars(module) is not function.__globals__:
        yield vars(module)


def name_in_class(namespace: Namespace, value: Any) -> str | None:
    """Return the dotted name of the class attribute that is this very object."""
    for name, cls in namespace.copy().items():
        if isinstance(cls, type) and cls.__module__ == namespace.get("__name__"):
            for attribute, held in vars(cls).copy().items():
                if held is value:
                    return f"{name}.{attribute}"
    return None


def imported_from(name: str, value: object) -> types.ModuleType | None:
    """Return the importable module that has this very `object()` under this name (`from library import MISSING`)."""
    known = _imported.get(id(value))
    if known is None or known[:2] != (value, name):
        if len(_imported) >= KEPT_SENTINELS:
            _imported.clear()
        known = _imported[id(value)] = (value, name, _module_with(name, value))
    return known[2]


def _module_with(name: str, value: object) -> types.ModuleType | None:
    for module_name, module in sys.modules.copy().items():
        is_there = issubclass(type(module), types.ModuleType) and tracking.globals_of(module).get(name) is value
        if is_there and is_importable(module_name):
            return module
    return None
