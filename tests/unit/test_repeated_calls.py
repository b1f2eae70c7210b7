"""What is reused of a function that was sent before, and above all what is not: any change in the host must reach the worker.

Runs in: pytest, and a worker process.
"""

from __future__ import annotations

import gc
import sys
import types
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from forkpool._shared import repeated_calls
from forkpool._shared.payload import CallEncoder
from forkpool._shared.session import Session
from tests.unit.conftest import Notebook
from tests.unit.worker_process import Worker

SOURCE = """
    import math, sys, xml
    from os.path import join
    factor, offset, nothing = 3, 0.5, object()
    def helper(x, y=10): return x * factor + y
    def plain(): pass
    def square(x: int) -> int: return x * x
    def uses(x): return math.sqrt(helper(x)) + offset + len(join("a", "b"))
    def even(n): return n == 0 or odd(n - 1)
    def odd(n): return n != 0 and even(n - 1)
    def missing(): return "not_there" in globals() or not_there
    def imports(): import json; return json.dumps(factor)
    def package(): return xml.dom.__name__
    def sentinel(x, default=nothing): return default is nothing
"""
CALLS: dict[str, tuple[Any, ...]] = {
    "plain": (),
    "square": (4,),
    "uses": (2,),
    "even": (5,),
    "imports": (),
    "package": (),
    "sentinel": (1,),
}


def encode(encoder: CallEncoder, fn: Any, *args: Any) -> bytes:
    return encoder.encode(fn, args, {})


