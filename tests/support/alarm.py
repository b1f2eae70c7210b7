"""Ring when a test hangs: show every stack, end the processes of the test, fail.

Runs in: the pytest process, main thread (a signal handler).
The alarm is the only clock in the tests. It decides nothing about the outcome of a test that works.
Hard part: the failure unwinds through `with ForkPoolExecutor()`, whose exit may hang as well, so the
alarm goes on ringing, and the first ring kills what carries the mark of this test.
"""

import faulthandler
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import pytest

from tests.support import processes

REPEAT_S = 10


@contextmanager
def alarm(seconds: float) -> Iterator[None]:
    """Raise pytest's failure in the main thread when the block takes longer than `seconds`."""
    previous = signal.signal(signal.SIGALRM, _ring)
    signal.setitimer(signal.ITIMER_REAL, seconds, REPEAT_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def _ring(_signum: int, _frame: FrameType | None) -> None:
    table = processes.describe(processes.marked())
    print(f"alarm: stacks of the host\n{_stacks()}\nprocesses of this test\n{table}", file=sys.stderr)
    processes.kill_marked()
    pytest.fail(f"the test hung; processes of this test:\n{table}")


def _stacks() -> str:
    with tempfile.TemporaryFile("w+") as file:
        faulthandler.dump_traceback(file, all_threads=True)
        file.seek(0)
        return file.read()
