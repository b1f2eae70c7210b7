"""Apply what a payload defines: classes, and globals of the modules that go by value.

Runs in: worker (task thread) and host (any thread that decodes).
Must not overwrite anything in the host, nor anything in a worker whose content the host has not changed since.
Hard part: order. An entry may need another one that comes later (a base class, a method's global), in cycles too. So entries
are applied on demand: `rebuild.class_ref` and `rebuild.global_ref` apply what they name first, and hand out the unfinished
object when asked for one that is being made. Classes are finished in three rounds, each for all of them: bare, with methods,
with objects, since an object may be an instance of any of them, and who puts it into a set asks for its `__hash__`.
Tests: tests/unit/test_payload_by_value.py, test_payload_classes.py, test_payload_class_order.py
"""

from __future__ import annotations

import contextlib
import io
import pickle
import sys
import threading
from collections.abc import Iterable
from typing import Any

from forkpool._shared import tracking
from forkpool._shared.rebuild_classes import remake, set_class_attributes
from forkpool._shared.tracking import Key

_MAKE = "\0make"  # stands, in keys of what a worker has received, for what a class is made of
GONE = b""  # stands where the value of a global would: the host has deleted it

_ASKS_WHETHER = {"hasattr", "getattr", "vars", "__dict__"}  # then it is not to be there at all

_active = threading.local()


class Round:
    """When an entry is applied. To make an instance may run code of its class, and that may look up any global."""

    FREE, CODE, VALUES = range(3)  # values that hold no classes; functions, modules and classes; other values


