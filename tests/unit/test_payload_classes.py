"""Classes shipped by value: one identity in host and worker, and the host's class is never written to."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.conftest import Notebook
from tests.unit.worker_process import Worker

SOURCE = """
import abc, collections, dataclasses, enum, functools, typing

class Plain:
    def __init__(self, x=1): self.x = x
    def __eq__(self, other): return type(self) is type(other) and vars(self) == vars(other)
class Child(Plain):
    def __init__(self): super().__init__(2)
class Slotted:
    __slots__ = ("a", "__private")
    def __init__(self): self.a, self.__private = 1, 2
    def __eq__(self, other): return type(self) is type(other) and self.__private == other.__private
class Shape(abc.ABC):
    @abc.abstractmethod
    def area(self): ...
class Square(Shape):
    def area(self): return 4
    def __eq__(self, other): return type(self) is type(other)
@dataclasses.dataclass(frozen=True, order=True)
class Data:
    x: int = 1
    items: list = dataclasses.field(default_factory=list)
class Color(enum.Enum):
    RED = 1
    CRIMSON = 1
    BLUE = "b"
    def low(self): return self.name.lower()
class Number(enum.IntEnum):
    ONE = 1
class Word(enum.StrEnum):
    HI = enum.auto()
class Bits(enum.Flag):
    A = enum.auto()
    B = enum.auto()
class Planet(enum.Enum):
    EARTH = (6.0, 2.0)
    def __init__(self, mass, radius): self.mass, self.radius = mass, radius
    @property
    def density(self): return self.mass / self.radius
class Coordinate(bytes, enum.Enum):
    def __new__(cls, value, label):
        made = bytes.__new__(cls, [value])
        made._value_ = value
        made.label = label
        return made
    PX = (0, "x")
class Tuple(typing.NamedTuple):
    a: int = 1
    def twice(self): return self.a * 2
Old = collections.namedtuple("Old", "a b")
T = typing.TypeVar("T")
class Box(typing.Generic[T]):
    def __init__(self, v=1): self.v = v
    def __eq__(self, other): return type(self) is type(other) and self.v == other.v
class Meta(type):
    def __new__(mcs, name, bases, body):
        body["tag"] = name
        return super().__new__(mcs, name, bases, body)
    def __eq__(cls, other): return NotImplemented
    __hash__ = type.__hash__
class Made(metaclass=Meta):
    def __eq__(self, other): return type(self) is type(other)
class Registry:
    found = []
    def __init_subclass__(cls, *, key): Registry.found.append(cls)
class Registered(Registry, key=1):
    def __eq__(self, other): return type(self) is type(other)
class Fancy:
    @functools.cached_property
    def slow(self): return 7
    def __eq__(self, other): return type(self) is type(other)
class Single:
    def __reduce__(self): return "SINGLE"
SINGLE = Single()
class Protocol(typing.Protocol):
    def f(self): ...
class Typed(typing.TypedDict):
    a: int
New = typing.NewType("New", int)
class Error(Exception):
    def __init__(self, code, why): super().__init__(why); self.code = code
    def __eq__(self, other): return type(self) is type(other) and self.code == other.code

def same(x): return x
def check(expression): return eval(expression)
"""

INSTANCES = (
    """
    Plain() | Child() | Slotted() | Square() | Data(2) | Color.RED | Color.BLUE | Number.ONE | Word.HI | Bits(3)
    Planet.EARTH | Coordinate.PX | Tuple(3) | Old(1, 2) | Box(2) | Box[int](3) | Made() | Registered() | Fancy()
    SINGLE | New | T
