"""Turn "cannot pickle '_thread.lock' object" into an error that names the part and the way out.

Runs in: host (the thread that submits) and worker (results), only after pickling failed, or when a payload is big.
Must not hide the original error: the caller raises ours from it. Must not raise another one: the parts are the user's objects,
whose attributes may be properties that fail.
Hard part: pickle does not say where it was. So the parts are tried one by one, from the outside in: the part that fails while
none of its own parts does is the culprit. That calls the user's reducers again, which is why it happens after a failure only.
Tests: tests/unit/test_payload_errors.py
"""

from __future__ import annotations

import functools
import itertools
import sys
import types
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from forkpool._shared.advice import Failure, Place, advice_for, failure_of, kind_of, shorten
from forkpool._shared.calls import attribute_of, without_chunks
from forkpool._shared.changed_meanwhile import MOST_TRIES, is_change
from forkpool._shared.importable import BY_NAME_ONLY, by_reference, why_not_by_name

BIG = 1_000_000  # arbitrary: below a megabyte a copy costs less than a millisecond
REPEATS = 3
MAX_DEPTH = 12
MAX_PARTS = 200
MAX_VISITED = 100  # arbitrary, as the two above: what a failure may cost in vain

_NOT_SENT = ("__dict__", "__weakref__", "_abc_impl")  # of a class: each process makes its own

_WEAK = (weakref.WeakKeyDictionary, weakref.WeakValueDictionary)
Culprit = tuple[str, Any, Place]


class PayloadError(Exception):
    """A part of a call, or a result, cannot travel to the other process.

    Attributes:
        part: The attribute path (`Service.ex`) or the name of the argument or variable.
    """

    def __init__(self, message: str, part: str) -> None:
        super().__init__(message, part)
        self.part = part

    def __str__(self) -> str:
        return str(self.args[0])


def call_error(make_session: Callable[[], Any], fn: Any, args: Any, kwargs: Any, exc: Exception) -> PayloadError:
    """Return the error for a call that could not be pickled."""
    fn, items = without_chunks(fn, args)
    name = name_of(fn)
    for where, label, value in _roots(name, fn, args, kwargs, items):
        if (failure := _failure(make_session().encode, value)) is not None:
            return _error(make_session, f"cannot send {where} to a worker", label, value, failure)
    return PayloadError(f"cannot send the call of `{name}` to a worker: {failure_of(exc).text}", name)


def changed_error(name: str, key: Any) -> PayloadError:
    """Return the error for a call that was changed each time.

    Args:
        key: Of the entry that could not be pickled, if it was one: ("g", namespace, name).
    """
    if key is not None and key[0] == "g":
        what, part = f"global {key[2]!r} used by `{name}`", str(key[2])
    else:
        what, part = f"an argument, closure variable or default of `{name}`", name
    return PayloadError(
        f"cannot send `{name}` to a worker: {what} was changed by another thread, a callback or its own `__reduce__` while it "
        f"was pickled, {MOST_TRIES} times in a row; pass a copy as an argument (made under a lock if need be), or hold a lock "
        "for each change and each submit",
        part,
    )


def _roots(name: str, fn: Any, args: Any, kwargs: Any, items: Any) -> Iterator[tuple[str, str, Any]]:
    """What a call is made of: where it is, what it is called, and the object."""
    yield f"`{name}`", name, fn
    for number, item in enumerate([args] if items is None else items, 1):
        of_chunk = "" if items is None else f" (item {number} of {len(items)} in its chunk)"
        for position, value in enumerate(item, 1):
            yield f"argument {position} of `{name}`{of_chunk}", f"argument {position}", value
    for key, value in kwargs.items():
        yield f"keyword argument {key!r} of `{name}`", f"keyword argument {key!r}", value


def result_error(make_session: Callable[[], Any], value: Any, exc: Exception) -> PayloadError:
    """Return the error for a result that could not be pickled."""
    return _error(make_session, "the task is done, but its result cannot be sent back", "result", value, failure_of(exc))


def _error(make_session: Callable[[], Any], intro: str, label: str, value: Any, failure: Failure) -> PayloadError:
    try:
        path, why = _path_and_reason(make_session, label, value, failure)
    except Exception:  # code of the user's, such as the `__iter__` of a list's subclass
        path, why = label, f"cannot be pickled: {failure.text}"
    return PayloadError(f"{intro}: {'it' if path == label else path} {why}", _bare(path))


def _path_and_reason(make_session: Callable[[], Any], label: str, value: Any, failure: Failure) -> tuple[str, str]:
    if failure.is_too_deep:
        return label, advice_for(value, failure, Place.ALONE)
    path, culprit, place = _Search(make_session).culprit(label, value)
    if not make_session().by_value and _has_name(culprit):
        return path, f"{why_not_by_name(culprit)}, {BY_NAME_ONLY}"
    return path, advice_for(culprit, _failure(make_session().encode, culprit) or failure, place)


