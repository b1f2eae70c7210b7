"""Apply the definitions of classes that a payload brings.

Runs in: worker (task thread) and host (any thread that decodes), as a part of an `Applier`.
Must not overwrite anything in the host, nor anything in a worker whose content the host has not changed since.
Hard part: order. Classes are finished in three rounds, each for all of them: bare, with methods, with objects, since an object
may be an instance of any of them, and who puts it into a set asks for its `__hash__`. A class is handed out unfinished to who
asks for it while it is made. And an attribute may hold a global that is being made just now, because this class was met in it
(`registry.plugins = [Plugin()]`, `Plugin.registry = registry`): then the class waits with its rest until the global is there.
Tests: tests/unit/test_payload_classes.py, test_payload_class_order.py
"""

from __future__ import annotations

import contextlib
import types
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from forkpool._shared import tracking
from forkpool._shared.pieces import InTheMaking, Pieces, noting
from forkpool._shared.rebuild_classes import remake, set_class_attributes
from forkpool._shared.tracking import Key

if TYPE_CHECKING:
    from forkpool._shared.applier import Applier

_MAKE = "\0make"  # stands, in keys of what a worker has received, for what a class is made of
_ASKS_WHETHER = {"hasattr", "getattr", "vars", "__dict__"}  # then it is not to be there at all


