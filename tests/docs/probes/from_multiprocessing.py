"""Try the rows of docs/coming-from/multiprocessing-pool.md."""

import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
from concurrent.futures import CancelledError, Future, as_completed
from contextlib import contextmanager
from multiprocessing.pool import MaybeEncodingError
from queue import SimpleQueue

from claims import claim, error_of, try_all
from tasks import describe, fail, invert, mark, wait_for, wait_for_release, wait_marked

from forkpool import ForkPoolExecutor, InitializerError, SerializationError, WorkerCrashedError

NEVER_S = 1.0  # what has not come by then counts as never coming


@contextmanager
def both(**options):
    with multiprocessing.Pool(1) as theirs, ForkPoolExecutor(1, **options) as ours:
        yield theirs, ours


def assert_never(result):
    assert isinstance(error_of(lambda: result.get(timeout=NEVER_S)), multiprocessing.TimeoutError)


def start_a_process():
    process = multiprocessing.Process(target=time.sleep, args=(0,))
    process.start()
    process.join()
    return process.exitcode


def leave_by_signal():
    os.kill(os.getpid(), signal.SIGKILL)


@claim("`Pool(4)`")
def _():
    with multiprocessing.Pool(1):
        assert multiprocessing.active_children()
    with ForkPoolExecutor(1) as ours:
        assert ours.statistics().workers_started == 0


@claim("`Pool(4, initializer=f, initargs=(1,))`")
def _():
    with multiprocessing.Pool(1, initializer=fail) as theirs:
        assert_never(theirs.apply_async(abs, (1,)))
    with ForkPoolExecutor(1, initializer=fail) as ours:
        assert isinstance(ours.submit(abs, 1).exception(), InitializerError)


@claim("`maxtasksperchild=100`")
def _():
    with multiprocessing.Pool(1, maxtasksperchild=1) as theirs:
        assert len(set(theirs.map(get_pid, range(4), chunksize=2))) == 2
    with ForkPoolExecutor(1, max_tasks_per_child=1) as ours:
        assert len(set(ours.map(get_pid, range(4), chunksize=2))) == 2


def get_pid(_):
    return os.getpid()


@claim('`get_context("spawn").Pool(4)`')
def _():
    with multiprocessing.get_context("spawn").Pool(1) as theirs:
        assert theirs.apply(who_ran) == "__mp_main__"  # the program was run again, under this name
    with ForkPoolExecutor(1) as ours:
        assert ours.submit(who_ran).result() == "__main__"


RUN_AS = __name__


def who_ran():
    return RUN_AS


@claim("`apply(f, args, kwds)`")
def _():
    with both() as (theirs, ours):
        assert theirs.apply(describe, (1,), {"k": 2}) == ours.submit(describe, 1, k=2).result() == ((1,), {"k": 2})


@claim("`apply_async(f, args)`")
def _():
    with both() as (theirs, ours):
        assert not isinstance(theirs.apply_async(describe, (1,)), Future)
        assert isinstance(ours.submit(describe, 1), Future)


@claim("`apply_async(f, callback=g, error_callback=h)`")
def _():
    seen, release = SimpleQueue(), threading.Event()
    with both() as (theirs, ours), mark() as path:
        theirs.apply_async(invert, (1,), callback=seen.put, error_callback=seen.put)
        assert seen.get() == 1
        theirs.apply_async(invert, (0,), callback=seen.put, error_callback=seen.put)
        assert isinstance(seen.get(), ZeroDivisionError)
        theirs.apply_async(invert, (1,), callback=lambda _: release.wait())
        assert_never(theirs.apply_async(invert, (1,)))
        release.set()

        for number in (1, 0):
            future = ours.submit(invert, number)
            future.add_done_callback(seen.put)
            assert seen.get() is future
        release.clear()
        ours.submit(wait_for, path).add_done_callback(lambda _: release.wait())  # not over yet: else it is called right here
        path.touch()
        assert ours.submit(invert, 1).result() == 1
        release.set()


@claim("`map(f, xs)`")
def _():
    with multiprocessing.Pool(1) as theirs:
        assert theirs.map(invert, [1, 2]) == [1, 0.5]
        assert len(chunks_of(theirs.map_async(get_pid, range(100)))) < 100
    with ForkPoolExecutor(1) as ours:
        assert list(ours.map(invert, [1, 2])) == [1, 0.5]
        list(ours.map(get_pid, range(100)))
        assert ours.statistics().submitted == 102


