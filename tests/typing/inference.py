"""What a type checker must infer of the public names. Never run: `test_inference.py` gives it to mypy."""

from collections.abc import Iterator
from concurrent.futures import Executor, Future
from concurrent.futures.process import BrokenProcessPool
from pickle import PicklingError
from typing import assert_type

from forkpool import (
    ForkFuture,
    ForkPoolExecutor,
    InitializerError,
    Placement,
    PoolBrokenError,
    SerializationError,
    TaskInfo,
    TaskTimeoutError,
    WorkerCrashedError,
    current_task,
)


def join(text: str, *, times: int = 1) -> list[str]:
    return [text] * times


pool = ForkPoolExecutor(2)

assert_type(pool.submit(len, "x"), ForkFuture[int])
assert_type(pool.submit(len, "x").result(), int)
assert_type(pool.submit(join, "x", times=2), ForkFuture[list[str]])
assert_type(pool.submit(lambda: "x").result(timeout=1), str)
assert_type(pool.submit(len, "x").kill(), bool)
assert_type(pool.submit(len, "x").pid, int | None)
assert_type(pool.submit(len, "x").slot, int | None)
assert_type(pool.submit(len, "x").started_at, float | None)
assert_type(pool.submit(len, "x").duration, float | None)
assert_type(pool.map(len, ["x"], timeout=1.0, chunksize=2, buffersize=3), Iterator[int])
assert_type(pool.options(timeout=2.5, name="thumb").submit(len, "x"), ForkFuture[int])
assert_type(pool.options(priority=3, cancel_running=True).options(name="x").submit(len, "x"), ForkFuture[int])
assert_type(pool.options(retries=2, retry_on=(OSError, KeyError)).submit(len, "x").attempt, int)
pool.options(retry_on=KeyError), pool.options(retry_on=[KeyError])
pool.options(retry_on=KeyError("x"))  # type: ignore[arg-type]  # a class, not an error
assert_type(pool.options(timeout=2.5).map(len, ["x"]), Iterator[int])

future: Future[int] = pool.submit(len, "x")
executor: Executor = pool
view: Executor = pool.options(timeout=1)
with ForkPoolExecutor() as entered:
    assert_type(entered, ForkPoolExecutor)

pool.submit(join, times=2)  # type: ignore[call-arg]  # `text` is missing
pool.submit(join, 3)  # type: ignore[arg-type]  # not a str
pool.options(priority="high")  # type: ignore[arg-type]  # a number
pool.options(2.5)  # type: ignore[call-arg]  # options are named
ForkPoolExecutor(colour="red")  # type: ignore[call-arg]  # no such option
ForkPoolExecutor(pin=[0, 1]), ForkPoolExecutor(pin=[[0, 1], [2]]), ForkPoolExecutor(pin=range(4)), ForkPoolExecutor(pin=True)
ForkPoolExecutor(pin="yes")  # type: ignore[arg-type]  # "auto" is the only word
ForkPoolExecutor(threads_per_worker="all")  # type: ignore[arg-type]  # likewise
assert_type(pool.placement(), Placement)

assert_type(current_task(), TaskInfo | None)

broken: list[type[BrokenProcessPool]] = [WorkerCrashedError, PoolBrokenError, InitializerError]
late: type[TimeoutError] = TaskTimeoutError
unpicklable: type[PicklingError] = SerializationError


def facts(error: WorkerCrashedError) -> None:
    assert_type(error.pid, int)
    assert_type(error.exitcode, int | None)
    assert_type(error.signal, str | None)
    assert_type(error.peak_rss, int | None)
    assert_type(error.seconds, float)
    assert_type(error.may_have_run, str)
    assert_type(error.crash_traceback, str | None)
    assert_type(error.pool_usable, bool)