class Applier:
    """Apply the entries of one payload, each at most once, in an order that its references ask for."""

    def __init__(self, entries: list[tuple[Any, ...]], *, worker: bool) -> None:
        self._pending = {entry[0]: entry for entry in entries}
        self._worker = worker
        self.made: dict[Key, Any] = {}
        self._bare: list[_Definition] = []  # classes without attributes yet, bases first
        self._without_objects: dict[Key, _Definition] = {}
        self._is_filling = False  # some class is being given what it needs
        self._is_finishing = False  # all have their methods: the objects are being made
        self._begun: set[Key] = set()  # globals that are being made
        self._stand_ins: set[Key] = set()  # globals that hold their class, for as long as that has yet to be made
        self.is_settled = True  # nothing was new so far
        self._depth = 0  # how many classes are being made, each for the one before

    def __enter__(self) -> Applier:
        self._outer = getattr(_active, "applier", None)
        _active.applier = self
        return self

    def __exit__(self, *exc_info: object) -> None:
        _active.applier = self._outer

    def apply_all(self) -> None:
        """Apply all, in rounds; of the values, the most deeply needed ones (found last) first."""
        rounds: dict[int, list[Key]] = {Round.FREE: [], Round.CODE: [], Round.VALUES: []}
        for key, entry in self._pending.items():
            rounds[entry[1]].append(key)
        for key in (*rounds[Round.FREE], *rounds[Round.CODE], *reversed(rounds[Round.VALUES])):
            self.ensure(key)

    def ensure(self, key: Key) -> None:
        """Apply the entry behind `key` unless that was done or is going on."""
        entry = self._pending.pop(key, None)
        if entry is None:
            if self._is_finishing and (definition := self._without_objects.pop(key, None)) is not None:
                self._finish_class(definition)
            return
        if key[0] == "c":
            self._apply_class(entry)
        else:
            self._begun.add(key)
            self._apply_global(entry)
            self._begun.discard(key)

    def look_up(self, key: Key) -> Any:
        """Return the object that a key of a global means, applied or not."""
        self.ensure(key)
        if key in self.made:
            return self.made[key]
        known = tracking.received.get(key)
        return known[1] if known is not None else tracking.global_in(self.namespace(key[1]), key[2])

    def namespace(self, key: str) -> dict[str, Any]:
        return tracking.namespace_of(key, fresh=self._worker)

    def _apply_global(self, entry: tuple[Any, ...]) -> None:
        key, _, digest, data = entry
        _, space, name = key
        namespace = self.namespace(space)
        if not self._worker:
            if name not in namespace and "." not in name:
                namespace[name] = self.made[key] = interned(_loads(data))
            return
        known = tracking.received.get(key)
        if known is not None and known[0] == digest:
            return
        if data == GONE and known is None:
            return  # what there may be under that name was made by the worker's own code
        self.is_settled = False
        if data == GONE:
            namespace.pop(name, None)
            del tracking.received[key]
            return
        if "." in name:  # of a class, which gets it when its attributes are set
            tracking.received[key] = (digest, _attribute_there(namespace, name, _load_global(key, data)))
            return
        as_preloaded = tracking.is_as_preloaded(space, name)
        if as_preloaded and known is None and _own_digest(key, namespace[name]) == digest:
            tracking.received[key] = (digest, namespace[name])
            return
        value = interned(_load_global(key, data))
        # A name that the worker's own code made before the host ever sent it (`globals()["G"] = 1` in an initializer) stays.
        is_free = name not in namespace or key in self._stand_ins
        if known is not None or as_preloaded or is_free or name.startswith("__"):
            namespace[name] = value
        tracking.received[key] = (digest, value)

    def _apply_class(self, entry: tuple[Any, ...]) -> None:
        key, _, digest, skeleton, state = entry
        self.is_settled = False  # a class may be forgotten meanwhile
        uid = key[1]
        cls = tracking.class_of(uid)
        known = tracking.received.get(key)
        if cls is None and not self._worker:
            cls = tracking.adopt_by_name(uid)
        if cls is not None and (not self._worker or (known is not None and known[0] == digest)):
            return
        if known is None and cls is not None and tracking.preloaded_classes.get(uid) is cls and _own_digest(key, cls) == digest:
            definition = _Definition(key, digest, cls, state)
            _note_preloaded(definition)
            self._keep_class(definition)
            return
        if cls is None:
            cls = self._make_bare(skeleton)
            tracking.track(cls, uid)
        elif self._worker and known is not None and tracking.received.get((*key, _MAKE), (None,))[0] != skeleton:
            remake(cls, *_loads(skeleton))
        if self._worker:
            tracking.received[key] = (b"", cls)
            tracking.received[(*key, _MAKE)] = (skeleton, cls)
        self._bare.append(_Definition(key, digest, cls, state))
        if not self._depth:
            self._fill_bare_classes()

    def _make_bare(self, skeleton: bytes) -> Any:
        """Make a class; its bases stay bare too meanwhile, since their attributes may refer to this class."""
        self._depth += 1
        try:
            make, *args = _loads(skeleton)
            return make(*args)
        finally:
            self._depth -= 1

    def _fill_bare_classes(self) -> None:
        """Give all bare classes what they need to have instances, then the objects. Re-entered for classes met meanwhile."""
        is_outermost, self._is_filling = not self._is_filling, True
        try:
            while self._bare:
                self._begin_class(self._bare.pop(0))
            if is_outermost:
                self._is_finishing = True
            while self._is_finishing and self._without_objects:
                self._finish_class(self._without_objects.pop(next(iter(self._without_objects))))
        finally:
            if is_outermost:
                self._is_filling = self._is_finishing = False

    def _begin_class(self, definition: _Definition) -> None:
        cls, key = definition.cls, definition.key
        for part, digest, data in definition.state:
            if self._is_known((*key, part), digest, cls):
                continue
            pieces = _Unpickler(io.BytesIO(data))
            if part:
                set_class_attributes(cls, attributes := pieces.load())
                self._note_attributes(definition, part, attributes)
                continue
            definition.methods, definition.pieces = pieces.load(), pieces
            for name in definition.methods:
                set_class_attributes(cls, {name: pieces.load()})
        self._without_objects[definition.key] = definition
        self._enter_name(cls)

    def _enter_name(self, cls: Any) -> None:
        """To make its objects may run its code, which may look up the class by its name."""
        key = ("g", f"m:{cls.__module__}", cls.__qualname__)
        self.ensure(key)
        if self._worker and key in self._begun:
            namespace = self.namespace(key[1])
            if key[2] not in namespace:
                namespace[key[2]] = cls  # until it is seen what else the name may stand for
                self._stand_ins.add(key)

    def _finish_class(self, definition: _Definition) -> None:
        if definition.pieces is not None:
            kinds = definition.pieces.load()
            for name, kind in kinds.items():
                if name not in vars(definition.cls) and (kind is not None or _expects_none(definition.cls, name)):
                    # A `__new__` may want to look at it.
                    set_class_attributes(definition.cls, {name: kind and kind()})
            for name in kinds:
                set_class_attributes(definition.cls, {name: self._load_attribute(definition, name)})
            self._note_attributes(definition, "", (*definition.methods, *kinds))
        if self._worker:
            self._keep_class(definition)

    def _load_attribute(self, definition: _Definition, name: str) -> Any:
        assert definition.pieces is not None
        if not self._worker:
            return definition.pieces.load()
        return _load_named(definition.pieces, f"attribute {name!r} of {definition.cls.__qualname__}")

    def _is_known(self, key: Key, digest: bytes, cls: Any) -> bool:
        known = tracking.received.get(key) if self._worker else None
        return known is not None and known[0] == digest and known[1] is cls

    def _note_attributes(self, definition: _Definition, part: str, names: Iterable[str]) -> None:
        if self._worker:
            tracking.attributes_received[(*definition.key, part)] = tuple(names)

    def _keep_class(self, definition: _Definition) -> None:
        key, cls = definition.key, definition.cls
        before = definition.attributes_before
        tracking.received[key] = (definition.digest, cls)
        for part, digest, _ in definition.state:
            tracking.received[(*key, part)] = (digest, cls)
        tracking.keep_class_entry(key, [(*key, _MAKE), *((*key, part) for part, _, _ in definition.state)])
        _delete_attributes(cls, before - tracking.attributes_of(key))


