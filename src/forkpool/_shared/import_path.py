"""Say where this process finds modules, in terms that hold in another one: absolute, and with what was there a moment ago.

Runs in: host (any thread that submits) and worker (when it encodes results). `look` is on the hot path of `submit`.
Must not import anything, and must not change `sys.path`.

Hard part: `sys.path` alone does not tell. A relative entry means another directory after `os.chdir`, so the working directory
is compared too if there is one. And a program may take an entry out when it has imported what it wanted (insert, import,
remove): a module that workers were told to import by its name must be found by the next worker as well. So an entry by which a
module was found stays known for good (`keep`), and comes behind all others when it is no longer on `sys.path`.
Tests: tests/unit/test_import_path.py, tests/process/test_inheritance_modules.py
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable

when_changed: list[Callable[[], None]] = []  # called when a fresh interpreter would search elsewhere than before
_kept: list[str] = []  # it only grows


class PathLook:
    """Where modules are found, and all that this was made of."""

    __slots__ = ("_entries", "_here", "_is_relative", "_kept", "path")

    def __init__(self) -> None:
        self._entries = list(sys.path)
        self._is_relative = any(isinstance(entry, str) and not os.path.isabs(entry) for entry in self._entries)
        self._here = _cwd() if self._is_relative else None
        self._kept = len(_kept)
        path = [_absolute(entry, self._here) for entry in self._entries if isinstance(entry, str)]
        self.path = path + [entry for entry in _kept[: self._kept] if entry not in path]

    def holds(self) -> bool:
        """Tell whether all is as it was."""
        same = sys.path == self._entries and len(_kept) == self._kept
        return same and (not self._is_relative or _cwd() == self._here)


def look() -> PathLook:
    """Return where modules are found now: the same object as long as that is so."""
    global _last
    last = _last
    if last.holds():
        return last
    now = PathLook()
    if now.path == last.path:
        now.path = last.path
    else:
        for tell in when_changed:
            tell()
    _last = now
    return now


def keep(folders: Iterable[str]) -> None:
    """A module was found in these: workers will find it there, whatever becomes of `sys.path`."""
    wanted = [os.path.normpath(folder) for folder in folders]
    for entry in look().path:
        if entry not in _kept and os.path.normpath(entry) in wanted:
            _kept.append(entry)


def _absolute(entry: str, here: str | None) -> str:
    """What an entry means. For the interpreter, what a relative one meant when it was first searched."""
    if os.path.isabs(entry):
        return entry
    finder = sys.path_importer_cache.get(entry)
    if finder is not None and not hasattr(finder, "path") and not hasattr(finder, "archive"):
        return entry  # the hook of a library takes it, as it is: no folder
    searched = getattr(finder, "path", None)
    if isinstance(searched, str) and os.path.isabs(searched):
        return os.path.normpath(searched)
    return entry if here is None else os.path.normpath(os.path.join(here, entry))


def _cwd() -> str | None:
    try:
        return os.getcwd()
    except OSError:  # deleted
        return None


_last = PathLook()
NEVER = PathLook()  # one that does not hold
NEVER._kept = -1
