"""Find which part of a call or result it is that cannot be pickled.

Runs in: host (the thread that submits) and worker (results), only after pickling failed.
Must not raise: the parts are the user's objects, whose attributes may be properties that fail.
Hard part: pickle does not say where it was. So the parts are tried one by one, from the outside in: the part that fails while
none of its own parts does is the culprit. That calls the user's reducers again, which is why it happens after a failure only.
One thing is known: which global could not be made an entry. It comes first wherever it is met.
Tests: tests/unit/test_payload_errors.py
"""

from __future__ import annotations

import functools
import os
import sys
import types
from collections.abc import Callable
from typing import Any, NamedTuple

from forkpool._shared.advice import Failure, Place, failure_of, kind_of
from forkpool._shared.calls import attribute_of
from forkpool._shared.changed_meanwhile import is_change
from forkpool._shared.importable import is_library
from forkpool._shared.named_parts import CONTAINERS, classes_of, parts_of

MAX_DEPTH = 12
MAX_VISITED = 100  # arbitrary, as the one above: what a failure may cost in vain


class Suspect(NamedTuple):
    """A part that cannot be pickled."""

    path: str
    value: Any
    place: Place = Place.ALONE
    via: str = ""  # what the user calls that in which it is, where `path` begins with a class
    is_of_main: bool = False  # in a global or class of the program, which workers could be forked from
    holder: Suspect | None = None  # the innermost that the program put where it is; None: this one


