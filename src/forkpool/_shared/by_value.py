"""Pickle what has no name that another process could import: functions, closures, modules, cached functions.

Runs in: host (caller's thread, in submit) and worker (results). Importing it imports cloudpickle, so only `payload` does, late.
Must not hold a lock (user code runs inside, signal handlers may re-enter) and must not change any user object.
Hard part: a function goes in three portions. Its *globals* become entries of a table, pickled one by one, so that the
receiver can compare each by content and keep those that did not change. Its *cells* are made empty first and filled when the
function exists, so that recursion works and two closures that share a variable share it there too. The rest is its state.
Tests: tests/unit/test_payload_by_value.py
"""

from __future__ import annotations

import copyreg
import dataclasses
import enum
import functools
import io
import itertools
import operator
import os
import pickle
import socket
import struct
import sys
import types
import typing
import weakref
from collections import ChainMap
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import cloudpickle

from forkpool._shared import mp_support, rebuild, tracking, type_aliases
from forkpool._shared.advice import loaded_class
from forkpool._shared.by_value_classes import LRU_CACHE, Call, filled_cells, is_made_in_c
from forkpool._shared.code_names import marshalled, names_of, submodules_used
from forkpool._shared.entries import Roots
from forkpool._shared.homes import defaults_of, imported_from, name_in_class
from forkpool._shared.importable import BY_NAME_ONLY, by_reference, is_importable, resolves, why_not_by_name
from forkpool._shared.plain import IMMUTABLE, MAX_DEPTH, MAX_ITEMS
from forkpool._shared.tracking import Key

if TYPE_CHECKING:
    from forkpool._shared.session import Session

Reduced = Any  # what __reduce__ returns, or NotImplemented

PRIVATE_NEEDS = ("dispatch_table", "reducer_override", "dump")
if missing := [name for name in PRIVATE_NEEDS if not hasattr(cloudpickle.Pickler, name)]:
    raise ImportError(f"this cloudpickle ({cloudpickle.__version__}) has no Pickler.{missing[0]}; forkpool needs 3.x")

_FUNCTION_ATTRIBUTES = ("__name__", "__qualname__", "__module__", "__doc__", "__defaults__", "__kwdefaults__")
_REBUILD_GLOBALS = vars(rebuild)
_CONTAINERS = (tuple, list, dict, set, frozenset)
_BASICS = ("__name__", "__package__", "__file__", "__path__")
_OF_SYS = ("version_info", "flags", "float_info", "int_info", "hash_info", "thread_info")
_HIDDEN_GENERATORS = (("random", "_inst"), ("numpy.random.mtrand", "_rand"))  # whose methods are the functions of `random`
_SINGLEDISPATCH_CODE = functools.singledispatch(lambda _: None).__code__  # type: ignore[attr-defined]
_SINGLEDISPATCH_OWN = frozenset({"register", "dispatch", "registry", "_clear_cache", "__wrapped__"})
_REDUCERS_OF_ENUM: list[Any] = [cls.__reduce_ex__ for cls in (enum.Enum, enum.Flag)]
_LRU_CACHE_OWN = frozenset({"__wrapped__", "__doc__", "__name__", "__qualname__", "__module__", "__annotations__",
                            "__type_params__", "cache_parameters"})  # fmt: skip


class StandardPickler(pickle.Pickler):
    """The standard pickler, strict about names."""

    def __init__(self, file: io.BytesIO, *, shares_memory: bool = False) -> None:
        self._shares_memory = shares_memory  # what is pickled is not a copy, if others can have the memory it is in
        if (extra := mp_support.reducers()) is not None:
            self.dispatch_table = {**copyreg.dispatch_table, **extra}
        super().__init__(file, protocol=5)

    def reducer_override(self, obj: Any) -> Reduced:
        if type(obj) is socket.socket:
            return mp_support.reduce_socket(obj)
        if self._shares_memory and isinstance(obj, loaded_class("numpy", "ndarray")):
            return _in_shared_memory(obj)
        is_class = issubclass(type(obj), type)
        if (is_class or type(obj) is types.FunctionType) and not self.has_name(obj) and id(obj) not in _UNNAMED_TYPES:
            raise pickle.PicklingError(f"{obj.__module__}.{obj.__qualname__} {why_not_by_name(obj)}, {BY_NAME_ONLY}")
        return NotImplemented

    def has_name(self, obj: Any) -> bool:
        """Tell whether a worker finds this class or function by its name."""
        return by_reference(obj)


