"""Large globals: they cross to each worker once, for every call that needs them, and nothing of them is left.

Runs in: pytest and workers. The globals are of a module that nobody can import: what is said of it holds for `__main__` too.
The leak check of each test compares descriptors and threads.
"""

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
from forkpool._shared import owning_payload, tracking
from forkpool._shared.decoding import CallDecoder, Lacking
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

def size_marked(marks, word):
    marks.add(word)
    return len(table.data)

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
    module: Any = types.ModuleType("program_with_a_table")
    sys.modules[module.__name__] = module
    exec(SOURCE, module.__dict__)
    module.table = module.Watched(marks, bytes(SIZE))
    yield module
    del sys.modules[module.__name__]


def held() -> int:
    """How many contents this process holds."""
    return len(owning_payload._contents)


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
        queued = [ex.submit(program.size) for _ in range(100)]
        assert held() == 1
        assert all(future.cancel() for future in queued[50:])
        gate.open_for_all()
        assert {future.result() for future in [running, *queued[:50]]} == {running.result()}
        assert ex.submit(len, "x").result() == 1  # with it the supervisor has forgotten the ones before
        assert held() == 0


def test_what_is_killed_holds_none(program: Any, gate: Gate) -> None:
    with ForkPoolExecutor(1) as ex:
        running = ex.options(retries=1).submit(program.enter, gate)
        gate.wait_inside()
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


def test_neither_side_needs_a_descriptor_for_it(program: Any) -> None:
    program.table = types.SimpleNamespace(data=bytes(SIZE))
    with ForkPoolExecutor(1) as ex:
        _, pid = ex.submit(program.size).result()  # all that is imported for it is
        program.table.data += b"."
        with descriptors_left(0, pid), descriptors_left(0):
            assert ex.submit(program.size).result() == (SIZE + 1, pid)


def test_an_error_while_it_is_made_is_told_also_without_descriptors(program: Any) -> None:
    """What is said of it beside has to be imported."""
    with ForkPoolExecutor(1) as ex:
        _, pid = ex.submit(program.size).result()  # as above
        program.table.data += b"."
        with descriptors_left(0, pid):
            error = ex.submit(program.size).exception()
        assert isinstance(error, OSError)
        assert error.filename == program.table.marks.path
        assert ex.submit(program.size).result() == (SIZE + 1, pid)


def forget(name: str) -> None:
    """Let this worker think that it never got that global."""
    tracking.received.pop(("g", "m:program_with_a_table", name))


def test_a_worker_that_lacks_it_says_so_and_gets_it(program: Any, gate: Gate, marks: Marks) -> None:
    """Each time before the call has begun: none runs twice, none is lost, whether it is alone or sent ahead."""
    with ForkPoolExecutor(1) as ex:
        for _ in range(10):
            ex.submit(program.size).result()
        pid = ex.submit(forget, "table").result()
        futures = [ex.submit(program.size_marked, Marks(f"{marks.path}.ran"), str(number)) for number in range(30)]
        assert [future.result() for future in futures] == [SIZE] * 30
        assert ex.submit(forget, "table").result() is pid is None
        future = ex.options(retries=1, timeout=60, priority=1, name="alone").submit(program.size)
        assert future.result()[0] == SIZE
        assert future.attempt == 1
    assert sorted(Marks(f"{marks.path}.ran").words(), key=int) == [str(number) for number in range(30)]
    assert len(marks.words()) == 3


def test_deleted_and_there_again(program: Any) -> None:
    with ForkPoolExecutor(1) as ex:
        assert ex.submit(program.size).result()[0] == SIZE
        table = program.__dict__.pop("table")
        assert isinstance(ex.submit(program.size).exception(), NameError)
        program.table = table
        assert ex.submit(program.size).result()[0] == SIZE


def test_a_worker_that_says_it_lacks_a_whole_call_is_not_believed(program: Any) -> None:
    with ForkPoolExecutor(1) as ex:
        ex.submit(always_lacks).result()
        error = ex.submit(program.size).exception()
        assert isinstance(error, WorkerCrashedError)
        assert "no reason" in str(error)
        assert ex.submit(program.size).result()[0] == SIZE


def always_lacks() -> None:
    """From now on this worker says of each call with a table that it lacks something."""

    def refuse(*_: object, **__: object) -> None:
        raise Lacking

    CallDecoder._open_table = refuse  # type: ignore[method-assign,assignment]  # there is no monkeypatch in a worker


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


def test_a_host_without_room_for_a_copy_sends_it_again(start: Start, gate: Gate) -> None:
    script = start(
        """
        import resource
        from forkpool import ForkPoolExecutor
        from tests.support.gate import GateInTask
        gate = GateInTask(sys.argv[1], sys.argv[2])
        table = bytes(64 << 20)
        def die_first(attempt):
            from forkpool import current_task
            gate.enter()
            if current_task().attempt == attempt:
                os.abort()
            return len(table)
        with ForkPoolExecutor(1) as ex:
            future = ex.options(retries=1).submit(die_first, 1)
            pages = int(open("/proc/self/statm").read().split()[0])
            resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (32 << 20), resource.RLIM_INFINITY))
            mark("limited")
            mark("result", future.result())
        """,
        args=[gate.inside_path, gate.go_path],
    )
    script.wait_mark("limited")
    gate.wait_inside()
    gate.release()
    gate.wait_inside()
    gate.release()
    assert script.finish().value("result") == str(64 << 20)
