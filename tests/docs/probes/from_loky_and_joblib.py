"""Try the rows of docs/coming-from/loky-and-joblib.md."""

import inspect
import multiprocessing
import os
import tempfile
import threading
import time
from concurrent.futures import CancelledError, ThreadPoolExecutor, as_completed, wait
from concurrent.futures import process as standard
from functools import partial

import joblib
import loky
import numpy
import psutil
from claims import claim, error_of, try_all
from joblib import Memory, Parallel, delayed, parallel_config
from loky.process_executor import BrokenProcessPool, ShutdownExecutorError, TerminatedWorkerError
from tasks import invert, mark, wait_for, wait_marked

from forkpool import ForkPoolExecutor, SerializationError, TaskTimeoutError, WorkerCrashedError, current_task


def pools(**options):
    return loky.ProcessPoolExecutor(1, **options), ForkPoolExecutor(1, **options)


def set_new_global(value):
    global new_global
    new_global = value


def get_new_global():
    return new_global  # set by the initializer, in the worker only


def crash_on(number):
    if number == 2:
        os.abort()
    return number


# -- loky


@claim("`get_reusable_executor(max_workers=4)`")
def _():
    theirs = loky.get_reusable_executor(max_workers=1)
    assert theirs is loky.get_reusable_executor(max_workers=2)
    assert theirs._max_workers == 2
    theirs.shutdown()
    with ForkPoolExecutor(1) as one, ForkPoolExecutor(1) as other:
        assert one.submit(os.getpid).result() != other.submit(os.getpid).result()


@claim("`get_reusable_executor(timeout=10)`")
def _():
    theirs = loky.get_reusable_executor(max_workers=1, timeout=0.5)
    worker = psutil.Process(theirs.submit(os.getpid).result())
    worker.wait(30)
    theirs.shutdown()
    assert isinstance(error_of(lambda: ForkPoolExecutor(1, timeout=0.5)), TypeError)
    with ForkPoolExecutor(1) as ours:
        worker = psutil.Process(ours.submit(os.getpid).result())
        assert isinstance(error_of(lambda: worker.wait(1)), psutil.TimeoutExpired)


@claim('`env={"A": "1"}`')
def _():
    for pool in pools(env={"A": "1"}):
        assert pool.submit(os.getenv, "A").result() == "1"
        pool.shutdown()


@claim('`env={"OMP_NUM_THREADS": "1"}`')
def _():
    theirs = loky.ProcessPoolExecutor(1, env={"OMP_NUM_THREADS": "1"})
    assert [theirs.submit(os.getenv, f"{name}_NUM_THREADS").result() for name in ("OMP", "NUMEXPR")] == ["1", None]
    theirs.shutdown()
    with ForkPoolExecutor(1, threads_per_worker=1) as ours:
        assert [ours.submit(os.getenv, f"{name}_NUM_THREADS").result() for name in ("OMP", "NUMEXPR")] == ["1", "1"]


@claim('`context="loky"`')
def _():
    theirs = loky.ProcessPoolExecutor(1, context=loky.backend.get_context("loky"))
    assert theirs.submit(invert, 1).result() == 1
    theirs.shutdown()
    assert isinstance(error_of(lambda: ForkPoolExecutor(1, mp_context=loky.backend.get_context("loky"))), ValueError)


@claim("`initializer=f`, which sets a global of `__main__`")
def _():
    theirs, ours = pools(initializer=set_new_global, initargs=(42,))
    assert isinstance(theirs.submit(get_new_global).exception(), NameError)
    assert ours.submit(get_new_global).result() == 42
    theirs.shutdown()
    ours.shutdown()


@claim("`wrap_non_picklable_objects(f)`")
def _():
    theirs, ours = pools()
    assert theirs.submit(loky.wrap_non_picklable_objects(lambda: 1)).result() == ours.submit(lambda: 1).result() == 1
    theirs.shutdown()
    ours.shutdown()