class PreloadedStandardPickler(StandardPickler):
    """The same for workers whose fork server ran the program."""

    def has_name(self, obj: Any) -> bool:
        return by_reference(obj) or tracking.is_in_main(obj)


class ByValuePickler(cloudpickle.Pickler):  # type: ignore[misc]
    """A pickler that asks for by-value treatment wherever a fresh interpreter would not find the name."""

    def __init__(self, file: io.BytesIO, session: Session, roots: Roots | None = None) -> None:
        if (extra := mp_support.reducers()) is not None:
            self.dispatch_table = ChainMap(extra, _dispatch)
        super().__init__(file, protocol=5)
        self.session = session
        self.roots = roots or {}  # what the entry defines, which must not become a reference to itself; empty: the call itself
        self.refs: set[Key] = set()  # the entries that this pickle points to
        self.holds_classes = False  # that go by value, and instances of such
        self._kinds: dict[Any, Any] = {}
        self._renamed: dict[int, tuple[Any, Any]] = {}  # what functions hold, and the same with names of globals inside
        self._parameters: dict[int, tuple[Any, int]] = {}  # of aliases, which are made anew with them
        self._cells: dict[int, Reduced] = {}  # the cells that somebody fills, and how they travel
        self._functions = 0  # how many functions hold what is pickled just now, in the body of a call

    def reducer_override(self, obj: Any) -> Reduced:
        kind = type(obj)
        handler = self._kinds.get(kind)
        if handler is None:
            handler = self._kinds[kind] = _handler_for(kind)
        return handler(self, obj)

    # -- functions

    def reduce_function(self, function: types.FunctionType) -> Reduced:
        if function.__globals__ is _REBUILD_GLOBALS or by_reference(function):
            return NotImplemented
        if function.__code__ is _SINGLEDISPATCH_CODE:
            return self.as_global(function) or self._reduce_singledispatch(function)
        in_body_and_stateful = not self.roots and self.session.homes.has_own_state(function)
        if not in_body_and_stateful and (reference := self.as_global(function)):
            return reference
        return self._function_by_value(function)

    def as_global(self, obj: Any) -> Reduced:
        """Return a reference to the global of a by-value module that is this object, or None."""
        found = global_name(obj)
        return None if found is None else self.reference(*found, obj)

    def _is_root(self, obj: Any) -> bool:
        return any(map(operator.is_, self.roots.values(), itertools.repeat(obj)))

    def reference(self, space: str, name: str, obj: Any) -> Reduced:
        """Return a reference to an entry, or None where it must be a copy."""
        if ("g", space, name) in self.roots or not self.session.may_refer(space, name, obj):
            return None
        self.refs.add(("g", space, name))
        return rebuild.global_ref, (space, name)

    def _function_by_value(self, function: types.FunctionType) -> Reduced:
        space = tracking.key_of_globals(function.__globals__)
        basics: dict[str, Any] = {}
        if not space.startswith("r:"):
            basics = {name: function.__globals__[name] for name in _BASICS if name in function.__globals__}
        self._tell_of_names(function, space)
        cells = [cell for cell in function.__closure__ or () if self._claim_cell(cell)]
        contents = [(cell, self._held(function, value)) for cell, value in filled_cells(cells)]
        state = (self._attributes_of(function), contents, submodules_of(function), dict(function.__dict__))
        args = (function.__code__, space, basics, function.__closure__)
        if not self.roots and not self.session.points and _may_be_shared(function, contents):
            return rebuild.make_function, args, (_Edge(1), state, _Edge(-1)), None, None, rebuild.set_function_between
        return rebuild.make_function, args, state, None, None, rebuild.set_function

    def _tell_of_names(self, function: types.FunctionType, space: str) -> None:
        is_of_class = any(key[0] == "c" for key in self.roots)
        if not is_of_class:
            self.session.note_called(function)
        if not space.startswith("r:"):
            self.session.need_globals_of(function, space, is_sure=not is_of_class)

    def _attributes_of(self, function: types.FunctionType) -> dict[str, Any]:
        attributes = attributes_of(function)
        if (defaults := function.__defaults__) is not None:
            attributes["__defaults__"] = tuple(self._held(function, value) for value in defaults)
        if (by_keyword := function.__kwdefaults__) is not None:
            attributes["__kwdefaults__"] = {name: self._held(function, value) for name, value in by_keyword.items()}
        return attributes

    def _held(self, function: types.FunctionType, value: Any, depth: int = MAX_DEPTH) -> Any:
        """Return a default, or what a cell holds, with the names of globals in place of what is a global's value."""
        kind = type(value)
        if kind in IMMUTABLE:
            return value
        if (name := self._at_home(function, value)) is not None:
            return name
        if self.roots or kind not in _CONTAINERS or not depth or len(value) > MAX_ITEMS:
            return value  # in an entry, `persistent_id` looks inside
        known = self._renamed.get(id(value))
        if known is None:
            known = self._renamed[id(value)] = (value, self._with_names_inside(function, value, depth - 1))
        return known[1]

    def _with_names_inside(self, function: types.FunctionType, value: Any, depth: int) -> Any:
        items = [*value, *value.values()] if type(value) is dict else list(value)
        named = [self._held(function, item, depth) for item in items]
        if all(map(operator.is_, items, named)):
            return value
        return dict(zip(named, named[len(value) :], strict=False)) if type(value) is dict else type(value)(named)

    def _at_home(self, function: types.FunctionType, value: Any) -> Any:
        """Return what pickles as the global that is this very object, or None."""
        home = self.session.home_of(function, value)
        if home is None or (not home[0].startswith("r:") and self.reference(*home, value) is None):
            return None
        return Call(rebuild.global_ref, *home)

    def _reduce_singledispatch(self, generic: Any) -> Reduced:
        registry = dict(generic.registry)
        own = {name: value for name, value in vars(generic).items() if name not in _SINGLEDISPATCH_OWN}
        args = (registry.pop(object), list(registry.items()))
        return rebuild.make_singledispatch, args, own, None, None, rebuild.set_own

    def reduce_lru_cache(self, cached: Any) -> Reduced:
        if by_reference(cached):
            return cached.__qualname__
        if reference := self.as_global(cached):
            return reference
        own = {name: value for name, value in vars(cached).items() if name not in _LRU_CACHE_OWN}
        parameters = cached.cache_parameters()
        return rebuild.make_cached, (cached.__wrapped__, parameters["maxsize"], parameters["typed"], own)

    def reduce_cached_property(self, cached: Any) -> Reduced:
        return rebuild.make_cached_property, (cached.func, cached.attrname)

    def _claim_cell(self, cell: types.CellType) -> bool:
        """Tell whether the function that is being reduced has to fill a cell: nobody else does."""
        if id(cell) in self._cells:
            return False
        self._cells[id(cell)] = shared = self.shared_cell(cell)
        return shared is None

    def reduce_cell(self, cell: types.CellType) -> Reduced:
        if id(cell) in self._cells:
            return self._cells[id(cell)] or (rebuild.make_cell, ())
        for _, contents in filled_cells([cell]) if self._claim_cell(cell) else ():
            return rebuild.make_cell, (), contents, None, None, rebuild.set_cell
        return self._cells[id(cell)] or (rebuild.make_cell, ())

    def shared_cell(self, cell: types.CellType) -> Reduced:
        """Return a reference to the same cell of a function in another entry, or None."""
        return None

    def reduce_code(self, code: types.CodeType) -> Reduced:
        data = marshalled(code)
        return NotImplemented if data is None else (rebuild.load_code, (data,))

    def reduce_method(self, method: types.MethodType) -> Reduced:
        owner, function = method.__self__, method.__func__
        self.session.note_called(function)
        name = getattr(function, "__name__", "")
        cls, own = (owner, ()) if isinstance(owner, type) else (type(owner), getattr(owner, "__dict__", ()))
        found = next((vars(base)[name] for base in cls.__mro__ if name in vars(base)), None)
        if getattr(found, "__func__", found) is function and name not in own:
            return getattr, (owner, name)
        return types.MethodType, (function, owner)

    # -- modules and objects

    def reduce_module(self, module: types.ModuleType) -> Reduced:
        if is_importable(module.__name__):
            return rebuild.import_module, (module.__name__,)
        if not self._is_root(module):  # reached as data: nobody can say which of its attributes will be used
            self.session.need_module(module, tuple(name for name in vars(module) if not name.startswith("__")))
        return rebuild.module_ref, (module.__name__,)

    def reduce_class(self, cls: Any) -> Reduced:
        if (name := _UNNAMED_TYPES.get(id(cls))) is not None:
            return getattr, (types, name)
        if by_reference(cls):
            return NotImplemented
        self.holds_classes = True
        return rebuild.class_ref, (self.session.need_class(cls),)

    def reduce_named(self, obj: Any) -> Reduced:
        name = getattr(obj, "__name__", None)
        if resolves(obj, getattr(obj, "__module__", None), name):
            return name
        return self.as_global(obj) or self._parameter(obj) or (rebuild.make_named, _named_args(obj))

    def _parameter(self, obj: Any) -> Reduced:
        """Return a reference to a type parameter of an alias that is being pickled, or None."""
        owner = self._parameters.get(id(obj))
        return None if owner is None else (type_aliases.parameter_of, owner)

    def reduce_alias(self, alias: Any) -> Reduced:
        """Reduce what a `type` statement made. One that was made by a call, of type variables of others, holds no circle."""
        parameters = alias.__type_params__
        if resolves(alias, alias.__module__, alias.__name__) or any(map(_is_variable_of_a_module, parameters)):
            return self.reduce_named(alias)
        if reference := self.as_global(alias):
            return reference
        if (recipe := type_aliases.recipe_of(alias)) is None:
            return rebuild.make_named, _named_args(alias)
        self._parameters.update((id(parameter), (alias, position)) for position, parameter in enumerate(parameters))
        empty: list[Any] = []
        args = (alias.__name__, alias.__module__, recipe.statement, recipe.list_name, empty)
        return type_aliases.make_alias, args, (empty, recipe.parts), None, None, type_aliases.fill_alias

    def reduce_by_name(self, obj: Any) -> Reduced:
        """Reduce an object whose own `__reduce__` may give just a name: that of a global in the *object's* module.

        The type of a function of Cython lives in a module that nobody can import (`_cython_3_2_4`), the function does not. And
        a library's class may wrap functions of the program (`cachetools.cached`).
        """
        if type(obj) in self.dispatch_table:
            return NotImplemented
        reduced = obj.__reduce_ex__(5)
        if not isinstance(reduced, str):
            return _by_state(obj) if self._looks_itself_up(obj, reduced) else reduced
        module_name = getattr(obj, "__module__", None)
        if resolves(obj, module_name, reduced):
            return reduced
        module = sys.modules.get(module_name) if isinstance(module_name, str) else None
        if module is not None and vars(module).get(reduced) is obj:
            space = tracking.key_of_globals(vars(module))
            if (reference := self.reference(space, reduced, obj)) is not None:
                return reference
        if is_made_in_c(type(obj)):
            raise pickle.PicklingError(f"{module_name}.{reduced} cannot be imported by a worker, and is made in C")
        is_of_a_library = module is None or is_importable(module.__name__)
        return reduced if is_of_a_library and is_importable(type(obj).__module__) else _by_state(obj)

    def _looks_itself_up(self, obj: Any, reduced: Any) -> bool:
        """Tell whether an attribute of the class that is being pickled would be looked up in it, where it is not yet."""
        for key, owner in self.roots.items():
            if key[0] == "c" and any(value is obj for value in vars(owner).values()):
                function, args = reduced[:2]
                return any(arg is owner for arg in args) and (type(obj) is not owner or function is getattr)
        return False

    def reduce_enum_member(self, member: Any) -> Reduced:
        """By name: its value need not equal a copy of itself. A composite flag has none, and its value is a number."""
        cls, name = type(member), member._name_
        if by_reference(cls) or cls._member_map_.get(name) is not member:
            return NotImplemented
        return rebuild.enum_member, (cls, name)

    def reduce_sentinel(self, obj: Any) -> Reduced:
        for name in ("MISSING", "KW_ONLY", "_HAS_DEFAULT_FACTORY"):
            if getattr(dataclasses, name, None) is obj:
                return getattr, (dataclasses, name)
        return NotImplemented

    def reduce_object(self, obj: Any) -> Reduced:
        """A global that is another module's sentinel is that module's in the worker too."""
        for key, root in self.roots.items():
            if obj is root and (module := imported_from(key[-1], obj)) is not None:
                return getattr, (module, key[-1])
        return NotImplemented

    def reduce_of_sys(self, obj: Any) -> Reduced:
        """The types of `sys.version_info` and its like have no name."""
        return next(((getattr, (sys, name)) for name in _OF_SYS if getattr(sys, name) is obj), NotImplemented)

    def reduce_environ(self, obj: Any) -> Reduced:
        """What `from os import environ` binds is that of the process. As an argument or result it is a copy."""
        names = ("environ", "environb") if self.roots else ()
        return next(((getattr, (os, name)) for name in names if getattr(os, name) is obj), NotImplemented)

    def reduce_generator(self, obj: Any) -> Reduced:
        """`from random import random` binds a method of a hidden generator, of which each process has its own."""
        for module_name, name in _HIDDEN_GENERATORS:
            module = sys.modules.get(module_name)
            if module is not None and vars(module).get(name) is obj:
                return getattr, (module, name)
        return NotImplemented

    def reduce_struct(self, obj: struct.Struct) -> Reduced:
        return struct.Struct, (obj.format,)

    def reduce_weak_dict(self, obj: Any) -> Reduced:
        """As a WeakSet does by itself: with its entries, of which those stay that something else holds there."""
        return type(obj), (), None, None, iter(list(obj.items()))

    def reduce_stateless(self, obj: Any) -> Reduced:
        return type(obj), ()

    def reduce_socket(self, obj: Any) -> Reduced:
        return mp_support.reduce_socket(obj)

    def reduce_memoryview(self, view: memoryview) -> Reduced:
        """By default it becomes bytes, and a task that waits for the host to write there would wait for ever."""
        if self.roots or self._functions or self.session.points:
            from forkpool._shared import shared_arrays

            shared_arrays.refuse_view(view)
        return NotImplemented

    def reduce_edge(self, edge: _Edge) -> Reduced:
        self._functions += edge.step
        return bool, ()

    def reduce_array(self, array: Any) -> Reduced:
        """One of an argument is a copy, as with the standard pool; what functions hold is the host's, if others can have it."""
        is_held = self.roots or self._functions or self.session.points
        if is_held and (reduced := _in_shared_memory(array)) is not NotImplemented:
            return reduced
        return _handler_by_reduce(type(array))(self, array)

    def reduce_file(self, obj: Any) -> Reduced:
        for name in ("stdin", "stdout", "stderr"):
            if getattr(sys, name) is obj:
                return getattr, (sys, name)
        raise TypeError(f"cannot pickle an open file ({getattr(obj, 'name', '?')!r})")