""".strip()
    .replace("\n", "|")
    .split("|")
)
CLASSES = [
    "Plain",
    "Child",
    "Slotted",
    "Shape",
    "Data",
    "Color",
    "Number",
    "Bits",
    "Planet",
    "Coordinate",
    "Tuple",
    "Old",
    "Box",
    "Meta",
    "Made",
    "Registered",
    "Fancy",
    "Single",
    "Protocol",
    "Typed",
    "Error",
]


@pytest.fixture
def zoo(notebook: Notebook) -> Notebook:
    return notebook.cell(SOURCE)


@pytest.mark.parametrize("expression", INSTANCES)
def test_an_instance_goes_and_comes_back_as_one_of_the_hosts_class(zoo: Notebook, worker: Worker, expression: str) -> None:
    value = zoo.check(expression.strip())
    back = worker.call(zoo.same, value)
    assert type(back) is type(value)
    assert back is value or back == value


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_goes_and_comes_back_as_itself(zoo: Notebook, worker: Worker, name: str) -> None:
    cls = getattr(zoo, name)
    assert worker.call(zoo.same, cls) is cls
    assert worker.call(lambda c: c.__qualname__, cls) == name


CHECKS = {
    "Color.RED.low() == 'red' and Color.CRIMSON is Color.RED and Color(1) is Color.RED": "Color",
    "Planet.EARTH.density == 3.0": "Planet",
    "Number.ONE + 1 == 2 and Number(1) is Number.ONE": "Number",
    "(Bits.A | Bits.B).value == 3": "Bits",
    "Coordinate.PX.label == 'x' and bytes(Coordinate.PX) == b'\\0' and Coordinate(0) is Coordinate.PX": "Coordinate",
    "Tuple(4).twice() == 8 and Tuple()._fields == ('a',)": "Tuple",
    "Child().x == 2 and Child.__mro__[1] is Plain": "Child Plain",
    "Data(1) < Data(2) and dataclasses.replace(Data(), x=5).x == 5 and Data().items == []": "Data dataclasses",
    "Made.tag == 'Made' and type(Made) is Meta": "Made Meta",
    "Registry.found == [Registered]": "Registry Registered",
    "Fancy().slow == 7": "Fancy",
    "Square().area() == 4 and isinstance(Square(), Shape)": "Square Shape",
    "Box[int](3).v == 3": "Box",
    "not hasattr(Slotted(), '__dict__')": "Slotted",
    "same(SINGLE) is SINGLE": "same SINGLE",
}


@pytest.mark.parametrize("expression", CHECKS)
def test_what_a_class_can_do_in_the_worker(zoo: Notebook, worker: Worker, expression: str) -> None:
    zoo.cell(f"def run(): return {expression}")
    assert worker.call(zoo.run) is True


def test_an_abstract_class_stays_abstract_and_remembers_registrations(zoo: Notebook, worker: Worker) -> None:
    zoo.cell("""
        class Outsider: pass
        Shape.register(Outsider)
        def run(): return isinstance(Outsider(), Shape), Shape.__abstractmethods__
        def make(): return Shape()
    """)
    assert worker.call(zoo.run) == (True, {"area"})
    with pytest.raises(TypeError, match="abstract"):
        worker.call(zoo.make)


def test_the_host_never_restates_its_class_and_workers_keep_theirs(notebook: Notebook, worker: Worker) -> None:
    notebook.cell("""
        class Foo:
            count = 0
        def bump():
            Foo.count += 1
            return Foo()
        def read():
            return Foo.count
    """)
    assert type(worker.call(notebook.bump)) is notebook.Foo
    worker.call(notebook.bump)
    assert notebook.Foo.count == 0
    notebook.cell("Foo.other = 4")
    assert worker.call(notebook.read) == 2
    notebook.cell("Foo.count = 100")
    assert worker.call(notebook.read) == 100
    assert notebook.Foo.count == 100


def test_a_class_defined_again_in_another_cell(notebook: Notebook, worker: Worker) -> None:
    notebook.cell("""
        class Foo:
            def hi(self): return "old"
        def make(): return Foo()
    """)
    old = worker.call(notebook.make)
    notebook.cell("""
        class Foo:
            def hi(self): return "new"
    """)
    new = worker.call(notebook.make)
    assert (old.hi(), new.hi(), type(new) is notebook.Foo, type(old) is notebook.Foo) == ("old", "new", True, False)
    assert worker.call(lambda value: value.hi(), old) == "old"


def test_a_method_replaced_on_the_class(notebook: Notebook, worker: Worker) -> None:
    notebook.cell("""
        class Foo:
            def hi(self): return "old"
        def run(): return Foo().hi()
    """)
    assert worker.call(notebook.run) == "old"
    notebook.cell("Foo.hi = lambda self: 'new'")
    assert worker.call(notebook.run) == "new"


def test_methods_that_share_a_variable_share_it_in_the_worker(worker: Worker) -> None:
    def make() -> Any:
        count = 0

        class Counter:
            def bump(self) -> None:
                nonlocal count
                count += 1

            def read(self) -> int:
                return count

        return Counter

    def use(cls: Any) -> int:
        cls().bump()
        return int(cls().read())

    assert worker.call(use, make()) == 1


def test_a_class_that_only_the_worker_defines_is_one_class_in_the_host(notebook: Notebook, worker: Worker) -> None:
    notebook.cell("""
        def define():
            global Local
            class Local:
                def me(self): return __class__
            return Local()
        def again():
            return Local()
    """)
    first, second = worker.call(notebook.define), worker.call(notebook.again)
    assert type(first) is type(second)
    assert first.me() is type(first)
    assert type(worker.call(lambda x: x, first)) is type(first)


def test_a_cycle_between_a_class_and_its_instance(notebook: Notebook, worker: Worker) -> None:
    notebook.cell("""
        class Node:
            pass
        Node.root = Node()
        Node.root.owner = Node
        def run(): return Node.root.owner is Node and type(Node.root) is Node
    """)
    assert worker.call(notebook.run) is True


def test_a_worker_does_not_remember_local_classes_for_ever(worker: Worker) -> None:
    def make() -> Any:
        class Local:
            tag = 1

        return Local

    def use(cls: Any) -> int:
        from forkpool._shared import tracking

        tracking.KEPT_CLASSES = 3
        return sum(1 for key in tracking.received if key[0] == "c" and len(key) == 2)

    first = make()
    worker.call(use, first)
    counts = [worker.call(use, make()) for _ in range(6)]
    assert max(counts) <= 4
    assert worker.call(lambda cls: cls, first) is first


def test_an_attribute_that_the_host_deletes_is_gone_in_the_worker(notebook: Notebook, worker: Worker) -> None:
    notebook.cell("""
        class Base:
            plain = "base"
        class C(Base):
            plain, items, kept = 1, [], 3
            mark = object()
            def method(self): return self
        def look(): return sorted({"plain", "items", "mark", "method", "kept", "own"} & vars(C).keys()), C.plain
        def set_own(): C.own = 1
    """)
    everything = ["items", "kept", "mark", "method", "plain"]
    assert worker.call(notebook.look) == (everything, 1)
    worker.call(notebook.set_own)
    del notebook.C.plain
    assert worker.call(notebook.look) == (["items", "kept", "mark", "method", "own"], "base")
    del notebook.C.method, notebook.C.mark, notebook.C.items
    assert worker.call(notebook.look) == (["kept", "own"], "base")
    notebook.C.plain, notebook.C.items = 1, []
    assert worker.call(notebook.look) == (["items", "kept", "own", "plain"], 1)
