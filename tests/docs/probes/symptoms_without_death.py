"""Try the rows of docs/how-to/why-did-my-worker-die.md where none ended, or not by a task. Runs in: the probe."""

import os
import resource
import signal
import sys
import tempfile
import threading
import time
from concurrent.futures import Future
from pathlib import Path

from claims import error_of
from symptoms import pool, run, symptom
from tasks import fail, invert, mark, wait_for, wait_for_release, wait_marked

from forkpool import ForkPoolExecutor, TaskTimeoutError, diagnostics

# -- the pool is broken


def broken(**options):
    """Return the error of a pool's first call; each later one gets such an error too."""
    with ForkPoolExecutor(1, **options) as ex:
        first = ex.submit(invert, 1).exception()
        assert (first.may_have_run, first.pool_usable) == ("no", False)
        assert not error_of(lambda: ex.submit(invert, 1)).pool_usable
    return first


@symptom("`InitializerError: the initializer raised`")
def _():
    error = broken(initializer=fail)
    assert isinstance(error.__cause__, OSError)
    yield error


@symptom("`PoolBrokenError: workers cannot be started`, `ended before it was ready`")
def _():
    yield broken(initializer=os._exit, initargs=(3,))


@symptom("`PoolBrokenError: workers cannot be started`, `Too many open files`")
def _():
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ForkPoolExecutor(1) as ex:
        highest = max(map(int, os.listdir("/proc/self/fd")))
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 7, limits[1]))
        kept = []
        try:
            while len(kept) < 1000:  # what is free below
                kept.append(os.open(os.devnull, os.O_RDONLY))
        except OSError:
            for fd in kept[-6:]:
                os.close(fd)
        error = ex.submit(invert, 1).exception()
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for fd in kept[:-6]:
            os.close(fd)
    yield error


def module(text):
    """Make a module that can be imported, and return its name."""
    folder = tempfile.mkdtemp()
    sys.path.insert(0, folder)
    name = f"module_{len(sys.path)}"
    Path(folder, f"{name}.py").write_text(text)
    return name


@symptom("`PoolBrokenError: workers cannot be started`, `the fork server ended`")
def _():
    yield broken(preload=(module("import os; os._exit(3)"),))


@symptom("`ModuleNotFoundError: No module named`, raised by `submit`")
def _():
    with ForkPoolExecutor(1, preload=("no_such_module",)) as ex:
        yield error_of(lambda: ex.submit(invert, 1))
    yield "submit"


@symptom("`RuntimeError: forkpool cannot start its fork server`, `sys.executable`")
def _():
    executable, sys.executable = sys.executable, "/bin/cat"
    with ForkPoolExecutor(1) as ex:
        yield error_of(lambda: ex.submit(invert, 1))
    sys.executable = executable


@symptom("`InternalError: forkpool itself failed`")
def _():
    from forkpool._host import verdicts

    yield verdicts.internal_error(ZeroDivisionError())


# -- nobody died


def same_worker(task, *args):
    """Return the error of a call after which the worker is the same."""
    pid = pool.submit(os.getpid).result()
    error = pool.submit(task, *args).exception()
    assert pool.submit(os.getpid).result() == pid
    return error


@symptom("`SerializationError: cannot send`")
def _():
    yield same_worker(invert, threading.Lock())


@symptom("`SerializationError: the task is done, but its result cannot be sent back`")
def _():
    yield same_worker(threading.Lock)


def import_missing():
    import no_such_module

    return no_such_module


@symptom("`ModuleNotFoundError: No module named`, from the task")
def _():
    error = same_worker(import_missing)
    assert "in import_missing" in str(error.__cause__)
    yield error


@symptom("`SystemExit`, `KeyboardInterrupt`")
def _():
    yield same_worker(sys.exit, 1)

    def interrupt():
        raise KeyboardInterrupt

    yield same_worker(interrupt)


def allocate_beyond_a_limit():
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (1 << 30, limits[1]))
    try:
        return len(bytearray(1 << 31))
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


@symptom("`MemoryError`")
def _():
    yield same_worker(allocate_beyond_a_limit)


@symptom("`EOFError: EOF when reading a line`, `BdbQuit`")
def _():
    yield same_worker(input)
    yield same_worker(lambda: breakpoint())


@symptom("`RuntimeError: cannot schedule new futures after shutdown`")
def _():
    with ForkPoolExecutor(1) as ex:
        pass
    yield error_of(lambda: ex.submit(invert, 1))


