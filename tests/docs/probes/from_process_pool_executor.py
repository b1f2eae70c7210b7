"""Try the rows of docs/coming-from/process-pool-executor.md."""

import asyncio
import contextvars
import ctypes
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
import time
from concurrent.futures import CancelledError, Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from claims import claim, error_of, try_all
from tasks import fail, give_up, invert, mark, wait_for, wait_for_release, wait_marked

from forkpool import ForkPoolExecutor, InitializerError, SerializationError, TaskTimeoutError, WorkerCrashedError, current_task

FORK = multiprocessing.get_context("fork")
POOLS = (ProcessPoolExecutor, ForkPoolExecutor)
RUN_AS = __name__
NEWER = sys.version_info >= (3, 14)


def both():
    """Yield one pool after the other, so that neither forks while the other is being started."""
    for kind in POOLS:
        with kind(1) as pool:
            yield pool


@claim("`ProcessPoolExecutor()`")
def _():
    mask = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(mask)})
    try:
        with ForkPoolExecutor() as ours:
            assert ours.submit(lambda: current_task().max_workers).result() == 1
        theirs = ProcessPoolExecutor()._max_workers
        assert theirs == (1 if sys.version_info >= (3, 13) else os.cpu_count())
    finally:
        os.sched_setaffinity(0, mask)


@claim('`mp_context=get_context("fork")`')
def _():
    with ProcessPoolExecutor(1, mp_context=FORK) as theirs:
        assert theirs.submit(invert, 1).result() == 1
    assert isinstance(error_of(lambda: ForkPoolExecutor(mp_context=FORK)), ValueError)


@claim('`mp_context=get_context("spawn")`, `"forkserver"`')
def _():
    for method in ("spawn", "forkserver"):
        for kind in POOLS:
            with kind(1, mp_context=multiprocessing.get_context(method)) as pool:
                assert pool.submit(invert, 1).result() == 1


@claim('`if __name__ == "__main__":`')
def _():
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("forkserver")) as theirs:
        assert theirs.submit(who_ran).result() == "__mp_main__"
    with ForkPoolExecutor(1) as ours:
        assert ours.submit(who_ran).result() == "__main__"


def who_ran():
    return RUN_AS


@claim("`globals()[name]`, `pickle.loads(data)`: names that the code does not hold")
def _():
    data = pickle.dumps(Saved())
    with ProcessPoolExecutor(1) as theirs:
        assert theirs.submit(look_up, "RATE").result() == 3
        assert theirs.submit(load, data).result() == "Saved"
    with ForkPoolExecutor(1) as ours:
        assert ours.submit(look_up, "RATE").result() is None
        assert isinstance(ours.submit(load, data).exception(), AttributeError)
        assert ours.submit(lambda: (globals()["RATE"], eval("RATE + 1"))).result() == (3, 4)
        assert ours.submit(lambda: RATE and Saved and (look_up("RATE"), load(data))).result() == (3, "Saved")
    with ForkPoolExecutor(1, preload=("__main__",)) as ours:
        assert ours.submit(look_up, "RATE").result() == 3
        assert ours.submit(load, data).result() == "Saved"


RATE = 3


class Saved:
    pass


def look_up(name):
    return globals().get(name)


def load(data):
    return type(pickle.loads(data)).__name__


@claim("`submit(lambda: 1)`, closures, notebooks")
def _():
    theirs, ours = (pool.submit(lambda: 1) for pool in both())
    assert isinstance(theirs.exception(), pickle.PicklingError | AttributeError)
    assert ours.result() == 1


@claim("an argument that cannot be pickled")
def _():
    lock = threading.Lock()
    with ProcessPoolExecutor(1) as theirs:
        assert isinstance(theirs.submit(invert, lock).exception(), TypeError)
    with ForkPoolExecutor(1) as ours:
        assert isinstance(ours.submit(invert, lock).exception(), SerializationError)


@claim("a lock, open file, `threading.local()`, `ContextVar` or library of `ctypes` at module level of the program")
def _():
    made_at_module_level = (use_lock, use_file, use_local, use_variable, use_library)
    for method in ("fork", "forkserver"):
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(method)) as theirs:
            assert [theirs.submit(use).result() for use in made_at_module_level] == [True] * 5
    with ForkPoolExecutor(1) as ours:
        for use in made_at_module_level:
            error = ours.submit(use).exception()
            assert isinstance(error, SerializationError)
            assert "in the initializer, or inside the function" in str(error)
    with ForkPoolExecutor(1, initializer=make_in_worker) as ours:
        assert [ours.submit(use_made).result() for _ in range(3)] == [1, 2, 3]
        assert ours.submit(make_inside).result()


