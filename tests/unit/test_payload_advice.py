"""What an error advises is done here to the letter, and works.

Runs in: pytest; calls go to a process that plays the worker.
"""

from __future__ import annotations

import asyncio
import ctypes
import functools
import multiprocessing
import queue
import re
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from forkpool._shared.payload import CallEncoder, PayloadError
from tests.unit.conftest import Notebook
from tests.unit.worker_process import Worker

FORK, SPAWN = multiprocessing.get_context("fork"), multiprocessing.get_context("spawn")
MAKES = re.compile(r'multiprocessing\.get_context\("spawn"\)\.(\w+)\((\.\.\.)?\)')


class Point(ctypes.Structure):
    _fields_ = (("x", ctypes.c_int),)


def kind_of(value: Any) -> str:
    return type(value).__name__


def advised_maker(value: Any) -> tuple[str, bool]:
    """The method that the error names, and whether it wants arguments."""
    with pytest.raises(PayloadError) as info:
        CallEncoder().encode(kind_of, (value,), {})
    found = MAKES.search(str(info.value))
    assert found is not None, str(info.value)
    return found[1], found[2] is not None


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("Value", ("i", 1)),
        ("Value", (Point, 1)),
        ("Array", ("i", 3)),
        ("Array", ("c", b"ab")),
        ("Barrier", (2,)),
        ("Lock", ()),
        ("RLock", ()),
        ("Semaphore", ()),
        ("BoundedSemaphore", ()),
        ("Condition", ()),
        ("Event", ()),
        ("Queue", ()),
        ("SimpleQueue", ()),
        ("JoinableQueue", ()),
    ],
)
def test_shared_objects_of_a_fork_context(name: str, args: tuple[Any, ...]) -> None:
    made = getattr(FORK, name)(*args)
    assert advised_maker(made) == (name, bool(args))
    check_in_worker(getattr(SPAWN, name)(*args))


@pytest.mark.parametrize("make", [getattr(threading, name) for name in ("Lock", "RLock", "Condition", "Event", "Semaphore")])
def test_locks_of_threads(make: Callable[[], Any]) -> None:
    made = make()
    name, _ = advised_maker(made)
    assert name.lower() == type(made).__name__.strip("_").lower()
    check_in_worker(getattr(SPAWN, name)())


@pytest.mark.parametrize("make", [queue.Queue, queue.LifoQueue, queue.PriorityQueue, queue.SimpleQueue])
def test_queues_of_threads(make: Callable[[], Any]) -> None:
    name, _ = advised_maker(make())
    assert name == "Queue"
    check_in_worker(SPAWN.Queue())


def test_a_manager_has_queues_for_anybody() -> None:
    with SPAWN.Manager() as manager:
        check_in_worker(manager.Queue())


def check_in_worker(value: Any) -> None:
    with Worker() as worker:
        assert worker.call(kind_of, value) == type(value).__name__
    if hasattr(value, "close"):
        value.close()


MADE_WITH_C = """
import contextvars, ctypes
class Point(ctypes.Structure): _fields_ = (("x", ctypes.c_int),)
library, variable = ctypes.CDLL(None), contextvars.ContextVar("variable", default=2)
three = ctypes.c_int * 3
def length(): return library.strlen(b"abc")
def value(): return variable.get()
def last(): return three(1, 2, 3)[2]
def x_of(point): return point.x
def make_all():
    global library, variable, three
    library, variable, three = ctypes.CDLL(None), contextvars.ContextVar("variable", default=2), ctypes.c_int * 3
"""


def test_what_c_made_is_made_by_an_initializer(notebook: Notebook, worker: Worker) -> None:
    notebook.cell(MADE_WITH_C)
    for uses in (notebook.length, notebook.value, notebook.last):
        with pytest.raises(PayloadError, match=r"(make|load) it in the initializer"):
            worker.call(uses)
    notebook.cell("del library, variable, three")
    worker.call(notebook.make_all)
    assert [worker.call(uses) for uses in (notebook.length, notebook.value, notebook.last)] == [3, 2, 3]


def test_what_c_made_is_used_as_an_attribute_of_a_module(
    notebook: Notebook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "made_with_c.py").write_text(MADE_WITH_C)
    notebook.cell("""
        import made_with_c
        from made_with_c import Point
        def use(): return made_with_c.library.strlen(b"abc"), made_with_c.variable.get(), made_with_c.three(1, 2, 3)[2]
        def x_of(point): return Point(point.x + 1)
    """)
    with Worker() as worker:
        assert worker.call(notebook.use) == (3, 2, 3)
        assert worker.call(notebook.x_of, notebook.Point(3)).x == 4


async def three() -> int:
    return 3


async def numbers() -> AsyncIterator[int]:
    for number in range(3):
        yield number


async def collected() -> list[int]:
    return [item async for item in numbers()]


@functools.wraps(three)
def hidden(*args: Any) -> Any:
    return three(*args)


def run_hidden() -> Any:
    return asyncio.run(hidden())


def run_collected() -> list[int]:
    return asyncio.run(collected())


def test_coroutines_and_async_generators_as_results() -> None:
    with Worker() as worker:
        with pytest.raises(PayloadError) as info:
            worker.call(hidden)
        assert str(info.value) == (
            "the task is done, but its result cannot be sent back: it is a coroutine, which cannot leave its event loop; "
            "run it inside the task: submit a function that returns asyncio.run(...) of it"
        )
        assert worker.call(run_hidden) == 3
        with pytest.raises(PayloadError) as info:
            worker.call(numbers)
        assert str(info.value) == (
            "the task is done, but its result cannot be sent back: it is an async generator, which cannot leave its event "
            "loop; collect it inside the task: submit a function that returns asyncio.run(...) of an async one that returns "
            "[item async for item in ...]"
        )
        assert worker.call(run_collected) == [0, 1, 2]
