"""Apply what a payload defines: classes, and globals of the modules that go by value.

Runs in: worker (task thread) and host (any thread that decodes).
Must not overwrite anything in the host, nor anything in a worker whose content the host has not changed since.
Hard part: order. An entry may need another one that comes later (a base class, a method's global), in cycles too. So entries
are applied on demand: `rebuild.class_ref` and `rebuild.global_ref` apply what they name first. A class that is being made is
handed out unfinished. A global cannot be, before it is made: then the attribute that is to hold it waits (`class_applier`).
Globals that hold each other are made at once, as a ring.
Tests: tests/unit/test_payload_by_value.py, test_payload_globals.py, test_payload_rings.py
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

from forkpool._shared import tracking
from forkpool._shared.class_applier import ClassApplier, is_what_host_holds
from forkpool._shared.entries import GONE, Round
from forkpool._shared.not_sent import NotSent
from forkpool._shared.pieces import InTheMaking, Pieces, noting
from forkpool._shared.tracking import Key

_active = threading.local()


class Applier:
    """Apply the entries of one payload, each at most once, in an order that its references ask for."""

    def __init__(self, entries: list[tuple[Any, ...]], *, worker: bool) -> None:
        self._pending = {entry[0]: entry for entry in entries}
        self._worker = worker
        self.made: dict[Key, Any] = {}
        self.begun: set[Key] = set()  # globals and rings that are being made
        self.stand_ins: set[Key] = set()  # globals that hold their class, for as long as that has yet to be made
        self.is_settled = True  # nothing was new so far
        self._holders: list[set[Key]] = []  # of what is being made, the innermost last: the globals that it holds
        self._classes = ClassApplier(self, worker=worker)

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
            self._classes.finish_if_begun(key)
            return
        if key[0] == "c":
            self._classes.apply(entry)
            return
        self.begun.add(key)
        try:
            (self._apply_ring if key[0] == "ring" else self._apply_global)(entry)
        except InTheMaking:
            self._pending[key] = entry
            raise
        finally:
            self.begun.discard(key)
        self._classes.go_on_after(key)

    def look_up(self, key: Key) -> Any:
        """Return the object that a key of a global means, applied or not."""
        self._require(key)
        if key in self.made:
            return self.made[key]
        known = tracking.received.get(key)
        return known[1] if known is not None else tracking.global_in(self.namespace(key[1]), key[2])

    def _require(self, key: Key) -> None:
        """Have a global or ring made for what is being made, which holds it then."""
        self.ensure(key)
        if key in self.begun:
            raise InTheMaking(key)
        if self._holders:
            self._holders[-1].add(key)

    def load(self, data: Any) -> Any:
        """Unpickle what points to globals."""
        return Pieces(data, self.look_up).load()

    @contextlib.contextmanager
    def noting_held(self, held: set[Key]) -> Iterator[None]:
        """While something is made: enter into `held` which globals it holds."""
        self._holders.append(held)
        try:
            yield
        finally:
            self._holders.pop()

    def member_of(self, ring: Key, position: int) -> Any:
        """Return one of the globals that hold each other."""
        self._require(ring)
        return list(tracking.rings[ring].values())[position]

    def namespace(self, key: str) -> dict[str, Any]:
        return tracking.namespace_of(key, fresh=self._worker)

    def _apply_global(self, entry: tuple[Any, ...]) -> None:
        key, _, digest, data = entry
        _, space, name = key
        namespace = self.namespace(space)
        if not self._worker:
            if name not in namespace and "." not in name:
                namespace[name] = self.made[key] = interned(self.load(data))
            return
        known = tracking.received.get(key)
        if known is not None and known[0] == digest:
            return
        if data == GONE and known is None:
            return  # what there may be under that name was made by the worker's own code
        self.is_settled = False
        if data == GONE:
            namespace.pop(name, None)
            tracking.forget_holders([key])
            del tracking.received[key]
            return
        if "." in name:  # of a class, which gets it when its attributes are set
            tracking.received[key] = (digest, _attribute_there(namespace, name, self._load(key, data)))
            return
        as_preloaded = tracking.is_as_preloaded(space, name)
        if as_preloaded and known is None and is_what_host_holds(key, namespace[name], digest):
            tracking.received[key] = (digest, namespace[name])
            return
        held: set[Key] = set()
        with self.noting_held(held):
            value = interned(self._load(key, data))
        if not any(key in tracking.rings.get(ring, ()) for ring in held):  # else all that was done with its ring
            if known is not None:
                tracking.forget_holders([key])
            tracking.note_held(key, held)
        self._set_global(key, digest, value)

    def _set_global(self, key: Key, digest: bytes, value: Any) -> None:
        _, space, name = key
        namespace, known = self.namespace(space), tracking.received.get(key)
        # A name that the worker's own code made before the host ever sent it (`globals()["G"] = 1` in an initializer) stays.
        is_free = name not in namespace or key in self.stand_ins or tracking.is_as_preloaded(space, name)
        is_own = type(value) is NotSent and name in namespace and (known is None or namespace[name] is not known[1])
        if not is_own and (known is not None or is_free or name.startswith("__")):
            namespace[name] = value
        tracking.received[key] = (digest, value)

    def _load(self, key: Key, data: bytes) -> Any:
        with noting(_what(*key[1:])):
            return self.make(lambda: self.load(data))

    def make(self, load: Callable[[], Any]) -> Any:
        """Return what `load` makes. If code that runs then misses a global which is still to come, that comes first."""
        while True:
            try:
                return load()
            except NameError as exc:
                missing = [key for key in self._pending if key[0] == "g" and key[2] == exc.name]
                if not missing:
                    raise
            for key in missing:
                self.ensure(key)

    def _apply_ring(self, entry: tuple[Any, ...]) -> None:
        """Make the globals that hold each other, and give them their names."""
        key, _, digest, data = entry
        known = tracking.received.get(key)
        if known is not None and known[0] == digest:
            return
        self.is_settled = False
        held: set[Key] = set()
        pieces = Pieces(data, self.look_up)
        members: list[Key] = [("g", *names.split("\0")) for names in pieces.load()]
        made = self._preloaded_ring(key, members, digest) if known is None else None
        if made is None:
            made = {}
            for member in members:
                with noting(_what(*member[1:])), self.noting_held(held):
                    made[member] = self.make(pieces.load_or_again)
        if known is None:
            held |= tracking.held.get(key, set())  # of what was preloaded
        tracking.forget_holders({*members, *tracking.rings.get(key, ())})
        tracking.note_held(key, held)
        tracking.keep_ring(key, digest, made)
        for member, value in made.items():
            if (own := self._pending.pop(member, None)) is not None:
                self._set_global(member, own[2], value)

    def _preloaded_ring(self, ring: Key, members: list[Key], digest: bytes) -> dict[Key, Any] | None:
        """Return what the program left there, if that is what the host holds."""
        if not all(tracking.is_as_preloaded(*member[1:]) for member in members):
            return None
        there = {member: self.namespace(member[1])[member[2]] for member in members}
        return there if is_what_host_holds(members[0], there[members[0]], digest, ring=ring) else None


def _attribute_there(namespace: dict[str, Any], name: str, sent: Any) -> Any:
    """Return the `object()` that a class has already, if the program that was preloaded made it."""
    try:
        found = tracking.global_in(namespace, name)
    except (KeyError, TypeError):
        return sent
    return found if type(found) is object else sent


def _what(space: str, name: str) -> str:
    return f"global {name!r} of {space.partition(':')[2]}"


def active_applier() -> Applier:
    """Return the one whose payload this thread unpickles."""
    applier = getattr(_active, "applier", None)
    return applier if applier is not None else Applier([], worker=False)


def interned(value: Any) -> Any:
    """A default that is a global's string is compared with it by identity (`MISSING = "<missing>"`): equal ones become one."""
    return sys.intern(value) if type(value) is str else value
