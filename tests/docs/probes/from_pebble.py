"""Try the rows of docs/coming-from/pebble.md."""

import asyncio
import contextlib
import multiprocessing
import os
import pickle
import subprocess
import time
from concurrent.futures import CancelledError, Executor, wait
from concurrent.futures.process import BrokenProcessPool

import psutil
from claims import claim, error_of, try_all
from pebble import ProcessExpired, ProcessPool, asynchronous, concurrent
from tasks import describe, fail, give_up, invert, mark, wait_for, wait_marked

from forkpool import ForkPoolExecutor, InitializerError, TaskTimeoutError, WorkerCrashedError


def start_a_child(path):
    child = subprocess.Popen(["sleep", "60"])
    path.with_suffix(".new").write_text(str(child.pid))
    path.with_suffix(".new").rename(path)
    time.sleep(60)


@claim("`ProcessPool(max_workers=4)`")
def _():
    assert not issubclass(ProcessPool, Executor)
    with ProcessPool(max_workers=1) as theirs, ForkPoolExecutor(max_workers=1) as ours:
        assert theirs.schedule(os.getppid).result() == os.getpid()
        assert isinstance(ours, Executor)
        assert ours.submit(os.getppid).result() != os.getpid()


@claim('`pool.schedule(f, args=(1,), kwargs={"k": 2}, timeout=3)`')
def _():
    with ProcessPool(max_workers=1) as theirs, ForkPoolExecutor(max_workers=1) as ours:
        expected = ((1,), {"k": 2})
        assert theirs.schedule(describe, args=(1,), kwargs={"k": 2}, timeout=30).result() == expected
        assert ours.options(timeout=30).submit(describe, 1, k=2).result() == expected
        assert ours.options(name="upload").submit(os._exit, 3).exception().task_name == "upload"


@claim("`pool.submit(f, 3, 1)`, where 3 is the timeout")
def _():
    with ProcessPool(max_workers=1) as theirs, ForkPoolExecutor(max_workers=1) as ours:
        assert theirs.submit(describe, 3, 1).result() == ((1,), {})
        assert ours.submit(describe, 3, 1).result() == ((3, 1), {})


@claim("a task exceeds its timeout")
def _():
    with ProcessPool(max_workers=1) as theirs, mark() as path:
        assert isinstance(theirs.schedule(start_a_child, args=(path,), timeout=2).exception(), TimeoutError)
        orphan = psutil.Process(int(path.read_text()))
        assert orphan.is_running()
        orphan.kill()
    with ForkPoolExecutor(max_workers=1) as ours, mark() as path:
        error = ours.options(timeout=2).submit(start_a_child, path).exception()
        assert isinstance(error, TaskTimeoutError)
        assert isinstance(error, TimeoutError)
        with contextlib.suppress(psutil.NoSuchProcess):
            psutil.Process(int(path.read_text())).wait(10)


@claim("`future.cancel()` of a running task")
def _():
    with ProcessPool(max_workers=1) as theirs, mark() as path:
        future = theirs.schedule(wait_marked, args=(path,))
        wait_for(path)
        assert future.cancel()
        assert theirs.schedule(invert, args=(1,)).result() == 1
    with ForkPoolExecutor(max_workers=1) as ours, mark() as path:
        future = ours.submit(wait_marked, path)
        wait_for(path)
        assert not future.cancel()
        assert future.kill()
        assert isinstance(error_of(future.result), CancelledError)


@claim("`except ProcessExpired`")
def _():
    with ProcessPool(max_workers=1) as theirs:
        error = theirs.schedule(os._exit, args=(3,)).exception()
        assert isinstance(error, ProcessExpired)
        assert isinstance(error, OSError)
        assert error.exitcode == 3
    with ForkPoolExecutor(max_workers=1) as ours:
        error = ours.submit(give_up).exception()
        assert isinstance(error, WorkerCrashedError)
        assert isinstance(error, BrokenProcessPool)
        assert not isinstance(error, OSError)
        assert (error.exitcode, error.signal, error.task_name) == (-6, "SIGABRT", "give_up")
        assert error.pid > 0
        assert error.peak_rss > 0
        assert "in give_up" in error.crash_traceback


@claim("`pool.map(f, xs, timeout=3).result()`, errors skipped")
def _():
    with ProcessPool(max_workers=1) as theirs, ForkPoolExecutor(max_workers=1) as ours:
        results = theirs.map(invert, [1, 0, 2], timeout=30).result()
        assert next(results) == 1
        assert isinstance(error_of(lambda: next(results)), ZeroDivisionError)
        assert next(results) == 0.5
        iterator = ours.map(invert, [1, 0, 2])
        assert next(iterator) == 1
        assert isinstance(error_of(lambda: next(iterator)), ZeroDivisionError)
        assert isinstance(error_of(lambda: next(iterator)), StopIteration)
        limited = ours.options(timeout=30)
        futures = [limited.submit(invert, x) for x in [1, 0, 2]]
        assert [future.exception() is None for future in futures] == [True, False, True]


