"""Say whether a fresh interpreter would find the same module, class or function by its name.

Runs in: host (any thread that submits) and worker (when it encodes results).
Must not import anything that is not imported yet, and must not call user code besides import finders.
Hard part: `sys.modules` proves nothing. A plugin loader, pytest's importlib mode or a notebook put modules there that no
other process can import, so the verdict asks the finders that every interpreter has, and compares the origin.
It is given once per module object, and taken back when `sys.path` or the cwd has changed and another file of that name comes
first now. One that is found no more stays importable: what was sent by its name before must not become another thing.
A module that is being imported is not importable: a worker that imported it would do once more what this import does just now,
without end if that is to use a pool. It gets a verdict when it is there.
Tests: tests/unit/test_payload_importable.py
"""

from __future__ import annotations

import os
import sys
import types
from importlib.machinery import BuiltinImporter, FrozenImporter, ModuleSpec, PathFinder
from typing import Any

from forkpool._shared import at_end, import_path

BY_NAME_ONLY = (
    "and serializer='pickle' ships nothing by value; use serializer='auto', or move it to the top level of a module that "
    "workers can import"
)
NEVER_BY_REFERENCE = frozenset({"__main__", "__mp_main__"})

# name -> (module object, verdict). The object is compared, so that a replaced module gets a verdict of its own.
_verdicts: dict[str, tuple[Any, bool]] = {
    "builtins": (sys.modules["builtins"], True),
    "sys": (sys, True),
}
_earlier: dict[str, Any] = {}  # name -> module object that was importable before the path changed


def is_importable(name: str | None) -> bool:
    """Tell whether `import name` in a fresh interpreter with this `sys.path` gives the module that we have."""
    if name is None:
        return False
    module = sys.modules.get(name)
    known = _verdicts.get(name)
    if known is not None and known[0] is module:
        return known[1]
    if module is None or name in NEVER_BY_REFERENCE:
        return False
    if _is_being_imported(name):
        return False
    judged = _would_be_found(name, module)
    verdict = judged if judged is not None else _earlier.get(name) is module
    _verdicts[name] = (module, verdict)
    return verdict


def _doubt_all() -> None:
    """Ask again, for each module that is importable, whether it still is. What goes by value goes on to do so."""
    for name, known in _verdicts.copy().items():
        if known[1]:
            _earlier[name] = known[0]
            _verdicts.pop(name, None)


import_path.when_changed.append(_doubt_all)
at_end.forget += [_verdicts.clear, _earlier.clear]


def _is_being_imported(name: str) -> bool:
    """Tell whether the code of a module, or of a package that it is in, has not come to its end."""
    while name:
        spec = getattr(sys.modules.get(name), "__spec__", None)
        if getattr(spec, "_initializing", False):
            return True
        name = name.rpartition(".")[0]
    return False


def _would_be_found(name: str, module: Any) -> bool | None:
    """None: nothing of that name would be found."""
    if name in sys.builtin_module_names:
        return True
    parent, _, leaf = name.rpartition(".")
    if parent and not is_importable(parent):
        return False
    if parent and _is_alias(name, module):
        return True
    try:
        found = _find_spec(name, getattr(sys.modules[parent], "__path__", None) if parent else None)
    except Exception:
        found = None  # a finder of somebody else that cannot cope: by value is the safe answer
    if found is None:
        # `os.path` is an attribute of a module that is no package: whoever imports the parent has it.
        return True if parent and not hasattr(sys.modules[parent], "__path__") and hasattr(sys.modules[parent], leaf) else None
    if not _same_origin(found, module):
        return False
    if not parent:
        import_path.keep(map(os.path.dirname, _own_places(found)))
    return True


def is_library(name: str, file: object) -> bool:
    """Tell whether a module with this name and file is installed, or of the standard library: nobody's own program."""
    is_installed = isinstance(file, str) and not _INSTALLED.isdisjoint(file.split(os.sep))
    return is_installed or name.partition(".")[0] in sys.stdlib_module_names


_INSTALLED = frozenset({"site-packages", "dist-packages"})


def _own_places(found: ModuleSpec) -> list[str]:
    """The file of a module, or the folders of a package."""
    folders = found.submodule_search_locations
    return [found.origin or ""] if folders is None else list(folders)


def _is_alias(name: str, module: Any) -> bool:
    """Tell whether this is another importable module, which its parent entered under this name (`collections.abc`, 3.13)."""
    own_name = getattr(getattr(module, "__spec__", None), "name", name)
    return own_name != name and sys.modules.get(own_name) is module and is_importable(own_name)


def _find_spec(name: str, path: Any) -> ModuleSpec | None:
    """Find a module as a worker would.

    Args:
        path: Of the package that it is in; None: it is in none, and found on the import path.
    """
    finders: tuple[Any, ...] = (BuiltinImporter, FrozenImporter, PathFinder)
    for finder in (*finders, *filter(_is_editable_finder, sys.meta_path)):
        where = import_path.look().path if path is None and finder is PathFinder else path
        spec: ModuleSpec | None = finder.find_spec(name, where)
        if spec is not None:
            return spec
    return None


def _is_editable_finder(finder: Any) -> bool:
    """Recognise what `pip install -e` puts on `sys.meta_path` from a .pth file: a fresh interpreter has it as well."""
    kind = finder if isinstance(finder, type) else type(finder)
    return "editable" in f"{kind.__module__}.{kind.__qualname__}".lower()


def _same_origin(found: ModuleSpec, module: Any) -> bool:
    if found.origin in ("built-in", "frozen"):
        return True
    spec = getattr(module, "__spec__", None)
    ours = getattr(spec, "origin", None) or getattr(module, "__file__", None)
    if found.origin is None or ours is None:  # namespace package: only its search path tells
        return found.origin is ours and _locations(found) == _locations(spec or module)
    return bool(found.origin == ours) or os.path.realpath(found.origin) == os.path.realpath(ours)


def _locations(holder: Any) -> list[str]:
    return sorted(getattr(holder, "submodule_search_locations", None) or getattr(holder, "__path__", None) or ())


def resolves(obj: Any, module_name: str | None, qualname: str | None) -> bool:
    """Tell whether the dotted `qualname` in the importable module `module_name` is this very object."""
    if not qualname or not is_importable(module_name):
        return False
    found: Any = sys.modules[module_name]  # type: ignore[index]
    try:
        for part in qualname.split("."):
            found = getattr(found, part)
    except Exception:  # a module's __getattr__ may raise what it likes
        return False
    return found is obj


def by_reference(obj: Any) -> bool:
    """Tell whether this class or function may travel as a name."""
    return resolves(obj, getattr(obj, "__module__", None), getattr(obj, "__qualname__", None))


def why_not_by_name(obj: Any) -> str:
    """Why a class or function is none that may travel as a name."""
    if not is_importable(obj.__module__):
        return f"is of the module {obj.__module__!r}, which workers cannot import"
    return f"is not what workers find as {obj.__qualname__!r} in the module {obj.__module__!r}"


def module_of_globals(namespace: dict[str, Any]) -> types.ModuleType | None:
    """Return the module in `sys.modules` whose namespace this is, if there is one."""
    name = namespace.get("__name__")
    module = sys.modules.get(name) if isinstance(name, str) else None
    return module if getattr(module, "__dict__", None) is namespace else None