@pytest.fixture
def long_way(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The functions that took the long way."""
    taken: list[Any] = []
    encode_call = Session.encode_call

    def note(session: Session, fn: Any, *args: Any) -> Any:
        taken.append(fn)
        return encode_call(session, fn, *args)

    monkeypatch.setattr(Session, "encode_call", note)
    return taken


@pytest.mark.parametrize("name", CALLS)
def test_a_call_that_is_repeated_is_the_same_to_the_byte(notebook: Notebook, long_way: list[Any], name: str) -> None:
    import xml.dom

    assert xml.dom
    notebook.cell(SOURCE)
    encoder, fn = CallEncoder(), getattr(notebook, name)
    first = encode(encoder, fn, *CALLS[name])
    assert [encode(encoder, fn, *CALLS[name]) for _ in range(3)] == [first] * 3
    assert long_way == [fn]


def replace(name: str, value: Any) -> Callable[[Notebook], object]:
    return lambda notebook: setattr(notebook.module, name, value)


CHANGES: dict[str, Callable[[Notebook], object]] = {
    "a global": replace("factor", 4),
    "a global by an equal one of another type": replace("offset", True),
    "a global that goes": lambda notebook: delattr(notebook.module, "offset"),
    "a module by another one": replace("math", sys),
    "what is found by name": replace("join", len),
    "a function that is read": lambda notebook: notebook.cell("def helper(x, y=10): return -x"),
    "its code": lambda notebook: setattr(notebook.helper, "__code__", (lambda x, y=0: x).__code__),
    "its defaults": lambda notebook: setattr(notebook.helper, "__defaults__", (11,)),
    "its keyword defaults": lambda notebook: setattr(notebook.helper, "__kwdefaults__", {"y": 1}),
    "an attribute of it": lambda notebook: setattr(notebook.helper, "tag", 1),
    "its annotations": lambda notebook: notebook.helper.__annotations__.update(x="int"),
    "its name": lambda notebook: setattr(notebook.helper, "__qualname__", "another"),
    "its documentation": lambda notebook: setattr(notebook.helper, "__doc__", "new"),
    "where the module lies": replace("__file__", "/somewhere"),
    "the function itself": lambda notebook: notebook.cell("def uses(x): return x"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_change_is_sent(notebook: Notebook, long_way: list[Any], what: str) -> None:
    notebook.cell(SOURCE)
    encoder = CallEncoder()
    for _ in range(2):
        before = encode(encoder, notebook.uses, 2)
    CHANGES[what](notebook)
    after = encode(encoder, notebook.uses, 2)
    assert after != before
    assert len(long_way) == 2


CHANGES_BY_OTHERS: dict[str, tuple[Callable[[Notebook], object], Callable[[Notebook], object]]] = {
    "a global": (replace("factor", 9), replace("factor", 3)),
    "a function": (lambda notebook: notebook.cell("def helper(x): return 0"), lambda notebook: notebook.cell(SOURCE)),
    "code": (
        lambda notebook: setattr(notebook.helper, "__code__", notebook.other.__code__),
        lambda notebook: setattr(notebook.helper, "__code__", notebook.code),
    ),
}


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(
    ("what", "is_taken_back"),
    [("a global", False), ("a global", True), ("a function", False), ("a function", True), ("code", False)],
)
def test_another_thread_changes_it_while_it_is_pickled(
    notebook: Notebook, worker: Worker, monkeypatch: pytest.MonkeyPatch, what: str, when: str, is_taken_back: bool
) -> None:
    """The first call may see the old state or the new one; those that come later see the one that is there."""
    notebook.cell(SOURCE + "    def other(x, y=0): return -1\n    code = helper.__code__\n    def reads(x): return helper(x)\n")
    change, take_back = CHANGES_BY_OTHERS[what]
    encode_call = Session.encode_call

    def another_thread(session: Session, *call: Any) -> Any:
        if when == "before":
            change(notebook)
        encoded = encode_call(session, *call)
        if when == "after":
            change(notebook)
        if is_taken_back:
            take_back(notebook)
        return encoded

    encoder = CallEncoder()
    monkeypatch.setattr(Session, "encode_call", another_thread)
    encode(encoder, notebook.reads, 2)
    monkeypatch.setattr(Session, "encode_call", encode_call)
    for _ in range(2):
        assert worker.run(encode(encoder, notebook.reads, 2)) == notebook.reads(2)


def test_a_global_that_comes_is_sent(notebook: Notebook, worker: Worker) -> None:
    notebook.cell(SOURCE)
    for _ in range(3):
        with pytest.raises(NameError, match="not_there"):
            worker.call(notebook.missing)
    notebook.module.not_there = 5  # type: ignore[attr-defined]
    assert worker.call(notebook.missing) in (5, True)


def test_a_submodule_that_is_imported_later_is_sent(notebook: Notebook, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook.cell(SOURCE)
    encoder = CallEncoder()
    monkeypatch.delitem(sys.modules, "xml.dom", raising=False)
    for _ in range(3):
        before = encode(encoder, notebook.package)
    import xml.dom

    assert xml.dom
    assert b"xml.dom" in encode(encoder, notebook.package)
    assert b"xml.dom" not in before


@pytest.mark.parametrize(
    "source",
    [
        "table = {}\ndef f(): return table",
        "class C: pass\ndef f(): return C",
        "def f(x=bytearray()): pass",
        "def f(*, x=1): pass",
        "def f(x=object()): pass",
        "table = []\ndef f(x=table): pass",
        "def f() -> list[int]: pass",
        "import plugin\ndef f(): return plugin",
        "def f(): import plugin",
        "def inner(): return table\ntable = []\ndef f(): return inner()",
    ],
)
def test_what_may_change_unseen_always_takes_the_long_way(notebook: Notebook, long_way: list[Any], source: str) -> None:
    plugin = types.ModuleType("plugin")
    sys.modules["plugin"] = plugin
    try:
        notebook.module.__dict__.clear()
        notebook.module.__dict__["__name__"] = "notebook_for_tests"
        notebook.cell(source)
        encoder = CallEncoder()
        for _ in range(5):
            encode(encoder, notebook.f)
    finally:
        del sys.modules["plugin"]
    assert len(long_way) == 5


def test_a_named_task_is_a_repeated_call_too(notebook: Notebook, long_way: list[Any], worker: Worker) -> None:
    notebook.cell(SOURCE)
    encoder = CallEncoder()
    encode(encoder, notebook.square, 2)
    assert encoder.encode(notebook.square, (2,), {}, "title") == encoder._encode_rich(notebook.square, (2,), {}, "title")
    assert len(long_way) == 2


def test_the_worker_sees_each_change_between_calls_that_it_knows(notebook: Notebook, worker: Worker) -> None:
    notebook.cell("""
        factor = 1
        def times(x): return x * factor
        def plus(x): return x + factor
        def spoil(): global factor; factor = 100
    """)
    for factor in (1, 2, 3, 2, 1):
        notebook.module.factor = factor  # type: ignore[attr-defined]
        for x in range(3):
            assert worker.call(notebook.times, x) == x * factor
            assert worker.call(notebook.plus, x) == x + factor
    worker.call(notebook.spoil)
    assert worker.call(notebook.times, 2) == 200, "the host has not changed it since"


def test_a_task_that_replaces_the_module_does_not_lose_it_for_the_next(notebook: Notebook, worker: Worker) -> None:
    notebook.cell("""
        import sys
        def replace(): sys.modules["notebook_for_tests"] = None
        def look(): return type(sys.modules["notebook_for_tests"]).__name__
    """)
    for _ in range(3):
        worker.call(notebook.replace)
        assert worker.call(notebook.look) == "module"


def test_functions_that_are_gone_are_let_go(notebook: Notebook) -> None:
    encoder = CallEncoder()
    notebook.cell("def f(): pass")
    gone = weakref.ref(notebook.f)
    encode(encoder, notebook.f)
    for number in range(repeated_calls.MAX_KNOWN + 1):
        notebook.cell(f"def f(): return {number}")
        encode(encoder, notebook.f)
    gc.collect()
    assert gone() is None
    assert len(repeated_calls._known) <= repeated_calls.MAX_KNOWN
