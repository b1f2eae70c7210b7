"""What code reaches without naming it: names in strings, subclasses, annotations as text."""

from __future__ import annotations

import sys
import threading
import typing
from typing import Any

import pytest

from forkpool._shared.code_names import names_of
from forkpool._shared.payload import CallEncoder, PayloadError
from tests.unit.conftest import Notebook
from tests.unit.worker_process import Worker

LOOKS_UP = {
    "globals": "def f(): return globals().get('X')",
    "subscript": "def f(): return globals()['X']",
    "sys.modules": "import sys\ndef f(): return getattr(sys.modules[__name__], 'X', None)",
    "vars": "import sys\ndef f(): return vars(sys.modules['notebook_for_tests']).get('X')",
    "eval": "def f(): return eval('X + 0')",
    "exec": "def f():\n    exec('global y; y = X')\n    return y",
    "lambda": "f = lambda: eval('X')",
    "nested": "def f(): return [globals()[name] for name in ('X',)][0]",
    "inner": "def f():\n    def look(table): return table['X']\n    return look(globals())",
    "function": "def X_of(): return X\ndef f(): return globals()['X_of']()",
}


@pytest.mark.parametrize("how", LOOKS_UP)
def test_a_global_whose_name_stands_in_a_string(notebook: Notebook, worker: Worker, how: str) -> None:
    notebook.cell("X = 1")
    notebook.cell(LOOKS_UP[how])
    assert [worker.call(notebook.f) for _ in range(3)] == [1, 1, 1]
    notebook.cell("X = 2")
    assert worker.call(notebook.f) == 2


def test_only_code_that_looks_names_up_pays_for_it(notebook: Notebook) -> None:
    notebook.cell("""
        def looks(): return globals()["X"]
        def documented():
            "Not X."
            return globals()["Y"]
        def reads(row): return getattr(row, "X"), vars(row)["X"], row.eval("X"), "X"
    """)
    assert names_of(notebook.looks.__code__).looked_up == ("X",)
    assert names_of(notebook.documented.__code__).looked_up == ("Y",)
    assert names_of(notebook.reads.__code__).looked_up == ()


def test_one_that_cannot_be_pickled_is_left_out_unless_it_is_named(notebook: Notebook, worker: Worker) -> None:
    notebook.module.lock = threading.Lock()  # type: ignore[attr-defined]
    notebook.cell("""
        def looks(): return globals().get("lock")
        def reads(): return lock
        def both(): return globals().get("lock") or lock
        def through(): return globals().get("lock") or reads()
    """)
    assert worker.call(notebook.looks) is None
    for fn in (notebook.reads, notebook.both, notebook.through):
        with pytest.raises(PayloadError, match="lock"):
            worker.call(fn)


def test_subclasses(notebook: Notebook, worker: Worker) -> None:
    notebook.cell("""
        from tests.support.a_library import Importable
        class Shape:
            @classmethod
            def names(cls): return sorted(found.__name__ for found in cls.__subclasses__())
        class Square(Shape):
            def area(self): return SIDE ** 2
        class Small(Square): pass
        class Ours(Importable): pass
        SIDE = 2
        def look(): return [found.__name__ for found in Shape.__subclasses__()]
        def deep(): return [found.__name__ for one in Shape.__subclasses__() for found in one.__subclasses__()]
        def areas(): return [found().area() for found in Shape.__subclasses__()]
        def importable(): return [found.__name__ for found in Importable.__subclasses__()]
        def names(): return Shape.names()
    """)
    assert worker.call(notebook.look) == ["Square"]
    assert worker.call(notebook.deep) == ["Small"]
    assert worker.call(notebook.areas) == [4]
    assert worker.call(notebook.importable) == ["Ours"]
    with Worker() as another:
        assert another.call(notebook.names) == ["Square"]
    notebook.cell("class Round(Shape): pass")
    assert worker.call(notebook.look) == ["Square", "Round"]


