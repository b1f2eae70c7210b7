"""Turn the bytes of calls and results back into objects; `payload` made them, `parts` says what they consist of.

Runs in: `CallDecoder` in a worker, in the task's thread; what is below it in the host too, in any thread.
Must not unpickle anything of a call of which this worker lacks a part.
Hard part: most calls bring a table of which nothing is new. It is not even unpickled then: the bytes are known.
Tests: tests/unit/test_payload_*.py
"""

from __future__ import annotations

import importlib
import itertools
import pickle
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from forkpool._shared import explain
from forkpool._shared.importing import importing
from forkpool._shared.owning_payload import Lacking, check_all_here, put_in, split_contents
from forkpool._shared.parts import NAMED, PARTED, PATH, POINTING, RICH, TITLE, WHOLE, Buffer, Call, split

if TYPE_CHECKING:
    from forkpool._shared.applier import Applier

__all__ = ["CallDecoder", "Lacking", "load_value", "load_with"]

_MOST_SETTLED, _SETTLED_BYTES = 64, 1 << 14  # arbitrary: a megabyte at most


class CallDecoder:
    """Unpickle calls in a worker; lives as long as the worker. One thread.

    Args:
        host_path: The host's `sys.path` for calls that bring none along; None: this process is the host, and keeps its own.
        path_here: What this process has of the host's `sys.path` when it starts; None: the same.
    """

    def __init__(self, host_path: list[str] | None = None, path_here: list[str] | None = None) -> None:
        self._is_host = host_path is None
        self._host_path = sys.path if host_path is None else host_path
        self.name: str | None = None  # of the call that was decoded last, if it was given one
        self._path_here = path_here or self._host_path
        self._last_path: tuple[bytes, list[str]] = (b"", [])  # as it came, and what it says
        # Tables of which nothing is new to this worker: namespace, name, function, and the namespace's module.
        self._settled: dict[bytes, tuple[str, str, Any, Any]] = {}

    def decode(self, data: Buffer) -> Call:
        """Return function, arguments and keyword arguments of a payload.

        Raises:
            Lacking: This worker has not got all that the call needs. Nothing was unpickled.
            BaseException: whatever unpickling raises, user code included. The worker stays usable.
        """
        view = memoryview(data)
        flags, view = view[0], view[1:]
        self.name = None
        host_path = self._host_path
        contents: list[memoryview] = []
        try:
            if flags & WHOLE:
                contents, view = split_contents(view)
            if flags & TITLE:
                part, view = split(view)
                self.name = str(part, "utf-8", "surrogatepass")
            if flags & PATH:
                part, view = split(view)
                host_path = self._load_path(part)
            if host_path is not self._path_here and not self._is_host:
                self._follow(host_path)
            if not flags & RICH:
                module, name, args, kwargs = pickle.loads(view)
                return _look_up(module, name), args, kwargs
            fn, args, kwargs = self._load_rich(flags, view, contents)
        except ModuleNotFoundError as exc:
            explain.add_path_note(exc, host_path)
            raise
        return fn, args, kwargs

    def _load_rich(self, flags: int, view: memoryview, contents: list[memoryview]) -> Any:
        """Most calls come with a table that the last ones had, too: then only the arguments are new."""
        part, body = split(view)
        table = bytes(part) if flags & NAMED and len(part) <= _SETTLED_BYTES else b""  # b"": none that is remembered
        known = self._settled.get(table)
        if known is not None:
            space, name, args, kwargs = pickle.loads(body)
            if known[:2] == (space, name):
                sys.modules[space[2:]] = known[3]  # as for each call by value: a task may have put something else there
                return known[2], args, kwargs
        applier = self._open_table(part, contents, parted=bool(flags & PARTED))
        try:
            call = load_body(flags, view, lambda _: applier)
        finally:
            if not applier.is_settled or len(self._settled) >= _MOST_SETTLED:
                self._settled.clear()
        if table and applier.is_settled:
            self._settle(table, body, call[0])
        return call

    def _settle(self, table: bytes, body: memoryview, fn: Any) -> None:
        from forkpool._shared import tracking

        space, name = pickle.loads(body)[:2]
        if space.startswith("m:"):
            self._settled[table] = (space, name, fn, tracking.module_by_value(space[2:], fresh=True))

    def _open_table(self, table: memoryview, contents: list[memoryview], *, parted: bool) -> Applier:
        from forkpool._shared.applier import Applier

        entries = pickle.loads(table)
        if contents:
            entries = put_in(entries, contents)
        elif parted:
            from forkpool._shared.tracking import received

            check_all_here(entries, received)
        return Applier(entries, worker=True)

    def _load_path(self, part: memoryview) -> list[str]:
        if part != self._last_path[0]:
            self._last_path = bytes(part), pickle.loads(part)
        return self._last_path[1]

    def _follow(self, path: list[str]) -> None:
        """Search where the host does, in its order. What was added here (by an initializer, a task) stays: ahead, or behind."""
        before = self._path_here
        if path != before:
            ahead = list(itertools.takewhile(lambda entry: entry not in before, sys.path))
            behind = [entry for entry in sys.path[len(ahead) :] if entry not in before and entry not in path]
            sys.path[:] = [*(entry for entry in ahead if entry not in path), *path, *behind]
        self._path_here = path


def _look_up(module_name: str, qualname: str) -> Any:
    """Do what unpickling a reference does, without its import machinery when the module is there."""
    found: Any = sys.modules.get(module_name)
    if found is None:
        found = importlib.import_module(module_name)
    for part in qualname.split("."):
        found = getattr(found, part)
    return found


def load_value(data: Buffer) -> Any:
    """Unpickle the payload of a result, in the host."""
    return load_with(data, _host_table)


def load_with(data: Buffer, open_table: Callable[[memoryview], Applier]) -> Any:
    """The same, where `open_table` knows what the payload refers to."""
    view = memoryview(data)
    return load_body(view[0], view[1:], open_table)


def _host_table(table: memoryview) -> Applier:
    with importing:
        from forkpool._shared.applier import Applier

    return Applier(pickle.loads(table), worker=False)


def load_body(flags: int, view: memoryview, open_table: Callable[[memoryview], Applier]) -> Any:
    """Unpickle what follows the head of a payload."""
    if not flags & RICH:
        return pickle.loads(view)
    with importing:
        from forkpool._shared.rebuild import global_ref

    table, body = split(view)
    with open_table(table) as applier:
        applier.apply_all()
        value = applier.load(body) if flags & POINTING else pickle.loads(body)
        return (global_ref(*value[:2]), *value[2:]) if flags & NAMED else value