@symptom("`RuntimeError: this pool belongs to process`")
def _():
    pool.submit(invert, 1).result()
    program = (
        "from forkpool import ForkPoolExecutor as P; import os\nex = P(1); ex.submit(abs, 1).result()\nif os.fork() == 0:\n"
    )
    yield run([sys.executable, "-W", "ignore", "-c", program + " ex.submit(abs, 1)\nelse: os.wait()"]).stderr


@symptom("`RuntimeError: this future belongs to process`")
def _():
    program = (
        "from forkpool import ForkPoolExecutor as P; import os, time\nex = P(1); future = ex.submit(time.sleep, 1000)\n"
        "if os.fork() == 0:\n future.result()\nelse:\n os.wait()\n future.kill()"
    )
    yield run([sys.executable, "-W", "ignore", "-c", program]).stderr


# -- nothing happens


@symptom("`future.running()` stays True")
def _():
    yield "future.running()"
    with mark() as path:
        future = pool.submit(wait_for_release, path)
        wait_for(path)
        (task,) = diagnostics.snapshot(pool).tasks
        assert (task.name, task.state) == ("wait_for_release", "running")
        assert task.seconds > 0
        os.kill(task.pid, signal.SIGABRT)
        assert "in wait_for_release" in future.exception().crash_traceback


@symptom("`future.running()` stays False")
def _():
    yield "future.running()"
    with mark() as path:
        pool.submit(wait_for_release, path)
        queued = pool.submit(invert, 1)
        wait_for(path)
        counts = pool.statistics()
        assert (counts.running, counts.queued) == (1, 1)
        assert not queued.running()
        path.with_suffix(".go").touch()
        assert queued.result() == 1


@symptom("`ps` says `T` of the worker")
def _():
    with mark() as path:
        future = pool.submit(wait_for_release, path)
        wait_for(path)
        (task,) = diagnostics.snapshot(pool).tasks
        os.kill(task.pid, signal.SIGSTOP)
        while (state := Path(f"/proc/{task.pid}/stat").read_text().split()[2]) != "T":  # where `ps` reads it
            time.sleep(0.01)
        path.with_suffix(".go").touch()
        assert not future.done()
        os.kill(task.pid, signal.SIGCONT)
        assert future.result() == "released"
    yield f"ps: {state}"
    stopped = pool.options(timeout=0.2).submit(signal.raise_signal, signal.SIGSTOP)
    assert isinstance(stopped.exception(), TaskTimeoutError)


@symptom("the first `submit` does not return")
def _():
    yield "submit"
    with mark() as path:
        name = module(
            f"import os, time\nopen({str(path)!r}, 'w').close()\nwhile os.path.exists({str(path)!r}): time.sleep(0.01)"
        )
        with ForkPoolExecutor(1, preload=(name,)) as ex:
            returned = Future()
            thread = threading.Thread(target=lambda: returned.set_result(ex.submit(invert, 1)))
            thread.start()
            wait_for(path)
            assert not returned.done()
            path.unlink()
            thread.join()
            assert returned.result().result() == 1


@symptom("the `with` block, `shutdown()` or the program does not end")
def _():
    yield "with shutdown()"
    with mark() as path:
        ex = ForkPoolExecutor(1)
        future = ex.submit(wait_marked, path)
        wait_for(path)
        thread = threading.Thread(target=ex.shutdown)
        thread.start()
        assert thread.is_alive()
        assert future.kill()
        thread.join()


# -- a worker or the program is gone, without an error


@symptom("another `pid` than before")
def _():
    yield "pid"
    with ForkPoolExecutor(1, max_tasks_per_child=1) as ex:
        assert ex.submit(os.getpid).result() != ex.submit(os.getpid).result()
        assert ex.statistics().workers_replaced["max_tasks_per_child"] >= 1
    before = pool.submit(os.getpid).result()
    os.kill(before, signal.SIGKILL)  # while it is idle
    assert pool.submit(os.getpid).result() != before


@symptom("`Killed`, exit status 137 (or -9), nothing from forkpool")
def _():
    program = "import os; from forkpool import ForkPoolExecutor as P; P(1).submit(abs, 1).result(); os.kill(os.getpid(), 9)"
    done = run(["bash", "-c", f"'{sys.executable}' -c '{program}'; exit $?"])
    assert done.returncode == 137
    yield done.stderr