class SharingPickler(ByValuePickler):
    """Pickles an entry, or an initializer's call, in which globals may occur: they become pointers, so that identity survives.

    A `persistent_id` is asked for each object, so it is only used where there is something to find.
    """

    def __init__(self, file: io.BytesIO, session: Session, roots: Roots, spaces: Iterable[str] = ()) -> None:
        super().__init__(file, session, roots)
        self._spaces = dict.fromkeys([*spaces, *filter(None, map(_space_of, roots, roots.values()))])
        self._names: list[tuple[str, dict[int, str]]] | None = None  # for each namespace

    def persistent_id(self, obj: Any) -> Any:
        if type(obj) in IMMUTABLE:
            return None
        if self._names is None:
            self._names = [(space, self.session.shared_in(space)) for space in self._spaces]
        for space, names in self._names:
            name = names.get(id(obj))
            if name is None and type(obj) is object:
                name = name_in_class(tracking.namespace_of(space), obj)
            if name is not None and not by_name(obj) and self.reference(space, name, obj) is not None:
                return (space, name)
        return None

    def shared_cell(self, cell: types.CellType) -> Reduced:
        for space in self._spaces:
            if (owner := self.session.cell_owner(space, cell)) is None:
                continue
            name, position = owner
            function = tracking.namespace_of(space)[name]
            reference = self.reference(space, name, function)
            return None if reference is None else (rebuild.cell_ref, (function, position))
        return None


