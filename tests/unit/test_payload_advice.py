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
from typing import Any

import pytest

from forkpool._shared.payload import CallEncoder, PayloadError
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
