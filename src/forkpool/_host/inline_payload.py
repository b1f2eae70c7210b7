"""What a payload refers to, when the process that unpickles it is the one that pickled it.

Runs in: host, the thread that submits, and whoever asks for a result first. Imported with the first call or result of an
inline pool that is not plain.
A call is pickled for a worker, with all that a worker would need; here its receiver finds classes, globals and code where they
are, and only what has no name is a copy: arguments, closures, defaults. So breakpoints and coverage hit, and nothing is
overwritten.
Hard part: results are unpickled late. What travels as a mere name (a class that the task made, the globals of an `exec`) must
live until then, although what a process remembers of others is bounded; `Kept` holds it.
Tests: tests/unit/test_inline_payload.py
"""

from __future__ import annotations

import types
from typing import Any

from .._shared import tracking
from .._shared.applier import Applier
from .._shared.session import ResultSession
from .._shared.tracking import Key

Kept = dict[str, Any]  # classes by id, namespaces by key


class LocalApplier(Applier):
    """Finds what a payload refers to where it is; the table, made for another process, is not looked at."""

    def __init__(self, kept: Kept) -> None:
        super().__init__([], worker=False)
        self.is_settled = False  # there is nothing that could be skipped
        self._kept = kept

    def look_up(self, key: Key) -> Any:
        return tracking.global_in(self.namespace(key[1]), key[2])

    def namespace(self, key: str) -> dict[str, Any]:
        found: dict[str, Any] | None = self._kept.get(key)
        return super().namespace(key) if found is None else found


class LocalResultSession(ResultSession):
    """Fails where a worker's would: with what the task itself made and that cannot travel."""

    def __init__(self, kept: Kept | None = None) -> None:
        super().__init__()
        self._kept: Kept = {} if kept is None else kept

    def need_class(self, cls: Any) -> str:
        uid = tracking.uid_of(cls)
        self._kept[uid] = cls
        return uid if tracking.stands_in_its_module(cls) else super().need_class(cls)

    def need_global(self, space: str, name: str, value: Any) -> bool:
        return True

    def may_refer(self, space: str, name: str, value: Any) -> bool:
        return True

    def need_globals_of(self, function: types.FunctionType, space: str, *, is_sure: bool = True) -> None:
        self._kept[space] = function.__globals__

    def need_module(self, module: types.ModuleType, names: tuple[str, ...]) -> None:
        self._kept[f"m:{module.__name__}"] = vars(module)