@claim("two globals of the program that hold one object")
def _():
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as theirs:
        assert theirs.submit(count_through_both).result() == 1
    with ForkPoolExecutor(1) as ours:
        assert ours.submit(count_through_both).result() == 0
        assert ours.submit(count_in_own_global).result() == 1


class Part:
    def __init__(self):
        self.count = 0


PARTS = [Part() for _ in range(3)]
PARTS_BY_NAME = dict(zip("abc", PARTS, strict=True))
OWN = Part()
OWN_LIST, OWN_NAMES = [OWN], {"own": OWN}


def count_through_both():
    PARTS_BY_NAME["b"].count += 1
    return PARTS[1].count


def count_in_own_global():
    OWN_NAMES["own"].count += 1
    return OWN_LIST[0].count


VARIABLE, LIBRARY = contextvars.ContextVar("variable", default=True), ctypes.CDLL(None)
LOCK, FILE, LOCAL = threading.Lock(), open(__file__), threading.local()  # noqa: SIM115  (as programs do)


def use_lock():
    with LOCK:
        return True


def use_file():
    return FILE.readable()


def use_local():
    return not vars(LOCAL)


def use_variable():
    return VARIABLE.get()


def use_library():
    return LIBRARY.strlen(b"abc") == 3


def make_in_worker():
    global made
    made = threading.Lock(), open(__file__), threading.local()  # noqa: SIM115  (for all tasks of the worker)
    made[2].count = 0


def use_made():
    lock, file, local = made
    with lock:
        local.count += 1
    return file.readable() and local.count


def make_inside():
    with threading.Lock(), open(__file__) as file:
        return file.readable() and not vars(threading.local())


@claim("an argument that you change after `submit`")
def _():
    seen = []
    for pool in both():
        with mark() as path:
            pool.submit(wait_for_release, path)
            wait_for(path)
            behind = [pool.submit(invert, 1) for _ in range(5)]  # more than the other keeps pickled ahead
            numbers = [1]
            future = pool.submit(len, numbers)
            numbers.append(2)
            path.with_suffix(".go").touch()
            seen.append(future.result())
            assert all(future.result() for future in behind)
    assert seen == [2, 1]


@claim("`max_tasks_per_child=100`")
def _():
    if not NEWER:
        assert isinstance(error_of(lambda: ProcessPoolExecutor(1, max_tasks_per_child=1, mp_context=FORK)), ValueError)
    with ForkPoolExecutor(1, max_tasks_per_child=1) as ours:
        assert len({ours.submit(os.getpid).result() for _ in range(3)}) == 3


@claim("`initializer=f, initargs=(1,)`")
def _():
    with ProcessPoolExecutor(1, initializer=fail) as theirs:
        error = theirs.submit(invert, 1).exception()
        assert isinstance(error, BrokenProcessPool)
        assert error.__cause__ is None
    with ForkPoolExecutor(1, initializer=fail) as ours:
        error = ours.submit(invert, 1).exception()
        assert isinstance(error, InitializerError)
        assert isinstance(error, BrokenProcessPool)
        assert isinstance(error.__cause__, OSError)


@claim("a worker crashes")
def _():
    with ProcessPoolExecutor(1) as theirs:
        futures = [theirs.submit(give_up), theirs.submit(invert, 1)]
        assert all(isinstance(future.exception(), BrokenProcessPool) for future in futures)
        assert isinstance(error_of(lambda: theirs.submit(invert, 1)), BrokenProcessPool)
    with ForkPoolExecutor(1) as ours:
        futures = [ours.submit(give_up), ours.submit(invert, 1)]
        assert isinstance(futures[0].exception(), WorkerCrashedError)
        assert futures[1].result() == ours.submit(invert, 1).result() == 1


@claim("`except BrokenProcessPool`")
def _():
    for kind in POOLS:
        pool = kind(1)
        error = pool.submit(give_up).exception()
        assert isinstance(error, BrokenProcessPool)
        assert getattr(error, "pool_usable", False) is (kind is ForkPoolExecutor)
        pool.shutdown()