@claim('`set_loky_pickler("pickle")`')
def _():
    loky.set_loky_pickler("pickle")
    theirs = loky.ProcessPoolExecutor(1)
    assert theirs.submit(partial(invert, 1)).result() == 1
    assert theirs.submit(lambda: 1).exception() is not None
    theirs.shutdown()
    loky.set_loky_pickler(None)
    with ForkPoolExecutor(1, serializer="pickle") as plain, ForkPoolExecutor(1) as ours:
        assert isinstance(plain.submit(lambda: 1).exception(), SerializationError)
        assert ours.submit(lambda: 1).result() == 1


@claim("`cpu_count()`")
def _():
    mask = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(mask)})
    try:
        assert loky.cpu_count() == 1
        with ForkPoolExecutor() as ours:
            assert ours.submit(lambda: current_task().max_workers).result() == 1
    finally:
        os.sched_setaffinity(0, mask)


@claim("a worker crashes")
def _():
    """The row of both tables."""
    theirs, ours = loky.ProcessPoolExecutor(1), ForkPoolExecutor(1)
    futures = [theirs.submit(crash_on, number) for number in (2, 3, 4)]
    assert {type(future.exception()) for future in futures} == {TerminatedWorkerError}
    assert isinstance(error_of(lambda: theirs.submit(invert, 1)), BrokenProcessPool)
    error = error_of(lambda: Parallel(n_jobs=2)(delayed(crash_on)(n) for n in range(4)))
    assert isinstance(error, joblib.externals.loky.process_executor.TerminatedWorkerError)  # joblib brings a loky of its own
    futures = [ours.submit(crash_on, number) for number in (2, 3, 4)]
    assert [type(future.exception()) for future in futures] == [WorkerCrashedError, type(None), type(None)]
    assert ours.submit(invert, 1).result() == 1
    ours.shutdown()


@claim("`except BrokenProcessPool` of `loky.process_executor`")
def _():
    assert BrokenProcessPool is not standard.BrokenProcessPool
    assert issubclass(BrokenProcessPool, standard.BrokenProcessPool)
    assert issubclass(WorkerCrashedError, standard.BrokenProcessPool)
    assert not issubclass(WorkerCrashedError, BrokenProcessPool)


@claim("`executor.shutdown(kill_workers=True)`")
def _():
    outcomes = []
    for pool, kill in zip(pools(), [lambda pool: pool.shutdown(kill_workers=True), ForkPoolExecutor.kill_workers], strict=True):
        with mark() as path:
            running, queued = [pool.submit(wait_marked, path) for _ in range(2)]
            wait_for(path)
            kill(pool)
            outcomes.append([type(error_of(future.result)) for future in (running, queued)])
    assert outcomes == [[ShutdownExecutorError] * 2, [WorkerCrashedError, CancelledError]]


@claim("a done-callback, `map`, `wait`, `as_completed`")
def _():
    for pool in pools():
        called = threading.Event()
        future = pool.submit(invert, 1)
        future.add_done_callback(lambda _, called=called: called.set())
        assert called.wait(30)
        assert list(pool.map(invert, [1, 2])) == [1, 0.5]
        assert wait([future]).done == set(as_completed([future])) == {future}
        pool.shutdown()


# -- joblib


@claim("`Parallel(n_jobs=4)(delayed(f)(x) for x in xs)`")
def _():
    with ForkPoolExecutor(2) as ours:
        assert Parallel(n_jobs=2)(delayed(invert)(x) for x in [1, 2]) == list(ours.map(invert, [1, 2])) == [1, 0.5]


@claim("`n_jobs=-1`")
def _():
    with ForkPoolExecutor() as ours:
        assert ours.submit(lambda: current_task().max_workers).result() == Parallel(n_jobs=-1)._effective_n_jobs()


@claim("`n_jobs=1`")
def _():
    assert Parallel(n_jobs=1)([delayed(os.getpid)()]) == [os.getpid()]
    with ForkPoolExecutor(1) as ours:
        assert ours.submit(os.getpid).result() != os.getpid()


