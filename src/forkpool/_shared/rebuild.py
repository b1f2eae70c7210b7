"""Build functions and objects from what the other side sent: the names that payloads refer to.

Runs in: worker (task thread) and host (any thread that decodes). Payloads name these functions, so renaming one changes
the wire format. Classes: `rebuild_classes`. What a reference finds, and in which order: `applier`.
Tests: tests/unit/test_payload_by_value.py, test_payload_classes.py
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import marshal
import pickle
import sys
import types
from typing import Any

from forkpool._shared import tracking
from forkpool._shared.applier import active_applier, interned
from forkpool._shared.code_names import known_code
from forkpool._shared.not_sent import NotSent


def class_ref(uid: str) -> Any:
    """Return the class that both sides know under `uid`."""
    active_applier().ensure(("c", uid))
    cls = tracking.class_of(uid)
    if cls is None:
        raise pickle.UnpicklingError("the definition of a class that this payload refers to is not known here any more")
    return cls


def enum_member(cls: Any, name: str) -> Any:
    """Return a member past any `__getitem__` of a metaclass."""
    return cls._member_map_[name]


def global_ref(space: str, name: str) -> Any:
    """Return the object that the host holds under this global name."""
    return active_applier().look_up(("g", space, name))


def ring_member(space: str, name: str, position: int) -> Any:
    """Return one of the globals that hold each other, the first of which has this name."""
    return active_applier().member_of(("ring", space, name), position)


def preloaded_global(space: str, name: str, kind: str) -> Any:
    """Return what the preloaded program made of a global that cannot be pickled in the host."""
    if name not in tracking.preloaded:
        return NotSent(
            f"global {name!r}",
            f"(a {kind}) cannot be pickled, and the program that was preloaded has none of that name; make it at the top of "
            "the program, outside of `if __name__ == '__main__':`",
        )
    return active_applier().namespace(space)[name]


def module_ref(name: str) -> Any:
    """Return the module that stands for one shipped by value."""
    active_applier().namespace(f"m:{name}")
    return sys.modules[name]


def import_module(name: str) -> Any:
    """Import a module by its name."""
    return importlib.import_module(name)


def load_code(data: bytes) -> Any:
    """Return the code object from its marshalled form (both sides run the same interpreter).

    The process that marshalled it gets the very object back that it had: breakpoints and profiles hang on that.
    """
    return known_code(data) or marshal.loads(data)


def make_cell() -> types.CellType:
    """Return an empty cell; the function that owns it fills it once it exists itself."""
    return types.CellType()


def cell_ref(function: types.FunctionType, position: int) -> Any:
    """Return a cell that a function closes over together with another one."""
    return (function.__closure__ or ())[position]


def set_cell(cell: types.CellType, contents: Any) -> None:
    """Fill a cell that travels on its own."""
    cell.cell_contents = contents


def make_function(code: types.CodeType, space: str, basics: dict[str, Any], closure: Any) -> types.FunctionType:
    """Return a function on the one namespace of its module; its state follows."""
    namespace = active_applier().namespace(space)
    for name, value in basics.items():
        if namespace.get(name) is None:  # a fresh `__main__` has a `__package__` that is None
            namespace[name] = value
    namespace.setdefault("__builtins__", __builtins__)
    return types.FunctionType(code, namespace, code.co_name, None, closure)


def set_function(function: types.FunctionType, state: tuple[Any, ...]) -> None:
    """Give a function what only exists once the function does: defaults, attributes, contents of its cells."""
    attributes, cells, submodules, own = state
    for name in submodules:
        importlib.import_module(name)
    for cell, contents in cells:
        cell.cell_contents = interned(contents)
    for name, value in attributes.items():
        setattr(function, name, value)
    function.__defaults__ = function.__defaults__ and tuple(map(interned, function.__defaults__))
    by_keyword = function.__kwdefaults__
    function.__kwdefaults__ = by_keyword and {name: interned(value) for name, value in by_keyword.items()}
    function.__dict__.update(own)


def set_function_between(function: types.FunctionType, between: tuple[Any, ...]) -> None:
    """The same, where the host noted while it pickled what the function holds."""
    set_function(function, between[1])


def make_cached(function: Any, maxsize: int | None, typed: bool, own: dict[str, Any]) -> Any:
    """Return a function wrapped in an empty `functools.lru_cache`."""
    cached = functools.lru_cache(maxsize, typed)(function)
    cached.__dict__.update(own)
    return cached


def make_cached_property(function: Any, name: str | None) -> Any:
    """Return a `functools.cached_property` (its lock, before Python 3.12, is a new one)."""
    made = functools.cached_property(function)
    made.attrname = name
    return made


def make_singledispatch(base: Any, implementations: list[tuple[Any, Any]]) -> Any:
    """Return a generic function with the implementations that were registered."""
    generic = functools.singledispatch(base)
    for cls, implementation in implementations:
        generic.register(cls, implementation)
    return generic


def set_own(function: Any, own: dict[str, Any]) -> None:
    """Give a function the attributes that the program set."""
    vars(function).update(own)


def make_named(kind: Any, args: tuple[Any, ...], module: str | None, kwargs: dict[str, Any]) -> Any:
    """Return one of typing's named objects (NewType, TypeVar ...), which know only their name when pickled."""
    made = kind(*args, **kwargs)
    with contextlib.suppress(AttributeError, TypeError):  # TypeAliasType keeps what it took from the caller's frame
        made.__module__ = module
    return made
