"""Pickle again what another thread changed while it was pickled: a cache that a done-callback fills, for example.

Runs in: host, the thread that submits, after pickling failed.
Must not take a lock: nobody knows which one guards the user's container, if any does.
Hard part: a large container takes long to pickle, and may be changed in each attempt. A shallow copy is one step for the
interpreter, so it is never changed meanwhile; but a container that is pickled as its copy is not what a reference to it inside
finds. So only what surely holds no such reference is copied.
Tests: tests/unit/test_payload_changed_meanwhile.py
"""

from __future__ import annotations

from collections import deque
from typing import Any

from forkpool._shared.plain import all_plain

MOST_TRIES = 20  # arbitrary: one in a hundred fails where a callback changes a small dict
_COMPLAINTS = ("changed size during iteration", "mutated during iteration", "keys changed during iteration")
_COPIED = frozenset({dict, set, deque})
_KEPT_CAUSES = 8


def is_change(exc: BaseException | None) -> bool:
    """Tell whether the interpreter found that a container was changed while it was read."""
    for _ in range(_KEPT_CAUSES):
        if exc is None:
            return False
        if isinstance(exc, RuntimeError) and str(exc.args[0] if exc.args else "").endswith(_COMPLAINTS):
            return True
        exc = exc.__cause__  # not its context: `submit` may be called where another exception is being handled
    return False


def quiet(value: Any) -> Any:
    """Return what may be pickled instead of a global's value: a copy that nobody changes, where that makes no difference."""
    if type(value) not in _COPIED:
        return value
    copy = value.copy()
    holds_itself_never = all_plain(copy) and (type(copy) is not dict or all_plain(copy.values()))
    return copy if holds_itself_never else value
