"""Row "the task exceeds its `memory_limit`".

A task that is to be caught takes its memory and then stays where it is, so no test depends on how soon it is looked at.
`looks` counts how often the host reads a worker's memory: a task that must not be caught stays until it was looked at.
"""

import asyncio
import math
import mmap
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import wait
from queue import SimpleQueue
from typing import Any

import pytest

from forkpool import ForkPoolExecutor, TaskMemoryError, TaskTimeoutError
from forkpool._core import memory_watch
from forkpool._host import worker_link
from tests.support import processes, tasks
from tests.support.gate import Gate, GateInTask, Marks

MIB = 1 << 20
LIMIT = 32 * MIB
MORE = 64  # MiB
Looks = SimpleQueue[int]


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Looks:
    """The pid at each look."""
    seen: Looks = SimpleQueue()
    read: Callable[[int], int | None] = worker_link.private_memory

    def look(pid: int) -> int | None:
        found = read(pid)
        seen.put(pid)
        return found

    monkeypatch.setattr(worker_link, "private_memory", look)
    return seen


def test_a_task_that_grows_beyond_its_limit(gate: Gate, second_gate: Gate) -> None:
    with ForkPoolExecutor(2) as ex:
        other = ex.submit(tasks.enter, second_gate, "untouched")
        second_gate.wait_inside()
        view = ex.options(memory_limit=LIMIT, name="hog")
        future, waiting = view.submit(tasks.grow_then, MORE, tasks.enter, gate), view.submit(tasks.pid)
        error = future.exception()
        assert isinstance(error, TaskMemoryError)
        assert isinstance(error, MemoryError)
        assert processes.has_ended(error.pid)
        assert (error.task_name, error.slot, error.pid) == ("hog", future.slot, future.pid)
        assert (error.limit, error.signal, error.may_have_run, error.pool_usable) == (LIMIT, "SIGKILL", "maybe", True)
        assert error.grown > LIMIT
        assert "memory_limit is 32.0 MiB" in str(error)
        assert waiting.result() not in (error.pid, other.pid)
        assert not other.done()
        second_gate.open_for_all()
        assert other.result() == "untouched"
        counts = ex.statistics()
        assert (counts.over_memory, counts.done, counts.crashed, counts.submitted) == (1, 2, 0, 3)
        assert counts.workers_replaced == {"over_memory": 1}


def grow_while_pickled(gate: GateInTask) -> tasks.DoesWhilePickled:
    return tasks.DoesWhilePickled(tasks.grow_then, MORE, gate.enter)


def grow_in_a_thread(gate: GateInTask) -> None:
    thread = threading.Thread(target=tasks.grow, args=(MORE,))
    thread.start()
    gate.enter()


GROWING: dict[str, tuple[Callable[..., Any], tuple[Any, ...], str]] = {
    "in C, with the GIL": (tasks.grow_and_stay_in_c, (MORE,), "maybe"),
    "while the call is unpickled": (tasks.identity, (tasks.DoesWhileUnpickled(tasks.grow_then, MORE, tasks.busy_in_c),), "no"),
    "then stopped": (tasks.grow_then, (MORE, tasks.stop_myself), "maybe"),
    "and swallows every exception": (tasks.grow_then, (MORE, tasks.swallow_everything), "maybe"),
}


def test_however_it_grows(gate: Gate) -> None:
    with ForkPoolExecutor(1) as ex:
        view = ex.options(memory_limit=LIMIT)
        for name, (fn, args, may_have_run) in GROWING.items():
            error = view.submit(fn, *args).exception()
            assert isinstance(error, TaskMemoryError), name
            assert error.may_have_run == may_have_run, name
        assert isinstance(view.submit(grow_while_pickled, gate).exception(), TaskMemoryError)
        assert isinstance(view.submit(grow_in_a_thread, gate).exception(), TaskMemoryError)
        argument = view.submit(tasks.enter, gate, b"x" * (MORE * MIB)).exception()
        assert isinstance(argument, TaskMemoryError), "what it was called with counts"
        assert view.submit(tasks.add, 1, 1).result() == 2


def share(gate: GateInTask) -> None:
    with mmap.mmap(-1, MORE * MIB) as pages:
        for _ in range(MORE):
            pages.write(b"x" * MIB)
        gate.enter()


def reserve(gate: GateInTask) -> None:
    with mmap.mmap(-1, MORE * MIB, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS):
        gate.enter()


