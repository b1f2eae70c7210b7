"""Turn "cannot pickle '_thread.lock' object" into an error that names the part and the way out.

Runs in: host (the thread that submits) and worker (results), only after pickling failed, or when a payload is big.
Must not hide the original error: the caller raises ours from it. Must not raise another one, whatever the user's objects do.
Tests: tests/unit/test_payload_errors.py
"""

from __future__ import annotations

import functools
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

from forkpool._shared.advice import Failure, Holder, Place, advice_for, failure_of
from forkpool._shared.calls import without_chunks
from forkpool._shared.changed_meanwhile import MOST_TRIES
from forkpool._shared.culprits import Search, Suspect, entry_behind, failure_with, has_name, runs_again
from forkpool._shared.importable import BY_NAME_ONLY, why_not_by_name
from forkpool._shared.mp_support import UnsharedError, is_unshared
from forkpool._shared.named_parts import callable_parts, function_parts, name_of

BIG = 1_000_000  # arbitrary: below a megabyte a copy costs less than a millisecond
REPEATS = 3


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
    if is_unshared(exc):
        return _unshared_error(name, exc)
    for where, label, value in _roots(name, fn, args, kwargs, items):
        make = _as_held(make_session) if value is fn and issubclass(type(fn), types.FunctionType) else make_session
        if (failure := failure_with(make().encode, value)) is not None:
            return _error(make, f"cannot send {where} to a worker", Suspect(label, value), failure)
    if (suspect := entry_behind(exc)) is not None:  # what one part holds cannot lack because another one uses it
        return _error(make_session, f"cannot send `{name}` to a worker", suspect, failure_of(exc), it="")
    return PayloadError(f"cannot send the call of `{name}` to a worker: {failure_of(exc).text}", name)


def _as_held(make_session: Callable[[], Any]) -> Callable[[], Any]:
    """Try parts as what a function holds: of an array in a large file that is no copy, as it is of an argument."""

    def make() -> Any:
        session = make_session()
        session.points = True
        return session

    return make


def _unshared_error(name: str, exc: Exception) -> PayloadError:
    """The part is not looked for: by itself, as an argument, it would be a copy and could be pickled."""
    reason = exc if isinstance(exc, UnsharedError) else exc.__cause__
    what, part = "what it holds (a closure, a default, an initializer's argument, an attribute of a class)", name
    if type(exc).__name__ == "EntryError" and exc.args[0][0] == "g":
        what, part = f"global {exc.args[0][2]!r} used by `{name}`", str(exc.args[0][2])
    return PayloadError(f"cannot send `{name}` to a worker: {what} is, or has, {reason}", part)


def why_not_sent(value: Any, exc: Exception, module: str) -> str:
    """Return what is wrong with a global, or an attribute of a class, that the task may not use, and the way out."""
    return advice_for(value, failure_of(exc), Place.GLOBAL, preload=runs_again(module))


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
    whole = Suspect("result", value, Place.RESULT)
    return _error(make_session, "the task is done, but its result cannot be sent back", whole, failure_of(exc))


def _error(
    make_session: Callable[[], Any], intro: str, whole: Suspect, failure: Failure, *, it: str | None = None
) -> PayloadError:
    """Return the error for a part that cannot be pickled. `it`: the path that the intro has named, if not the part's."""
    try:
        culprit, why = _culprit_and_reason(make_session, whole, failure)
    except Exception:  # code of the user's, such as the `__iter__` of a list's subclass
        culprit, why = whole, f"cannot be pickled: {failure.text}"
    where = "it" if culprit.path == (whole.path if it is None else it) else culprit.path
    return PayloadError(": ".join(filter(None, (intro, culprit.via, f"{where} {why}"))), _bare(culprit.path))


def _culprit_and_reason(make_session: Callable[[], Any], whole: Suspect, failure: Failure) -> tuple[Suspect, str]:
    if failure.is_too_deep:
        return whole, advice_for(whole.value, failure, Place.ALONE)
    found = Search(make_session).culprit(whole)
    if not make_session().by_value and has_name(found.value):
        return found, f"{why_not_by_name(found.value)}, {BY_NAME_ONLY}"
    failure = failure_with(make_session().encode, found.value) or failure
    owned = found.holder or found
    holder = None if found.holder is None else Holder(owned.path, type(owned.value).__qualname__)
    return found, advice_for(found.value, failure, owned.place, holder, preload=found.is_of_main and _is_call(make_session))


def _is_call(make_session: Callable[[], Any]) -> bool:
    """Tell whether it is a call, for workers that were not forked from the program."""
    from forkpool._shared.session import Session

    return type(make_session()) is Session


def _bare(path: str) -> str:
    """Drop the quotes of a path that is nothing but quoted."""
    return path[1:-1] if path.startswith("`") and path.find("`", 1) == len(path) - 1 else path


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
            roots += [part for part in function_parts(fn) if part[0].startswith("closure")]
        elif isinstance(fn, (functools.partial, types.MethodType)):
            roots += list(callable_parts(fn))
        for label, value in roots:
            try:
                data = (_as_held(make_session) if label.startswith("closure") else make_session)().encode(value)
            except Exception:  # it was changed since: nothing is said of this call, which is pickled
                continue
            if len(data) >= BIG:
                yield label, len(data), hash(data)


def _call_site() -> tuple[str, int]:
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None and str(frame.f_globals.get("__name__")).partition(".")[0] in ("forkpool", "concurrent"):
        frame = frame.f_back
    return (frame.f_code.co_filename, frame.f_lineno) if frame is not None else ("?", 0)
