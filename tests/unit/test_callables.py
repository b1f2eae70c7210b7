"""Which callables are refused because a call of them runs nothing, and the exact words.

Runs in: pytest; pure.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from forkpool._callables import check_initializer, check_task
from forkpool._shared.calls import name_of, run_chunk


async def coroutine() -> None: ...


def generator() -> Iterator[int]:
    yield 1


async def both() -> AsyncIterator[int]:
    yield 1


class Async:
    async def __call__(self) -> None: ...

    async def method(self) -> None: ...


class Generates:
    def __call__(self) -> Iterator[int]:
        yield 1


class Calls:
    def __call__(self) -> int:
        return 1

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(f"no {name} here")


TASK = (
    "{} is an async function: a worker has no event loop. "
    "Submit a function that calls asyncio.run(...), or await it where the loop is."
)
INITIALIZER = "initializer {} is an async function: a worker has no event loop. Give a function that calls asyncio.run(...)."
NAMES = [
    (coroutine, "'coroutine'"),
    (functools.partial(functools.partial(coroutine)), "'coroutine'"),
    (Async(), "'Async.__call__'"),
    (functools.partial(Async()), "'Async.__call__'"),
    (Async().method, "'Async.method'"),
]


@pytest.mark.parametrize(("fn", "name"), NAMES)
def test_async_functions(fn: Any, name: str) -> None:
    with pytest.raises(TypeError) as task:
        check_task(fn)
    assert str(task.value) == TASK.format(name)
    with pytest.raises(TypeError) as initializer:
        check_initializer(fn)
    assert str(initializer.value) == INITIALIZER.format(name)


@pytest.mark.parametrize(("fn", "name"), [(generator, "'generator'"), (Generates(), "'Generates.__call__'")])
def test_generator_functions(fn: Any, name: str) -> None:
    with pytest.raises(TypeError) as task:
        check_task(fn)
    assert str(task.value) == (
        f"{name} is a generator function: a generator cannot leave its process. Submit a function that returns list(...) of it."
    )
    with pytest.raises(TypeError) as initializer:
        check_initializer(fn)
    assert str(initializer.value) == (
        f"initializer {name} is a generator function: its body would never run. Give a function that is no generator."
    )


def test_async_generator_functions() -> None:
    with pytest.raises(TypeError) as task:
        check_task(both)
    assert str(task.value) == (
        "'both' is an async generator function: a worker has no event loop. Submit a function that calls asyncio.run(...) of "
        "an async function that returns [item async for item in ...]."
    )
    with pytest.raises(TypeError, match="initializer 'both' is an async generator function"):
        check_initializer(both)


def test_what_is_no_callable() -> None:
    with pytest.raises(TypeError, match="submit and map need a callable, not int: pass the function itself, not its result"):
        check_task(3)
    with pytest.raises(TypeError, match="initializer must be a callable"):
        check_initializer(3)


def test_all_else_is_called() -> None:
    for fn in (len, int, Calls, Calls(), Async, test_async_functions, functools.partial(len), "a".join):
        check_task(fn)
        check_initializer(fn)


class HasEverything:
    def __getattr__(self, name: str) -> Any:
        return HasEverything()


def test_a_callable_is_named_whatever_it_answers() -> None:
    assert name_of(HasEverything()) == "HasEverything"
    assert name_of(Calls()) == "Calls"
    assert name_of(functools.partial(Calls())) == "Calls"
    assert name_of(functools.partial(run_chunk, functools.partial(generator))) == "generator"
