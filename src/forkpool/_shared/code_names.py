"""Find the names that a function's code needs: globals, imported modules, attributes.

Runs in: host and worker. Pure apart from a cache; the cache is keyed by the identity of the code object, which never changes.
Tests: tests/unit/test_payload_by_value.py
"""

from __future__ import annotations

import dis
import marshal
import re
import sys
import types
import weakref
from collections.abc import Iterator
from dataclasses import dataclass

# With these, code finds globals by names that stand in strings. `getattr` alone is not among them: nearly all of it is about
# objects; nor is `vars`, which without `sys.modules` is about objects too.
_LOOK_UP_GLOBALS = frozenset({"globals", "eval", "exec"})
_FINDS_MORE = frozenset({"__subclasses__", "get_type_hints"})
_RUN_STRINGS = frozenset({"eval", "exec"})
_IDENTIFIER = re.compile(r"[^\W\d]\w*")
_HAS_DOCSTRING = 0x4000000  # CO_HAS_DOCSTRING, since Python 3.13; before, a function without one has None there
# The last one since Python 3.12: type parameters and aliases in a class.
_GLOBAL_OPS = frozenset(
    {"LOAD_GLOBAL", "STORE_GLOBAL", "DELETE_GLOBAL", "LOAD_NAME", "STORE_NAME", "LOAD_FROM_DICT_OR_GLOBALS"}
)


@dataclass(frozen=True, slots=True)
class CodeNames:
    """What one code object and those nested in it refer to."""

    globals: tuple[str, ...]  # read or written, in order of appearance
    stored: frozenset[str]  # those that are written after a `global` statement
    imports: tuple[str, ...]  # absolute modules that `import` statements inside the code name
    attributes: tuple[str, ...]  # every other name: attributes, imported names
    looked_up: tuple[str, ...]  # what may be a global's name in a string, where the code can look names up
    finds_more: bool  # what it reaches depends on what it names: see `lookups`


_names: dict[int, tuple[weakref.ref[types.CodeType], CodeNames]] = {}
_bytes: dict[int, tuple[weakref.ref[types.CodeType], bytes | None]] = {}
_codes: weakref.WeakValueDictionary[bytes, types.CodeType] = weakref.WeakValueDictionary()


def names_of(code: types.CodeType) -> CodeNames:
    """Return the names that `code` refers to."""
    key = id(code)
    known = _names.get(key)
    if known is not None and known[0]() is code:
        return known[1]
    names = _walk(code)
    _names[key] = (weakref.ref(code, lambda _: _names.pop(key, None)), names)
    return names


def marshalled(code: types.CodeType) -> bytes | None:
    """Return the marshalled code, or None if its constants are not marshal's.

    The bytes are kept: marshal's output depends on reference counts, and what is compared by content must not change.
    """
    key = id(code)
    known = _bytes.get(key)
    if known is not None and known[0]() is code:
        return known[1]
    try:
        data = marshal.dumps(code)
        _codes[data] = code
    except ValueError:
        data = None
    _bytes[key] = (weakref.ref(code, lambda _: _bytes.pop(key, None)), data)
    return data


def known_code(data: bytes) -> types.CodeType | None:
    """Return the code object that `marshalled` made these bytes of in this process, if it is still there."""
    return _codes.get(data)


def _walk(code: types.CodeType) -> CodeNames:
    used: dict[str, None] = {}
    stored: set[str] = set()
    imports: dict[str, None] = {}
    attributes: dict[str, None] = dict.fromkeys(code.co_names)
    looked_up: dict[str, None] = {}
    for instruction in dis.get_instructions(code):
        if instruction.opname in _GLOBAL_OPS:
            used[instruction.argval] = None
            if instruction.opname == "STORE_GLOBAL":
                stored.add(instruction.argval)
        elif instruction.opname == "IMPORT_NAME":
            imports[instruction.argval] = None
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            inner = names_of(constant)
            used.update(dict.fromkeys(inner.globals))
            stored |= inner.stored
            imports.update(dict.fromkeys(inner.imports))
            attributes.update(dict.fromkeys(inner.attributes))
            looked_up.update(dict.fromkeys(inner.looked_up))
    if "modules" in attributes or "__main__" in imports or not _LOOK_UP_GLOBALS.isdisjoint(used):
        looked_up.update(dict.fromkeys(_names_in_strings(code, whole=_RUN_STRINGS.isdisjoint(used))))
    finds_more = not _FINDS_MORE.isdisjoint(attributes)
    return CodeNames(tuple(used), frozenset(stored), tuple(imports), tuple(attributes), tuple(looked_up), finds_more)


def _names_in_strings(code: types.CodeType, *, whole: bool) -> Iterator[str]:
    """Yield the names in a code's string constants: strings that are one, or all within, as in `eval("X + 1")`."""
    for text in _strings_in(code):
        if not whole:
            yield from identifiers_in(text)
        elif text.isidentifier():
            yield text


def _strings_in(code: types.CodeType) -> Iterator[str]:
    constants = code.co_consts[1:] if _begins_with_docstring(code) else code.co_consts
    for constant in constants:
        if isinstance(constant, str):
            yield constant
        elif isinstance(constant, (tuple, frozenset)):  # `for name in ["A", "B"]`
            yield from (item for item in constant if isinstance(item, str))
        elif isinstance(constant, types.CodeType):  # whatever a lambda or comprehension inside looks up
            yield from _strings_in(constant)


def _begins_with_docstring(code: types.CodeType) -> bool:
    if code.co_name.startswith("<"):  # <lambda>, <listcomp>
        return False
    return sys.version_info < (3, 13) or bool(code.co_flags & _HAS_DOCSTRING)


def identifiers_in(text: str) -> list[str]:
    """Return all that could be a name in a piece of source."""
    return _IDENTIFIER.findall(text)


def submodules_used(package: types.ModuleType, attributes: tuple[str, ...]) -> list[str]:
    """Return the loaded submodules of `package` that code with these attribute names may reach."""
    found: list[str] = []
    parents = [package.__name__]
    while parents:
        parent = parents.pop()
        for attribute in attributes:
            name = f"{parent}.{attribute}"
            if name in sys.modules and name not in found:
                found.append(name)
                parents.append(name)
    return found
