"""Act on a module when it is first imported, so that what nobody uses is never imported.

Runs in: fork server, workers (forked with the list as it stands), host under `forkpool run`; any thread that imports.
Hard part: to be the last to touch the module without leaving a trace in it. The finder asks the other finders,
and lets `exec_module` of that one loader object tell us; the loader's class and the module's spec stay as they are.
Tests: tests/unit/test_on_import.py
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

Action = Callable[[Any], None]


class ImportWatch:
    """A finder in front of all others that finds nothing, but sees every name asked for."""

    def __init__(self) -> None:
        self._actions: dict[str, list[Action]] = {}

    def install(self) -> None:
        if self not in sys.meta_path:
            sys.meta_path.insert(0, self)

    def when_imported(self, name: str, action: Action) -> None:
        """Call `action(module)` now if the module is there, else right after its import; once."""
        module = sys.modules.get(name)
        if module is not None:
            _act(action, module)
        else:
            self._actions.setdefault(name, []).append(action)

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name not in self._actions:
            return None
        spec = self._found_by_others(name, path, target)
        if spec is not None and spec.loader is not None:
            self._tell_after(spec.loader, name)
        return spec

    def _found_by_others(self, name: str, path: Any, target: ModuleType | None) -> ModuleSpec | None:
        for finder in sys.meta_path:
            if finder is not self and hasattr(finder, "find_spec"):
                spec = finder.find_spec(name, path, target)
                if spec is not None:
                    return spec
        return None

    def _tell_after(self, loader: Any, name: str) -> None:
        if isinstance(loader, type):  # the loaders of builtin and frozen modules are classes, shared by all of them
            return
        execute = loader.exec_module

        def execute_and_tell(module: ModuleType) -> None:
            loader.__dict__.pop("exec_module", None)
            execute(module)
            for action in self._actions.pop(name, ()):
                _act(action, module)

        loader.exec_module = execute_and_tell


def _act(action: Action, module: ModuleType) -> None:
    try:
        action(module)
    except Exception as error:
        # The user's import must not fail because a future Python keeps its state elsewhere.
        warnings.warn(f"forkpool could not set up {module.__name__}: {error!r}", RuntimeWarning, stacklevel=2)


watch = ImportWatch()
