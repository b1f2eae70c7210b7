"""submit and map: the same on threads, on the standard library's processes and on forkpool.

Differences, each with its reason:
- An async or generator function: the standard library hands back a coroutine or generator (or fails to pickle it), and as an
  initializer it does nothing; forkpool refuses it at once and says what to use, since nobody would run it.
- map(buffersize=): the standard library has it from 3.14 on; forkpool on every Python.
- A task that is not callable: threads and processes fail the future, forkpool may fail submit; TypeError both ways.
- chunksize=0: threads ignore it, since they never chunk.
"""

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from forkpool import ForkPoolExecutor
from tests.contract.conftest import Make, beside, make_forkpool, make_threads
from tests.support import tasks
from tests.support.gate import Gate, Marks


def everything(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
    return args, kwargs


def test_result_of_a_call(make: Make) -> None:
    with make(1) as ex:
        future = ex.submit(tasks.add, 2, 3)
        assert future.result() == 5
        assert future.exception() is None
        assert future.done()
        assert not future.running()
        assert not future.cancelled()


def test_no_keyword_is_taken_from_the_call(make: Make) -> None:
    words = {"self": 1, "fn": 2, "timeout": 3, "name": 4, "args": 5, "kwargs": 6, "chunksize": 7, "retries": 8}
    with make(1) as ex:
        assert ex.submit(everything, 0, **words).result() == ((0,), words)


def test_submit_wants_a_callable(make: Make) -> None:
    with make(1) as ex:
        with pytest.raises(TypeError):
            ex.submit()  # type: ignore[call-arg]
        with pytest.raises(TypeError):
            ex.submit(3).result()  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            ex.submit(fn=tasks.pid)  # type: ignore[call-arg]


async def coroutine() -> None: ...


def generator() -> Any:
    yield 1


@pytest.mark.parametrize("fn", [coroutine, generator])
def test_forkpool_refuses_what_nobody_would_run(fn: Any) -> None:
    with ForkPoolExecutor(1) as ex, pytest.raises(TypeError, match=fn.__name__):
        ex.submit(fn)
    with ForkPoolExecutor(1) as ex, pytest.raises(TypeError, match=fn.__name__):
        ex.map(fn, [])
    with pytest.raises(TypeError, match=f"initializer '{fn.__name__}' is"):
        ForkPoolExecutor(1, initializer=fn)


@pytest.mark.parametrize(
    "value", [None, 0, -1, 2**100, 1.5, "", "ä€𝄞", b"x" * 100_000, [], {"a": (1, {2})}, float("inf"), ..., int, len]
)
def test_values_come_back_as_they_are(make: Make, value: Any) -> None:
    with make(1) as ex:
        back = ex.submit(tasks.identity, value).result()
    assert back == value
    assert type(back) is type(value)


@pytest.mark.parametrize("size", [1, 4071, 4072, 4073, 4095, 4096, 4097, 65_535, 65_536, 65_537, 1 << 20, 20_000_000])
def test_sizes_around_every_border(make_process_pool: Make, size: int) -> None:
    value = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    with make_process_pool(1) as ex:
        assert ex.submit(tasks.identity, value).result() == value


def test_an_exception_as_a_value_is_no_failure(make: Make) -> None:
    with make(1) as ex:
        value = ex.submit(tasks.identity, ValueError("just a value")).result()
    assert type(value) is ValueError
    assert value.args == ("just a value",)


def test_thousand_results_belong_to_their_calls(make: Make) -> None:
    with make(2) as ex:
        futures = [ex.submit(tasks.add, number, 1) for number in range(1000)]
        assert [future.result() for future in futures] == list(range(1, 1001))


def test_submit_from_many_threads(make: Make) -> None:
    def submit_some(start: int) -> int:
        return sum(future.result() for future in [ex.submit(tasks.add, start, n) for n in range(100)])

    with make(2) as ex, ThreadPoolExecutor(8) as threads:
        sums = list(threads.map(submit_some, range(8)))
    assert sums == [100 * start + 4950 for start in range(8)]


def test_every_call_runs_once(make: Make, marks: Marks) -> None:
    words = [str(number) for number in range(300)]
    with make(2) as ex:
        assert list(ex.map(tasks.leave_mark, [marks] * 300, words)) == words
    assert sorted(marks.words()) == sorted(words)


def test_map_keeps_the_order_and_stops_at_the_shortest(make: Make) -> None:
    with make(2) as ex:
        assert list(ex.map(tasks.add, range(10), range(5, 100))) == [5 + 2 * n for n in range(10)]
        assert list(ex.map(tasks.add, [], [])) == []
        assert list(ex.map(tasks.pid)) == []


@pytest.mark.parametrize("chunksize", [1, 2, 3, 7, 10, 11, 1000])
def test_map_with_chunks(make: Make, chunksize: int) -> None:
    with make(2) as ex:
        assert list(ex.map(tasks.add, range(10), range(10), chunksize=chunksize)) == [2 * n for n in range(10)]


@pytest.mark.parametrize("chunksize", [0, -1])
def test_map_refuses_chunks_of_nothing(make_process_pool: Make, chunksize: int) -> None:
    with make_process_pool(1) as ex, pytest.raises(ValueError, match="chunksize must be >= 1"):
        ex.map(tasks.identity, [1], chunksize=chunksize)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"chunksize": 2.5}, "chunksize must be an int, not float"),
        ({"chunksize": None}, "chunksize must be an int, not None"),
        ({"chunksize": 2**70}, "chunksize must be >= 1 and at most "),
        ({"buffersize": 2**70}, "buffersize must be None or > 0 and at most "),
        ({"timeout": "1"}, "timeout must be a number of seconds or None, not str"),
    ],
)
def test_map_names_a_wrong_argument(arguments: dict[str, Any], message: str) -> None:
    taken = []

    def items() -> Any:
        taken.append(1)
        yield 1

    with ForkPoolExecutor(1) as ex, pytest.raises((TypeError, ValueError), match=message):
        ex.map(tasks.identity, items(), **arguments)
    assert taken == [], "nothing was read, nothing was submitted"