class Search:
    """Look for what keeps a value from being pickled, from the outside in, each object at most once.

    Attributes lead back: a method needs the class in which it was found. Behind such a circle there is nothing new to find, so
    the search goes on beside it. Where circles are all that there is, what closed the first one is blamed.
    """

    def __init__(self, make_session: Callable[[], Any]) -> None:
        self._make_session = make_session
        self._by_value = make_session().by_value
        self._visited: dict[int, Any] = {}  # by id; kept, since what a reducer makes would leave its id to another
        self._circle: Suspect | None = None
        self._entry: Suspect | None = None  # the global that could not be made an entry

    def culprit(self, whole: Suspect) -> Suspect:
        """Return where it is and which object; if nothing inside is to blame, what was given."""
        self._entry = _entry_that_failed(self._make_session().encode, whole.value)
        found = self._inside(whole, 0) or self._circle or whole
        if self._entry is None or id(self._entry.value) in self._visited or self._is_guilty(found.value):
            return found
        return self._inside(self._entry, 0) or self._entry  # nothing that was named leads there

    def _inside(self, suspect: Suspect, depth: int) -> Suspect | None:
        """Return the culprit; None: there are only circles."""
        value = suspect.value
        self._visited[id(value)] = value
        if kind_of(value) is not None or (not self._by_value and has_name(value)):
            return suspect
        if depth == MAX_DEPTH:  # it may be to blame for nothing
            self._circle = self._circle or suspect
            return None
        failing = [part for part in self._parts(suspect) if failure_with(self._make_session().encode, part[1]) is not None]
        if not failing:
            return suspect
        for path, part in self._most_suspicious_first(failing):
            if id(part) not in self._visited and len(self._visited) < MAX_VISITED:
                found = self._inside(_part_of(suspect, path, part, is_root=depth == 0), depth + 1)
                if found is not None:
                    return found
        self._circle = self._circle or suspect
        return None

    def _parts(self, suspect: Suspect) -> list[tuple[str, Any]]:
        classes = classes_of(suspect.value) if self._by_value else ()
        return [*classes, *parts_of(suspect.path, suspect.value, self._make_session())]

    def _most_suspicious_first(self, parts: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
        """What fails by itself comes before what fails through the class or global that led here."""
        return sorted(parts, key=lambda part: (not self._is_entry(part[1]), not self._fails_alone(part[1])))

    def _is_entry(self, value: Any) -> bool:
        return self._entry is not None and self._entry.value is value

    def _is_guilty(self, value: Any) -> bool:
        return kind_of(value) is not None or self._fails_alone(value)

    def _fails_alone(self, value: Any) -> bool:
        return failure_with(self._make_session().encode_alone, value) is not None


def failure_with(encode: Callable[[Any], bytes], value: Any) -> Failure | None:
    """Return how the pickling of a value fails; None: it does not."""
    try:
        encode(value)
    except Exception as exc:
        return None if is_change(exc) else failure_of(exc)  # what changes just now is not to blame
    return None


def has_name(value: Any) -> bool:
    """Tell whether it is a function or class: one that travels by its name, or not at all, where nothing goes by value."""
    return issubclass(type(value), (types.FunctionType, type))


def _entry_that_failed(encode: Callable[[Any], bytes], value: Any) -> Suspect | None:
    try:
        encode(value)
    except Exception as exc:
        return entry_behind(exc)
    return None


def entry_behind(exc: Exception) -> Suspect | None:
    """Return what could not be made an entry, or a part of one, if that is why something cannot be pickled."""
    if type(exc).__name__ != "EntryError":
        return None
    kind, *place = exc.args[0]
    return _attribute(*place) if kind == "c" else _global(*place)


def _attribute(uid: str, name: str) -> Suspect:
    from forkpool._shared.tracking import class_of

    cls = class_of(uid)
    return Suspect(f"`{cls.__qualname__}.{name}`", vars(cls)[name], Place.GLOBAL, is_of_main=runs_again(cls.__module__))


def _global(space: str, name: str) -> Suspect | None:
    from forkpool._shared.tracking import namespace_of

    namespace = namespace_of(space)
    if name not in namespace:
        return None
    return Suspect(f"global {name!r}", namespace[name], Place.GLOBAL, is_of_main=runs_again(namespace.get("__name__")))


# -- what is known of a part by what it is in


def _part_of(owner: Suspect, path: str, value: Any, *, is_root: bool) -> Suspect:
    is_entry = _holds_globals(owner.value, path)
    place = Place.GLOBAL if is_entry else _place_in(owner, path)
    is_of_main = runs_again(_module_of(owner.value)) if is_entry else owner.is_of_main
    return Suspect(path, value, place, _via(owner, path, is_root=is_root), is_of_main, _holder(owner))


def _holds_globals(owner: Any, path: str) -> bool:
    """Tell whether a part of this one is a global, or an attribute of a class."""
    is_namespace = issubclass(type(owner), (type, types.ModuleType))
    return path.startswith("global ") if issubclass(type(owner), types.FunctionType) else is_namespace


def _holder(owner: Suspect) -> Suspect | None:
    module = _module_of(owner.value)
    if module in _HOLD_WHAT_THEY_ARE_GIVEN:
        return owner.holder
    return (owner.holder or owner) if _is_library(module) else None


def _via(owner: Suspect, path: str, *, is_root: bool) -> str:
    if issubclass(type(owner.value), types.FunctionType) and not _is_library(_module_of(owner.value)):
        return ""  # the path names the function
    if is_root or owner.via or owner.path.startswith("`") or path.startswith(owner.path):
        return owner.via
    return owner.path


def _place_in(owner: Suspect, path: str) -> Place:
    kind = type(owner.value)
    if issubclass(kind, (types.FunctionType, types.MethodType, functools.partial, BaseException)) or "__reduce" in path:
        return Place.ALONE
    holds_what_it_is_given = issubclass(kind, CONTAINERS) or kind.__module__ in _HOLD_WHAT_THEY_ARE_GIVEN
    return owner.place if holds_what_it_is_given else Place.ATTRIBUTE


def runs_again(module: Any) -> bool:
    """Tell whether it is the program, and that a file which a fork server could run once more."""
    path = attribute_of(sys.modules.get("__main__"), "__file__")
    return bool(module == "__main__") and isinstance(path, str) and os.path.isfile(path)


def _module_of(value: Any) -> Any:
    """Return the name of the module whose code says what is in there."""
    kind = type(value)
    if issubclass(kind, types.FunctionType):
        return value.__globals__.get("__name__")
    if issubclass(kind, types.ModuleType):
        return attribute_of(value, "__name__")
    return (value if issubclass(kind, type) else kind).__module__


def _is_library(module: Any) -> bool:
    return isinstance(module, str) and is_library(module, attribute_of(sys.modules.get(module), "__file__"))


_HOLD_WHAT_THEY_ARE_GIVEN = frozenset({"builtins", "collections", "contextlib", "functools", "types", "weakref"})