def _bare(path: str) -> str:
    """Drop the quotes of a path that is nothing but quoted."""
    return path[1:-1] if path.startswith("`") and path.find("`", 1) == len(path) - 1 else path


class _Search:
    """Look for what keeps a value from being pickled, from the outside in, each object at most once.

    Attributes lead back: a method needs the class in which it was found. Behind such a circle there is nothing new to find, so
    the search goes on beside it. Where circles are all that there is, what closed the first one is blamed.
    """

    def __init__(self, make_session: Callable[[], Any]) -> None:
        self._make_session = make_session
        self._by_value = make_session().by_value
        self._visited: set[int] = set()
        self._circle: Culprit | None = None

    def culprit(self, label: str, value: Any) -> Culprit:
        """Return where it is, which object it is, and in what place; if nothing inside is to blame, what was given."""
        whole = (label, value, Place.ALONE)
        return self._inside(whole, 0) or self._circle or whole

    def _inside(self, suspect: Culprit, depth: int) -> Culprit | None:
        """Return the culprit; None: there are only circles."""
        path, value, place = suspect
        self._visited.add(id(value))
        if kind_of(value) is not None or (not self._by_value and _has_name(value)):
            return suspect
        if depth == MAX_DEPTH:  # it may be to blame for nothing
            self._circle = self._circle or suspect
            return None
        failing = [part for part in self._parts(path, value) if _fails(self._make_session, part[1])]
        if not failing:
            return suspect
        for where, part in self._most_suspicious_first(failing):
            if id(part) not in self._visited and len(self._visited) < MAX_VISITED:
                found = self._inside((where, part, _place_in(value, where, place)), depth + 1)
                if found is not None:
                    return found
        self._circle = self._circle or suspect
        return None

    def _parts(self, path: str, value: Any) -> Iterator[tuple[str, Any]]:
        if self._by_value:
            yield from _classes_of(value)
        yield from _parts(path, value)

    def _most_suspicious_first(self, parts: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
        """What fails by itself comes before what fails through the class or global that led here."""
        return sorted(parts, key=lambda part: _failure(self._make_session().encode_alone, part[1]) is None)


def _classes_of(value: Any) -> Iterator[tuple[str, Any]]:
    """Name the classes that a value is pickled with, which may hold what cannot travel: its own, and the bases of a class."""
    from forkpool._shared.by_value_classes import is_made_in_c

    bases = value.__bases__ if issubclass(type(value), type) else ()
    for cls in (*bases, type(value)):
        if not by_reference(cls) and not is_made_in_c(cls):
            yield f"`{cls.__qualname__}`", cls


def _place_in(owner: Any, path: str, place: Place) -> Place:
    """Where a part of `owner` is, which itself is in `place`."""
    kind = type(owner)
    if issubclass(kind, types.FunctionType):
        return Place.GLOBAL if path.startswith("global ") else Place.ALONE
    if issubclass(kind, type):
        return Place.GLOBAL
    if issubclass(kind, (dict, list, tuple, set, frozenset, deque)):
        return place
    return Place.ALONE if issubclass(kind, (types.MethodType, functools.partial, BaseException)) else Place.ATTRIBUTE


def _has_name(value: Any) -> bool:
    """Tell whether it is a function or class: one that travels by its name, or not at all, where nothing goes by value."""
    return issubclass(type(value), (types.FunctionType, type))


def _fails(make_session: Callable[[], Any], value: Any) -> bool:
    return _failure(make_session().encode, value) is not None


def _failure(encode: Callable[[Any], bytes], value: Any) -> Failure | None:
    try:
        encode(value)
    except Exception as exc:
        return None if is_change(exc) else failure_of(exc)  # what changes just now is not to blame
    return None


def _parts(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Name the parts that a value is pickled with."""
    kind = type(value)
    if issubclass(kind, types.MethodType):
        owner = value.__self__
        yield f"`{name_of(owner if issubclass(type(owner), type) else type(owner))}`", owner
    elif issubclass(kind, types.FunctionType):
        yield from _function_parts(value)
    elif issubclass(kind, functools.partial):
        yield f"the function of the partial {name_of(value)}", value.func
        yield from ((f"argument {i} of the partial", part) for i, part in enumerate(value.args, 1))
        yield from ((f"keyword argument {key!r} of the partial", part) for key, part in value.keywords.items())
    elif issubclass(kind, type):
        for name, part in list(vars(value).items())[:MAX_PARTS]:
            if name not in _NOT_SENT:
                yield f"`{value.__qualname__}.{name}`", attribute_of(part, "__func__") or part
    elif issubclass(kind, (property, functools.cached_property)):
        names = ("fget", "fset", "fdel", "func")
        yield from ((path, part) for name in names if (part := attribute_of(value, name)) is not None)
    elif issubclass(kind, _WEAK):
        yield from _elements(path, dict(value.items()))
    else:
        yield from _elements(path, value)
        base = path if path.startswith("`") else f"`{kind.__qualname__}`"
        if issubclass(kind, BaseException):
            yield _join(base, ".args"), value.args
        yield from ((_join(base, f".{name}"), part) for name, part in _attributes(value))


def _elements(path: str, value: Any) -> Iterator[tuple[str, Any]]:
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


def _function_parts(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    name = function.__qualname__
    for variable, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False):
        try:
            yield f"closure variable {variable!r} of `{name}`", cell.cell_contents
        except ValueError:
            continue
    defaults = (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values())
    yield from ((f"a default value of `{name}`", value) for value in defaults)
    yield from ((f"attribute `{name}.{key}`", value) for key, value in vars(function).items())
    from forkpool._shared.code_names import names_of

    for variable in names_of(function.__code__).globals:
        if variable in function.__globals__ and function.__globals__[variable] is not function:
            yield f"global {variable!r} used by `{name}`", function.__globals__[variable]


def _attributes(value: Any) -> Iterator[tuple[str, Any]]:
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


def name_of(fn: Any) -> str:
    """Return how the user calls a function."""
    if issubclass(type(fn), functools.partial):
        return name_of(fn.func)
    if issubclass(type(fn), types.MethodType):
        owner = fn.__self__ if issubclass(type(fn.__self__), type) else type(fn.__self__)
        return f"{owner.__qualname__}.{attribute_of(fn, '__name__') or '?'}"
    name = attribute_of(fn, "__qualname__")
    return name if isinstance(name, str) else type(fn).__qualname__


def add_path_note(exc: ModuleNotFoundError, host_path: list[str]) -> None:
    """Tell where the worker looked for a module, and where the host does."""
    exc.add_note(
        f"The worker looked for {exc.name!r} in its sys.path: {sys.path}\n"
        f"The host's sys.path when the call was submitted: {host_path}"
    )


# -- big payloads


class SizeWatch:
    """Warn once per call site that ships the same big object again and again."""

    def __init__(self, warn: Callable[[str], None]) -> None:
        self._warn = warn
        self._seen: dict[tuple[Any, ...], int] = {}
        self._looks: dict[tuple[Any, ...], int] = {}

    def look(self, make_session: Callable[[], Any], fn: Any, args: Any, kwargs: Any, entries: list[Any]) -> None:
        """Count the big parts of a call. The first few calls of a site are looked at, later ones cost nothing."""
        site = (*_call_site(), name_of(without_chunks(fn, args)[0]))
        looks = self._looks[site] = self._looks.get(site, 0) + 1
        if looks > REPEATS:
            return
        for part, size, content in self._big_parts(make_session, fn, args, kwargs, entries):
            key = (site, part, content)
            count = self._seen[key] = self._seen.get(key, 0) + 1
            if count == REPEATS:
                done = "pickled, to see whether it has changed," if part.startswith("global") else "sent to a worker"
                self._warn(
                    f"{part} is {size / 1e6:.1f} MB and was {done} {REPEATS} times from {site[0]}:{site[1]}; "
                    "load it in an initializer, or pass a path or a smaller part of it"
                )

    def _big_parts(
        self, make_session: Callable[[], Any], fn: Any, args: Any, kwargs: Any, entries: list[Any]
    ) -> Iterator[tuple[str, int, int]]:
        fn, items = without_chunks(fn, args)
        name = name_of(fn)
        for entry in entries:
            if len(entry[-1]) >= BIG and entry[0][0] != "c":
                yield f"global {entry[0][2]!r} used by `{name}`", len(entry[-1]), hash(entry[-1])
        if items is None:
            roots = [(f"argument {position} of `{name}`", value) for position, value in enumerate(args, 1)]
        else:
            roots = [(f"a chunk of items for `{name}`", items)]
        roots += [(f"keyword argument {key!r} of `{name}`", value) for key, value in kwargs.items()]
        if isinstance(fn, types.FunctionType):
            roots += [part for part in _function_parts(fn) if part[0].startswith("closure")]
        elif isinstance(fn, (functools.partial, types.MethodType)):
            roots += list(_parts(name_of(fn), fn))
        for label, value in roots:
            try:
                data = make_session().encode(value)
            except Exception:  # it was changed since: nothing is said of this call, which is pickled
                continue
            if len(data) >= BIG:
                yield label, len(data), hash(data)


def _call_site() -> tuple[str, int]:
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None and str(frame.f_globals.get("__name__")).partition(".")[0] in ("forkpool", "concurrent"):
        frame = frame.f_back
    return (frame.f_code.co_filename, frame.f_lineno) if frame is not None else ("?", 0)