def _space_of(key: Key, root: Any) -> str | None:
    """Return the namespace whose globals an entry may hold."""
    if key[0] == "g":
        return key[1]
    return None if is_importable(root.__module__) or root.__module__ not in sys.modules else f"m:{root.__module__}"


def global_name(obj: Any) -> tuple[str, str] | None:
    """Return namespace and name under which a by-value module holds this very object."""
    module = sys.modules.get(getattr(obj, "__module__", None) or "")
    name = getattr(obj, "__qualname__", None) or getattr(obj, "__name__", None)
    if module is None or not isinstance(name, str) or is_importable(module.__name__):
        return None
    namespace = vars(module)
    return (tracking.key_of_globals(namespace), name) if namespace.get(name) is obj else None


def attributes_of(function: types.FunctionType) -> dict[str, Any]:
    """Return the attributes that a function is given after it was made."""
    attributes = {name: getattr(function, name) for name in _FUNCTION_ATTRIBUTES}
    if function.__annotations__:
        attributes["__annotations__"] = function.__annotations__
    if parameters := getattr(function, "__type_params__", ()):
        attributes["__type_params__"] = parameters
    return attributes


def submodules_of(function: types.FunctionType) -> list[str]:
    """Return the submodules that must be imported so that `package.submodule` works inside the function."""
    names = names_of(function.__code__)
    values = [function.__globals__.get(name) for name in names.globals]
    values += [contents for _, contents in filled_cells(function.__closure__ or ())]
    packages = [value for value in values if type(value) is types.ModuleType and hasattr(value, "__path__")]
    return [name for package in packages for name in submodules_used(package, names.attributes) if is_importable(name)]


