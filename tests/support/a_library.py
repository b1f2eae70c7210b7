"""What a library has: sentinels, functions that no name leads to, a base class."""

from __future__ import annotations

from collections.abc import Callable


class _Kind:
    pass


MISSING = object()
_MISSING, _UNSET = object(), _Kind()


def compare_later(first: object = _MISSING) -> Callable[[], tuple[bool, bool]]:
    """Return a closure that compares what it holds with the module's globals."""

    def compare(second: object = _UNSET) -> tuple[bool, bool]:
        return first is _MISSING, second is _UNSET

    return compare


def is_missing(value: object) -> bool:
    """Tell whether a caller was given nothing."""
    return value is MISSING


class Importable:
    """A base class, of which others make subclasses."""
