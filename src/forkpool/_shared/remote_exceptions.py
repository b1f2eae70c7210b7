"""Describe an exception so that the host can raise it again, whatever it is made of.

Runs in: worker, and host for an inline pool. The host's half is `_host.answers`.
Must never raise: an exception that cannot be pickled, printed or formatted is still an answer.
Hard part: what can be pickled may still fail to unpickle, and only the host will know. So three forms travel side by side, and
the host takes the first one that works: the pickled exception; the means to rebuild it without `__init__`; plain text. The
means are class, `args`, attributes and slots, each for itself, so that one that fails costs no other; exceptions among them
(members of a group too) are described in turn, in the same three forms.
Tests: tests/unit/test_payload_exceptions.py
"""

from __future__ import annotations

import contextlib
import pickle
import traceback
from collections.abc import Callable, Iterable, Iterator
from types import MemberDescriptorType, TracebackType
from typing import Any

from forkpool._shared.plain import is_plain

# Frames of these modules come before the user's own in a remote traceback and tell him nothing.
_OUR_PACKAGES = ("forkpool._child", "forkpool._shared", "forkpool._host.inline")
# Arbitrary, all three: they only bound what a tangle of exceptions costs, each of which holds all the others.
_MOST_HELD = 1000
_MOST_ITEMS = 1000
_MOST_BYTES = 1 << 20  # of what held exceptions are pickled to: one that holds another is pickled with it

# How a part travels: (PLAIN, value), (PICKLED, bytes, name of its type), (LIST or TUPLE, parts), (EXCEPTION, number).
PLAIN, PICKLED, LIST, TUPLE, EXCEPTION = range(5)
Part = tuple[Any, ...]
Parts = tuple[bytes, list[Part], dict[str, Part], dict[str, Part]]  # class, `args`, attributes, slots
Forms = tuple[bytes | None, Parts | None, str, str]  # the third one is text: name of its class, and message


def describe(exc: BaseException, encode: Callable[[Any], bytes]) -> bytes:
    """Return the payload of an exception: a pickled dict of plain data. What `encode` raises is an answer too."""
    return pickle.dumps(
        {
            "type_name": _type_name(exc),
            "bases": _safely(lambda: tuple(map(_full_name, type(exc).__mro__)), ()),
            "message": _message(exc),
            "traceback": format_remote(exc),
            "forms": _Description(exc, encode).forms(),
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


class _Description:
    """Of one exception, and of those that it holds: each once, also where they hold one another."""

    def __init__(self, exc: BaseException, encode: Callable[[Any], bytes]) -> None:
        self._encode = encode
        self._found = [exc]
        self._numbers = {id(exc): 0}
        self._bytes_left = _MOST_BYTES

    def forms(self) -> list[Forms]:
        """The outermost one is the first."""
        forms = [self._forms_of(self._found[0], self._encode)]
        while len(forms) < len(self._found):
            forms.append(self._forms_of(self._found[len(forms)], self._encode_held))
        return forms

    def _forms_of(self, exc: BaseException, encode: Callable[[Any], bytes]) -> Forms:
        parts = _safely(lambda: self._parts(exc, encode), None)
        pickled = None if parts is not None and parts[3] and _forgets_slots(exc) else _safely(lambda: encode(exc), None)
        return pickled, parts, _type_name(exc), _message(exc)

    def _encode_held(self, value: Any) -> bytes:
        if self._bytes_left <= 0:
            raise OverflowError
        data = self._encode(value)
        self._bytes_left -= len(data)
        return data

    def _parts(self, exc: BaseException, encode: Callable[[Any], bytes]) -> Parts:
        args = [self._part(value, encode) or (PLAIN, _as_text(value)) for value in exc.args]
        return self._encode(type(exc)), args, self._named(vars(exc).items(), encode), self._named(_slots_of(exc), encode)

    def _named(self, values: Iterable[tuple[str, Any]], encode: Callable[[Any], bytes]) -> dict[str, Part]:
        parts = [(name, self._part(value, encode)) for name, value in list(values)]
        return {name: part for name, part in parts if part is not None}

    def _part(self, value: Any, encode: Callable[[Any], bytes]) -> Part | None:
        """None: it cannot be pickled."""
        if not _holds_exceptions(value):
            return self._item(value, encode)
        parts = [self._item(item, encode) for item in value]
        return None if None in parts else (LIST if type(value) is list else TUPLE, parts)

    def _item(self, value: Any, encode: Callable[[Any], bytes]) -> Part | None:
        if is_plain(value):
            return PLAIN, value
        if isinstance(value, BaseException) and len(self._found) <= _MOST_HELD:
            return EXCEPTION, self._number(value)
        data = _safely(lambda: encode(value), None)
        return None if data is None else (PICKLED, data, _type_name(value))

    def _number(self, exc: BaseException) -> int:
        number = self._numbers.setdefault(id(exc), len(self._found))
        if number == len(self._found):
            self._found.append(exc)
        return number


def _slots_of(exc: BaseException) -> Iterator[tuple[str, Any]]:
    """The names are mangled where they have to be. What C keeps of `OSError` and its like comes of the `args`."""
    for cls in type(exc).__mro__:
        for name, member in vars(cls).items() if "__slots__" in vars(cls) else ():
            if type(member) is MemberDescriptorType:
                with contextlib.suppress(AttributeError):  # it has no value
                    yield name, member.__get__(exc)


def _forgets_slots(exc: BaseException) -> bool:
    """Tell whether pickle would make it of `args` and `__dict__` alone."""
    cls: Any = type(exc)
    return cls.__reduce__ is BaseException.__reduce__ and cls.__reduce_ex__ is object.__reduce_ex__


def _holds_exceptions(value: Any) -> bool:
    """As the arguments of a group do."""
    return type(value) in (list, tuple) and len(value) <= _MOST_ITEMS and any(isinstance(item, BaseException) for item in value)


def _as_text(value: Any) -> str:
    text: str = _safely(lambda: repr(value), "<unprintable>")
    return text


def _message(exc: BaseException) -> str:
    text: str = _safely(lambda: str(exc), "<the exception cannot be printed>")
    return text


def _type_name(value: Any) -> str:
    name: str = _safely(lambda: f"{type(value).__module__}.{type(value).__qualname__}", "<unknown type>")
    return name


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
