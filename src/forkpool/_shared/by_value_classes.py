"""Turn the definition of a class that cannot be imported into an entry of a payload.

Runs in: host and worker, called by `by_value`.
Must not instantiate, subclass or register anything: it only reads class dictionaries.
Hard part: what a worker changed in a class attribute (`Foo.count += 1`) must survive when the host changed another one. So
the code of a class is one portion, since methods may share cells, and each plain attribute is a portion of its own.
And an attribute may hold instances of the class (`Point.ORIGIN`, a set of them), which to unpickle needs its `__hash__`,
`__eq__` or `__setstate__`. So the methods come first, one by one, and such objects last.
Tests: tests/unit/test_payload_classes.py
"""

from __future__ import annotations

import abc
import contextlib
import enum
import functools
import pickle
import types
from collections.abc import Callable, Mapping
from typing import Any

from forkpool._shared import rebuild_classes
from forkpool._shared.homes import defaults_of
from forkpool._shared.plain import SCALARS, is_plain
from forkpool._shared.rebuild_classes import MEMBERS

_DROPPED = ("__dict__", "__weakref__", "_abc_impl", "__annotate_func__", "__annotations_cache__")
_FLAGS_OF_PYTHON = 1 << 9 | 1 << 10  # Py_TPFLAGS_HEAPTYPE, Py_TPFLAGS_BASETYPE
_SLOTS_OF_C = (types.WrapperDescriptorType, types.MethodDescriptorType, types.ClassMethodDescriptorType)
LRU_CACHE = type(functools.lru_cache(len))
_CONTAINERS = (dict, list, set)
_HOOKS = ("__get__", "__set__", "__delete__", "__set_name__")
_METHODS = (types.FunctionType, classmethod, staticmethod, property, functools.cached_property, functools.partialmethod,
            functools.singledispatchmethod, LRU_CACHE)  # fmt: skip
_ENUM_DROPPED = frozenset(
    {"_member_names_", "_member_map_", "_value2member_map_", "_unhashable_values_", "_unhashable_values_map_",
     "_hashable_values_", "_member_type_", "_generate_next_value_", "_new_member_", "__new__"}
)  # fmt: skip


def portions(cls: Any, lacking: Mapping[str, Any] = types.MappingProxyType({})) -> list[tuple[str, tuple[Any, ...]]]:
    """Return what the definition consists of: how to make the bare class, its code, each plain attribute.

    Args:
        lacking: What stands for attributes that are objects and cannot be pickled.

    A portion is pickled piece by piece, with one memo. The pieces of the code are the names of methods, each method, the names
    (and kinds, of containers) of attributes that are neither methods nor plain, and each of these.

    Raises:
        PicklingError: The class is made in C, so that nothing here tells what its instances are.
    """
    if is_made_in_c(cls):
        raise pickle.PicklingError(
            f"the class {cls.__module__}.{cls.__qualname__} is made in C, and a worker would not find it under that name"
        )
    make, attributes = _enum_parts(cls) if isinstance(cls, enum.EnumMeta) else _class_parts(cls)
    plain = {name: value for name, value in attributes.items() if is_plain(value)}
    methods = {name: value for name, value in attributes.items() if type(value) in _METHODS and not _holds_objects(value)}
    objects = {name: value for name, value in attributes.items() if name not in plain and name not in methods}
    objects = {**dict(sorted(objects.items(), key=_rank)), **lacking}
    kinds = {name: type(value) if type(value) in _CONTAINERS and name != MEMBERS else None for name, value in objects.items()}
    code = (tuple(methods), *methods.values(), kinds, *objects.values())
    return [("", (make,)), ("", code), *((name, ({name: value},)) for name, value in plain.items())]


def replaceable(cls: Any) -> dict[str, Any]:
    """Return the attributes that may lack in a worker if they cannot be pickled: only who uses them notices.

    What Python itself asks (special names, members of an Enum) and what acts when an attribute is read or set may not.
    """
    if isinstance(cls, enum.EnumMeta):
        return {}
    _, attributes = _class_parts(cls)
    return {
        name: value
        for name, value in attributes.items()
        if not (name.startswith("__") or is_plain(value) or any(hasattr(type(value), hook) for hook in _HOOKS))
    }


def _rank(item: tuple[str, Any]) -> tuple[bool, bool]:
    """First methods (which hold objects), then `__dataclass_fields__` and its like."""
    name, value = item
    return type(value) not in _METHODS, not name.startswith("__")


def names_of_code(cls: Any) -> tuple[str, ...]:
    """Return the names of the attributes that are neither plain nor part of the bare class."""
    code = portions(cls)[1][1]
    return (*code[0], *code[1 + len(code[0])])


