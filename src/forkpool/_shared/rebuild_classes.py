"""Make classes that another process described, and change those that it has changed since.

Runs in: worker (task thread) and host (any thread that decodes). Payloads name `make_class` and `make_enum`.
Must not run what defining the class ran in the host: a metaclass's `__new__`, `__init_subclass__`, `__set_name__`.
Hard part: Python calls `__init_subclass__` whenever a class is made, and knows no other way. See `make_class`.
Tests: tests/unit/test_payload_classes.py, test_payload_class_order.py
"""

from __future__ import annotations

import enum
import gc
import operator
import weakref
from typing import Any

MEMBERS = "\0members"  # stands among the attributes of an Enum for the members that are not plain: they may be of any class


def make_class(metaclass: Any, new: Any, name: str, bases: Any, namespace: dict[str, Any]) -> Any:
    """Return a class without its attributes, and without the effects that defining it had in the host."""
    if not any("__init_subclass__" in vars(ancestor) for base in bases for ancestor in base.__mro__[:-1]):
        return new(metaclass, name, bases, namespace)
    quiet = _make_quiet_twin(metaclass, new, bases[0])
    cls = new(metaclass, name, (quiet, *bases), dict(namespace))
    try:
        cls.__bases__ = bases
    except TypeError:  # another one of them gives the memory layout
        del quiet.__init_subclass__
        return cls
    try:
        quiet.__bases__ = (type("_Quiet", (), {"__slots__": ()}),)  # no `__subclasses__()` of the bases is to find it
    except TypeError:  # an abstract class stands above: until it is collected it is found
        seen = weakref.ref(quiet)
        del quiet
        for generation in range(3):  # it is young: that takes microseconds, and all of a large heap 0.1 s
            if seen() is not None:
                gc.collect(generation)
    return cls


def _make_quiet_twin(metaclass: Any, new: Any, base: Any) -> Any:
    """Make what stands first among the bases while a class is made, so that no `__init_subclass__` runs a second time.

    It adds to the memory layout what `base` adds, or Python would not let `base` take its place.
    """
    slots = [slot for slot, offset in _OPTIONAL_SLOTS.items() if getattr(base, offset)]
    added = [slot for slot in slots if not getattr(base.__base__, _OPTIONAL_SLOTS[slot])]
    body = {"__slots__": added, "__init_subclass__": lambda cls, **_: None}
    return make_class(metaclass, new, "_Quiet", base.__bases__, body) if slots else type("_Quiet", (), body)


_OPTIONAL_SLOTS = {"__dict__": "__dictoffset__", "__weakref__": "__weakrefoffset__"}


def remake(cls: Any, make: Any, *args: Any) -> None:
    """Change a class to what `make` would make of these arguments now."""
    (_update_enum if make is make_enum else _update_class)(cls, *args)


def _update_class(cls: Any, metaclass: Any, new: Any, name: str, bases: Any, namespace: dict[str, Any]) -> None:
    for attribute, value in (("__name__", name), ("__qualname__", namespace["__qualname__"])):
        type.__setattr__(cls, attribute, value)
    if len(bases) != len(cls.__bases__) or not all(map(operator.is_, bases, cls.__bases__)):
        cls.__bases__ = bases


def set_class_attributes(cls: Any, attributes: dict[str, Any]) -> None:
    """Set attributes past any `__setattr__` of a metaclass, in the state in which the host has them."""
    registered = attributes.pop("_abc_impl", ())
    if (members := attributes.pop(MEMBERS, None)) is not None:
        _fill_members(cls, members)
    first_line = attributes.get("__firstlineno__")
    for name, value in attributes.items():
        type.__setattr__(cls, name, value)
    if first_line is not None:  # 3.13: setting __module__ and friends deletes it
        type.__setattr__(cls, "__firstlineno__", first_line)
    for subclass in registered:
        cls.register(subclass)


def make_enum(metaclass: Any, name: str, bases: Any, basics: dict[str, Any], members: dict[str, Any], flags: Any) -> Any:
    """Return an Enum with all its members, made without the user's `__new__` and `__init__`."""
    namespace = metaclass.__prepare__(name, bases)
    namespace["__new__"] = _raw_member
    for key, value in (*basics.items(), *members.items()):
        namespace[key] = value
    new = next(meta.__new__ for meta in metaclass.__mro__ if meta.__module__ == enum.__name__)
    return new(metaclass, name, bases, namespace, **flags)


def _update_enum(
    cls: Any, metaclass: Any, name: str, bases: Any, basics: dict[str, Any], members: dict[str, Any], flags: Any
) -> None:
    _fill_members(cls, {name: (value, own) for name, (_, value, own) in members.items() if own is not None})


def _fill_members(cls: Any, members: dict[str, tuple[Any, dict[str, Any]]]) -> None:
    for name, (value, own) in members.items():
        if (member := cls._member_map_.get(name)) is not None:
            member._value_ = value
            member.__dict__.update(own)
    _index_members(cls)


def _index_members(cls: Any) -> None:
    """Enter the values where `cls(value)` looks for them; what is unhashable is compared one by one."""
    index, unhashable = cls._value2member_map_, getattr(cls, "_unhashable_values_", [])
    hashable, by_name = getattr(cls, "_hashable_values_", []), getattr(cls, "_unhashable_values_map_", {})  # since 3.13
    for table in (index, hashable, unhashable, by_name):
        table.clear()
    for name, member in cls._member_map_.items():
        value = member._value_
        try:
            index.setdefault(value, member)
            hashable.append(value)
        except TypeError:
            unhashable.append(value)
            by_name.setdefault(name, []).append(value)


def _raw_member(cls: Any, base: Any, value: Any, own: dict[str, Any] | None) -> Any:
    """
    Args:
        own: Its attributes; None: they follow, and so does its value.
    """
    kind: Any = next((kind for kind in (int, str, bytes, float, tuple) if issubclass(cls, kind)), object)
    member = kind.__new__(cls) if kind is object else kind.__new__(cls, base)
    member._value_ = value
    member.__dict__.update(own or {})
    return member
