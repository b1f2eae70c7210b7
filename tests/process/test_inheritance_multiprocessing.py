"""A worker in the family of `multiprocessing`: names, authkey, shared memory, locks and queues.

Runs in: pytest and workers. The programs look for leaks at their exit: the resource tracker complains on stderr.
"""

import gc
import multiprocessing
import multiprocessing.util
import os
import threading
from collections.abc import Callable
from typing import Any

import pytest

from forkpool import ForkPoolExecutor, current_task
from tests.support import tasks
from tests.support.gate import Gate
from tests.support.script import Script

Start = Callable[..., Script]

pytestmark = pytest.mark.slow


def who() -> tuple[str, tuple[int, ...], bool, int | None, bool]:
    process, parent = multiprocessing.current_process(), multiprocessing.parent_process()
    assert parent is not None
    return process.name, process._identity, process.daemon, parent.pid, parent.is_alive()  # type: ignore[attr-defined]


def test_names_and_parents() -> None:
    with ForkPoolExecutor(1) as ex:
        assert ex.submit(who).result() == ("ForkPoolWorker-0", (1,), False, os.getpid(), True)


def start_a_process() -> int | None:
    process = multiprocessing.get_context("fork").Process(target=os.getpid)
    process.start()
    process.join()
    return process.exitcode


def test_a_task_may_start_processes() -> None:
    with ForkPoolExecutor(1) as ex:
        assert ex.submit(start_a_process).result() == 0


def test_the_start_method_of_the_host(start: Start) -> None:
    program = start("""
        import multiprocessing
        multiprocessing.set_start_method("spawn")
        from forkpool import ForkPoolExecutor
        with ForkPoolExecutor(1) as ex:
            mark("method", ex.submit(multiprocessing.get_start_method).result())
        """).finish()
    assert program.value("method") == "spawn"


def test_authkey_is_the_hosts() -> None:
    with ForkPoolExecutor(1) as ex:
        theirs = ex.submit(lambda: bytes(multiprocessing.current_process().authkey)).result()
    assert theirs == bytes(multiprocessing.current_process().authkey)


MANAGER = """
from forkpool import ForkPoolExecutor, SerializationError
{early}
def add(numbers, n):
    numbers.append(n)
    return len(numbers)
ex = ForkPoolExecutor(2)
ex.submit(len, "").result()
import multiprocessing
with multiprocessing.get_context("spawn").Manager() as manager:
    numbers, queue = manager.list(), manager.Queue()
    for n in range(4):
        ex.submit(add, numbers, n).result()
    mark("numbers", list(numbers))
    ex.submit(queue.put, "said").result()
    mark("queue", queue.get())
    lock = manager.Lock()
    mark("lock", ex.submit(lambda lock: (lock.acquire(), lock.release())[0], lock).result())
ex.shutdown()
"""


@pytest.mark.parametrize("early", ["", "import multiprocessing.managers"], ids=["imported later", "imported before"])
def test_manager_proxies(start: Start, early: str) -> None:
    # The guard is for the manager: multiprocessing runs the program again in its process.
    source = 'if __name__ == "__main__":\n' + "".join(f"    {line}\n" for line in MANAGER.format(early=early).splitlines())
    program = start(source).finish()
    assert program.value("numbers") == "[0, 1, 2, 3]"
    assert program.value("queue") == "said"
    assert program.value("lock") == "True"


SHARED_MEMORY = """
from forkpool import ForkPoolExecutor, SerializationError
def make(text):
    from multiprocessing.shared_memory import SharedMemory
    memory = SharedMemory(create=True, size=64)
    memory.buf[:len(text)] = text
    memory.close()
    return memory.name, os.getpid()
def children():
    tasks = os.listdir("/proc/self/task")
    return [pid for task in tasks for pid in open(f"/proc/self/task/{task}/children").read().split()]
"""


def test_shared_memory_made_in_a_task_outlives_its_worker(start: Start) -> None:
    program = start(
        SHARED_MEMORY
        + """
with ForkPoolExecutor(1, max_tasks_per_child=1) as ex:
    name, pid = ex.submit(make, b"kept").result()
    fd = None
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        pass
    mark("other_worker", ex.submit(os.getpid).result() != pid)
    if fd is not None:
        import select
        select.select([fd], [], [])
    from multiprocessing.shared_memory import SharedMemory
    memory = SharedMemory(name)
    mark("text", bytes(memory.buf[:4]).decode())
    memory.close()
    memory.unlink()
"""
    ).finish()
    assert program.value("other_worker") == "True"
    assert program.value("text") == "kept"
    assert program.errors == ""


