"""Remember what has an identity across processes: classes by id, namespaces by key, entries by digest.

Runs in: host (any thread) and worker. One set of tables per process; every step is a single atomic dict or deque operation,
so that signal handlers and finalizers may re-enter at any point and no lock is needed.
Must not keep classes of the host alive for ever: strong references are bounded, the rest are weak.
Hard part: a class is told from its like by *id*, never by equality, since a metaclass may define `__eq__` or `__hash__`.

A namespace key is one of
    "m:name"   a module shipped by value (`__main__`, a notebook, a plugin)
    "r:name"   a module that the other side imports
    "a:..."    the globals of `exec` or of a doctest: known to no module, rebuilt under this key
A pool that preloads `__main__` has two makers of the same classes and globals: the host, and the program that ran in the fork
server. So a class of `__main__` is known there by its name ("main:Point"), on both sides; see `adopt_main`.
Tests: tests/unit/test_payload_by_value.py, tests/process/test_preload_main.py
"""

from __future__ import annotations

import importlib
import itertools
import os
import sys
import types
import weakref
from collections import deque
from collections.abc import Collection
from typing import Any

from forkpool._shared import at_end, clock
from forkpool._shared.importable import is_importable, module_of_globals

Key = tuple[str, ...]

KEPT_CLASSES = 4096  # arbitrary: local classes of tasks in flight must survive until their results are back
KEPT_NAMESPACES = 256  # arbitrary: a doctest or an `exec` has one each

_uid_by_id: dict[int, tuple[weakref.ref[Any], str]] = {}
_class_by_uid: weakref.WeakValueDictionary[str, Any] = weakref.WeakValueDictionary()
_kept_classes: deque[Any] = deque(maxlen=KEPT_CLASSES)
_anonymous_by_id: dict[int, tuple[str, dict[str, Any]]] = {}
_anonymous_by_key: dict[str, dict[str, Any]] = {}
_own_modules: dict[str, types.ModuleType] = {}  # that we have made; in a host, none that was there: see `at_end`
_counter = itertools.count()

# In a worker: key of an entry -> (digest as the host last sent it, object made from it).
received: dict[Key, tuple[bytes, Any]] = {}

# In a worker: key of a class and of one of its parts -> the attributes that came with it.
attributes_received: dict[Key, tuple[str, ...]] = {}

# In a worker: the rings among these, and which objects their globals are.
rings: dict[Key, dict[Key, Any]] = {}

# In a worker: key of an entry -> the globals and rings that what was made of it holds. A ring and its globals hold each other.
held: dict[Key, set[Key]] = {}

# In a host: key of the namespace of a module -> the names of its globals that some worker may have got.
names_sent: dict[str, set[str]] = {}

# In a worker whose fork server ran the program: what that left under each global name, and its classes by id.
preloaded: dict[str, Any] = {}
preloaded_classes: dict[str, Any] = {}

_MAIN_SPACES = ("m:__main__", "m:__mp_main__")
_MISSING = object()
_names_main = False  # in a host that has a pool which preloads `__main__`
_used_names: dict[str, Any] = {}  # ids by name that were given away: to the first class of that name, never again

_class_entries: dict[Key, list[Key]] = {}  # in a worker: the keys of a class and of its parts, oldest first


def keep_class_entry(key: Key, parts: list[Key]) -> None:
    """Bound what a worker remembers of local classes, of which each task may bring a new one.

    A class that is forgotten is only described anew when it comes again.
    """
    for gone in set(_class_entries.pop(key, ())).difference(parts):  # deleted in the host, which may set it again
        received.pop(gone, None)
        held.pop(gone, None)
        attributes_received.pop(gone, None)
    _class_entries[key] = parts
    if len(_class_entries) > KEPT_CLASSES:
        oldest = next(iter(_class_entries))
        for forgotten in (oldest, *_class_entries.pop(oldest)):
            received.pop(forgotten, None)
            held.pop(forgotten, None)
            attributes_received.pop(forgotten, None)