def test_annotations_as_text(notebook: Notebook, worker: Worker) -> None:
    notebook.cell("""
        from __future__ import annotations
        import typing
        class Item: pass
        class Base:
            first: Item
        class Order(Base):
            items: list[Item]
            def add(self, item: Item) -> Order: ...
        def total(order: Order, tax: Item | None = None) -> int: ...
        def of_class(): return typing.get_type_hints(Order)
        def of_method(): return typing.get_type_hints(Order.add)
        def of_function(): return typing.get_type_hints(total)
    """)
    item = notebook.Item
    assert worker.call(notebook.of_class) == {"first": item, "items": list[item]}
    assert worker.call(notebook.of_method) == {"item": item, "return": notebook.Order}
    with Worker() as another:
        assert another.call(notebook.of_function) == {"order": notebook.Order, "tax": item | None, "return": int}


MADE = {
    "class": ("", "Order:"),
    "dataclass": ("@dataclasses.dataclass", "Order:"),
    "NamedTuple": ("", "Order(typing.NamedTuple):"),
    "TypedDict": ("", "Order(typing.TypedDict):"),
}


@pytest.mark.parametrize("future", ["", "from __future__ import annotations"])
@pytest.mark.parametrize("made", MADE)
def test_a_library_may_evaluate_the_annotations_of_a_class(notebook: Notebook, worker: Worker, made: str, future: str) -> None:
    """No code of the program asks for it, so nothing but the class tells what it needs."""
    decorator, head = MADE[made]
    notebook.cell(f"""
        {future}
        import dataclasses, typing
        class Item: pass
        T = typing.TypeVar("T")
        Items = list["Item"]
        large = bytes(100)
        {decorator}
        class {head}
            first: "Item"
            items: typing.Optional[dict[str, list["Item"]]]
            alias: "Items"
            any: "list[T]"
            size: "typing.Literal['large']"
    """)
    item = notebook.Item
    assert worker.call(typing.get_type_hints, notebook.Order) == {
        "first": item,
        "items": dict[str, list[item]] | None,
        "alias": list[item],
        "any": list[notebook.T],
        "size": typing.Literal["large"],
    }
    assert worker.call(lambda order: "large" in vars(sys.modules[order.__module__]), notebook.Order) is False


def test_a_type_in_an_annotation_that_cannot_be_pickled_is_left_out(notebook: Notebook, worker: Worker) -> None:
    notebook.cell("""
        from __future__ import annotations
        import dataclasses, threading
        LOCK = threading.Lock()
        class Connection:
            lock = threading.Lock()
        class Guarded:
            def enter(self): return LOCK
        class Deep:
            connection: Connection
            guarded: Guarded
        @dataclasses.dataclass
        class Order:
            number: int
            connection: Connection | None = None
            guarded: Guarded | None = None
            deep: Deep | None = None
        def number_of(order): return order.number, sorted({"Connection", "Guarded", "Deep"} & globals().keys())
        def make(): return Order(4).number, Connection.lock
    """)
    assert worker.call(notebook.number_of, notebook.Order(3)) == (3, ["Deep"])
    with pytest.raises(PayloadError, match="Connection"):
        worker.call(notebook.make)


def test_a_type_of_another_module_by_value(notebook: Notebook, plugin: Notebook, worker: Worker) -> None:
    plugin.cell("class Item: pass")
    notebook.cell("""
        import plugin_for_tests as plugin
        class Order:
            item: "plugin.Item"
    """)
    assert worker.call(typing.get_type_hints, notebook.Order) == {"item": plugin.Item}


def test_a_repeated_call_notices_what_it_would_find(notebook: Notebook) -> None:
    notebook.cell("def f(): return globals().get('X')")
    encoder = CallEncoder()
    payloads: list[Any] = [encoder.encode(notebook.f, (), {}) for _ in range(3)]
    notebook.cell("X = 1")
    payloads += [encoder.encode(notebook.f, (), {}) for _ in range(3)]
    assert [payloads.index(one) for one in payloads] == [0, 0, 0, 3, 3, 3]
