"""Aliases of `type` statements and type parameters (PEP 695): also where they refer to themselves."""

from __future__ import annotations

import sys
import typing
from typing import Any

import pytest

from tests.unit.conftest import Notebook
from tests.unit.worker_process import Worker

pytestmark = pytest.mark.skipif(sys.version_info < (3, 12), reason="the syntax of type parameters came with Python 3.12")

JSON = """
import dataclasses, typing
type JSON = dict[str, JSON] | list[JSON] | str
type Row = list[Cell]
type Cell = str | Row
def annotated(value: JSON) -> JSON: return value
@dataclasses.dataclass
class Holds:
    value: JSON
class Named(typing.NamedTuple):
    value: JSON
class Plain:
    value: JSON
    def get(self, value: JSON) -> JSON: return value
def hints(): return typing.get_type_hints(annotated)["return"]
def closes(): return JSON.__value__.__args__[1].__args__[0] is JSON, JSON.__name__, JSON.__module__
def both(): return Cell.__value__.__args__[1].__value__.__args__[0].__name__, Row.__value__.__args__[0].__name__
def local():
    type _Own = int | list[_Own]
    return _Own
def holds(): return Holds("a").value
def give(value): return value
"""


def test_what_is_annotated_with_an_alias_of_itself(notebook: Notebook, worker: Worker) -> None:
    notebook.cell(JSON)
    assert worker.call(notebook.annotated, "a") == "a"
    assert worker.call(notebook.holds) == "a"
    assert worker.call(notebook.give, notebook.Holds(["a"])) == notebook.Holds(["a"])
    assert worker.call(notebook.Named, "a") == notebook.Named("a")
    assert worker.call(notebook.Plain().get, "a") == "a"


def test_the_circle_is_closed_in_the_worker(notebook: Notebook, worker: Worker) -> None:
    notebook.cell(JSON)
    assert worker.call(notebook.closes) == (True, "JSON", "notebook_for_tests")
    assert worker.call(notebook.hints) is notebook.JSON
    assert worker.call(notebook.give, notebook.JSON) is notebook.JSON
    assert worker.call(notebook.both) == ("Cell", "Cell")


def test_one_that_was_made_in_a_function_comes_back(notebook: Notebook, worker: Worker) -> None:
    notebook.cell(JSON)
    alias = worker.call(notebook.local)
    assert alias.__value__.__args__[1].__args__[0] is alias
    assert (alias.__name__, alias.__module__) == ("_Own", "notebook_for_tests")


GENERIC = """
import typing
class Node[T: Node]:
    def get[Key: (int, str), *Rest, **Named](self, key: Key, *rest: *Rest) -> T: ...
type Tree[T: int] = T | list[Tree[T]]
type Pair[A, B: (int, str), *Rest, **Named] = tuple[A, B, *Rest] | typing.Callable[Named, Pair[A, B, *Rest, Named]]
def made(alias):
    return alias[int], [(type(each).__name__, each.__name__) for each in alias.__type_params__]
def made_pair(): return made(Pair)[1]
def bounds():
    first, (a, b, *_) = Tree.__type_params__[0], Pair.__type_params__
    return first.__bound__, first.__infer_variance__, a.__bound__, a.__constraints__, b.__constraints__
def is_closed():
    (first, items), parameters = Tree.__value__.__args__, Tree.__type_params__
    (inner,) = items.__args__
    return first is parameters[0], inner.__origin__ is Tree, inner.__args__ == parameters
def of_function():
    key, rest, named = Node.get.__type_params__
    names = Node.get.__annotations__
    return key.__constraints__, key.__infer_variance__, names["key"] is key, names["return"] is Node.__type_params__[0]
type Under[_Under] = list[_Under]
def under(): return str(Under.__value__), Under.__name__
def empty[T: str](): return empty.__type_params__[0].__bound__
"""


def test_generic_aliases(notebook: Notebook, worker: Worker) -> None:
    notebook.cell(GENERIC)
    assert worker.call(notebook.is_closed) == (True, True, True)
    assert worker.call(notebook.bounds) == (int, True, None, (), (int, str))
    kinds = [("TypeVar", "A"), ("TypeVar", "B"), ("TypeVarTuple", "Rest"), ("ParamSpec", "Named")]
    tree, parameters = worker.call(notebook.made, notebook.Tree)
    assert (tree.__origin__, parameters) == (notebook.Tree, [("TypeVar", "T")])
    assert worker.call(notebook.made_pair) == kinds
    assert worker.call(notebook.under) == ("list[_Under]", "Under")


def test_type_parameters_of_functions(notebook: Notebook, worker: Worker) -> None:
    notebook.cell(GENERIC)
    assert worker.call(notebook.of_function) == ((int, str), True, True, True)
    assert worker.call(notebook.empty) is str
    notebook.cell("def empty[T: bytes](): return empty.__type_params__[0].__bound__")
    assert worker.call(notebook.empty) is bytes


@pytest.mark.skipif(sys.version_info < (3, 13), reason="defaults of type parameters came with Python 3.13")
def test_defaults_of_type_parameters(notebook: Notebook, worker: Worker) -> None:
    notebook.cell("""
        type List[T: object = int, **P = [int]] = T | list[List[T, P]]
        def of_alias(): return [each.__default__ for each in List.__type_params__]
        def of_function[T = str, *Rest = *tuple[int, str]](): return [each.__default__ for each in of_function.__type_params__]
        def none[T](): return none.__type_params__[0].has_default()
    """)
    assert worker.call(notebook.of_alias) == [int, [int]]
    of_function = worker.call(notebook.of_function)
    assert (of_function[0], len(of_function)) == (str, 2)
    assert worker.call(notebook.none) is False


def test_aliases_that_calls_made(notebook: Notebook, worker: Worker) -> None:
    kind: Any = typing.TypeAliasType  # type: ignore[attr-defined,unused-ignore]
    notebook.cell("import typing\nT = typing.TypeVar('T')\ndef give(value): return value")
    notebook.module.__dict__["Maybe"] = kind("Maybe", notebook.T | None, type_params=(notebook.T,))
    notebook.module.__dict__["odd"] = kind("no name", int | None)
    notebook.module.__dict__["word"] = kind("class", int | None)
    notebook.cell(
        "def facts():\n"
        "    is_same = Maybe.__type_params__[0] is T, Maybe.__value__.__args__[0] is T\n"
        "    return *is_same, odd.__name__, odd.__value__, word.__value__"
    )
    assert worker.call(notebook.facts) == (True, True, "no name", int | None, int | None)