def keep_ring(ring: Key, digest: bytes, members: dict[Key, Any]) -> None:
    """In a worker: note the globals that hold each other."""
    received[ring] = digest, members
    rings[ring] = members
    held.setdefault(ring, set()).update(members)
    held.update({member: {ring} for member in members})


def note_held(key: Key, keys: set[Key]) -> None:
    """In a worker: note the globals that what was made of an entry holds."""
    if keys:
        held[key] = keys
    else:
        held.pop(key, None)


def forget_holders(changed: Collection[Key]) -> None:
    """In a worker: globals have become other objects. Who holds what they were is made anew when it comes again.

    The host may have back what it had, and so the digests that this worker knows: a change that it saw only a part of.
    """
    found = {*changed}
    pending = found
    while pending:
        pending = {holder for holder, keys in held.items() if holder not in found and not keys.isdisjoint(pending)}
        found |= pending
    for key in found:
        held.pop(key, None)
        rings.pop(key, None)
        for each in (key, key[:2]) if key[0] == "c" else (key,):
            if (known := received.get(each)) is not None:
                received[each] = b"", known[1]


def attributes_of(key: Key) -> set[str]:
    """In a worker: return the names of the attributes that came with a class."""
    return {name for part in _class_entries.get(key, ()) for name in attributes_received.get(part, ())}


def _new_uid() -> str:
    # The pid is read each time: workers are forks that share this module's state.
    return f"{os.getpid()}-{clock.now_ns()}-{next(_counter)}"


def uid_of(cls: Any) -> str:
    """Return the id under which other processes know this class; give it one if it has none."""
    known = _uid_by_id.get(id(cls))
    return known[1] if known is not None and known[0]() is cls else track(cls, _name_as_uid(cls) or _new_uid())


def track(cls: Any, uid: str) -> str:
    """Let `uid` mean `cls` from now on, unless another thread was first; return the id that counts."""
    key = id(cls)
    ours = (weakref.ref(cls, lambda dead: _forget(key, dead)), uid)
    _class_by_uid[uid] = cls
    known = _uid_by_id.setdefault(key, ours)
    if known[0]() is not cls:  # left behind by a class that is gone and lived at this address
        known = _uid_by_id[key] = ours
    _kept_classes.append(cls)
    return known[1]


def name_classes_of_main() -> None:
    """In a host: from now on classes of `__main__` get ids that a worker whose server ran the program knows already."""
    global _names_main
    _names_main = True


def is_in_main(obj: Any) -> bool:
    """Tell whether `__main__` has this very class or function under its qualified name."""
    return getattr(obj, "__module__", None) == "__main__" and _in_main(getattr(obj, "__qualname__", "")) is obj


def stands_in_its_module(cls: Any) -> bool:
    """Tell whether a class is found under its qualified name in a module that is loaded: no task made it."""
    found: Any = sys.modules.get(cls.__module__)
    for part in cls.__qualname__.split("."):
        found = getattr(found, "__dict__", {}).get(part)
    return found is cls


def _in_main(qualname: str) -> Any:
    found: Any = sys.modules.get("__main__")
    for part in qualname.split("."):
        found = getattr(found, "__dict__", {}).get(part)
    return found


def _name_as_uid(cls: Any) -> str | None:
    if not _names_main or not is_in_main(cls):
        return None
    uid = f"main:{cls.__qualname__}"
    return uid if _used_names.setdefault(uid, cls) is cls else None


def adopt_by_name(uid: str) -> Any:
    """In a host: return the class of `__main__` that an id by name means and track it, or None."""
    kind, _, qualname = uid.partition(":")
    cls = _in_main(qualname) if kind == "main" else None
    if not isinstance(cls, type):
        return None
    track(cls, uid)
    return cls


def adopt_main(module: types.ModuleType, classes: list[Any]) -> None:
    """In the fork server: the program ran in `module`, which is every worker's one namespace for `__main__` from now on."""
    _own_modules["__main__"] = _own_modules["__mp_main__"] = module
    preloaded.update(vars(module))
    for cls in classes:
        uid = f"main:{cls.__qualname__}"
        preloaded_classes[uid] = cls
        track(cls, uid)