class ClassApplier:
    """Make the classes of one payload, or bring them up to date."""

    def __init__(self, applier: Applier, *, worker: bool) -> None:
        self._applier = applier
        self._worker = worker
        self._bare: list[_Definition] = []  # classes without attributes yet, bases first
        self._without_objects: dict[Key, _Definition] = {}
        self._waiting: dict[Key, list[_Definition]] = {}  # for a global or ring that is being made
        self._is_filling = False  # some class is being given what it needs
        self._is_finishing = False  # all have their methods: the objects are being made
        self._depth = 0  # how many classes are being made, each for the one before

    def finish_if_begun(self, key: Key) -> None:
        """Give a class its objects now if it is its turn at all."""
        if self._is_finishing and (definition := self._without_objects.pop(key, None)) is not None:
            self._finish(definition)

    def go_on_after(self, key: Key) -> None:
        """Go on with the classes that were waiting for a global."""
        for definition in self._waiting.pop(key, ()):
            if definition.kinds is None:
                self._give_methods(definition)
                self._fill_bare()
            else:
                self._finish(definition)

    def apply(self, entry: tuple[Any, ...]) -> None:
        """Apply the entry of a class."""
        key, _, digest, skeleton, state = entry
        self._applier.is_settled = False  # a class may be forgotten meanwhile
        uid = key[1]
        cls = tracking.class_of(uid)
        known = tracking.received.get(key)
        if cls is None and not self._worker:
            cls = tracking.adopt_by_name(uid)
        if cls is not None and (not self._worker or (known is not None and known[0] == digest)):
            return
        is_preloaded = known is None and cls is not None and tracking.preloaded_classes.get(uid) is cls
        if is_preloaded and is_what_host_holds(key, cls, digest):
            definition = _Definition(key, digest, cls, state)
            _note_preloaded(definition)
            self._keep(definition)
            return
        if cls is None:
            cls = self._make_bare(skeleton)
            tracking.track(cls, uid)
        elif self._worker and known is not None and tracking.received.get((*key, _MAKE), (None,))[0] != skeleton:
            remake(cls, *self._pieces(skeleton).load())
        if self._worker:
            tracking.received[key] = (b"", cls)
            tracking.received[(*key, _MAKE)] = (skeleton, cls)
        self._bare.append(_Definition(key, digest, cls, state))
        if not self._depth:
            self._fill_bare()

    def _make_bare(self, skeleton: bytes) -> Any:
        """Make a class; its bases stay bare too meanwhile, since their attributes may refer to this class."""
        self._depth += 1
        try:
            make, *args = self._pieces(skeleton).load()
            return make(*args)
        finally:
            self._depth -= 1

    def _fill_bare(self) -> None:
        """Give all bare classes what they need to have instances, then the objects. Re-entered for classes met meanwhile."""
        is_outermost, self._is_filling = not self._is_filling, True
        try:
            while self._bare:
                self._begin(self._bare.pop(0))
            if is_outermost:
                self._is_finishing = True
            while self._is_finishing and self._without_objects:
                self._finish(self._without_objects.pop(next(iter(self._without_objects))))
        finally:
            if is_outermost:
                self._is_filling = self._is_finishing = False

    def _begin(self, definition: _Definition) -> None:
        cls, key = definition.cls, definition.key
        for part, digest, data in definition.state:
            if self._is_known((*key, part), digest, cls):
                continue
            pieces = self._pieces(data)
            if part:
                held: set[Key] = set()
                with self._applier.noting_held(held):
                    attributes = pieces.load()
                tracking.note_held((*key, part), held)
                set_class_attributes(cls, attributes)
                self._note_attributes(definition, part, attributes)
                continue
            definition.methods = pieces.load()
            definition.pieces, definition.left = pieces, list(definition.methods)
        self._give_methods(definition)

    def _give_methods(self, definition: _Definition) -> None:
        if self._give(definition):
            self._without_objects[definition.key] = definition
            self._enter_name(definition.cls)

    def _give(self, definition: _Definition) -> bool:
        """Make and set the attributes of a step that are left. False: the next one has to wait."""
        while definition.left:
            pieces = definition.pieces
            assert pieces is not None
            what = f"attribute {definition.left[0]!r} of {definition.cls.__qualname__}" if self._worker else ""
            try:
                with noting(what), self._applier.noting_held(definition.held):
                    value = self._applier.make(pieces.load_or_again)
            except InTheMaking as exc:
                self._waiting.setdefault(exc.key, []).append(definition)
                return False
            set_class_attributes(definition.cls, {definition.left.pop(0): value})
        return True

    def _pieces(self, data: bytes) -> Pieces:
        return Pieces(data, self._applier.look_up)

    def _enter_name(self, cls: Any) -> None:
        """To make its objects may run its code, which may look up the class by its name."""
        key = ("g", f"m:{cls.__module__}", cls.__qualname__)
        try:
            self._applier.ensure(key)
            is_made = key not in self._applier.begun
        except InTheMaking:  # it is one of a ring
            is_made = False
        if self._worker and not is_made:
            namespace = self._applier.namespace(key[1])
            if key[2] not in namespace:
                namespace[key[2]] = cls  # until it is seen what else the name may stand for
                self._applier.stand_ins.add(key)

    def _finish(self, definition: _Definition) -> None:
        if definition.pieces is not None:
            if definition.kinds is None:
                definition.kinds = definition.pieces.load()
                definition.left = list(definition.kinds)
                self._hold_places(definition)
            if not self._give(definition):
                return
            self._note_attributes(definition, "", (*definition.methods, *definition.kinds))
        if self._worker:
            self._keep(definition)

    def _hold_places(self, definition: _Definition) -> None:
        """A `__new__` or a `get()` may want to look at an attribute that has yet to come."""
        for name, kind in (definition.kinds or {}).items():
            if name not in vars(definition.cls) and (kind is not None or _expects_none(definition.cls, name)):
                set_class_attributes(definition.cls, {name: kind and kind()})

    def _is_known(self, key: Key, digest: bytes, cls: Any) -> bool:
        known = tracking.received.get(key) if self._worker else None
        return known is not None and known[0] == digest and known[1] is cls

    def _note_attributes(self, definition: _Definition, part: str, names: Iterable[str]) -> None:
        if self._worker:
            tracking.attributes_received[(*definition.key, part)] = tuple(names)

    def _keep(self, definition: _Definition) -> None:
        key, cls = definition.key, definition.cls
        before = definition.attributes_before
        tracking.received[key] = (definition.digest, cls)
        for part, digest, _ in definition.state:
            tracking.received[(*key, part)] = (digest, cls)
        if definition.pieces is not None:
            tracking.note_held((*key, ""), definition.held)
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
        self.pieces: Pieces | None = None  # which has the rest of its code still to give
        self.held: set[Key] = set()  # the globals that its code holds
        self.left: list[str] = []  # the attributes of this step that it has yet to get
        self.kinds: dict[str, Any] | None = None  # the attributes that are objects; known when it has got its methods


def _expects_none(cls: Any, name: str) -> bool:
    """Whether code asks for the attribute before it has made what is to stand there: `if cls._only is None: ...`."""
    found = (cls.__new__, *vars(cls).values())
    methods = [value.__func__ if type(value) in (classmethod, staticmethod) else value for value in found]
    names = [method.__code__.co_names for method in methods if type(method) is types.FunctionType]
    return any(name in each for each in names) and all(_ASKS_WHETHER.isdisjoint(each) for each in names if name in each)


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


def is_what_host_holds(key: Key, value: Any, digest: bytes, *, ring: Key | None = None) -> bool:
    """Tell whether the host would send this digest if it held this object. If nobody can tell, what it sends counts."""
    from forkpool._shared.session import Session

    session = Session()
    try:
        if session.digest_of(key, value, ring=ring) != digest:
            return False
    except Exception:  # it cannot be pickled
        return False
    tracking.held.update(session.held_by(ring or key))
    return True
