"""Defaults and cells that are a global's value, or hold one, are that global in the worker too: `default is MISSING`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest

from forkpool._shared.homes import is_bare
from forkpool._shared.payload import CallEncoder
from tests.unit.conftest import Notebook
from tests.unit.worker_process import Worker

SOURCE = """
    import functools
    class Missing: pass
    class Slots: __slots__ = ()
    M, N, S, T, V = object(), Missing(), "<un set>", (1, "a"), Slots()
    REG = {}
    def other(x=[]): pass
    def deco(function):
        @functools.wraps(function)
        def wrapper(*args, default=M):
            return default is M and function(*args)
        return wrapper
    def make():
        held = M
        return lambda: held is M
    from tests.support.a_library import MISSING, is_missing
    class C:
        EMPTY = object()
        found = []
        def __init_subclass__(cls): C.found.append(cls)
        def in_body(self, x=EMPTY): return x is self.EMPTY is C.EMPTY
        @staticmethod
        def of_class(x=M): return x is M
        def method(self, x=M): return x is M
    class D(C):
        def in_child(self, x=C.EMPTY): return x is self.EMPTY is C.EMPTY
    def plain(x=M): return x is M
    def imported(x=MISSING): return is_missing(x) and x is MISSING
    def keyword(*, x=N): return x is N
    def slots(x=V): return x is V
    def string(x=S): return x is S
    def a_tuple(x=T): return x is T
    def inside(x=(M, 1), y=[{"a": N}]): return x[0] is M and y[0]["a"] is N
    def function(f=other): return f is other
    def attribute(x=C.EMPTY): return x is C.EMPTY
    C.function = staticmethod(attribute)
    def all_of_class(): return C().in_body() and D().in_child() and D.function() and attribute() and C.found == [D]
    def two(x=M, y=M, z=REG): return x is y is M and z is REG
    def through(): return plain() and keyword() and a_tuple() and inside() and wrapped()
    def delegates(x=M): return plain(x)
    @deco
    def wrapped(x=N): return x is N
    closed = make()
    method, of_class, in_body, in_child = C().method, C.of_class, C().in_body, D().in_child
    unbound = functools.partial(C.method, None)
    partial = functools.partial(plain)
    cached = functools.lru_cache(plain)
"""
NAMES = ("plain", "keyword", "slots", "string", "a_tuple", "inside", "function", "attribute", "two", "through", "delegates",
         "wrapped", "closed", "method", "of_class", "unbound", "partial", "cached", "in_body", "in_child", "all_of_class",
         "imported")  # fmt: skip


@pytest.fixture(scope="module", params=["auto", "cloudpickle"])
def its_worker(request: pytest.FixtureRequest) -> Any:
    with Worker(CallEncoder(request.param)) as worker:
        yield worker


@pytest.mark.parametrize("name", NAMES)
def test_what_a_function_holds_is_the_global(notebook: Notebook, its_worker: Worker, name: str) -> None:
    notebook.cell(SOURCE)
    for _ in range(3):  # known from the second time on
        assert its_worker.call(getattr(notebook, name)) is True
    assert its_worker.call(lambda f: f(), getattr(notebook, name)) is True


def test_it_lives_as_long_as_the_worker_and_follows_the_host(notebook: Notebook, worker: Worker) -> None:
    notebook.cell("""
        REG = {}
        def add(key, reg=REG):
            reg[key] = 1
            return dict(REG)
        def read(): return dict(REG)
    """)
    assert worker.call(notebook.add, "a") == {"a": 1}
    assert worker.call(notebook.add, "b") == {"a": 1, "b": 1}
    assert worker.call(notebook.read) == {"a": 1, "b": 1}
    notebook.cell("REG['host'] = 2")
    assert worker.call(notebook.add, "c") == {"host": 2, "c": 1}
    assert notebook.REG == {"host": 2}


def test_other_defaults_cells_and_all_arguments_are_fresh(notebook: Notebook, worker: Worker) -> None:
    notebook.cell("""
        M, REG = object(), []
        def collect(x, into=[M], reg=REG):
            into.append(x)
            reg.append(x)
            return len(into), len(reg), into[0] is M
        def make():
            seen = [M]
            def add(x):
                seen.append(x)
                return len(seen), seen[0] is M
            return add
        add = make()
        def fill(items):
            items.append(1)
            return items, len(REG)
    """)
    for count in (1, 2):
        assert worker.call(notebook.collect, 1) == (2, count, True)
        assert worker.call(notebook.add, 1) == (2, True)
        assert worker.call(notebook.fill, notebook.REG) == ([1], count)
        assert worker.call(functools.partial(notebook.fill, notebook.REG)) == ([1], count)


def test_two_functions_that_hold_one_list_share_it_in_a_task(notebook: Notebook, worker: Worker) -> None:
    notebook.cell("""
        M = object()
        def make():
            seen = [M]
            return (lambda: seen.append(1)), (lambda: len(seen) == 2 and seen[0] is M)
        append, look = make()
        def both(append, look):
            append()
            return look()
    """)
    assert worker.call(notebook.both, notebook.append, notebook.look) is True


CHANGES: dict[str, tuple[str, bool]] = {
    "the global is another object": ("M = object()", False),
    "the default is another object": ("f.__defaults__ = (object(),)", False),
    "both are another one": ("M = object()\nf.__defaults__ = (M,)", True),
    "the function is defined anew": ("def f(x=None): return x is M", False),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_change_in_the_host_reaches_a_worker_that_knows_the_call(notebook: Notebook, worker: Worker, what: str) -> None:
    notebook.cell("""
        M = object()
        def f(x=M): return g(x)
        def g(x): return x is M
    """)
    for _ in range(3):
        assert worker.call(notebook.f) is True
    source, expected = CHANGES[what]
    notebook.cell(source)
    for _ in range(3):
        assert worker.call(notebook.f) is expected


def test_what_comes_back_compares_with_the_hosts_own(notebook: Notebook, worker: Worker) -> None:
    notebook.cell("""
        M, REG = object(), {}
        class C: EMPTY = object()
        def of_class(): return lambda x=C.EMPTY: x is C.EMPTY
        def get(x=M): return x is M
        def give(): return get
        def make():
            held = M
            return lambda x=M: x is held is M
        def filled():
            REG["a"] = 1
            return lambda reg=REG: reg
    """)
    assert worker.call(notebook.give) is notebook.get
    assert worker.call(notebook.make)() is True
    assert worker.call(notebook.of_class)() is True
    assert worker.call(notebook.filled)() == {"a": 1}, "the content that the worker made"
    assert notebook.REG == {}


def test_a_sentinel_of_an_importable_module(worker: Worker) -> None:
    """A wrapper that a library made has the library's globals, with which it compares what it closes over."""
    from tests.support import a_library

    assert worker.call(a_library.compare_later()) == (True, True)


def bare() -> dict[str, Callable[[], Any]]:
    class Empty:
        pass

    class Child(Empty):
        __slots__ = ()

    class Slots:
        __slots__ = ("a",)

    class Items(list[int]):
        __slots__ = ()

    def full() -> Any:
        value: Any = Empty()
        value.a = 1
        return value

    return {"Empty": Empty, "Child": Child, "object": object, "Slots": Slots, "Items": Items, "full": full, "list": list}


def test_an_object_is_bare_when_it_can_hold_nothing() -> None:
    assert [name for name, make in bare().items() if is_bare(make())] == ["Empty", "Child", "object"]