def by_name(obj: Any) -> bool:
    """Tell whether an object is a function that may travel as a name."""
    return isinstance(obj, types.FunctionType) and by_reference(obj)


def _named_args(obj: Any) -> tuple[Any, ...]:
    kind, name, module = type(obj), obj.__name__, getattr(obj, "__module__", None)
    kwargs: dict[str, Any] = {}
    if kind is typing.NewType:
        return kind, (name, obj.__supertype__), module, kwargs
    if kind is typing.TypeVar:
        kwargs = {"bound": obj.__bound__, "covariant": obj.__covariant__, "contravariant": obj.__contravariant__}
        if getattr(obj, "__infer_variance__", False):
            kwargs["infer_variance"] = True
        return kind, (name, *obj.__constraints__), module, kwargs | _default_of(obj)
    if kind.__name__ == "TypeAliasType":
        return kind, (name, obj.__value__), module, {"type_params": obj.__type_params__}
    return kind, (name,), module, _default_of(obj)


def _is_variable_of_a_module(parameter: Any) -> bool:
    module, name = getattr(parameter, "__module__", None), parameter.__name__
    return resolves(parameter, module, name) or global_name(parameter) is not None


def _default_of(parameter: Any) -> dict[str, Any]:
    return {"default": parameter.__default__} if type_aliases.has_default(parameter) else {}