def test_shared_memory_made_after_the_fork_server_was_killed(start: Start) -> None:
    program = start(
        SHARED_MEMORY
        + """
import select, signal
from multiprocessing.shared_memory import SharedMemory
with ForkPoolExecutor(1) as ex:
    server = ex.submit(os.getppid).result()
    fd = os.pidfd_open(server)
    os.kill(server, signal.SIGKILL)
    select.select([fd], [], [])
    name, pid = ex.submit(make, b"kept").result()
memory = SharedMemory(name)
mark("text", bytes(memory.buf[:4]).decode())
memory.close()
memory.unlink()
"""
    ).finish()
    assert program.value("text") == "kept"
    assert program.errors == ""


def test_many_segments_made_and_unlinked_leave_nothing_to_complain_of(start: Start) -> None:
    program = start(
        SHARED_MEMORY
        + """
from multiprocessing.shared_memory import SharedMemory
def unlink(name):
    from multiprocessing.shared_memory import SharedMemory
    memory = SharedMemory(name)
    memory.close()
    memory.unlink()
with ForkPoolExecutor(2) as ex:
    for round in range(150):
        name = ex.submit(make, b"x").result()[0]
        unlink(name) if round % 2 else ex.submit(unlink, name).result()
    for future in [ex.submit(make, b"x") for _ in range(100)]:
        unlink(future.result()[0])
mark("left", [name for name in os.listdir("/dev/shm") if name.startswith("psm_")])
"""
    ).finish()
    assert program.errors == ""


def test_memory_that_nobody_unlinks_is_taken_back_at_the_hosts_end(start: Start) -> None:
    program = start(
        SHARED_MEMORY
        + """
with ForkPoolExecutor(1) as ex:
    mark("name", ex.submit(make, b"x").result()[0])
"""
    ).finish()
    assert program.value("name").lstrip("/") not in os.listdir("/dev/shm")
    assert "leaked shared_memory" in program.errors


def test_without_shared_memory_there_is_no_tracker(start: Start) -> None:
    program = start(
        SHARED_MEMORY
        + """
with ForkPoolExecutor(1) as ex:
    ex.submit(len, "abc").result()
    before = children()
    ex.submit(make, b"x").result()
    mark("before", len(before))
    mark("after", len(children()))
"""
    ).finish()
    assert program.value("before") == "1"  # the fork server
    assert program.value("after") == "2"


PRIMITIVES = """
import multiprocessing
from forkpool import ForkPoolExecutor, SerializationError
context = multiprocessing.get_context({context!r})
"""


@pytest.mark.parametrize("context", ["spawn", "forkserver"])
def test_primitives_through_initargs(start: Start, context: str) -> None:
    program = start(
        PRIMITIVES.format(context=context)
        + """
def keep(*primitives):
    global kept
    kept = primitives

def use():
    lock, event, queue, value = kept
    with lock:
        value.value += 1
    event.set()
    queue.put("said")

lock, event, queue, value = context.Lock(), context.Event(), context.Queue(), context.Value("i", 0)
with ForkPoolExecutor(2, initializer=keep, initargs=(lock, event, queue, value), max_tasks_per_child=1) as ex:
    for _ in range(3):
        ex.submit(use).result()
mark("event", event.is_set())
mark("queue", [queue.get() for _ in range(3)])
mark("value", value.value)
"""
    ).finish()
    assert program.value("event") == "True"
    assert program.value("queue") == str(["said"] * 3)
    assert program.value("value") == "3"
    assert program.errors == ""


@pytest.mark.parametrize("context", ["spawn", "forkserver"])
def test_primitives_as_arguments(start: Start, context: str) -> None:
    program = start(
        PRIMITIVES.format(context=context)
        + """
def use(lock, event, queues, value, array, semaphore, condition, barrier):
    with lock, semaphore:
        event.set()
    for queue in queues:
        queue.put("said")
    with value.get_lock():
        value.value += 1
    array[1] += 2
    with condition:
        condition.notify_all()
    barrier.wait()

event, queues = context.Event(), [context.SimpleQueue(), context.Queue()]
value, array = context.Value("i", 0), context.Array("i", 3)
primitives = [context.Lock(), event, queues, value, array, context.Semaphore(1), context.Condition(), context.Barrier(1)]
with ForkPoolExecutor(1) as ex:
    ex.submit(use, *primitives).result()
    ex.submit(use, *primitives).result()
mark("event", event.is_set())
mark("queues", [queue.get() for queue in queues for _ in range(2)])
mark("values", (value.value, array[:]))
"""
    ).finish()
    assert program.value("event") == "True"
    assert program.value("queues") == str(["said"] * 4)
    assert program.value("values") == "(2, [0, 4, 0])"
    assert program.errors == ""


