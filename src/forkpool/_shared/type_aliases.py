"""Take aliases of a `type` statement (PEP 695) apart, and make them again: they may refer to themselves.

Runs in: `recipe_of` where a call or result is pickled, the rest where it is unpickled. Payloads name these functions, so
renaming one changes the wire format. Only Python 3.12 and later have such aliases.
Hard part: `type JSON = str | list[JSON]` has a value that holds the alias, and an alias cannot be changed once it exists. So a
statement of the same form is run, whose parts come from a list: Python evaluates them when they are asked for, and by then the
list is filled. Its type parameters are new ones, so those in the value become references to them.
Tests: tests/unit/test_payload_type_aliases.py
"""

from __future__ import annotations

import keyword
from typing import Any, NamedTuple


class Recipe(NamedTuple):
    """What an alias is made of."""

    statement: str
    list_name: str  # what the statement calls the list of parts
    parts: list[Any]  # its value, then bounds, constraints and defaults of its parameters, as the statement counts them


def recipe_of(alias: Any) -> Recipe | None:
    """Return how to make an alias again; None: no statement has such a name."""
    if not alias.__name__.isidentifier() or keyword.iskeyword(alias.__name__):
        return None
    parts = [alias.__value__]
    list_name = "_" * (1 + max(len(one.__name__) for one in (alias, *alias.__type_params__)))  # none of these is called so
    parameters = ", ".join(_declaration(parameter, list_name, parts) for parameter in alias.__type_params__)
    head = f"{alias.__name__}[{parameters}]" if parameters else alias.__name__
    return Recipe(f"type {head} = {list_name}[0]", list_name, parts)


def _declaration(parameter: Any, parts_name: str, parts: list[Any]) -> str:
    """Return the text for a type parameter; what it needs is appended to the parts."""

    def put(part: Any) -> str:
        parts.append(part)
        return f"{parts_name}[{len(parts) - 1}]"

    text: str = {"TypeVarTuple": "*", "ParamSpec": "**"}.get(type(parameter).__name__, "") + parameter.__name__
    if constraints := getattr(parameter, "__constraints__", ()):
        text += f": (*{put(constraints)},)"
    elif type(parameter).__name__ == "TypeVar" and parameter.__bound__ is not None:
        text += f": {put(parameter.__bound__)}"
    return f"{text} = {put(parameter.__default__)}" if has_default(parameter) else text


def has_default(parameter: Any) -> bool:
    """Tell whether a type parameter has a default, as it may since Python 3.13."""
    return hasattr(parameter, "has_default") and bool(parameter.has_default())


def make_alias(name: str, module: str | None, statement: str, list_name: str, parts: list[Any]) -> Any:
    """Return an alias whose parts are still to come."""
    namespace: dict[str, Any] = {"__name__": module, list_name: parts}
    exec(statement, namespace)
    return namespace[name]


def fill_alias(alias: Any, state: tuple[list[Any], list[Any]]) -> None:
    """Give an alias its parts."""
    empty, parts = state
    empty.extend(parts)


def parameter_of(alias: Any, position: int) -> Any:
    """Return a type parameter of an alias."""
    return alias.__type_params__[position]
