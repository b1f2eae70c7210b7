"""Decorated and special objects of `__main__`: as callable, as argument and as result.

Runs in: pytest; the objects live in programs of their own. Each program tells one mark per object and use: "ok", or the
SerializationError, which the host gives to the future.
"""

from collections.abc import Callable

import pytest

from tests.support.script import Script

Start = Callable[..., Script]

pytestmark = pytest.mark.slow

TRY = """
from forkpool import ForkPoolExecutor, SerializationError

def attempt(name, call):
    try:
        mark(name, "ok" if call() else "wrong")
    except SerializationError as error:
        mark(name, f"SerializationError {error}".replace(chr(10), " "))
    except BaseException as error:
        mark(name, f"{type(error).__name__} {error}".replace(chr(10), " "))

ex = ForkPoolExecutor(1)
def run(function, *args):
    return ex.submit(function, *args).result()

"""

OBJECTS = {
    "lru_cache": """
import functools
@functools.lru_cache(maxsize=8)
def cached(n):
    return n + 1
attempt("callable", lambda: run(cached, 1) == 2)
attempt("argument", lambda: run(lambda f: f(2), cached) == 3)
attempt("result", lambda: run(lambda: cached) is not None)
""",
    "cache": """
import functools
@functools.cache
def cached(n):
    return n + 1
attempt("callable", lambda: run(cached, 1) == 2)
attempt("argument", lambda: run(lambda f: f(2), cached) == 3)
attempt("result", lambda: run(lambda: cached)(4) == 5)
""",
    "singledispatch": """
import functools
@functools.singledispatch
def kind(value):
    return "other"
@kind.register
def _(value: int):
    return "int"
attempt("callable", lambda: run(kind, 1) == "int" and run(kind, "") == "other")
attempt("argument", lambda: run(lambda f: f(1), kind) == "int")
attempt("result", lambda: run(lambda: kind)(1) == "int")
""",
    "partial": """
import functools
def add(a, b):
    return a + b
attempt("callable", lambda: run(functools.partial(add, 1), 2) == 3)
attempt("argument", lambda: run(lambda f: f(2), functools.partial(add, 1)) == 3)
attempt("result", lambda: run(lambda: functools.partial(add, 1))(2) == 3)
""",
    "wraps": """
import functools
def deco(function):
    @functools.wraps(function)
    def wrapper(*args):
        return function(*args) + 1
    return wrapper
@deco
def one():
    return 1
attempt("callable", lambda: run(one) == 2)
attempt("argument", lambda: run(lambda f: f(), one) == 2)
attempt("result", lambda: run(lambda: one)() == 2)
""",
    "Enum": """
import enum
class Color(enum.Enum):
    RED = 1
class Access(enum.Flag):
    READ = 1
    WRITE = 2
attempt("callable", lambda: run(Color, 1) is Color.RED)
attempt("argument", lambda: run(lambda c: c is Color.RED, Color.RED))
attempt("result", lambda: run(lambda: (Color.RED, Access.READ | Access.WRITE)) == (Color.RED, Access.READ | Access.WRITE))
""",
    "dataclass": """
import dataclasses
@dataclasses.dataclass(frozen=True, slots=True)
class Pair:
    a: int
    b: list = dataclasses.field(default_factory=list)
attempt("callable", lambda: run(Pair, 1) == Pair(1))
attempt("argument", lambda: run(lambda p: p.a, Pair(5)) == 5)
attempt("result", lambda: type(run(lambda: Pair(1))) is Pair)
""",
    "NamedTuple": """
import collections, typing
class Typed(typing.NamedTuple):
    a: int
    b: str = "b"
Plain = collections.namedtuple("Plain", "x y")
attempt("callable", lambda: run(Typed, 1) == Typed(1))
attempt("argument", lambda: run(lambda t, p: (t.b, p.y), Typed(1), Plain(1, 2)) == ("b", 2))
attempt("result", lambda: type(run(lambda: Plain(1, 2))) is Plain)
""",
    "Generic": """
import typing
T = typing.TypeVar("T")
class Box(typing.Generic[T]):
    def __init__(self, value: T):
        self.value = value
attempt("callable", lambda: run(Box, 1).value == 1)
attempt("argument", lambda: run(lambda b: b.value, Box[int](3)) == 3)
attempt("result", lambda: isinstance(run(lambda: Box[int](1)), Box))
""",
    "metaclass": """
import abc
class Registry(type):
    made = []
    def __new__(meta, name, bases, namespace):
        cls = super().__new__(meta, name, bases, namespace)
        cls.tag = name.lower()
        return cls
class Base(metaclass=Registry):
    pass
class Shape(abc.ABC):
    @abc.abstractmethod
    def area(self): ...
class Square(Shape):
    def __init__(self, side):
        super().__init__()
        self.side = side
    def area(self):
        return self.side ** 2
attempt("callable", lambda: run(Square, 2).area() == 4)
attempt("argument", lambda: run(lambda s, b: (s.area(), b.tag), Square(3), Base()) == (9, "base"))
attempt("result", lambda: type(type(run(lambda: Base()))) is Registry and isinstance(run(lambda: Square(1)), Shape))
""",
    "made by Cython": """
import numpy as np
from sys import version_info
from scipy import stats
RNG = np.random.default_rng(5)
attempt("callable", lambda: run(np.random.default_rng, 3).random() == np.random.default_rng(3).random()
        and run(RNG.random) == np.random.default_rng(5).random() and run(stats.norm.cdf, 0) == 0.5)
attempt("argument", lambda: run(lambda seeds, make: make(seeds[1]).bit_generator, np.random.SeedSequence(1).spawn(2),
                                np.random.default_rng) is not None)
attempt("result", lambda: run(lambda: (RNG, stats.norm(0, 1), version_info))[2] == version_info)
""",
    "singleton": """
class Missing:
    def __reduce__(self):
        return "MISSING"
    def __call__(self):
        return 1
MISSING = Missing()
attempt("callable", lambda: run(MISSING) == 1)
attempt("argument", lambda: run(lambda m: m is MISSING, MISSING))
attempt("result", lambda: run(lambda: MISSING) is MISSING)
""",
    "class_state": """
class Foo:
    count = 7
Foo.count = 100
attempt("callable", lambda: run(lambda: Foo.count) == 100)
attempt("argument", lambda: run(lambda foo: foo.count, Foo()) == 100)
def change():
    Foo.count = 7
    return Foo()
attempt("result", lambda: type(run(change)) is Foo and Foo.count == 100)
""",
}


