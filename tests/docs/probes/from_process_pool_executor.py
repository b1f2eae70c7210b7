"""Try the rows of docs/coming-from/process-pool-executor.md."""

import asyncio
import contextvars
import ctypes
import functools
import multiprocessing
import os
import pickle
import select
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import CancelledError, Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial

import numpy
from claims import claim, error_of, try_all
from tasks import fail, give_up, invert, mark, wait_for, wait_for_release, wait_marked

from forkpool import ForkPoolExecutor, InitializerError, SerializationError, TaskTimeoutError, WorkerCrashedError, current_task
from forkpool.diagnostics import snapshot

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


@claim("a global array that is a view of another one: `tail = buf[1:]`")
def _():
    assert [pool.submit(write_into_view).result() for pool in both()] == [1.0, 0.0]
    assert [pool.submit(write_into_own_view).result() for pool in both()] == [1.0, 1.0]


buf = numpy.zeros(4)
tail = buf[1:]


def write_into_view():
    tail[0] = 1.0
    return float(buf[1])


def write_into_own_view():
    buf[1:][0] = 1.0
    return float(buf[1])


@claim("state in the closure or the defaults of a function of the program: `@memo` with a dict of its own, `def f(x, seen=[])`")
def _():
    for function in (count_in_default, count_in_closure):
        assert [[pool.submit(function).result() for _ in range(3)] for pool in both()] == [[1, 2, 3], [1, 1, 1]]
    assert [[pool.submit(count_in_global).result() for _ in range(3)] for pool in both()] == [[1, 2, 3]] * 2


def count_in_default(seen=[]):  # noqa: B006  # that is what it is about
    seen.append(1)
    return len(seen)


def counted(function):
    calls = []

    @functools.wraps(function)
    def count():
        calls.append(function())
        return len(calls)

    return count


@counted
def count_in_closure():
    return 1


CALLS = []


def count_in_global():
    CALLS.append(1)
    return len(CALLS)


class Handle:
    """Notes which process drops it."""

    def __init__(self, path, is_careful):
        self.path, self.is_careful, self.pid, self.count = path, is_careful, os.getpid(), 0

    def __del__(self):
        if not self.is_careful or os.getpid() == self.pid:
            with open(self.path, "a") as file:
                file.write(f"{os.getpid()}\n")


def use_handle():
    return os.getpid(), handle.count


@claim("`__del__` of a global that the program changes later")
def _():
    global handle
    for kind, is_careful in (
        (partial(ProcessPoolExecutor, mp_context=FORK), False),
        (ForkPoolExecutor, False),
        (ForkPoolExecutor, True),
    ):
        with mark() as path, kind(1) as pool:
            handle = Handle(path, is_careful)
            worker, _ = pool.submit(use_handle).result()
            handle.count = 1
            assert pool.submit(use_handle).result() == (worker, 1 if kind is ForkPoolExecutor else 0)
            dropped_by = path.read_text().split() if path.exists() else []
            assert dropped_by == ([str(worker)] if kind is ForkPoolExecutor and not is_careful else [])
            handle = None


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


@claim("`for p in ex._processes.values(): p.terminate()`, or `os.kill` of each")
def _():
    def terminate(process):
        process.terminate()

    def kill(process):
        os.kill(process.pid, signal.SIGKILL)

    for end in (terminate, kill):
        for kind in POOLS:
            with mark() as path, kind(1) as pool:
                running, queued = pool.submit(wait_marked, path), pool.submit(invert, 1)
                wait_for(path)
                for process in list(pool._processes.values()):
                    end(process)
                assert isinstance(running.exception(), BrokenProcessPool)
                assert (
                    queued.exception() is None
                    if kind is ForkPoolExecutor
                    else isinstance(queued.exception(), BrokenProcessPool)
                )


@claim("`multiprocessing.active_children()`")
def _():
    for pool in both():
        pool.submit(invert, 1).result()
        children = {child.pid for child in multiprocessing.active_children()}
        ours = isinstance(pool, ForkPoolExecutor)
        assert children.isdisjoint(pool._processes) if ours else children.issuperset(pool._processes)
        if ours:
            assert set(pool._processes) <= {process.pid for process in snapshot(pool).processes}


@claim("`os.getppid()` in a worker")
def _():
    with ProcessPoolExecutor(1, mp_context=FORK) as theirs:
        assert theirs.submit(parents).result() == (os.getpid(), os.getpid())
    with ForkPoolExecutor(1) as ours:
        above, parent = ours.submit(parents).result()
        assert above != parent == os.getpid()


def parents():
    return os.getppid(), multiprocessing.parent_process().pid


@claim("`subprocess.Popen` in a task, which leaves it")
def _():
    for kind, options, outlives in (
        (ProcessPoolExecutor, {}, True),
        (ForkPoolExecutor, {}, False),
        (ForkPoolExecutor, {"start_new_session": True}, True),
    ):
        with kind(1) as pool:
            pidfd = os.pidfd_open(pool.submit(leave_process, options).result())
        assert has_ended(pidfd, wait=not outlives) is not outlives
        signal.pidfd_send_signal(pidfd, signal.SIGKILL) if outlives else None
        os.close(pidfd)
    with ForkPoolExecutor(1) as ours:
        pidfd = os.pidfd_open(ours.submit(leave_process, {}).result())
        ours.recycle_workers()
        assert has_ended(pidfd, wait=True)
        os.close(pidfd)


def leave_process(options):
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(["sleep", "60"], **quiet, **options).pid


def has_ended(pidfd, wait):
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(30_000 if wait else 0))


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
