"""Know a function that was shipped by value when it is submitted again, and reuse what was pickled of it.

Runs in: host (caller's thread, in submit). Programs submit the same few functions of `__main__` a million times, and all that a
`session` finds out about one, and pickles, is what it found the last time.

Hard part: what runs is what the host holds at `submit`. So each use compares all that the table was made of with what is
there now, by identity. That is only sound for what cannot change itself: so functions are known that consist of immutable
parts, and read globals that are immutable, importable modules, found by name, or again such functions. All others take the long
way each time. And another thread may change any of it while it is pickled: so it is noted before, and after that compared with
what was pickled and with what is there. Else an older value would be sent for ever.
Tests: tests/unit/test_repeated_calls.py
"""

from __future__ import annotations

import sys
import types
import weakref
from collections.abc import Iterable
from operator import is_
from typing import Any

from forkpool._shared import at_end, import_path
from forkpool._shared.by_value import _BASICS, global_name
from forkpool._shared.code_names import names_of, submodules_used
from forkpool._shared.entries import Entry
from forkpool._shared.homes import name_in
from forkpool._shared.importable import is_importable
from forkpool._shared.plain import IMMUTABLE, is_plain_callable
from forkpool._shared.tracking import Key, names_sent

MAX_TABLE = 1 << 14  # bytes; what is compared by identity is kept alive, and is no larger
MAX_KNOWN = 256
_MAX_TRIES = 3
_MISSING = object()
_NO_ENTRIES = (*_BASICS, "__builtins__")  # names that are entries only if code looks them up, if ever

_known: dict[int, RepeatedCall] = {}  # by id of the function, which the call keeps alive
import_path.when_changed.append(_known.clear)  # what was importable may not be any more
at_end.forget.append(_known.clear)
_tries: dict[int, tuple[weakref.ref[Any], int]] = {}  # by id of the code of functions that could not be known