def _holds_objects(method: Any) -> bool:
    """Tell whether a method holds objects, which may be instances of its class: it comes after those that hold none."""
    functions = [getattr(method, name, None) for name in ("__func__", "fget", "fset", "fdel", "func", "__wrapped__")]
    for function in (method, *functions):
        if type(function) is types.FunctionType:
            cells = [contents for _, contents in filled_cells(function.__closure__ or ())]
            if not all(map(_is_harmless, (*defaults_of(function), *cells, *vars(function).values()))):
                return True
    return False


def filled_cells(cells: Any) -> list[tuple[types.CellType, Any]]:
    """Return the cells that have contents, with them."""
    filled = []
    for cell in cells:
        with contextlib.suppress(ValueError):  # empty: a variable that is not assigned yet, or was deleted
            filled.append((cell, cell.cell_contents))
    return filled


def _is_harmless(value: Any) -> bool:
    return type(value) in SCALARS or isinstance(value, (type, types.FunctionType))


def is_made_in_c(cls: Any) -> bool:
    """Tell a class that C code made from one that a `class` statement made, as far as that can be seen.

    The latter lives on the heap and may have subclasses; what C put into its dictionary (the descriptors of `__slots__`,
    `__dict__` and `__weakref__`) neither calls the class's own slots nor makes its instances.
    """
    if cls.__flags__ & _FLAGS_OF_PYTHON != _FLAGS_OF_PYTHON:
        return True
    return any(
        (type(value) in _SLOTS_OF_C and value.__objclass__ is cls)
        or (type(value) is types.BuiltinFunctionType and value.__self__ is cls)
        for value in vars(cls).values()
    )


class Call:
    """Pickles as the result of a call."""

    def __init__(self, function: Any, *args: Any) -> None:
        self._call = (function, args)

    def __reduce__(self) -> Any:
        return self._call


def _class_parts(cls: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    namespace = vars(cls)
    basics = {name: namespace[name] for name in ("__module__", "__slots__") if name in namespace}
    basics["__qualname__"] = cls.__qualname__
    slots = {name for name, value in namespace.items() if type(value) is types.MemberDescriptorType}
    attributes = {name: value for name, value in namespace.items() if name not in slots}
    attributes = _without(attributes, (*_DROPPED, "__slots__", "__module__"))
    if issubclass(type(cls), abc.ABCMeta):
        attributes["_abc_impl"] = _registered(cls)
    return (rebuild_classes.make_class, type(cls), _Method(*_maker(cls)), cls.__name__, cls.__bases__, basics), attributes


def _maker(cls: Any) -> tuple[Any, str]:
    """Return whose `__new__` makes the bare class: the nearest one written in C, or ABCMeta's.

    Any other (a user's, typing's) would act a second time, and on an empty body.
    """
    for meta in type(cls).__mro__:
        if meta is abc.ABCMeta or type(vars(meta).get("__new__")) is types.BuiltinFunctionType:
            return meta, "__new__"
    return type, "__new__"


class _Method(Call):
    """Pickles as an attribute of a class."""

    def __init__(self, owner: Any, name: str) -> None:
        super().__init__(getattr, owner, name)


def _registered(cls: Any) -> list[Any]:
    dump = getattr(abc, "_get_dump", None)
    registry = dump(cls)[0] if dump is not None else ()
    return [found for reference in registry if (found := reference()) is not None]


def _enum_parts(cls: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    members: dict[str, Any] = {}
    objects: dict[str, Any] = {}
    for name, member in cls.__members__.items():
        base, value, own = _member(member)
        if is_plain(value) and is_plain(own):
            members[name] = base, value, own
        else:
            members[name] = base, f"\0{member._name_}", None  # until the object is there: no other member may be like it
            objects[name] = value, own
    basics = {"__module__": cls.__module__, "__qualname__": cls.__qualname__}
    flags = {"boundary": cls._boundary_} if issubclass(cls, enum.Flag) and members else {}
    attributes = {name: value for name, value in vars(cls).items() if name not in members}
    attributes = _without(attributes, (*_DROPPED, *_ENUM_DROPPED, "__module__"))
    if objects:
        attributes[MEMBERS] = objects
    return (rebuild_classes.make_enum, type(cls), cls.__name__, cls.__bases__, basics, members, flags), attributes


_MEMBER_OWN = ("_value_", "_name_", "__objclass__", "_sort_order_")
_BASE_VALUE: dict[type, Callable[[Any], Any]] = {
    int: int.__int__,
    str: str.__str__,
    float: float.__float__,
    bytes: lambda value: value[:],
    tuple: lambda value: value[:],
}


def _member(member: Any) -> tuple[Any, Any, dict[str, Any]]:
    """Return what `rebuild_classes.make_enum` makes a member of: its value as a builtin, `.value`, its attributes."""
    base = next((convert(member) for kind, convert in _BASE_VALUE.items() if isinstance(member, kind)), None)
    return base, member._value_, _without(vars(member), _MEMBER_OWN)


def _without(attributes: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: value for name, value in attributes.items() if name not in names}