def test_map_with_a_limit_beyond_any_clock() -> None:
    with ForkPoolExecutor(1) as ex:
        assert list(ex.map(tasks.identity, [1, 2], timeout=float("inf"))) == [1, 2]
        assert list(ex.map(tasks.identity, [1, 2], timeout=1e300)) == [1, 2]


def test_errors_of_python_name_what_was_called() -> None:
    with ForkPoolExecutor(1) as ex:
        for executor in (ex, ex.options(name="a view")):
            with pytest.raises(TypeError, match=r"^submit\(\) missing 1 required positional argument: 'fn'"):
                executor.submit()  # type: ignore[call-arg]
            with pytest.raises(TypeError, match=r"^map\(\) missing 1 required positional argument: 'fn'"):
                executor.map()  # type: ignore[call-arg]
            with pytest.raises(TypeError, match=r"^options\(\) takes 1 positional argument but 2 were given"):
                executor.options(5)  # type: ignore[misc]


def reciprocal(number: int) -> float:
    return 1 / number


@pytest.mark.parametrize("chunksize", [1, 2])
def test_map_raises_where_the_failure_stands(make: Make, chunksize: int) -> None:
    with make(2) as ex:
        results = ex.map(reciprocal, [1, 2, 0, 4], chunksize=chunksize)
        assert next(results) == 1.0
        assert next(results) == 0.5
        with pytest.raises(ZeroDivisionError):
            next(results)
        with pytest.raises(StopIteration):
            next(results)


def test_map_takes_its_items_at_once(make: Make) -> None:
    taken = []

    def items() -> Any:
        for number in range(5):
            taken.append(number)
            yield number

    with make(1) as ex:
        results = ex.map(tasks.identity, items())
        assert taken == [0, 1, 2, 3, 4]
        assert list(results) == taken


@beside
def test_map_timeout(make: Make, gate: Gate) -> None:
    with make(1) as ex:
        with pytest.raises(TimeoutError):
            next(ex.map(tasks.enter, [gate], timeout=0))
        gate.open_for_all()


def test_map_timeout_counts_from_the_call(make: Make, gate: Gate) -> None:
    gate.open_for_all()
    with make(1) as ex:
        assert list(ex.map(tasks.enter, [gate], ["done"], timeout=50)) == ["done"]


@beside
def test_leaving_a_map_cancels_what_has_not_begun(make: Make, gate: Gate, marks: Marks) -> None:
    with make(1) as ex:
        running = ex.submit(tasks.enter, gate)
        gate.wait_inside()
        results = ex.map(tasks.leave_mark, [marks] * 50, map(str, range(50)))
        first = ex.submit(tasks.identity, 1)
        assert first.cancel()
        results.close()  # type: ignore[attr-defined]  # never begun: a generator's finally does not run then
        with pytest.raises(TimeoutError):
            next(ex.map(tasks.leave_mark, [marks] * 50, map(str, range(50, 100)), timeout=0))
        gate.open_for_all()
        assert running.result() is None
    ran = marks.words()
    assert len([word for word in ran if int(word) >= 50]) < 50


@pytest.mark.parametrize(
    "make",
    [
        make_forkpool,
        pytest.param(make_threads, marks=pytest.mark.skipif(sys.version_info < (3, 14), reason="buffersize is new in 3.14")),
    ],
)
def test_map_buffersize_bounds_what_is_taken(make: Make) -> None:
    taken = []

    def items() -> Any:
        for number in range(1000):
            taken.append(number)
            yield number

    with make(2) as ex:
        results = ex.map(tasks.identity, items(), buffersize=3)  # type: ignore[call-arg]
        assert taken == [0, 1, 2]
        assert next(results) == 0
        assert taken == [0, 1, 2, 3]
        assert list(results) == list(range(1, 1000))


def test_map_buffersize_is_checked() -> None:
    with ForkPoolExecutor(1) as ex:
        with pytest.raises(ValueError, match="buffersize must be None or > 0"):
            ex.map(tasks.identity, [1], buffersize=0)
        with pytest.raises(TypeError, match="buffersize must be an integer or None"):
            ex.map(tasks.identity, [1], buffersize="1")  # type: ignore[arg-type]


@beside
def test_a_task_runs_in_another_process(make_process_pool: Make) -> None:
    import os

    with make_process_pool(1) as ex:
        assert ex.submit(tasks.pid).result() != os.getpid()


@beside
def test_workers_are_made_on_demand(make_process_pool: Make) -> None:
    with make_process_pool(5) as ex:
        pids = {ex.submit(tasks.pid).result() for _ in range(20)}
        assert len(pids) == 1
        assert set(ex._processes) == pids  # type: ignore[attr-defined]


@beside
def test_max_workers_run_at_once(make: Make, gate: Gate) -> None:
    with make(3) as ex:
        futures = [ex.submit(tasks.enter, gate, number) for number in range(3)]
        for _ in futures:
            gate.wait_inside()
        assert all(future.running() for future in futures)
        gate.open_for_all()
        assert [future.result() for future in futures] == [0, 1, 2]


def test_clock_is_shared_with_the_host(make_process_pool: Make) -> None:
    with make_process_pool(1) as ex:
        before = time.monotonic_ns()
        inside = ex.submit(time.monotonic_ns).result()
        assert before < inside < time.monotonic_ns()