class RepeatedCall:
    """A table that was sent, where it belongs, and everything that it was made of."""

    __slots__ = (
        "_absent",
        "_by_name",
        "_functions",
        "_globals",
        "_home",
        "_modules",
        "_namespace",
        "_untold",
        "function",
        "name",
        "space",
        "table",
    )

    def __init__(self, function: types.FunctionType, space: str, name: str) -> None:
        namespace = function.__globals__
        self.function = function
        self.space = space
        self.name = name
        self.table = b""
        self._namespace = namespace
        self._functions: list[tuple[types.FunctionType, tuple[Any, ...]]] = []
        self._globals: dict[str, Any] = {basic: namespace.get(basic, _MISSING) for basic in _BASICS}
        self._by_name: list[Any] = []
        self._home = _names_in(function.__module__)  # not the module, which may be a `__main__` that ends: see `at_end`
        self._modules: dict[str, Any] = {}
        self._absent: set[str] = set()  # modules that are not loaded
        self._untold: frozenset[str] = frozenset()  # names that are not there, and of which no worker can know

    def holds(self) -> bool:
        """Tell whether everything is as it was."""
        for function, parts in self._functions:
            now = _parts_of(function)
            if len(now) != len(parts) or not all(map(is_, now, parts)) or _has_others(function):
                return False
        get = self._namespace.get
        for name, value in self._globals.items():
            if get(name, _MISSING) is not value:
                return False
        if _names_in(self.function.__module__) is not self._home:
            return False
        modules = sys.modules
        for name, value in self._modules.items():
            if modules.get(name) is not value:
                return False
        if not self._untold.isdisjoint(names_sent.get(self.space, ())):
            return False  # sent meanwhile by another function, and deleted
        return all(map(is_plain_callable, self._by_name)) and modules.keys().isdisjoint(self._absent)

    def note_all(self) -> bool:
        """Note all that the table was made of. False: something of it may change unseen."""
        if not self._add_function(self.function) or self._globals.setdefault(self.name, self.function) is not self.function:
            return False
        missing = (name for name, value in self._globals.items() if value is _MISSING)
        self._untold = frozenset(missing).difference(names_sent.get(self.space, ()))
        return True

    def keep(self, table: bytes, entries: Iterable[Entry | None]) -> None:
        """Remember the call: it was sent with this table, of these entries, if that is what was noted before."""
        if len(table) > MAX_TABLE or not self._consists_of(entries) or not self.holds():
            return
        self.table = table
        if len(_known) >= MAX_KNOWN:
            _known.clear()
        _known[id(self.function)] = self

    def _consists_of(self, entries: Iterable[Entry | None]) -> bool:
        noted: dict[Key, Any] = {("g", self.space, name): value for name, value in self._globals.items()}
        sent = {entry.key: entry.roots.get(entry.key, _MISSING) for entry in entries if entry is not None}
        needed = {key for key, value in noted.items() if value is not _MISSING and key[2] not in _NO_ENTRIES}
        return needed <= sent.keys() and all(noted.get(key, key) is value for key, value in sent.items())

    def _add_function(self, function: types.FunctionType) -> bool:
        if function.__globals__ is not self._namespace or not all(map(self._add_default, function.__defaults__ or ())):
            return False
        if _has_others(function) or not all(map(_is_constant, function.__annotations__.values())):
            return False
        self._functions.append((function, _parts_of(function)))
        names = names_of(function.__code__)
        for name in names.imports:
            self._modules[name] = sys.modules.get(name)
            if self._modules[name] is not None and not is_importable(name):
                return False
        if names.finds_more:
            return False
        return all(self._add_global(name, names.attributes) for name in (*names.globals, *names.looked_up))

    def _add_default(self, value: Any) -> bool:
        """A sentinel (`MISSING = object()`) is that of the worker as long as it is this very global here."""
        if type(value) is not object:
            return type(value) in IMMUTABLE
        name = name_in(self._namespace, value)
        return name is not None and self._globals.setdefault(name, value) is value

    def _add_global(self, name: str, attributes: tuple[str, ...]) -> bool:
        value = self._namespace.get(name, _MISSING)
        is_new = name not in self._globals
        self._globals[name] = value
        if value is _MISSING or type(value) in IMMUTABLE or type(value) is object:
            return True
        if type(value) is types.ModuleType:
            return is_importable(value.__name__) and self._add_submodules(value, attributes)
        if is_plain_callable(value):
            self._by_name.append(value)
            return True
        return type(value) is types.FunctionType and (not is_new or self._add_function(value))

    def _add_submodules(self, module: types.ModuleType, attributes: tuple[str, ...]) -> bool:
        """What the worker must import for `package.submodule` is a part of the table."""
        if not hasattr(module, "__path__"):
            return True
        loaded = submodules_used(module, attributes)
        for parent in (module.__name__, *loaded):
            self._absent.update(f"{parent}.{attribute}" for attribute in attributes)
        self._absent.difference_update(sys.modules)
        self._modules.update((name, sys.modules.get(name)) for name in loaded)
        return len(self._absent) < MAX_TABLE


def find(function: Any) -> RepeatedCall | None:
    """Return what was sent for this very function, if all of it is as it was."""
    known = _known.get(id(function))
    if known is None or known.function is not function:
        return None
    if known.holds():
        return known
    _known.pop(id(function), None)
    return None


def begin(function: types.FunctionType) -> RepeatedCall | None:
    """The function is about to be pickled: note what it is made of, unless that could not be told again."""
    code = function.__code__
    key = id(code)
    place = global_name(function)
    tried, count = _tries.get(key, (None, 0))
    if place is None or (count >= _MAX_TRIES and tried is not None and tried() is code):
        return None
    call = RepeatedCall(function, *place)
    if call.note_all():
        return call
    _tries[key] = (weakref.ref(code, lambda _: _tries.pop(key, None)), count + 1)
    return None


def _names_in(module: str) -> Any:
    return getattr(sys.modules.get(module), "__dict__", None)


def _parts_of(function: Any) -> tuple[Any, ...]:
    return (
        function.__code__,
        function.__defaults__,
        function.__name__,
        function.__qualname__,
        function.__module__,
        function.__doc__,
        *function.__annotations__,
        *function.__annotations__.values(),
    )


def _has_others(function: Any) -> bool:
    """Tell whether there are parts that could change unseen."""
    return function.__kwdefaults__ is not None or function.__closure__ is not None or bool(function.__dict__)


def _is_constant(annotation: Any) -> bool:
    return annotation is None or type(annotation) is str or (type(annotation) is type and is_plain_callable(annotation))
