"""Turn the bytes of an answer back into a value or an exception.

Runs in: host. Plain values on the supervisor thread; everything else in the thread of the first caller that asks.
Must not run on the supervisor for payloads that are not plain: unpickling runs user code.
Hard part: an exception must come out even when its own unpickling fails; see `remote_exceptions` for the three forms. But what
a signal handler raises meanwhile, or what lacks at the moment, is no failure of the exception's: it is raised, and the answer
can be decoded again.
Tests: tests/unit/test_payload_exceptions.py
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

from forkpool._shared.decoding import load_value
from forkpool._shared.importing import importing
from forkpool._shared.parts import Buffer
from forkpool._shared.remote_exceptions import EXCEPTION, PICKLED, PLAIN, TUPLE, Forms, Part, Parts

from .._unpickling import is_of_the_moment


def decode_value(data: Buffer) -> Any:
    """Return the value of an answer. Raises whatever the user's unpickling raises."""
    return load_value(data)


def decode_exception(data: Buffer, load: Callable[[Buffer], Any] = load_value) -> BaseException:
    """Return the exception of an answer, its remote traceback as `__cause__`.

    It is the pickled exception if that can be loaded, else one of the same class made without `__init__`, else a `RemoteError`.
    `load` unpickles its parts. What a signal handler raises in this thread passes through.
    """
    with importing:
        from forkpool import errors

    answer = pickle.loads(data)  # plain data, written by `remote_exceptions.describe`
    exc = _Reader(answer["forms"], answer["traceback"], load).outermost()
    vars(BaseException)["__cause__"].__set__(exc, errors.RemoteTraceback(answer["traceback"]))  # whatever its class says
    return exc


class _Reader:
    """Makes exceptions of their forms, those that are held by others when these need them."""

    def __init__(self, forms: list[Forms], traceback: str, load: Callable[[Buffer], Any]) -> None:
        self._forms = forms
        self._traceback = traceback
        self._load = load
        self._made: dict[int, BaseException] = {}
        self._begun: set[int] = set()
        self._bare: list[tuple[BaseException, Parts]] = []  # made, and still without their attributes

    def outermost(self) -> BaseException:
        """Return the first exception."""
        exc = self._exception(0)
        while self._bare:  # one after the other, and not each inside of the one that holds it: there may be many
            self._try(self._fill, self._bare.pop(), None)
        return exc

    def _fill(self, bare: tuple[BaseException, Parts]) -> None:
        exc, (_, _, attributes, slots) = bare
        exc.__dict__.update({name: self._part(part) for name, part in attributes.items()})
        for name, part in slots.items():
            _set(exc, name, self._part(part))

    def _exception(self, number: int) -> BaseException:
        if number in self._begun:
            made = self._made.get(number)
            return self._described(number) if made is None else made
        self._begun.add(number)
        pickled, parts = self._forms[number][:2]
        for make, form in ((self._load, pickled), (self._rebuild, parts)):
            exc = None if form is None else self._try(make, form, None)
            if isinstance(exc, BaseException):
                break
        else:
            exc = self._described(number)
        self._made[number] = exc
        return exc

    def _described(self, number: int) -> BaseException:
        with importing:
            from forkpool import errors

        _, _, type_name, message = self._forms[number]
        return errors.RemoteError(f"{type_name}: {message}", type_name=type_name, remote_traceback=self._traceback)

    def _rebuild(self, parts: Parts) -> BaseException:
        cls = self._load(parts[0])
        args = tuple(map(self._part, parts[1]))
        exc: BaseException = cls.__new__(cls, *args)
        if not isinstance(exc, BaseException):
            raise TypeError
        _set(exc, "args", args)
        self._bare.append((exc, parts))
        return exc

    def _part(self, part: Part) -> Any:
        kind, content = part[:2]
        if kind == PLAIN:
            return content
        if kind == PICKLED:
            return self._try(self._load, content, f"<{part[2]}, which cannot be unpickled>")
        if kind == EXCEPTION:
            return self._exception(content)
        items = map(self._part, content)
        return tuple(items) if kind == TUPLE else list(items)

    def _try(self, make: Callable[[Any], Any], form: Any, otherwise: Any) -> Any:
        try:
            return make(form)
        except BaseException as error:  # SystemExit in a __setstate__ must not end the caller
            if is_of_the_moment(error) and not (isinstance(error, RecursionError) and _has_room()):
                raise
            return otherwise


def _set(exc: BaseException, name: str, value: Any) -> None:
    """Also where the class is a frozen dataclass, or forbids it otherwise."""
    object.__setattr__(exc, name, value)


def _has_room() -> bool:
    """Whether half of the stack is left, so that it is the exception that recurses too deeply, and not the caller.

    A `__getattr__` that unpickling drives into an endless recursion is a common fault. Half is arbitrary.
    """
    frame: FrameType | None = sys._getframe()
    depth = 0
    while frame is not None:
        frame = frame.f_back
        depth += 1
    return depth < sys.getrecursionlimit() // 2