@claim('`return_as="generator"`')
def _():
    with ForkPoolExecutor(2) as ours:
        theirs = Parallel(n_jobs=2, return_as="generator")(delayed(invert)(x) for x in [1, 2])
        assert inspect.isgenerator(theirs)
        assert list(theirs) == list(ours.map(invert, [1, 2])) == [1, 0.5]


@claim('`return_as="generator_unordered"`')
def _():
    with ForkPoolExecutor(2) as ours:
        theirs = Parallel(n_jobs=2, return_as="generator_unordered")(delayed(invert)(x) for x in [1, 2])
        futures = as_completed([ours.submit(invert, x) for x in [1, 2]])
        assert sorted(theirs) == sorted(future.result() for future in futures) == [0.5, 1]


@claim('`pre_dispatch="2 * n_jobs"`')
def _():
    def numbers(seen):
        for number in range(1, 51):
            seen.append(number)
            yield number

    read = []
    results = Parallel(n_jobs=1, pre_dispatch="2 * n_jobs", return_as="generator")(delayed(invert)(n) for n in numbers(read))
    next(results)
    assert len(read) < 50
    results.close()
    with ForkPoolExecutor(1) as ours:
        ours.map(invert, numbers(read := []), buffersize=2)
        assert len(read) == 2
        ours.map(invert, numbers(read := []))
        assert len(read) == 50


@claim("`batch_size=10`")
def _():
    with ForkPoolExecutor(2) as ours:
        theirs = Parallel(n_jobs=2, batch_size=10)(delayed(os.getpid)() for _ in range(20))
        assert max(theirs.count(pid) for pid in theirs) >= 10
        list(ours.map(invert, range(1, 21), chunksize=10))
        assert ours.statistics().submitted == 2


@claim("`timeout=3`")
def _():
    error = error_of(lambda: Parallel(n_jobs=2, timeout=0.5)(delayed(time.sleep)(s) for s in (0, 3, 0)))
    assert isinstance(error, multiprocessing.TimeoutError)
    with ForkPoolExecutor(2) as ours:
        limited = ours.options(timeout=0.5)
        errors = [future.exception() for future in [limited.submit(time.sleep, s) for s in (0, 60, 0)]]
        assert [type(error) for error in errors] == [type(None), TaskTimeoutError, type(None)]
        assert list(limited.map(invert, [1, 2])) == [1, 0.5]


@claim("`inner_max_num_threads=1`")
def _():
    with parallel_config(backend="loky", inner_max_num_threads=1):
        assert Parallel(n_jobs=2)([delayed(os.getenv)("OMP_NUM_THREADS")]) == ["1"]
    with ForkPoolExecutor(1, threads_per_worker=1) as ours:
        assert ours.submit(os.getenv, "OMP_NUM_THREADS").result() == "1"


def write_to(array):
    array[0] = 1
    return type(array).__name__


@claim("arrays over `max_nbytes`")
def _():
    array = numpy.zeros(1_000_000)
    assert isinstance(error_of(lambda: Parallel(n_jobs=2)([delayed(write_to)(array)] * 2)), ValueError)
    assert Parallel(n_jobs=2)([delayed(lambda array: type(array).__name__)(array)]) == ["memmap"]
    with ForkPoolExecutor(1) as ours:
        assert ours.submit(write_to, array).result() == "ndarray"
    assert array[0] == 0


@claim('`prefer="threads"`')
def _():
    with ThreadPoolExecutor(2) as threads:
        assert Parallel(n_jobs=2, prefer="threads")([delayed(os.getpid)()]) == [threads.submit(os.getpid).result()]


@claim("`Memory(...).cache(f)`")
def _():
    with tempfile.TemporaryDirectory() as folder, ForkPoolExecutor(1) as ours:
        cached = Memory(folder, verbose=0).cache(invert)
        assert ours.submit(cached, 2).result() == 0.5
        assert cached.check_call_in_cache(2)


@claim("`Parallel` inside a task")
def _():
    with ForkPoolExecutor(1) as ours:
        assert ours.submit(lambda: Parallel(n_jobs=2)(delayed(invert)(x) for x in [1, 2])).result() == [1, 0.5]


if __name__ == "__main__":
    try_all()