@claim("`pool.map(f, xs, chunksize=10)`")
def _():
    with ProcessPool(max_workers=1) as theirs, ForkPoolExecutor(max_workers=1) as ours:
        results = theirs.map(invert, [1, 0, 2, 4], chunksize=4).result()
        assert next(results) == 1
        assert isinstance(error_of(lambda: next(results)), ZeroDivisionError)
        assert list(results) == [0.5, 0.25]
        iterator = ours.map(invert, [1, 0, 2, 4], chunksize=4)
        assert isinstance(error_of(lambda: next(iterator)), ZeroDivisionError)
        assert list(iterator) == []


@claim("`max_tasks=100`")
def _():
    with ProcessPool(max_workers=1, max_tasks=1) as theirs:
        assert len({theirs.schedule(os.getpid).result() for _ in range(3)}) == 3
    with ForkPoolExecutor(max_workers=1, max_tasks_per_child=1) as ours:
        assert len({ours.submit(os.getpid).result() for _ in range(3)}) == 3
    with ProcessPool(max_workers=1, max_tasks=0) as theirs:
        assert len({theirs.schedule(os.getpid).result() for _ in range(3)}) == 1
    assert isinstance(error_of(lambda: ForkPoolExecutor(max_tasks_per_child=0)), ValueError)


@claim("`initializer=f, initargs=(1,)`")
def _():
    with ProcessPool(max_workers=1, initializer=fail) as theirs:
        try:
            error = theirs.schedule(invert, args=(1,)).exception(timeout=5)
        except TimeoutError:
            pass  # seen: it never ends
        else:
            assert isinstance(error, BrokenProcessPool)
            assert error.__cause__ is None
        theirs.stop()
    with ForkPoolExecutor(max_workers=1, initializer=fail) as ours:
        error = ours.submit(invert, 1).exception()
        assert isinstance(error, InitializerError)
        assert isinstance(error, BrokenProcessPool)
        assert str(error.__cause__) == "no model"


@claim('`context=get_context("spawn")`')
def _():
    with ProcessPool(max_workers=1, context=multiprocessing.get_context("fork")) as theirs:
        assert theirs.schedule(invert, args=(1,)).result() == 1
    assert isinstance(error_of(lambda: ForkPoolExecutor(mp_context=multiprocessing.get_context("fork"))), ValueError)


@claim("`pool.close(); pool.join()`")
def _():
    theirs, ours = ProcessPool(max_workers=1), ForkPoolExecutor(max_workers=1)
    first, second = [theirs.schedule(invert, args=(n,)) for n in (1, 2)], [ours.submit(invert, n) for n in (1, 2)]
    theirs.close()
    theirs.join()
    ours.shutdown()
    assert all(future.done() for future in first + second)


@claim("`pool.stop(); pool.join()`")
def _():
    with mark() as path:
        theirs = ProcessPool(max_workers=1)
        futures = [theirs.schedule(wait_marked, args=(path,)) for _ in range(2)]
        wait_for(path)
        theirs.stop()
        theirs.join()
        ended = wait(futures, timeout=1).done  # all of them, mostly; none was seen on Python 3.12
        assert all(isinstance(error_of(future.result), BrokenProcessPool) for future in ended)
    with mark() as path:
        ours = ForkPoolExecutor(max_workers=1)
        running, queued = [ours.submit(wait_marked, path) for _ in range(2)]
        wait_for(path)
        ours.kill_workers()
        ours.shutdown()
        assert isinstance(running.exception(), WorkerCrashedError)
        assert isinstance(error_of(queued.result), CancelledError)


@claim("a lambda, or a function of a notebook")
def _():
    with ProcessPool(max_workers=1) as theirs, ForkPoolExecutor(max_workers=1) as ours:
        assert isinstance(theirs.schedule(lambda: 1).exception(), pickle.PicklingError | AttributeError)
        assert ours.submit(lambda: 1).result() == 1


@claim("`@concurrent.process(timeout=3)`")
def _():
    theirs = concurrent.process(os.getpid, timeout=30)
    assert len({theirs().result() for _ in range(3)}) == 3
    with ForkPoolExecutor(max_workers=1) as ours:
        assert len({ours.options(timeout=30).submit(os.getpid).result() for _ in range(3)}) == 1


@claim("`@asynchronous.process(timeout=3)`")
def _():
    async def both():
        theirs = asynchronous.process(time.sleep, timeout=0.5)
        try:
            await theirs(60)
        except TimeoutError:
            pass
        else:
            raise AssertionError
        with ForkPoolExecutor(max_workers=1) as ours:
            try:
                await asyncio.get_running_loop().run_in_executor(ours.options(timeout=0.5), time.sleep, 60)
            except TimeoutError:
                return
        raise AssertionError

    asyncio.run(both())


if __name__ == "__main__":
    try_all()