@claim("`result(timeout=3)` of a call that is stuck")
def _():
    with mark() as path, ProcessPoolExecutor(1) as theirs:
        stuck, follower = theirs.submit(wait_for_release, path), theirs.submit(invert, 1)
        assert isinstance(error_of(lambda: stuck.result(timeout=1)), TimeoutError)
        assert not follower.done()
        path.with_suffix(".go").touch()
    with ForkPoolExecutor(1) as ours, mark() as path:
        stuck, follower = ours.options(timeout=0.5).submit(wait_marked, path), ours.submit(invert, 1)
        assert isinstance(stuck.exception(), TaskTimeoutError)
        assert follower.result() == 1


@claim("`cancel()`, `running()` of a queued call")
def _():
    told = []
    for pool in both():
        with mark() as path:
            first, second = pool.submit(wait_for_release, path), pool.submit(invert, 1)
            wait_for(path)
            told_of = second if isinstance(pool, ProcessPoolExecutor) else first
            while not told_of.running():  # the other tells it after the call has begun
                time.sleep(0.01)
            pool.submit(invert, 2)
            told.append((second.running(), second.cancel()))
            path.with_suffix(".go").touch()
            first.result()
    assert told == [(True, False), (False, True)], told


@claim("no such method")
def _():
    with ProcessPoolExecutor(1) as theirs:
        assert not hasattr(theirs.submit(invert, 1), "kill")
    with ForkPoolExecutor(1) as ours, mark() as path:
        future = ours.submit(wait_marked, path)
        wait_for(path)
        assert future.kill()
        assert isinstance(error_of(future.result), CancelledError)


@claim("`map(f, xs, buffersize=8)` (3.14)")
def _():
    with ForkPoolExecutor(1) as ours:
        assert list(ours.map(invert, [1, 2], buffersize=1)) == [1, 0.5]
    if not NEWER:
        assert isinstance(error_of(lambda: ProcessPoolExecutor(1).map(invert, [1], buffersize=1)), TypeError)


@claim("`terminate_workers()`, `kill_workers()` (3.14)")
def _():
    for name in ("terminate_workers", "kill_workers"):
        assert hasattr(ProcessPoolExecutor, name) is NEWER
        with mark() as path:
            ours = ForkPoolExecutor(1)
            running, queued = ours.submit(wait_marked, path), ours.submit(invert, 1)
            wait_for(path)
            getattr(ours, name)()
            assert isinstance(running.exception(), WorkerCrashedError)
            assert isinstance(error_of(queued.result), CancelledError)


@claim("`shutdown(wait=False, cancel_futures=True)`")
def _():
    for kind in POOLS:
        with mark() as path:
            pool = kind(1)
            first, *others = [pool.submit(wait_for_release, path) for _ in range(9)]
            wait_for(path)
            pool.shutdown(wait=False, cancel_futures=True)
            path.with_suffix(".go").touch()
            assert first.result() == "released"
            assert others[-1].cancelled()


@claim("`loop.run_in_executor(ex, f, 1)`")
def _():
    async def use(pool):
        return await asyncio.get_running_loop().run_in_executor(pool, invert, 1)

    assert [asyncio.run(use(pool)) for pool in both()] == [1, 1]


@claim("the CPUs of a worker")
def _():
    everywhere = os.sched_getaffinity(0)
    with ProcessPoolExecutor(1) as theirs, ForkPoolExecutor(1, pin=False) as free:
        assert theirs.submit(os.sched_getaffinity, 0).result() == everywhere
        assert free.submit(os.sched_getaffinity, 0).result() == everywhere
    with ForkPoolExecutor(1) as ours:
        cpus = ours.submit(os.sched_getaffinity, 0).result()
        assert len(cpus) == 1 or not ours.placement().pinned


@claim("what a task prints")
def _():
    program = (
        "import os\nfrom {} import {} as Pool\ndef f(): print('last words'); os._exit(1)\nprint(Pool(1).submit(f).exception())"
    )
    printed = []
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    for module, name in (("concurrent.futures", "ProcessPoolExecutor"), ("forkpool", "ForkPoolExecutor")):
        command = [sys.executable, "-c", program.format(module, name)]
        printed.append(subprocess.run(command, env=buffered, stdout=subprocess.PIPE, text=True, check=True).stdout)
    assert ["last words" in text for text in printed] == [False, True]


@claim("`isinstance(ex, ProcessPoolExecutor)`")
def _():
    assert not issubclass(ForkPoolExecutor, ProcessPoolExecutor)
    assert issubclass(ForkPoolExecutor, Executor)


if __name__ == "__main__":
    try_all()