class _Definition:
    """What a class is to get."""

    def __init__(self, key: Key, digest: bytes, cls: Any, state: list[tuple[str, bytes, bytes]]) -> None:
        self.key = key
        self.digest = digest
        self.cls = cls
        self.state = state
        self.attributes_before = tracking.attributes_of(key)  # those that came earlier
        self.methods: tuple[str, ...] = ()  # that it has got
        self.pieces: _Unpickler | None = None  # which has the objects still to give


def _expects_none(cls: Any, name: str) -> bool:
    """Whether `__new__` asks for the attribute before it has made what is to stand there: `if cls._only is None: ...`."""
    code = getattr(cls.__new__, "__code__", None)
    return code is not None and name in code.co_names and _ASKS_WHETHER.isdisjoint(code.co_names)


def _attribute_there(namespace: dict[str, Any], name: str, sent: Any) -> Any:
    """Return the `object()` that a class has already, if the program that was preloaded made it."""
    try:
        found = tracking.global_in(namespace, name)
    except (KeyError, TypeError):
        return sent
    return found if type(found) is object else sent


def _delete_attributes(cls: Any, names: set[str]) -> None:
    """Delete what the host has deleted; what the worker's own code has set beside it stays."""
    for name in names:
        if name in vars(cls):
            with contextlib.suppress(AttributeError, TypeError):  # `__doc__` and its like can only be set
                type.__delattr__(cls, name)


def _note_preloaded(definition: _Definition) -> None:
    """A class that was preloaded has the attributes that came, which are not looked at."""
    from forkpool._shared.by_value_classes import names_of_code

    for part, _, _ in definition.state:
        names = (part,) if part else names_of_code(definition.cls)
        tracking.attributes_received[(*definition.key, part)] = names


def _own_digest(key: Key, value: Any) -> bytes | None:
    """What the host would send as digest if it held this object; None: it cannot be told, so the host's counts."""
    from forkpool._shared.session import Session

    try:
        return Session().digest_of(key, value)
    except Exception:  # it cannot be pickled
        return None


class _Unpickler(pickle.Unpickler):
    def persistent_load(self, pid: Any) -> Any:
        return active_applier().look_up(("g", *pid))


def _loads(data: bytes) -> Any:
    return _Unpickler(io.BytesIO(data)).load()


def _load_global(key: Key, data: bytes) -> Any:
    return _load_named(_Unpickler(io.BytesIO(data)), f"global {key[2]!r} of {key[1].partition(':')[2]}")


def _load_named(pickled: _Unpickler, what: str) -> Any:
    """In a worker: unpickle a part. An error that its making raises says nothing of where it comes from: a note does."""
    try:
        return pickled.load()
    except Exception as exc:
        with contextlib.suppress(Exception):  # no descriptor or memory to import them
            from forkpool._shared.advice import NOTE_INTRO, note_of
            from forkpool._shared.notes import add_note

            if not any(str(note).startswith(NOTE_INTRO) for note in getattr(exc, "__notes__", ())):  # one that this one needs
                add_note(exc, note_of(what))
        raise


def active_applier() -> Applier:
    """Return the one whose payload this thread unpickles."""
    applier = getattr(_active, "applier", None)
    return applier if applier is not None else Applier([], worker=False)


def interned(value: Any) -> Any:
    """A default that is a global's string is compared with it by identity (`MISSING = "<missing>"`): equal ones become one."""
    return sys.intern(value) if type(value) is str else value
