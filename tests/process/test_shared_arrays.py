"""Arrays of numpy in memory that is shared with other processes: a program finds in them what its tasks wrote, as under fork.

Runs in: pytest; each program is an interpreter of its own, whose ARRAY is one of the kinds below.
"""

from collections.abc import Callable

import pytest

from tests.support.script import Script

Start = Callable[..., Script]

pytestmark = pytest.mark.slow

SETUP = """
import multiprocessing, tempfile
from multiprocessing import shared_memory
import numpy
from forkpool import ForkPoolExecutor, InlineExecutor

"""
KINDS = {
    "RawArray": """
shared = multiprocessing.RawArray("d", 10)
ARRAY = numpy.frombuffer(shared)
""",
    "Array": """
shared = multiprocessing.Array("d", 10)
ARRAY = numpy.frombuffer(shared.get_obj())
""",
    "SharedMemory": """
memory = shared_memory.SharedMemory(create=True, size=80)
ARRAY = numpy.ndarray((10,), dtype=float, buffer=memory.buf)
memory.unlink()
""",
    "memmap w+": """
folder = tempfile.TemporaryDirectory()
ARRAY = numpy.memmap(folder.name + "/array", dtype=float, mode="w+", shape=(10,))
""",
    "memmap r+": """
file = tempfile.TemporaryFile()
file.truncate(80)
ARRAY = numpy.memmap(file, dtype=float, mode="r+", shape=(10,))
""",
}
TASK = """
def work(place):
    ARRAY[place] = place * place
    return ARRAY[place]
"""
ONE = SETUP + KINDS["SharedMemory"] + TASK


@pytest.fixture(params=KINDS)
def setup(request: pytest.FixtureRequest) -> str:
    return SETUP + KINDS[request.param] + TASK


def test_tasks_write_into_the_hosts_memory(start: Start, setup: str) -> None:
    """Also those of workers that replace others, and the host's later changes are seen by tasks."""
    program = start(
        setup
        + """
with ForkPoolExecutor(2, max_tasks_per_child=3) as ex:
    mark("results", sum(ex.map(work, range(10))))
    mark("sum", ARRAY.sum())
    ARRAY[:] = 1
    mark("seen", ex.submit(lambda: float(ARRAY.sum())).result())
"""
    ).finish()
    assert (program.value("results"), program.value("sum"), program.value("seen")) == ("285.0", "285.0", "10.0")
    assert program.errors == ""


@pytest.mark.parametrize("serializer", ["auto", "pickle"])
def test_an_initializer_gets_the_hosts_memory(start: Start, setup: str, serializer: str) -> None:
    """The standard pool hands it over by the fork. Both an array of the program's, and one that no global names."""
    program = start(
        setup
        + f"""
import operator
views = [ARRAY[5:]]
with ForkPoolExecutor(2, initializer=operator.setitem, initargs=(views[0], 1, 4.0), serializer={serializer!r}) as ex:
    ex.submit(abs, 1).result()
    mark("written", ARRAY[6])
"""
    ).finish()
    assert program.value("written") == "4.0"


def test_what_an_initializer_keeps_is_the_hosts_memory(start: Start, setup: str) -> None:
    program = start(
        setup
        + """
def keep(array):
    global kept
    kept = array

def write(place):
    kept[place] = place * place

with ForkPoolExecutor(2, initializer=keep, initargs=(ARRAY,), max_tasks_per_child=3) as ex:
    list(ex.map(write, range(10)))
    mark("sum", ARRAY.sum())
"""
    ).finish()
    assert program.value("sum") == "285.0"
    assert program.errors == ""


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "Array"])  # whose lock is refused before
def test_what_a_preloaded_program_made_is_not_taken_for_the_hosts(start: Start, kind: str) -> None:
    """The top of the program runs twice, and makes two memories, with the same content."""
    body = """
if __name__ == "__main__":
    with ForkPoolExecutor(2, preload=("__main__",)) as ex:
        mark("results", sum(ex.map(work, range(10))))
        mark("sum", ARRAY.sum())
"""
    program = start(SETUP + KINDS[kind] + TASK + body).finish()
    assert (program.value("results"), program.value("sum")) == ("285.0", "285.0")
    assert program.errors == ""


def test_arguments_are_copies(start: Start) -> None:
    program = start(
        ONE
        + """
def fill(array):
    array[:] = 3.0
    return float(array.sum())

with ForkPoolExecutor(1) as ex:
    mark("there", ex.submit(fill, ARRAY).result())
    mark("here", ARRAY.sum())
"""
    ).finish()
    assert (program.value("there"), program.value("here")) == ("30.0", "0.0")


def test_inline_too(start: Start) -> None:
    program = start(
        ONE
        + """
with InlineExecutor() as ex:
    list(ex.map(work, range(10)))
    mark("sum", ARRAY.sum())
    ex.submit((lambda array: lambda: array.fill(5.0))(ARRAY[:1])).result()
    mark("first", ARRAY[0])
"""
    ).finish()
    assert (program.value("sum"), program.value("first")) == ("285.0", "5.0")


def test_a_pool_in_a_task(start: Start) -> None:
    """The worker is a host then, and its memory is the first one's."""
    program = start(
        ONE
        + """
def outer():
    with ForkPoolExecutor(1) as inner:
        return inner.submit(work, 3).result()

with ForkPoolExecutor(1) as ex:
    ex.submit(outer).result()
    mark("written", ARRAY[3])
"""
    ).finish()
    assert program.value("written") == "9.0"


def test_many_calls_hold_one_descriptor(start: Start) -> None:
    """Also when there are no more for each of them."""
    program = start(
        ONE
        + """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
with ForkPoolExecutor(2) as ex:
    futures = [ex.submit(work, number % 10) for number in range(1000)]
    for future in futures:
        future.result()
mark("sum", ARRAY.sum())
"""
    ).finish()
    assert program.value("sum") == "285.0"


def test_a_shared_value_as_a_global_holds_one_descriptor(start: Start) -> None:
    """Each call that waited held one of its own."""
    program = start(
        SETUP
        + """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
shared = multiprocessing.RawArray("d", 10)
def work(place):
    shared[place] = place * place
with ForkPoolExecutor(2) as ex:
    for future in [ex.submit(work, number % 10) for number in range(1000)]:
        future.result()
mark("sum", sum(shared))
"""
    ).finish()
    assert program.value("sum") == "285.0"


def test_memory_without_a_file_is_refused(start: Start) -> None:
    program = start(
        SETUP
        + """
import mmap
from forkpool import SerializationError
ARRAY = numpy.frombuffer(mmap.mmap(-1, 80))
with ForkPoolExecutor(1) as ex:
    try:
        ex.submit(lambda: ARRAY.sum()).result()
    except SerializationError as error:
        mark("error", error)
"""
    ).finish()
    assert "global 'ARRAY' used by `<lambda>` is, or has, an array (ndarray) in memory that is shared" in program.value("error")
    assert "make the array in the initializer or inside the task" in program.value("error")