def use(lock: Any, event: Any, queue: Any) -> Any:
    event.set()
    with lock:
        return queue.get()


@pytest.mark.parametrize("context", ["spawn", "forkserver"])
def test_primitives_that_only_a_call_holds(gate: Gate, context: str) -> None:
    """Their names were gone when the call began. They go when it has ended, and not on the supervisor's thread."""
    make = multiprocessing.get_context(context)
    names, let_go_in = [], []

    def submit(number: int) -> Any:
        lock, event, queue = make.Lock(), make.Event(), make.SimpleQueue()
        names.append(f"/dev/shm/sem.{lock._semlock.name[1:]}")  # type: ignore[attr-defined]
        multiprocessing.util.Finalize(lock, lambda: let_go_in.append(threading.get_ident()))
        queue.put(number)
        return ex.submit(use, lock, event, queue)

    with ForkPoolExecutor(1) as ex:
        ex.submit(tasks.enter, gate)
        gate.wait_inside()
        futures = [submit(number) for number in range(4)]
        gc.collect()
        assert all(map(os.path.exists, names))
        gate.open_for_all()
        assert [future.result() for future in futures] == [0, 1, 2, 3]
        ex.statistics()  # answered when the supervisor has let go of them, too
        submit(4).result()
        assert not any(map(os.path.exists, names[:4]))
    assert not any(map(os.path.exists, names))
    assert let_go_in == [threading.get_ident()] * 5


def attempt(lock: Any) -> str:
    if current_task().attempt == 1:
        os._exit(3)
    with lock:
        return "done"


def test_a_lock_that_only_a_call_holds_that_is_tried_again() -> None:
    with ForkPoolExecutor(1) as ex:
        again = ex.options(retries=1).submit(attempt, multiprocessing.get_context("spawn").Lock())
        gc.collect()
        assert again.result() == "done"


def test_connections_as_arguments(start: Start) -> None:
    """Both ends cross, in arguments and in a closure; the host's own stay open."""
    program = start(
        """
import multiprocessing
from forkpool import ForkPoolExecutor, SerializationError

ours, theirs = multiprocessing.Pipe()

def answer(connection):
    connection.send(connection.recv() + 1)

with ForkPoolExecutor(2) as ex:
    for number in range(3):
        future = ex.submit(answer, theirs)
        ours.send(number)
        future.result()
        mark("got", ours.recv())
    future = ex.submit(lambda: theirs.send("closure"))
    mark("got", ours.recv())
    future.result()
"""
    ).finish()
    assert program.all("got") == ["1", "2", "3", "closure"]
    assert program.errors == ""


@pytest.mark.parametrize("name", ["Lock", "Event", "Queue", "Semaphore", "Condition"])
def test_primitives_of_a_fork_context_get_an_error_with_the_remedy(start: Start, name: str) -> None:
    program = start(
        PRIMITIVES.format(context="fork")
        + f"""
with ForkPoolExecutor(1) as ex:
    try:
        ex.submit(len, [context.{name}()]).result()
    except SerializationError as error:
        mark("error", str(error).replace(chr(10), " "))
with ForkPoolExecutor(1, initializer=len, initargs=([context.{name}()],)) as ex:
    try:
        ex.submit(abs, -1).result()
    except SerializationError as error:
        mark("error", str(error).replace(chr(10), " "))
"""
    ).finish()
    errors = program.all("error")
    assert len(errors) == 2
    assert all(f'multiprocessing.get_context("spawn").{name}()' in error for error in errors)


def test_what_spawned_processes_pickle_of_the_program(start: Start) -> None:
    """They call the program `__mp_main__`: a manager's process answers so, and children that a task spawns."""
    program = start("""
        import multiprocessing
        from concurrent.futures import ProcessPoolExecutor
        from forkpool import ForkPoolExecutor

        class Message:
            def __init__(self, value):
                self.value = value

        def keep(kept):
            kept["key"] = Message(1)
            return kept["key"].value

        def double(number):
            return Message(2 * number)

        def in_children():
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as inner:
                return [message.value for message in inner.map(double, [1, 2])]

        if __name__ == "__main__":
            with ForkPoolExecutor(1) as ex, multiprocessing.get_context("spawn").Manager() as manager:
                shared = manager.dict()
                mark("kept", ex.submit(keep, shared).result())
                mark("children", ex.submit(in_children).result())
        """).finish()
    assert program.value("kept") == "1"
    assert program.value("children") == "[2, 4]"
