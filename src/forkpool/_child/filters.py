"""Give a worker the host's warnings filters.

Runs in: fork server (prepares) and workers (installs). Never imports a module for a filter's sake.
Hard part: a filter may name a category of a module that is not imported yet (`ConvergenceWarning`). It waits for that
import, then takes the place among the others that it had in the host, since the first filter that matches decides.
The fork server keeps its own filters: an "error" among the host's would make an exception of what the interpreter
remarks on fork.
Tests: tests/unit/test_filters.py, tests/process/test_inheritance_set_up.py
"""

from __future__ import annotations

import re
import sys
import warnings
from typing import Any

from .._shared.on_import import watch

Described = tuple[Any, ...]  # action, message, (module, qualified name) of the category, module, line
Filter = tuple[Any, ...]  # as in warnings.filters


class HostFilters:
    """The host's filters, in its order; None stands for one whose category is not there yet."""

    def __init__(self, described: list[Described]) -> None:
        self._described = described
        self._filters: list[Filter | None] = [_build(one) for one in described]

    def install(self) -> None:
        warnings.filters[:] = [one for one in self._filters if one is not None]  # type: ignore[index]  # typed read-only
        _tell_the_interpreter()
        for index, one in enumerate(self._filters):
            if one is None:
                watch.when_imported(self._described[index][2][0], lambda _module, at=index: self._arrive(at))  # type: ignore[misc]

    def _arrive(self, index: int) -> None:
        self._filters[index] = arrived = _build(self._described[index])
        if arrived is not None:
            warnings.filters.insert(self._place(index), arrived)  # type: ignore[attr-defined]  # typed read-only
            _tell_the_interpreter()

    def _place(self, index: int) -> int:
        """In front of the first filter that followed it in the host and is still there."""
        for follower in self._filters[index + 1 :]:
            for place, present in enumerate(warnings.filters):
                if present is follower:
                    return place
        return len(warnings.filters)


def _build(described: Described) -> Filter | None:
    action, message, (module_name, name), module, line = described
    category: Any = sys.modules.get(module_name)
    for part in name.split("."):
        category = getattr(category, part, None)
    if not isinstance(category, type):
        return None
    return action, _regex(message), category, _regex(module), line


def _regex(pattern: Any) -> Any:
    return re.compile(*pattern) if isinstance(pattern, tuple) else pattern


def _tell_the_interpreter() -> None:
    # Each module caches what it has warned of, for one version of the filters. 3.14 has the second name.
    for name in ("_filters_mutated", "_filters_mutated_lock_held"):
        tell = getattr(warnings, name, None)
        if tell is not None:
            lock = getattr(warnings, "_lock", None)
            if name.endswith("lock_held") and lock is not None:
                with lock:
                    tell()
            else:
                tell()
            return
