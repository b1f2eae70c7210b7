"""Threads in the fork server: those of BLAS are silent, any other is named once, and the pool works on.

Runs in: pytest, fork servers and workers. Warnings are errors in this suite, so silence is tested by every submit here.
"""

import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from forkpool import ForkPoolExecutor
from tests.support import processes, tasks

Write = Callable[[str, str], Path]

TICKS = """
import threading
threading.Thread(target=threading.Event().wait, name="my-ticker", daemon=True).start()
"""
NATIVE = """
import ctypes
libc = ctypes.CDLL(None)
thread = ctypes.c_ulong()
assert libc.pthread_create(ctypes.byref(thread), None, libc.pause, None) == 0
"""


def multiply() -> float:
    numpy = sys.modules["numpy"]
    matrix = numpy.ones((300, 300))
    return float((matrix @ matrix).sum())


def threads_before_the_first_fork() -> int:
    return int(sys.modules["counts"].threads)  # OpenBLAS ends its own when its process forks


def test_the_threads_of_numpy_are_silent(write: Write) -> None:
    write("counts", "import os; threads = len(os.listdir('/proc/self/task'))")
    with ForkPoolExecutor(2, env={"OPENBLAS_NUM_THREADS": "2"}, pin=False, preload=("numpy", "counts")) as ex:
        assert [ex.submit(multiply).result() for _ in range(3)] == [300.0**3] * 3
        assert ex.submit(threads_before_the_first_fork).result() > 1


def test_another_thread_is_named_once_and_the_pool_goes_on(write: Write) -> None:
    write("ticks", TICKS)
    with ForkPoolExecutor(1, max_tasks_per_child=1, preload=("json", "ticks")) as ex:
        with pytest.warns(RuntimeWarning, match="thread 'my-ticker', left by preload 'ticks'") as caught:
            server = ex.submit(os.getppid).result()
        assert [one.filename for one in caught] == [__file__]
        assert ex.submit(tasks.add, 1, 1).result() == 2
        os.kill(server, signal.SIGKILL)
        processes.wait_exit(server)
        assert ex.submit(os.getppid).result() != server


def test_the_warning_may_be_an_error(write: Write) -> None:
    write("ticks", TICKS)
    with ForkPoolExecutor(1, preload=("ticks",)) as ex:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(RuntimeWarning, match="my-ticker"):
                ex.submit(tasks.add, 1, 1)
        assert ex.submit(tasks.add, 1, 1).result() == 2


def test_a_native_thread_too(write: Write) -> None:
    write("native", NATIVE)
    with ForkPoolExecutor(1, preload=("numpy", "native")) as ex:
        with pytest.warns(RuntimeWarning, match="native thread '.*'( of .*)?, left by preload 'native'") as caught:
            assert ex.submit(tasks.add, 1, 1).result() == 2
        assert str(caught[0].message).count("left by") == 1


def test_a_thread_that_has_ended_is_no_matter(write: Write) -> None:
    write("brief", "import threading\nthread = threading.Thread(target=len, args=('x',))\nthread.start()\nthread.join()")
    with ForkPoolExecutor(1, preload=("brief",)) as ex:
        assert ex.submit(tasks.add, 1, 1).result() == 2


@pytest.mark.parametrize("preload", [(), ("json",)])
def test_an_agent_that_starts_threads_in_every_python(
    preload: tuple[str, ...], write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    """As a debugger or profiler does through sitecustomize. Without preload no submit waits, so it is logged."""
    folder = write("sitecustomize", TICKS)
    with (
        caplog.at_level(logging.WARNING, "forkpool"),
        warnings.catch_warnings(record=True) as warned,
        ForkPoolExecutor(2, max_tasks_per_child=1, env={"PYTHONPATH": str(folder)}, preload=preload) as ex,
    ):
        warnings.simplefilter("always")
        assert [ex.submit(tasks.add, n, n).result() for n in range(4)] == [0, 2, 4, 6]
    said = [str(one.message) for one in warned] + caplog.messages
    assert len(said) == 1
    assert "thread 'my-ticker', left by the interpreter's start" in said[0]