@pytest.mark.parametrize("name", OBJECTS)
def test_special_objects_of_main(start: Start, name: str) -> None:
    program = start(TRY + OBJECTS[name] + "\nex.shutdown()\n").finish()
    uses = {use: program.value(use) for use in ("callable", "argument", "result")}
    good = {use: found for use, found in uses.items() if found == "ok" or found.startswith("SerializationError")}
    assert good == uses
    assert "ok" in uses.values()


def test_lambdas_and_closures(start: Start) -> None:
    program = start(
        TRY
        + """
def adds(number):
    def add(other):
        return number + other
    return add
attempt("callable", lambda: run(lambda: 3) == 3 and run(adds(1), 2) == 3)
attempt("argument", lambda: run(lambda f, g: f(g(1)), lambda n: n * 10, adds(2)) == 30)
attempt("result", lambda: run(lambda: lambda n: n + 1)(2) == 3 and run(adds, 3)(4) == 7)
ex.shutdown()
"""
    ).finish()
    assert {program.value(use) for use in ("callable", "argument", "result")} == {"ok"}


def test_a_local_class_of_a_function(start: Start) -> None:
    program = start(
        TRY
        + """
def make():
    class Local:
        def __init__(self):
            self.value = 3
    return Local
Local = make()
attempt("callable", lambda: run(Local).value == 3)
attempt("argument", lambda: run(lambda cls, one: isinstance(one, cls) and one.value == 3, Local, Local()))
attempt("result", lambda: isinstance(run(lambda: Local()), Local))
ex.shutdown()
"""
    ).finish()
    assert {program.value(use) for use in ("callable", "argument", "result")} == {"ok"}
