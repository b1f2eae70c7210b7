"""Row "`cancel()` with `cancel_running`": a running call is stopped by `cancel()`, also through asyncio's futures."""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import CancelledError, Executor, wait
from typing import Any

import pytest

from forkpool import ForkPoolExecutor, InlineExecutor
from tests.support import processes, tasks
from tests.support.gate import Gate, Marks


def test_cancel_stops_a_running_call(gate: Gate) -> None:
    with ForkPoolExecutor(1) as ex:
        future = ex.options(cancel_running=True).submit(tasks.enter, gate)
        pid = gate.wait_inside()
        behind = ex.submit(tasks.pid)
        assert future.cancel() is True
        assert wait([future]).done == {future}
        assert future.cancelled()
        assert future.cancel() is True
        assert processes.has_ended(pid)
        with pytest.raises(CancelledError):
            future.result()
        assert behind.result() != pid
        assert ex.statistics().cancelled == 1


def test_without_it_cancel_leaves_a_running_call_alone(gate: Gate) -> None:
    with ForkPoolExecutor(1) as ex:
        view = ex.options(cancel_running=True).options(cancel_running=False)
        future = view.submit(tasks.enter, gate, "ran")
        gate.wait_inside()
        assert future.cancel() is False
        gate.open_for_all()
        assert future.result() == "ran"


async def leave_by_wait_for(running: Callable[[], Awaitable[Any]], inside: Awaitable[int]) -> None:
    task = asyncio.ensure_future(running())
    await inside
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(task, 0.01)


async def leave_by_task_group(running: Callable[[], Awaitable[Any]], inside: Awaitable[int]) -> None:
    async def await_it() -> Any:
        return await running()

    async def fail() -> None:
        await inside
        raise LookupError

    async def both() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(await_it())
            group.create_task(fail())

    with pytest.raises(ExceptionGroup):
        await both()


async def leave_by_cancel(running: Callable[[], Awaitable[Any]], inside: Awaitable[int]) -> None:
    task = asyncio.ensure_future(running())
    await inside
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("leave", [leave_by_wait_for, leave_by_task_group, leave_by_cancel])
def test_through_asyncio(leave: Callable[..., Awaitable[None]], gate: Gate) -> None:
    async def use(view: Executor) -> tuple[int, int]:
        loop = asyncio.get_running_loop()
        pids = []

        async def wait_inside() -> int:
            pids.append(await asyncio.to_thread(gate.wait_inside))
            return pids[-1]

        await leave(lambda: loop.run_in_executor(view, tasks.enter, gate), wait_inside())
        wrapped = asyncio.wrap_future(view.submit(tasks.enter, gate))
        await wait_inside()
        wrapped.cancel()
        with pytest.raises(asyncio.CancelledError):
            await wrapped
        after: int = await loop.run_in_executor(view, tasks.pid)
        assert after not in pids
        return pids[0], pids[1]

    with ForkPoolExecutor(1) as ex:
        for pid in asyncio.run(use(ex.options(cancel_running=True))):
            assert processes.has_ended(pid)
        assert ex.statistics().cancelled == 2


def test_a_map_that_is_left_stops_what_runs(gate: Gate) -> None:
    with ForkPoolExecutor(1) as ex:
        results = ex.options(cancel_running=True).map(tasks.enter, [gate] * 2, timeout=0.01)
        pid = gate.wait_inside()
        with pytest.raises(TimeoutError):
            next(results)
        assert ex.submit(tasks.pid).result() != pid


def test_cancel_races_with_the_end_of_the_call(marks: Marks) -> None:
    """True: it ends cancelled, though it may have run. False: it has a result. The next call is never stopped."""
    with ForkPoolExecutor(2) as ex:
        view = ex.options(cancel_running=True)
        for number in range(200):
            future = view.submit(tasks.add, number, 1)
            behind = ex.submit(tasks.leave_mark, marks, str(number))
            told = future.cancel()
            assert wait([future]).done == {future}
            assert future.cancelled() is told
            assert told or future.result() == number + 1
            assert behind.result() == str(number)
    assert marks.words() == [str(number) for number in range(200)]


def test_priorities(gate: Gate, marks: Marks) -> None:
    """One worker is held while the others are submitted; then they run by priority, and as they came."""
    with ForkPoolExecutor(1) as ex:
        ex.submit(tasks.enter, gate)
        gate.wait_inside()
        for priority in (0, 5, -3, 5, 0, 2):
            ex.options(priority=priority).submit(tasks.leave_mark, marks, str(priority))
        cancelled = ex.options(priority=9).submit(tasks.leave_mark, marks, "9")
        assert cancelled.cancel()
        gate.open_for_all()
    assert marks.words() == ["5", "5", "2", "0", "0", "-3"]


def test_inline_it_is_harmless() -> None:
    with InlineExecutor(1) as ex:
        future = ex.options(cancel_running=True, priority=3).submit(tasks.add, 1, 1)
        assert future.cancel() is False
        assert future.result() == 2
