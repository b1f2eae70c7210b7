"""Collect what one call needs besides itself: the definitions of classes and the globals of functions, as a table of entries.

Runs in: host (caller's thread, in submit; one session per call) and worker (one session per result).
Must not keep anything beyond the call: what the receiver has is its own business, it compares digests.
Hard part: identity between globals (`svc.cache is cache`). An entry may point to another one instead of holding a copy. The
digest of an entry then covers the digests of all that it points to, or a change of `cache` would leave `svc` with the old one.
And pointers never form a circle: the globals in one are an entry together, a ring, and their own entries point to their places
in it. See `rings`.
And what is needed? A class goes with all that it has and all that its methods name. If some of that cannot be pickled, all is
made anew twice: first what is needed for sure, to see whether it is that, and then all, with stand-ins (see `_Mode`).
Tests: tests/unit/test_payload_by_value.py, test_payload_globals.py, test_payload_rings.py
"""

from __future__ import annotations

import enum
import io
import pickle
import sys
import types
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from forkpool._shared import by_value_classes, explain, held_by_modules, rebuild, tracking
from forkpool._shared.by_value import (
    ByValuePickler,
    PreloadedStandardPickler,
    SharingPickler,
    StandardPickler,
    attributes_of,
    global_name,
    submodules_of,
)
from forkpool._shared.changed_meanwhile import is_change
from forkpool._shared.code_names import CodeNames, names_of
from forkpool._shared.entries import GONE, Draft, Entry, EntryError, Roots, Round, Table
from forkpool._shared.homes import Home, Homes, defaults_of, is_bare
from forkpool._shared.importable import is_importable
from forkpool._shared.lookups import functions_called, globals_set_by, looked_up_by, named_by_annotations, subclasses_asked_for
from forkpool._shared.mp_support import is_unshared
from forkpool._shared.not_sent import NotSent
from forkpool._shared.plain import IMMUTABLE, all_plain
from forkpool._shared.rings import find_rings
from forkpool._shared.tracking import Key

MAX_SHARING = 10_000  # arbitrary: a longer list or dict is looked through for other globals, but not what its items hold


class _Mode(enum.Enum):
    """What the table is to hold."""

    ALL = "all that the call may use; what cannot be pickled is an error"
    SURE = "what it uses for sure: not what the methods name that it may never call. To see whether that can be pickled"
    LACKING = "all, with stand-ins for what cannot be pickled"