def chunks_of(result):
    """Return the chunks into which Pool.map_async split its items."""
    return range(-(-100 // result._chunksize))


@claim("`imap(f, xs)`")
def _():
    with both() as (theirs, ours):
        results = theirs.imap(invert, [1, 0, 2])
        assert [next(results), type(error_of(results.next)), next(results)] == [1, ZeroDivisionError, 0.5]
        results = ours.map(invert, [1, 0, 2], buffersize=2)
        assert next(results) == 1
        assert isinstance(error_of(lambda: next(results)), ZeroDivisionError)
        assert list(results) == []


@claim("`imap_unordered(f, xs)`")
def _():
    with both() as (theirs, ours):
        assert sorted(theirs.imap_unordered(invert, [1, 2])) == [0.5, 1]
        assert sorted(future.result() for future in as_completed([ours.submit(invert, x) for x in [1, 2]])) == [0.5, 1]


@claim("`starmap(f, pairs)`")
def _():
    with both() as (theirs, ours):
        pairs = [(2, 3), (3, 2)]
        assert theirs.starmap(pow, pairs) == list(ours.map(pow, *zip(*pairs, strict=True))) == [8, 9]


@claim("`result.get(timeout=3)`")
def _():
    with both() as (theirs, ours):
        error = error_of(lambda: theirs.apply_async(time.sleep, (0.5,)).get(timeout=0.01))
        assert isinstance(error, multiprocessing.TimeoutError)
        assert not isinstance(error, TimeoutError)
        future = ours.submit(time.sleep, 0.5)
        assert isinstance(error_of(lambda: future.result(timeout=0.01)), TimeoutError)
        assert future.result() is None
        assert isinstance(ours.options(timeout=0.5).submit(time.sleep, 60).exception(), TimeoutError)


@claim("`result.ready()`, `result.successful()`")
def _():
    with both() as (theirs, ours), mark() as path:
        result, future = theirs.apply_async(wait_for_release, (path,)), ours.submit(wait_for_release, path)
        assert not result.ready()
        assert not future.done()
        assert isinstance(error_of(result.successful), ValueError)
        path.with_suffix(".go").touch()
        assert future.exception() is None
        result.wait()
        assert result.ready()
        assert result.successful()
        assert future.done()


@claim("`close(); join()`")
def _():
    with both() as (theirs, ours):
        result, future = theirs.apply_async(invert, (1,)), ours.submit(invert, 1)
        theirs.close()
        theirs.join()
        ours.shutdown()
        assert result.ready()
        assert future.done()


@claim("`terminate()`")
def _():
    with mark() as path:
        theirs = multiprocessing.Pool(1)
        results = [theirs.apply_async(wait_marked, (path,)) for _ in range(2)]
        wait_for(path)
        theirs.terminate()
        theirs.join()
        for result in results:
            assert_never(result)
    with mark() as path:
        ours = ForkPoolExecutor(1)
        running, queued = [ours.submit(wait_marked, path) for _ in range(2)]
        wait_for(path)
        ours.kill_workers()
        assert isinstance(running.exception(), WorkerCrashedError)
        assert isinstance(error_of(queued.result), CancelledError)


@claim("leaving `with Pool(4) as pool:`")
def _():
    with mark() as path:
        with multiprocessing.Pool(1) as theirs:
            result = theirs.apply_async(wait_for_release, (path,))
            wait_for(path)
        path.with_suffix(".go").touch()
        assert_never(result)
    with ForkPoolExecutor(1) as ours:
        futures = [ours.submit(time.sleep, 0.1) for _ in range(3)]
    assert all(future.done() for future in futures)


@claim("a worker is killed, or crashes")
def _():
    with multiprocessing.Pool(1) as theirs:
        assert_never(theirs.apply_async(leave_by_signal))
    with ForkPoolExecutor(1) as ours:
        killed, other = ours.submit(leave_by_signal), ours.submit(invert, 1)
        assert isinstance(killed.exception(), WorkerCrashedError)
        assert other.result() == 1


@claim("`sys.exit(3)` in a task")
def _():
    with multiprocessing.Pool(1) as theirs:
        assert_never(theirs.apply_async(sys.exit, (3,)))
    with ForkPoolExecutor(1) as ours:
        error = ours.submit(sys.exit, 3).exception()
        assert isinstance(error, SystemExit)
        assert error.code == 3


@claim("a task that starts a `Process`")
def _():
    with both() as (theirs, ours):
        assert isinstance(error_of(lambda: theirs.apply(start_a_process)), AssertionError)
        assert ours.submit(start_a_process).result() == 0


@claim("a lambda, or a function of a notebook")
def _():
    with both() as (theirs, ours):
        error = error_of(lambda: theirs.apply(lambda: 1))
        assert isinstance(error, pickle.PicklingError | AttributeError)
        assert ours.submit(lambda: 1).result() == 1


@claim("a result that cannot be pickled")
def _():
    with both() as (theirs, ours):
        assert isinstance(error_of(lambda: theirs.apply(threading.Lock)), MaybeEncodingError)
        assert isinstance(ours.submit(threading.Lock).exception(), SerializationError)


if __name__ == "__main__":
    try_all()
