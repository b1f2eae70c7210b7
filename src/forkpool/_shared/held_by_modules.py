"""Find the importable module that holds the very dict, list or set that a global is (`from helpers import cache`).

Runs in: host, while a call is pickled, and worker, where it is made. It only reads namespaces; it imports nothing in the host.
Hard part: the program and the functions of that module read and write one object, and have to in a worker. A copy would
make two of it, a mere name would lose what the program has put into it. So both travel: the name, and the content for it.
And the worker's module may be ahead: its initializer filled the container. So the first content is added to what is there.
Tests: tests/unit/test_payload_held_by_modules.py
"""

from __future__ import annotations

import importlib
import itertools
import sys
import types
from typing import Any

from forkpool._shared.by_value_classes import Call
from forkpool._shared.importable import is_importable, is_library
from forkpool._shared.plain import IMMUTABLE, all_plain
from forkpool._shared.tracking import globals_of

CONTAINERS = (dict, list, set)
MAX_LOOKED_THROUGH = 10_000  # arbitrary: what a longer one holds is sent by content
Place = tuple[str, str]  # module and name


class _Seen:
    """What was found in the modules that there were. Looking through a thousand takes some 10 ms; most programs do it once.

    A module that is reloaded makes its containers anew, which nothing tells of. So in the program's own modules a container is
    also looked for by its name.
    """

    def __init__(self, modules: dict[str, types.ModuleType]) -> None:
        self.count = len(modules)
        self.own: list[str] = []
        self.places: dict[int, list[Place]] = {}  # by the id of what is there, or was: to be looked at
        for module_name, module in modules.items():
            namespace = _namespace(module)
            if not is_library(module_name, namespace.get("__file__")):
                self.own.append(module_name)
            for name, value in namespace.copy().items():
                if type(value) in CONTAINERS and not name.startswith("__"):
                    self.places.setdefault(id(value), []).append((module_name, name))


_seen = _Seen({})  # replaced in one step, for any thread may read it


def place_of(container: Any, name: str) -> Place | None:
    """Return an importable module that holds a container, and the name there.

    Args:
        name: Of the global that it is in the program.
    """
    global _seen
    seen = _seen
    if seen.count != len(sys.modules):
        seen = _seen = _Seen(dict(sys.modules))
    for module_name, its_name in itertools.chain(seen.places.get(id(container), ()), ((own, name) for own in seen.own)):
        if _namespace(sys.modules.get(module_name)).get(its_name) is container and is_importable(module_name):
            return module_name, its_name
    return None


def _namespace(module: Any) -> dict[str, Any]:
    """Of what `sys.modules` holds, which need not be a module."""
    return globals_of(module) if issubclass(type(module), types.ModuleType) else {}


def name_of_module_that_has(value: Any, name: str) -> str | None:
    """Return an importable module that has this object under this name (`from registry import lock`)."""
    for module_name, module in sys.modules.copy().items():
        if _namespace(module).get(name) is value and is_importable(module_name):
            return module_name
    return None


def content_of(container: Any, module_name: str) -> Any:
    """Return what a container that a module holds is to hold in a worker: objects that its module has too are the worker's."""
    namespace = _namespace(sys.modules.get(module_name))
    objects = [(name, value) for name, value in namespace.copy().items() if type(value) not in IMMUTABLE]
    names = {id(value): name for name, value in objects if value is not container}
    values = list(container.values()) if type(container) is dict else container
    if type(container) is set or len(container) > MAX_LOOKED_THROUGH or names.keys().isdisjoint(map(id, values)):
        return container

    def sent(value: Any) -> Any:
        name = names.get(id(value))
        if name is None:
            return value
        return Call(fill, module_name, name, value) if type(value) in CONTAINERS else Call(own, module_name, name)

    sent_values = map(sent, values)
    return dict(zip(container, sent_values, strict=True)) if type(container) is dict else list(sent_values)


def fill(module_name: str, name: str, content: Any) -> Any:
    """Return the container that a module holds, with this content; the content if the module holds no such thing here.

    What the worker's own code put in before anything came stays (`initializer=helpers.load_cache`), as far as keys tell.
    """
    held: Any = vars(importlib.import_module(module_name)).get(name)
    if type(held) is not type(content) or held is content:
        return content
    is_first = (module_name, name) not in _filled
    _filled.add((module_name, name))
    if isinstance(held, list):
        begun = held[: len(content)]
        if not (is_first and all_plain(begun) and all_plain(content) and begun == content):
            held[:] = content
        return held
    if not is_first:
        held.clear()
    held.update(content)
    return held


def own(module_name: str, name: str) -> Any:
    """Return what a module has under a name."""
    return getattr(importlib.import_module(module_name), name)


_filled: set[Place] = set()  # in this worker