def is_as_preloaded(space: str, name: str) -> bool:
    """Tell whether a global is what the program left there: nothing in this worker has assigned it since."""
    if name not in preloaded or space not in _MAIN_SPACES:
        return False
    return vars(_own_modules["__main__"]).get(name, _MISSING) is preloaded[name]


def _forget(key: int, dead: weakref.ref[Any]) -> None:
    known = _uid_by_id.get(key)
    if known is not None and known[0] is dead:
        _uid_by_id.pop(key, None)


def class_of(uid: str) -> Any:
    """Return the class known under `uid`, or None."""
    return _class_by_uid.get(uid)


def spaces_of_program(names: Collection[str | None]) -> list[str]:
    """Return the keys of modules that go by value: the program, those of these names, and those that no file is known of.

    To ask of each module whether it is importable would take 50 µs for each, the first time.
    """
    spaces = []
    for name, module in sys.modules.copy().items():
        if issubclass(type(module), types.ModuleType):
            namespace = globals_of(module)
            if name in ("__main__", *names) or namespace.get("__spec__") is None:
                spaces.append(key_of_globals(namespace))
    return [space for space in spaces if not space.startswith("r:")]


def globals_of(module: types.ModuleType) -> dict[str, Any]:
    """Return its namespace past `__getattribute__`, with which a module that is loaded when first used would be loaded."""
    namespace: dict[str, Any] = object.__getattribute__(module, "__dict__")
    return namespace


def key_of_globals(namespace: dict[str, Any]) -> str:
    """Return the key of the namespace of a function."""
    module = module_of_globals(namespace)
    if module is not None:
        return f"{'r' if is_importable(module.__name__) else 'm'}:{namespace['__name__']}"
    known = _anonymous_by_id.get(id(namespace))
    if known is None or known[1] is not namespace:
        known = (f"a:{namespace.get('__name__', '')}:{_new_uid()}", namespace)
        _remember_anonymous(*known)
    return known[0]


def _remember_anonymous(key: str, namespace: dict[str, Any]) -> None:
    while len(_anonymous_by_key) >= KEPT_NAMESPACES:
        oldest = next(iter(_anonymous_by_key), None)
        if oldest is not None:
            _anonymous_by_id.pop(id(_anonymous_by_key.pop(oldest, None)), None)
    _anonymous_by_key[key] = namespace
    _anonymous_by_id[id(namespace)] = (key, namespace)


def namespace_of(key: str, *, fresh: bool = False) -> dict[str, Any]:
    """Return the one namespace behind `key`, made when first asked for.

    Args:
        fresh: A worker passes True: its own `__main__` is ours, not the user's, so a module shipped by value
            starts empty, and takes the place in `sys.modules`.
    """
    kind, _, name = key.partition(":")
    if kind == "r":
        return importlib.import_module(name).__dict__
    if kind == "m":
        return module_by_value(name, fresh=fresh).__dict__
    namespace = _anonymous_by_key.get(key)
    if namespace is None:
        namespace = {"__name__": name.partition(":")[0], "__builtins__": __builtins__}
        _remember_anonymous(key, namespace)
    return namespace


def global_in(namespace: dict[str, Any], name: str) -> Any:
    """Return the global, or for a dotted name what lies in a class under it, unbound. Raises KeyError and TypeError."""
    first, *rest = name.split(".")
    found = namespace[first]
    for part in rest:
        found = vars(found)[part]
    return found


def module_by_value(name: str, *, fresh: bool = False) -> types.ModuleType:
    """Return the module that stands for the host's module `name`."""
    found = None if fresh else sys.modules.get(name)
    if found is not None:
        return found
    module = _own_modules.get(name)
    if module is None:
        module = types.ModuleType(name)
        module.__dict__["__builtins__"] = __builtins__
        _own_modules[name] = module
    sys.modules[name] = module
    if name == "__main__":
        sys.modules["__mp_main__"] = module  # so it is called by processes that multiprocessing has spawned
    return module


at_end.forget += [_kept_classes.clear, _anonymous_by_id.clear, _anonymous_by_key.clear, _used_names.clear, _own_modules.clear]