class Session:
    """Everything that one call needs: its body and the table of entries."""

    by_value = True  # functions and classes travel also where a worker could not look them up

    def __init__(self) -> None:
        self._entries = Table()
        self._queue: deque[tuple[Key, Any]] = deque()
        self._shared: dict[str, dict[int, str]] = {}
        self._cells: dict[str, dict[int, tuple[str, int]]] = {}
        self.homes = Homes()
        self._optional: dict[Key, Any] = {}  # what nothing but a string names: left out if it cannot be pickled
        self._tried: set[Key] = set()  # of these
        self._optional_now: Key | None = None  # which of these is being tried
        self._mode = _Mode.ALL
        self._called: list[Any] = []  # callables that the task calls for sure
        self._attributes_used: set[str] = set()  # names that code uses which is needed for sure
        self._attributes_lacking: list[tuple[Key, Any]] = []  # of classes that are needed for sure, which may not use them
        self.initializer: Any = None  # of the pool: what it sets each worker has, so it is left out if it cannot be pickled
        self.points = False  # the body is an initializer's: what is a global's value is to be that global in the worker
        self.quieten: Callable[[Any], Any] = lambda value: value  # what is pickled of a global; see `changed_meanwhile`

    def anew(self) -> Session:
        """Return one like this that has encoded nothing."""
        session = type(self)()
        session.initializer, session.points = self.initializer, self.points
        return session

    def encode_call(self, fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[bytes, bool]:
        """Pickle a call; return whether it is the short form (namespace, name, args, kwargs)."""
        self._called.append(fn)
        if self.points:
            return self._encode_pointing((fn, args, kwargs)), False
        named = global_name(fn) if type(fn) is types.FunctionType and not self.homes.has_own_state(fn) else None
        if named is None or not (all_plain(args) and all_plain(kwargs.values())):
            return self.encode((fn, args, kwargs)), False
        self.need_global(*named, fn)
        self._make_table()
        return pickle.dumps((*named, args, kwargs), 5), True

    def encode(self, obj: Any) -> bytes:
        """Pickle `obj`; afterwards `table()` holds what it refers to."""
        body = self.encode_alone(obj)
        self._make_table()
        return body

    def _encode_pointing(self, call: tuple[Any, ...]) -> bytes:
        """Pickle an initializer's call, with pointers to the globals of the program and of the initializer's module."""
        function = getattr(call[0], "func", call[0])  # of a partial
        owner = type(getattr(function, "__self__", function))
        spaces = tracking.spaces_of_program([getattr(function, "__module__", None), owner.__module__])
        with io.BytesIO() as file:
            SharingPickler(file, self, {}, spaces).dump(call)
            body = file.getvalue()
        self._make_table()
        return body

    def encode_alone(self, obj: Any) -> bytes:
        """Pickle `obj` without what it refers to."""
        with io.BytesIO() as file:
            ByValuePickler(file, self).dump(obj)
            return file.getvalue()

    def _make_table(self) -> None:
        """Make all that the body refers to; with stand-ins, if what is needed for sure needs none."""
        begun = self._entries.copy(), self._queue.copy(), self._optional.copy(), self._called.copy()
        try:
            self._make_entries()
            return
        except Exception as exc:
            if not self._may_lack(exc):
                raise
        self._begin_anew(_Mode.SURE, *begun)
        self._make_entries()
        self._check_attributes()
        self._begin_anew(_Mode.LACKING, *begun)
        self._make_entries()

    def _begin_anew(
        self, mode: _Mode, entries: dict[Key, Entry | None], queue: deque[Any], optional: dict[Key, Any], called: list[Any]
    ) -> None:
        self._mode = mode
        self._entries.clear()
        self._entries.update(entries)
        self._queue, self._optional, self._called = queue.copy(), optional.copy(), called.copy()
        self._tried.clear()

    def _check_attributes(self) -> None:
        """Raise EntryError if code that is needed for sure uses an attribute of a class that cannot be pickled."""
        for key, value in self._attributes_lacking:
            if key[-1] in self._attributes_used:
                try:
                    self.draft({key[:2]: tracking.class_of(key[1])}, value)
                except Exception as exc:
                    raise EntryError(key) from exc

    def _may_lack(self, exc: Exception) -> bool:
        """Tell whether a stand-in may take the place of what failed so. It may not if the next time it may go well."""
        reason = exc.__cause__ if isinstance(exc, EntryError) else exc
        return not (is_change(exc) or is_unshared(exc) or isinstance(reason, (OSError, MemoryError)))

    def _make_entries(self) -> None:
        """Make what is needed, then what may be; of that nothing stays if it, or what it needs, cannot be pickled."""
        self._make_needed()
        while self._optional:
            key, value = self._optional.popitem()
            if key in self._entries or key in self._tried:
                continue
            self._tried.add(key)
            before = dict(self._entries)
            self._optional_now = key
            try:
                self.need_global(key[1], key[2], value)
                self._make_needed()
            except Exception as exc:
                if is_change(exc):
                    raise
                self._queue.clear()
                self._entries.clear()
                self._entries.update(before)
            finally:
                self._optional_now = None

    def _make_needed(self) -> None:
        self._make_queued()
        while rings := find_rings(self._entries.pointers()):
            for keys in rings:
                self._make_ring(keys)
            self._make_queued()

    def _make_queued(self) -> None:
        self._need_called()
        while self._queue:
            key, value = self._queue.popleft()
            self._entries[key] = self._make_entry(key, value)
            self._need_called()

    def _need_called(self) -> None:
        """Ask for what is needed for sure because it is called."""
        while self._mode is _Mode.SURE and self._called:
            for function in functions_called(self._called.pop()):
                self._attributes_used.update(names_of(function.__code__).attributes)
                space = tracking.key_of_globals(function.__globals__)
                if not space.startswith("r:"):
                    self.need_globals_of(function, space)

    def table(self) -> list[tuple[Any, ...]]:
        """Return the entries as they travel: key, round, digest, and the data or (skeleton, attributes)."""
        return self._entries.as_sent()

    def entries(self) -> Iterable[Entry | None]:
        """Return what the table is made of."""
        return self._entries.values()

    def digest_of(self, key: Key, value: Any, *, ring: Key | None = None) -> bytes:
        """Return the digest that an entry for this object has, or that of its ring. Raises what pickling raises."""
        self._entries[key] = None
        self._queue.append((key, value))
        self._make_entries()
        return self._entries.digest_of(ring or key)

    def held_by(self, key: Key) -> dict[Key, set[Key]]:
        """Return the globals that an entry points to, as `tracking.held` has them."""
        entry = self._entries[key]
        assert entry is not None
        return {(*key, part) if key[0] == "c" else key: set(draft.refs) for part, draft in entry.parts if draft.refs}

    # -- asked for by the pickler

    def need_global(self, space: str, name: str, value: Any) -> bool:
        """Put a global into the table."""
        key = ("g", space, name)
        if key not in self._entries:
            self._entries[key] = None
            self._queue.append((key, value))
            if space.startswith("m:"):
                tracking.names_sent.setdefault(space, set()).add(name)
        return True

    def try_global(self, space: str, name: str, value: Any) -> None:
        """Put a global into the table that the code may look up, unless it cannot be pickled."""
        self._optional.setdefault(("g", space, name), value)

    def need_class(self, cls: Any) -> str:
        """Put the definition of a class into the table, return its id."""
        uid = tracking.uid_of(cls)
        key = ("c", uid)
        if key not in self._entries:
            self._entries[key] = None
            self._queue.append((key, cls))
            self._need_names_of(cls)
        return uid

    def _need_names_of(self, cls: Any) -> None:
        """Pickle looks a class up by its name, in the worker too, also one of which no function there knows."""
        if tracking.stands_in_its_module(cls):
            name = cls.__qualname__.partition(".")[0]
            self.try_global(f"m:{cls.__module__}", name, vars(sys.modules[cls.__module__])[name])
        for found in named_by_annotations(cls):
            self.try_global(*found)

    def note_called(self, function: Any) -> None:
        """A callable goes along that is no attribute of a class, so it is there to be called."""
        self._called.append(function)

    def need_globals_of(self, function: types.FunctionType, space: str, *, is_sure: bool = True) -> None:
        """Put into the table what the code of a function may look up; not `is_sure`: if that is ever called."""
        if self._mode is _Mode.SURE and not is_sure:
            return
        names, namespace = names_of(function.__code__), function.__globals__
        if names.looked_up or names.finds_more:
            self._need_unnamed(function, names)
        self._tell_gone(space, namespace, (*names.globals, *names.looked_up))
        for name in names.globals:
            if name in namespace and name != "__builtins__":
                value = namespace[name]
                self.need_global(space, name, value)
                if isinstance(value, types.ModuleType) and not is_importable(value.__name__):
                    self.need_module(value, names.attributes)
        for name in names.imports:
            module = sys.modules.get(name)
            if isinstance(module, types.ModuleType) and not is_importable(name):
                self.need_module(module, ("__name__", *names.attributes))

    def _need_unnamed(self, function: types.FunctionType, names: CodeNames) -> None:
        for space, name, value in looked_up_by(function, names):
            self.try_global(space, name, value)
        for cls in subclasses_asked_for(function, names):
            self.need_class(cls)

    def need_module(self, module: types.ModuleType, names: tuple[str, ...]) -> None:
        """Put those attributes of a module shipped by value into the table that code may use."""
        space = f"m:{module.__name__}"
        self._tell_gone(space, module.__dict__, names)
        for name in names:
            if name not in module.__dict__ or ("g", space, name) in self._entries:
                continue
            value = module.__dict__[name]
            self.need_global(space, name, value)
            if isinstance(value, types.ModuleType) and not is_importable(value.__name__):
                self.need_module(value, names)

    def _tell_gone(self, space: str, namespace: dict[str, Any], names: tuple[str, ...]) -> None:
        """Put into the table that the host has deleted a global which a worker may have got."""
        sent = tracking.names_sent.get(space)
        if sent is None or sent.isdisjoint(names):
            return
        for name in names:
            if name in sent and name not in namespace:
                key = ("g", space, name)
                self._entries[key] = Entry(key, Round.FREE, [("", Draft(GONE))])

    def may_refer(self, space: str, name: str, value: Any) -> bool:
        """Tell whether an object may travel as the name of a global, which is put into the table then."""
        return self.need_global(space, name, value)

    def shared_in(self, space: str) -> dict[int, str]:
        """Return the names of the mutable objects in a namespace, by identity; the first name of an object counts."""
        names = self._shared.get(space)
        if names is None:
            names = self._shared[space] = {}
            for name, value in tracking.namespace_of(space).copy().items():
                if type(value) not in _NEVER_SHARED and not isinstance(value, type):
                    names.setdefault(id(value), name)
        return names

    def home_of(self, function: types.FunctionType, value: Any) -> Home | None:
        """Return where an object that a function holds as a default, or in a cell, is at home."""
        return self.homes.of(function, value)

    def cell_owner(self, space: str, cell: types.CellType) -> tuple[str, int] | None:
        """Return the first global function of a namespace that closes over a cell, and the cell's position there."""
        cells = self._cells.get(space)
        if cells is None:
            cells = self._cells[space] = {}
            for name, value in tracking.namespace_of(space).copy().items():
                if type(value) is types.FunctionType and value.__closure__:
                    for position, found in enumerate(value.__closure__):
                        cells.setdefault(id(found), (name, position))
        return cells.get(id(cell))

    # -- inside

    def _make_ring(self, keys: set[Key]) -> None:
        """Make an entry of all that these ones define, and of them pointers to it."""
        found = [entry for key in sorted(keys) if (entry := self._entries.pop(key)) is not None]
        roots = {key: root for entry in found for key, root in entry.roots.items()}
        members = sorted(roots)
        self._entries.update(dict.fromkeys(members))  # what names them while they are pickled is not to make them once more
        # Strings of their own: whether a pickle repeats one depends on its identity, and so on how the member was found.
        names = ["\0".join(key[1:]) for key in members]
        try:
            draft = self.draft(roots, names, *map(roots.get, members))
        except Exception as exc:
            raise EntryError(members[0]) from exc
        ring = ("ring", *members[0][1:])
        order = max(entry.round for entry in found)
        for position, key in enumerate(members):
            pointer = by_value_classes.Call(rebuild.ring_member, *members[0][1:], position)
            self._entries[key] = Entry(
                key, order, [("", Draft(pickle.dumps(pointer, 5), frozenset({ring})))], {key: roots[key]}
            )
        self._entries[ring] = Entry(ring, order, [("", draft)], roots)

    def _make_entry(self, key: Key, value: Any) -> Entry | None:
        if key[0] == "c":
            return self._make_class_entry(key, value)
        try:
            draft = self._draft_global(key, value)
        except Exception as exc:
            if self.initializer is not None and key in globals_set_by(self.initializer):
                return None
            if (call := self._by_name(key, value, exc) or self._instead_of(key, value, exc)) is None:
                raise EntryError(key) from exc
            return Entry(key, Round.FREE, [("", Draft(pickle.dumps(call, 5)))])
        return Entry(key, _round_of(value, draft), [("", draft)], {key: value})

    def _by_name(self, key: Key, value: Any, exc: Exception) -> by_value_classes.Call | None:
        """Return what takes a global that cannot be pickled from the module that the program has it from."""
        if is_change(exc) or is_unshared(exc) or (module := held_by_modules.name_of_module_that_has(value, key[2])) is None:
            return None
        return by_value_classes.Call(held_by_modules.own, module, key[2])

    def _instead_of(self, key: Key, value: Any, exc: Exception) -> by_value_classes.Call | None:
        """Return what gives a worker something in place of a global that cannot be pickled, if it can do without."""
        if self._mode is not _Mode.LACKING or self._optional_now is not None or not self._may_lack(exc):
            return None
        why = explain.why_not_sent(value, exc, key[1].removeprefix("m:"))
        return by_value_classes.Call(NotSent, f"global {key[2]!r}", why)

    def _make_class_entry(self, key: Key, cls: Any) -> Entry:
        try:
            return self._draft_class(key, cls, {})
        except Exception as exc:
            if self._mode is _Mode.ALL or is_change(exc) or not (lacking := self._lacking_attributes(key, cls)):
                raise
        return self._draft_class(key, cls, lacking)

    def _draft_class(self, key: Key, cls: Any, lacking: dict[str, Any]) -> Entry:
        portions = by_value_classes.portions(cls, lacking)
        return Entry(key, Round.CODE, [(name, self.draft({key: cls}, *pieces)) for name, pieces in portions])

    def _lacking_attributes(self, key: Key, cls: Any) -> dict[str, Any]:
        """Return stand-ins for the attributes of a class that cannot be pickled."""
        lacking: dict[str, Any] = {}
        for name, value in by_value_classes.replaceable(cls).items():
            try:
                self.draft({key: cls}, value)
            except Exception as exc:
                if not self._may_lack(exc):
                    raise EntryError((*key, name)) from exc
                why = explain.why_not_sent(value, exc, cls.__module__)
                lacking[name] = by_value_classes.Call(NotSent, f"`{cls.__qualname__}.{name}`", why)
                self._attributes_lacking.append(((*key, name), value))
        return lacking

    def _draft_global(self, key: Key, value: Any) -> Draft:
        if type(value) in IMMUTABLE:
            return Draft(pickle.dumps(value, 5))
        if type(value) in held_by_modules.CONTAINERS and (means := self._way_to_held(value, *key[1:])) is not None:
            return self.draft({key: value}, means)
        if type(value) is types.FunctionType and _is_simple(value):
            return self._draft_simple_function(key, value)
        return self.draft({key: value}, self.quieten(value))

    def _way_to_held(self, container: Any, space: str, name: str) -> by_value_classes.Call | None:
        """Return what makes the container that a module holds, which has to be that one in the worker too.

        None: it holds no such thing, or it has another name here, to which this one is a pointer.
        """
        if (name_in_sys := _name_in_sys(container)) is not None:
            return by_value_classes.Call(getattr, sys, name_in_sys)
        if self.shared_in(space).get(id(container), name) != name:
            return None
        place = held_by_modules.place_of(container, name)
        if place is None:
            return None
        content = held_by_modules.content_of(self.quieten(container), place[0])
        return by_value_classes.Call(held_by_modules.fill, *place, content)

    def _draft_simple_function(self, key: Key, function: types.FunctionType) -> Draft:
        """Reuse the last draft of a function when all that it was made of is as it was (most calls: 20 µs saved)."""
        code = function.__code__  # read before what is drafted, as all of this: another thread may change it meanwhile
        content = (
            key,
            function.__globals__.get("__file__"),
            repr(attributes_of(function)),  # scalars only; `==` would take True for 1
            submodules_of(function),
        )
        known = _drafts.get(function)
        if known is not None and known[0] is code and known[1] == content:
            space = tracking.key_of_globals(function.__globals__)  # which need not be the one that names it
            self.note_called(function)
            if not space.startswith("r:"):
                self.need_globals_of(function, space)
            return known[2]
        draft = self.draft({key: function}, function)
        if not draft.refs:
            _drafts[function] = (code, content, draft)
        return draft

    def draft(self, roots: Roots, *pieces: Any) -> Draft:
        """Pickle a portion of the entry that defines `roots`: one piece after the other, with one memo."""
        with io.BytesIO() as file:
            kind = ByValuePickler if len(roots) == 1 and self._holds_no_others(*next(iter(roots.items()))) else SharingPickler
            pickler = kind(file, self, roots)
            for piece in pieces:
                pickler.dump(piece)
            return Draft(file.getvalue(), frozenset(pickler.refs), pickler.holds_classes)

    def _holds_no_others(self, key: Key, obj: Any) -> bool:
        """Tell whether looking for other globals inside an object would be in vain, or too dear."""
        if type(obj) is types.FunctionType:
            is_bare = not obj.__closure__ and not obj.__dict__ and self.homes.are_shared(obj)
            return is_bare and obj.__name__ == key[-1]  # else it may be a second name: `g = f = lambda: 1`
        if type(obj) in (list, dict, set) and len(obj) > MAX_SHARING:
            shared = self.shared_in(key[1]) if key[0] == "g" else {}
            return shared.keys().isdisjoint(map(id, [*obj, *obj.values()] if type(obj) is dict else obj))
        return isinstance(obj, types.ModuleType)


class PreloadedSession(Session):
    """For workers that hold what the program itself made, forked after it ran: what cannot be pickled is there."""

    def _instead_of(self, key: Key, value: Any, exc: Exception) -> by_value_classes.Call | None:
        if not key[1].startswith(("m:__main__", "m:__mp_main__")) or key == self._optional_now or is_unshared(exc):
            return super()._instead_of(key, value, exc)
        return by_value_classes.Call(rebuild.preloaded_global, key[1], key[2], type(value).__name__)

    def _make_class_entry(self, key: Key, cls: Any) -> Entry:
        """Leave out a portion that cannot be pickled (a class with a lock): the worker keeps its own."""
        if not key[1].startswith("main:"):
            return super()._make_class_entry(key, cls)
        parts: list[tuple[str, Draft]] = []
        for name, pieces in by_value_classes.portions(cls):
            try:
                parts.append((name, self.draft({key: cls}, *pieces)))
            except Exception as exc:
                if not parts or is_unshared(exc):  # the means to make it, where it does not exist
                    raise
        return Entry(key, Round.CODE, parts)


class ResultSession(Session):
    """The same for a result: what came from the host goes back as a mere name, and the host's globals are not sent."""

    def need_class(self, cls: Any) -> str:
        uid = tracking.uid_of(cls)
        return uid if ("c", uid) in tracking.received else super().need_class(cls)

    def need_global(self, space: str, name: str, value: Any) -> bool:
        return ("g", space, name) in tracking.received or super().need_global(space, name, value)

    def may_refer(self, space: str, name: str, value: Any) -> bool:
        known = tracking.received.get(("g", space, name))
        return known is not None and known[1] is value

    def shared_in(self, space: str) -> dict[int, str]:
        return {}

    def _need_names_of(self, cls: Any) -> None:
        pass

    def _way_to_held(self, container: Any, space: str, name: str) -> None:
        """What the program's modules hold is the program's."""

    def _tell_gone(self, space: str, namespace: dict[str, Any], names: tuple[str, ...]) -> None:
        pass

    def home_of(self, function: types.FunctionType, value: Any) -> Home | None:
        """Of what the worker may have filled, the host gets the content."""
        return self.homes.of(function, value) if is_bare(value) else None

    def _may_lack(self, exc: Exception) -> bool:
        return False

    def _by_name(self, key: Key, value: Any, exc: Exception) -> None:
        """What the worker's modules have the host need not have."""

    def _make_entry(self, key: Key, value: Any) -> Entry | None:
        try:
            return super()._make_entry(key, value)
        except EntryError:
            if key[0] == "c":
                raise
            return None  # a global that the worker made for itself and that cannot travel: the host does without


class StandardSession(Session):
    """What `serializer="pickle"` asks for: the standard pickle, which refuses early what a worker could not look up."""

    by_value = False
    pickler = StandardPickler

    def encode_call(self, fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[bytes, bool]:
        return self.encode((fn, args, kwargs)), False

    def encode_alone(self, obj: Any) -> bytes:
        with io.BytesIO() as file:
            self.pickler(file, shares_memory=self.points).dump(obj)
            return file.getvalue()


class PreloadedStandardSession(StandardSession):
    """The same for workers that can look up what is in `__main__`."""

    pickler = PreloadedStandardPickler


def _round_of(value: Any, draft: Draft) -> int:
    if not (draft.holds_classes or draft.refs):
        return Round.FREE
    return Round.CODE if isinstance(value, (types.FunctionType, types.ModuleType, type)) else Round.VALUES


def _name_in_sys(value: Any) -> str | None:
    """Return what it is called in `sys`, if it is a part of the interpreter (`from sys import path`)."""
    return next((name for name in _OF_THE_INTERPRETER if getattr(sys, name) is value), None)


def _is_simple(function: types.FunctionType) -> bool:
    """Tell whether a function consists of immutable parts only, which its attributes' values show."""
    if function.__annotations__ or function.__closure__ or function.__dict__:
        return False
    if getattr(function, "__type_params__", None):
        return False
    return all(type(value) in IMMUTABLE for value in defaults_of(function))


# Functions are compared and hashed by identity. What was drafted is compared by content, see `_draft_simple_function`.
_drafts: weakref.WeakKeyDictionary[types.FunctionType, tuple[Any, Any, Draft]] = weakref.WeakKeyDictionary()

_OF_THE_INTERPRETER = ("path", "modules", "meta_path", "path_hooks")

_NEVER_SHARED = IMMUTABLE | {
    tuple,
    frozenset,
    type,
    types.ModuleType,
    types.BuiltinFunctionType,
    types.MethodType,
    types.CodeType,
}
