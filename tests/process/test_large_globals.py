"""Large globals: they cross to each worker once, for every call that needs them, and nothing of them is left.

Runs in: pytest and workers. The globals are of a module that nobody can import: what is said of it holds for `__main__` too.
The leak check of each test compares descriptors and threads.
"""

import errno
import os
import resource
import signal
import sys
import types
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from typing import Any

import pytest

from forkpool import ForkPoolExecutor, WorkerCrashedError
from tests.support.gate import Gate, Marks
from tests.support.script import Script
from tests.support.shortage import descriptors_left

Start = Callable[..., Script]

SOURCE = """
import os
from tests.support.gate import GateInTask, Marks

class Watched:
    '''Says when it is unpickled.'''
    def __init__(self, marks, data):
        self.marks, self.data = marks, data
    def __setstate__(self, state):
        self.__dict__ = state
        self.marks.add(str(os.getpid()))

table = None

def size(*_):
    return len(table.data), os.getpid()

def enter(gate):
    gate.enter()
    return len(table.data), os.getpid()

def die_once(gate, marks):
    attempt = len(marks.words())
    marks.add("attempt")
    gate.enter()
    if not attempt:
        os.abort()
    return len(table.data), os.getpid()
"""
SIZE = 1 << 20


@pytest.fixture
def program(leak_check: None, marks: Marks) -> Iterator[Any]:
    """A module with a large global."""
    module = types.ModuleType("program_with_a_table")
    sys.modules[module.__name__] = module
    exec(SOURCE, module.__dict__)
    module.table = module.Watched(marks, bytes(SIZE))  # type: ignore[attr-defined]
    yield module
    del sys.modules[module.__name__]


def held() -> int:
    """How many contents this process holds."""
    names = (f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd"))
    return sum("forkpool-content" in os.readlink(name) for name in names if os.path.lexists(name))


pytestmark = pytest.mark.filterwarnings("ignore::forkpool.PayloadWarning")  # large, again and again: that is what is looked at


def test_it_crosses_to_each_worker_once(program: Any, marks: Marks) -> None:
    with ForkPoolExecutor(2) as ex:
        answers = [future.result() for future in [ex.submit(program.size) for _ in range(40)]]
        assert {length for length, _ in answers} == {SIZE}
        assert len(marks.words()) == len(set(marks.words())) <= 2
        program.table.data += b"."
        assert ex.submit(program.size).result()[0] == SIZE + 1
        assert ex.submit(len, "x").result() == 1
    assert len(marks.words()) <= 4


def test_a_long_queue_shares_one_and_what_is_over_holds_none(program: Any, gate: Gate) -> None:
    with ForkPoolExecutor(1) as ex:
        running = ex.submit(program.enter, gate)
        gate.wait_inside()
        assert held() == 0  # it was fetched, and will not be asked for again
        queued = [ex.submit(program.size) for _ in range(100)]
        assert held() == 1
        assert all(future.cancel() for future in queued[50:])
        gate.open_for_all()
        assert {future.result() for future in [running, *queued[:50]]} == {running.result()}
        assert ex.submit(len, "x").result() == 1  # with it the supervisor has forgotten the ones before
        assert held() == 0


def test_what_is_cancelled_or_killed_holds_none(program: Any, gate: Gate) -> None:
    with ForkPoolExecutor(1) as ex:
        running = ex.options(retries=1).submit(program.enter, gate)
        gate.wait_inside()
        assert held() == 1  # it may have to run again
        queued = ex.submit(program.size)
        assert running.kill()
        with pytest.raises(CancelledError):
            running.result()
        assert queued.result()[0] == SIZE
        assert ex.submit(len, "x").result() == 1  # as above
        assert held() == 0


def test_each_new_worker_gets_it(program: Any, marks: Marks) -> None:
    with ForkPoolExecutor(1, max_tasks_per_child=1) as ex:
        answers = [ex.submit(program.size).result() for _ in range(3)]
    assert [length for length, _ in answers] == [SIZE] * 3
    assert marks.words() == [str(pid) for _, pid in answers]


def test_a_call_that_is_tried_again_has_it(program: Any, gate: Gate, marks: Marks) -> None:
    with ForkPoolExecutor(1) as ex:
        future = ex.options(retries=1).submit(program.die_once, gate, Marks(f"{marks.path}.attempts"))
        first = gate.wait_inside()
        gate.release()
        second = gate.wait_inside()
        gate.release()
        assert future.result() == (SIZE, second)
    assert marks.words() == [str(first), str(second)]


def test_calls_behind_one_that_crashes_have_it(program: Any, gate: Gate) -> None:
    with ForkPoolExecutor(1) as ex:
        running = ex.submit(program.enter, gate)
        pid = gate.wait_inside()
        behind = [ex.submit(program.size) for _ in range(20)]
        os.kill(pid, signal.SIGKILL)
        assert isinstance(running.exception(), WorkerCrashedError)
        assert {future.result()[0] for future in behind} == {SIZE}


def test_the_initializer_and_the_calls_share_it(program: Any, marks: Marks) -> None:
    with ForkPoolExecutor(2, initializer=program.size) as ex:
        answers = [future.result() for future in [ex.submit(program.size) for _ in range(10)]]
        assert {length for length, _ in answers} == {SIZE}
    assert len(marks.words()) == len(set(marks.words())) <= 2


def test_a_host_that_has_no_descriptor_left_when_it_is_asked(program: Any, gate: Gate) -> None:
    with ForkPoolExecutor(1) as ex:
        ex.submit(gate.enter)
        future = ex.submit(program.size)
        gate.wait_inside()
        with descriptors_left(0):
            gate.release()
            assert future.result()[0] == SIZE


def test_a_worker_that_has_no_descriptor_left(program: Any) -> None:
    with ForkPoolExecutor(1) as ex:
        pid = ex.submit(os.getpid).result()
        with descriptors_left(0, pid):
            error = ex.submit(program.size).exception()
        assert isinstance(error, OSError)
        assert error.errno == errno.EMFILE
        assert ex.submit(program.size).result() == (SIZE, pid)


def leave_room(count: int) -> int:
    """Let this worker have so many more bytes of address space."""
    with open("/proc/self/statm") as file:
        pages = int(file.read().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + count, resource.RLIM_INFINITY))
    return os.getpid()


def test_a_worker_without_room_for_it(program: Any) -> None:
    program.table.data = bytes(256 << 20)
    with ForkPoolExecutor(1) as ex:
        pid = ex.submit(leave_room, 64 << 20).result()
        error = ex.submit(program.size).exception()
        assert isinstance(error, MemoryError)
        assert ex.submit(os.getpid).result() == pid


def test_a_program_with_a_table(start: Start) -> None:
    """As users write it: a global at the top, functions and lambdas that read it, a map over them, a change between."""
    script = start("""
        from forkpool import ForkPoolExecutor
        words = [f"word {n}" for n in range(100_000)]
        def word(n):
            return words[n]
        with ForkPoolExecutor(2) as ex:
            mark("map", list(ex.map(word, range(0, 100_000, 20_000))))
            mark("chunks", list(ex.map(lambda n: words[n][-1], range(10), chunksize=3)))
            words[0] = "changed"
            mark("changed", ex.submit(word, 0).result())
        """).finish()
    assert script.value("map") == str([f"word {n}" for n in range(0, 100_000, 20_000)])
    assert script.value("chunks") == str([str(n) for n in range(10)])
    assert script.value("changed") == "changed"