def _by_state(obj: Any) -> Reduced:
    """Reduce an object of a class that is not made in C as if the class had no `__reduce__`."""
    return copyreg.__newobj__, (type(obj),), object.__getstate__(obj)  # type: ignore[attr-defined]


class _Edge:
    """Where in the body of a call that begins (1), or ends (-1), what a function holds."""

    __slots__ = ("step",)

    def __init__(self, step: int) -> None:
        self.step = step


def _may_be_shared(function: types.FunctionType, contents: list[tuple[Any, Any]]) -> bool:
    """Tell whether memory that other processes have may be in what a function holds."""
    if "numpy" not in sys.modules and "mmap" not in sys.modules:
        return False
    held = (*defaults_of(function), *vars(function).values(), *(value for _, value in contents))
    return any(type(value) not in IMMUTABLE for value in held)


def _in_shared_memory(array: Any) -> Reduced:
    from forkpool._shared import shared_arrays  # most programs hold none

    return shared_arrays.reduce(array)


def _not_implemented(pickler: ByValuePickler, obj: Any) -> Reduced:
    return NotImplemented


def _handler_for(kind: Any) -> Callable[[ByValuePickler, Any], Reduced]:
    handler = _HANDLERS.get(kind)
    if handler is not None:
        return handler
    if any(kind is cls for cls in loaded_class("random", "SystemRandom")):
        return ByValuePickler.reduce_stateless
    if any(kind is cls for cls in (*loaded_class("random", "Random"), *loaded_class("numpy.random.mtrand", "RandomState"))):
        return ByValuePickler.reduce_generator
    if issubclass(kind, type):
        return ByValuePickler.reduce_class
    if issubclass(kind, types.ModuleType):
        return ByValuePickler.reduce_module
    if isinstance(kind, enum.EnumMeta) and kind.__reduce_ex__ in _REDUCERS_OF_ENUM:
        return ByValuePickler.reduce_enum_member
    if issubclass(kind, loaded_class("numpy", "ndarray")):
        return ByValuePickler.reduce_array
    return _handler_by_reduce(kind)


