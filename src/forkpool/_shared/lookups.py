"""Find what code reaches without naming it (names in strings, annotations as text, subclasses), and what an initializer sets.

Runs in: host and worker, called by `session` for each function and class that goes by value. Costs something only for classes
with annotations, and functions that name `globals`, `eval`, `exec`, `sys.modules`, `get_type_hints` or `__subclasses__`.
Must not run user code, nor guess at names that are made while the function runs: those are a row in
docs/coming-from/process-pool-executor.md.
Tests: tests/unit/test_payload_lookups.py
"""

from __future__ import annotations

import functools
import sys
import types
import typing
from collections.abc import Iterator
from typing import Any

from forkpool._shared import tracking
from forkpool._shared.calls import attribute_of
from forkpool._shared.code_names import CodeNames, identifiers_in, names_of
from forkpool._shared.importable import by_reference, is_importable
from forkpool._shared.tracking import Key

Found = tuple[str, str, Any]  # namespace key, name, value
_TYPING = ("typing", "types", "typing_extensions")


def functions_called(called: Any) -> Iterator[types.FunctionType]:
    """Yield the functions by value whose code runs when this is called: behind partials, methods, decorators and classes."""
    seen: set[int] = set()
    todo = [called]
    while todo:
        each = todo.pop()
        kind = type(each)
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        if kind is types.FunctionType:
            if not by_reference(each):
                yield each
            todo.append(vars(each).get("__wrapped__"))
        elif issubclass(kind, type):
            todo += [attribute_of(each, "__new__"), attribute_of(each, "__init__")]
        else:
            inner = [attribute_of(each, name) for name in _LEAD_ON.get(kind, ())]
            todo += inner or [attribute_of(kind, "__call__")]


_LEAD_ON = {functools.partial: ("func",), types.MethodType: ("__func__",), type(functools.lru_cache(len)): ("__wrapped__",)}


def globals_set_by(initializer: Any) -> frozenset[Key]:
    """Return the globals that an initializer sets, itself or by functions that it names."""
    found: set[Key] = set()
    functions: dict[int, Any] = {}  # by identity: those that were met
    todo = [initializer]
    while todo:
        function = todo.pop()
        function = getattr(function, "func", function)  # of a partial
        function = getattr(function, "__func__", function)  # of a method
        if type(function) is not types.FunctionType or id(function) in functions or by_reference(function):
            continue
        functions[id(function)] = function
        names, namespace = names_of(function.__code__), function.__globals__
        found.update(("g", tracking.key_of_globals(namespace), name) for name in names.stored)
        todo += [namespace[name] for name in names.globals if name in namespace]
    return frozenset(found)


def looked_up_by(function: types.FunctionType, names: CodeNames) -> Iterator[Found]:
    """Yield the globals of modules shipped by value that a function looks up by a name in a string."""
    if names.looked_up:
        yield from _globals_in(function.__globals__, names.looked_up)
    if "get_type_hints" in names.attributes:
        for value in _named_by(function, names):
            for namespace, annotations in _annotations_of(value):
                yield from _globals_in(namespace, _names_in(annotations))


def named_by_annotations(cls: Any) -> Iterator[Found]:
    """Yield the types that the annotations of a class name as text: libraries that make instances evaluate them (cattrs does).

    All are text after `from __future__ import annotations`; `Optional["Node"]` is in part.
    """
    annotations = vars(cls).get("__annotations__")
    module = sys.modules.get(cls.__module__)
    if type(annotations) is dict and annotations and module is not None:
        names = list(_names_in(annotations))
        for found in _globals_in(vars(module), names):
            if issubclass(type(found[2]), types.ModuleType):
                yield found
                inside = _globals_in(tracking.globals_of(found[2]), names)  # `plugin.Item`
                yield from (each for each in inside if _is_for_annotations(each))
            elif _is_for_annotations(found):
                yield found


def _is_for_annotations(found: Found) -> bool:
    kind = type(found[2])  # not `isinstance`, which would ask a proxy what it is
    return issubclass(kind, type) or kind.__module__ in _TYPING


def subclasses_asked_for(function: types.FunctionType, names: CodeNames) -> Iterator[Any]:
    """Yield the classes that `Shape.__subclasses__()` finds, as far as a module shipped by value holds them."""
    if "__subclasses__" not in names.attributes:
        return
    own_class = function.__globals__.get(function.__qualname__.partition(".")[0])
    pending: list[type] = [value for value in (*_named_by(function, names), own_class) if isinstance(value, type)]
    seen = set(map(id, pending))
    for cls in pending:
        subclasses: list[type] = type.__subclasses__(cls)  # past any `__subclasses__` of a metaclass
        for subclass in subclasses:
            if id(subclass) not in seen:
                seen.add(id(subclass))
                pending.append(subclass)
                if not by_reference(subclass) and tracking.stands_in_its_module(subclass):
                    yield subclass


def _named_by(function: types.FunctionType, names: CodeNames) -> Iterator[Any]:
    return (function.__globals__[name] for name in names.globals if name in function.__globals__)


def _globals_in(namespace: dict[str, Any], names: Any) -> Iterator[Found]:
    space = tracking.key_of_globals(namespace)
    if not space.startswith("r:"):
        for name in names:
            if name in namespace and not name.startswith("__"):
                yield space, name, namespace[name]


def _names_in(annotations: dict[str, Any]) -> Iterator[str]:
    """Yield what may be names in those annotations, or parts of annotations, that are text."""
    pending = list(annotations.values())
    for annotation in pending:
        if type(annotation) is typing.ForwardRef:
            annotation = annotation.__forward_arg__
        if type(annotation) is str:
            yield from identifiers_in(annotation)
        elif type(annotation).__module__ in _TYPING:
            pending += typing.get_args(annotation)


def _annotations_of(value: Any) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield where annotations are evaluated, and the annotations, of a function, or of a class with its bases and methods."""
    if isinstance(value, types.FunctionType):
        yield value.__globals__, value.__annotations__
    for base in value.__mro__ if isinstance(value, type) else ():
        module = sys.modules.get(base.__module__)
        if module is not None and not is_importable(base.__module__):
            yield vars(module), vars(base).get("__annotations__") or {}
            for part in vars(base).values():
                if isinstance(part, types.FunctionType):
                    yield part.__globals__, part.__annotations__