def take_and_give_back(gate: GateInTask) -> None:
    for _ in range(5):
        bytearray(LIMIT // 2)
    gate.enter()


def have_a_child_grow(gate: GateInTask) -> None:
    code = f"x = b'x' * {MORE * MIB}; print(len(x), flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        gate.enter()
        child.communicate(b"\n")


@pytest.mark.parametrize("fn", [share, reserve, take_and_give_back, have_a_child_grow])
def test_what_does_not_count(fn: Callable[[GateInTask], None], gate: Gate, looks: Looks) -> None:
    with ForkPoolExecutor(1) as ex:
        future = ex.options(memory_limit=LIMIT).submit(fn, gate)
        stay_until_looked_at(gate, looks)
        assert future.result() is None


def stay_until_looked_at(gate: Gate, looks: Looks) -> None:
    gate.wait_inside()
    while not looks.empty():
        looks.get()
    for _ in range(3):
        looks.get()
    gate.release()


def test_what_the_worker_held_before_does_not_count(gate: Gate, looks: Looks) -> None:
    with ForkPoolExecutor(1) as ex:
        ex.submit(tasks.grow, MORE).result()
        pid = ex.submit(tasks.pid).result()
        view = ex.options(memory_limit=LIMIT)
        for _ in range(3):  # together more than the limit, and each within it
            future = view.submit(tasks.grow_then, LIMIT // MIB // 2, tasks.enter, gate, "well")
            stay_until_looked_at(gate, looks)
            assert future.result() == "well"
            assert future.pid == pid
        error = view.submit(tasks.grow_then, MORE, tasks.enter, gate).exception()
        assert isinstance(error, TaskMemoryError)
        assert error.grown < 2 * MORE * MIB


def test_nobody_is_looked_at_without_a_limit(looks: Looks) -> None:
    with ForkPoolExecutor(2) as ex:
        assert list(ex.map(abs, range(-50, 0), chunksize=1)) == list(range(50, 0, -1))
        assert ex.options(timeout=30, memory_limit=math.inf).submit(tasks.add, 1, 1).result() == 2
        assert looks.empty()
        limited = ex.options(memory_limit=LIMIT).submit(tasks.pid).result()
        assert looks.get() == limited, "the base line"
        ex.statistics()  # all that went before is over
        while not looks.empty():
            looks.get()
        assert list(ex.map(abs, range(-50, 0))) == list(range(50, 0, -1))
        assert looks.empty()


def test_another_attempt_if_asked_for(gate: Gate, marks: Marks) -> None:
    with ForkPoolExecutor(1) as ex:
        view = ex.options(memory_limit=LIMIT, retries=1)
        never = (tasks.grow_then, MORE, tasks.enter, gate)
        assert isinstance(view.submit(*never).exception(), TaskMemoryError), "a crash only"
        again = view.options(retry_on=(MemoryError,))
        future = again.submit(tasks.fail_until, 2, marks, *never)
        assert future.result() == future.pid
        assert (future.attempt, marks.words()) == (2, ["1", "2"])
        error = again.submit(*never).exception()
        assert isinstance(error, TaskMemoryError)
        first, second = error.__notes__
        assert "its private memory had grown by" in first
        assert second == "attempt 2 of 2: this error"
        assert ex.statistics().over_memory == 2


def test_beside_other_limits_and_kills(gate: Gate, second_gate: Gate) -> None:
    with ForkPoolExecutor(1) as ex:
        both = ex.options(timeout=60).options(memory_limit=LIMIT)
        assert isinstance(both.submit(tasks.grow_then, MORE, tasks.enter, gate).exception(), TaskMemoryError)
        slow = ex.options(timeout=0.2, memory_limit=1 << 40)
        assert isinstance(slow.submit(tasks.enter, gate).exception(), TaskTimeoutError)
        killed = ex.options(memory_limit=1 << 40, cancel_running=True).submit(tasks.grow_then, 1, tasks.enter, second_gate)
        second_gate.wait_inside()
        assert killed.cancel()
        wait([killed])
        assert killed.cancelled()
        assert ex.submit(tasks.add, 1, 1).result() == 2


def test_as_an_executor(gate: Gate) -> None:
    grow = tasks.grow_then
    with ForkPoolExecutor(2) as ex:
        view = ex.options(memory_limit=LIMIT)

        async def main() -> None:
            loop = asyncio.get_running_loop()
            with pytest.raises(TaskMemoryError):
                await loop.run_in_executor(view, grow, MORE, gate.enter)
            assert await loop.run_in_executor(view, abs, -1) == 1

        asyncio.run(main())
        results = view.map(grow, [1, MORE], [abs, gate.enter], [-7])
        assert next(results) == 7
        results = view.map(grow_or_wait, [1, 2, MORE, 1], [gate] * 4)
        assert [next(results), next(results)] == [1, 2]
        with pytest.raises(TaskMemoryError):
            next(results)
        chunked = view.map(grow_or_wait, [1, 2, MORE, 1], [gate] * 4, chunksize=2)
        assert [next(chunked), next(chunked)] == [1, 2]
        with pytest.raises(TaskMemoryError):
            next(chunked)


def grow_or_wait(mib: int, gate: GateInTask) -> int:
    tasks.grow(mib)
    if mib == MORE:
        gate.enter()
    return mib


def touch_and_mark(marks: Marks, word: str) -> str:
    data = bytearray(os.urandom(1 << 16)) * 16
    marks.add(word)
    return word if data else ""


def test_it_races_with_the_end_of_the_task(marks: Marks, monkeypatch: pytest.MonkeyPatch) -> None:
    """A result or the error, never something else; the next task is never the one that is killed."""
    monkeypatch.setattr(memory_watch, "SOONEST_S", 0.0)
    words = [str(number) for number in range(60)]
    with ForkPoolExecutor(2) as ex:
        view = ex.options(memory_limit=1 << 16)
        for word in words:
            future, behind = view.submit(touch_and_mark, marks, word), ex.submit(tasks.identity, word)
            error = future.exception()
            assert isinstance(error, TaskMemoryError) or future.result() == word
            assert behind.result() == word
        counts = ex.statistics()
        assert counts.done + counts.over_memory == counts.submitted == 2 * len(words)
    ran = marks.words()
    assert len(ran) == len(set(ran)), "none ran twice"