def _handler_by_reduce(kind: Any) -> Callable[[ByValuePickler, Any], Reduced]:
    return ByValuePickler.reduce_by_name if any(map(_reduces_itself, kind.__mro__[:-1])) else _not_implemented


def _reduces_itself(base: type) -> bool:
    """Tell whether a class has a `__reduce__` that may give a name: in Python, or in C where nobody can import its module."""
    own = [vars(base)[name] for name in ("__reduce__", "__reduce_ex__") if name in vars(base)]
    if any(type(reduce) is types.FunctionType for reduce in own):
        return True
    return bool(own) and vars(base).get("__module__") is not None and not is_importable(base.__module__)


# Classes whose `__module__` says "builtins", where they are not: `types` names them.
_UNNAMED_TYPES = {id(cls): name for name, cls in vars(types).items() if type(cls) is type and not by_reference(cls)}
_HANDLERS: dict[Any, Callable[[ByValuePickler, Any], Reduced]] = {
    type: ByValuePickler.reduce_class,
    object: ByValuePickler.reduce_object,
    types.FunctionType: ByValuePickler.reduce_function,
    types.CellType: ByValuePickler.reduce_cell,
    types.CodeType: ByValuePickler.reduce_code,
    types.MethodType: ByValuePickler.reduce_method,
    types.ModuleType: ByValuePickler.reduce_module,
    functools.cached_property: ByValuePickler.reduce_cached_property,
    LRU_CACHE: ByValuePickler.reduce_lru_cache,
    type(dataclasses.MISSING): ByValuePickler.reduce_sentinel,
    type(dataclasses.KW_ONLY): ByValuePickler.reduce_sentinel,
    **{type(getattr(sys, name)): ByValuePickler.reduce_of_sys for name in _OF_SYS},
    io.TextIOWrapper: ByValuePickler.reduce_file,
    type(os.environ): ByValuePickler.reduce_environ,
    socket.socket: ByValuePickler.reduce_socket,
    _Edge: ByValuePickler.reduce_edge,
    memoryview: ByValuePickler.reduce_memoryview,
    struct.Struct: ByValuePickler.reduce_struct,
    weakref.WeakKeyDictionary: ByValuePickler.reduce_weak_dict,
    weakref.WeakValueDictionary: ByValuePickler.reduce_weak_dict,
    **{
        getattr(typing, name): ByValuePickler.reduce_named
        for name in ("NewType", "TypeVar", "ParamSpec", "TypeVarTuple")
        if hasattr(typing, name)
    },
}
if (_alias := getattr(typing, "TypeAliasType", None)) is not None:
    _HANDLERS[_alias] = ByValuePickler.reduce_alias
if (_factory_marker := getattr(dataclasses, "_HAS_DEFAULT_FACTORY", None)) is not None:
    _HANDLERS[type(_factory_marker)] = ByValuePickler.reduce_sentinel
_dispatch = cloudpickle.Pickler.dispatch_table
