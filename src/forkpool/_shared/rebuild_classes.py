"""Make classes that another process described, and change those that it has changed since.

Runs in: worker (task thread) and host (any thread that decodes). Payloads name `make_class` and `make_enum`.
Must not run what defining the class ran in the host: a metaclass's `__new__`, `__init_subclass__`, `__set_name__`.
Hard part: Python calls `__init_subclass__` whenever a class is made, and knows no other way. See `make_class`.
Tests: tests/unit/test_payload_classes.py, test_payload_class_order.py
"""

from __future__ import annotations

import contextlib
import enum
import operator
from typing import Any

from forkpool._shared.plain import SCALARS


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
    else:
        with contextlib.suppress(TypeError):
            quiet.__bases__ = (type("_Quiet", (), {"__slots__": ()}),)  # no `__subclasses__()` of the bases is to find it
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
    for member_name, (_, value, attributes) in members.items():
        if (member := cls._member_map_.get(member_name)) is not None:
            member._value_ = value
            member.__dict__.update(attributes)


def index_members(cls: Any) -> None:
    """Their values were hashed before the classes of these had their `__hash__`."""
    index = cls._value2member_map_
    if all(type(value) in SCALARS for value in index):
        return
    index.clear()
    for member in cls._member_map_.values():
        with contextlib.suppress(TypeError):  # unhashable: then it is looked for by `==`
            index.setdefault(member._value_, member)


def _raw_member(cls: Any, base: Any, value: Any, attributes: dict[str, Any]) -> Any:
    kind: Any = next((kind for kind in (int, str, bytes, float, tuple) if issubclass(cls, kind)), object)
    member = kind.__new__(cls) if kind is object else kind.__new__(cls, base)
    member._value_ = value
    member.__dict__.update(attributes)
    return member
