"""Rows "host forks (os.fork) before the pool's first submit" and "while a pool lives"."""

from collections.abc import Callable

import pytest

from tests.support.script import Script

Start = Callable[..., Script]

IN_CHILD = """
import forkpool, signal, threading
def in_child(do):
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            do()
            status = 0
        except BaseException as error:
            mark("error", f"{type(error).__name__}: {error}".replace(chr(10), " "))
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""


def test_before_the_first_submit(start: Start) -> None:
    script = start(f"""{IN_CHILD}
ex = forkpool.ForkPoolExecutor(1)
def use():
    mark("value", ex.submit(abs, -1).result())
    mark("parents", f"{{ex.submit(os.getppid).result()}}")
    ex.shutdown()
assert in_child(use) == 0
use()
""").finish()
    assert script.all("value") == ["1", "1"]
    assert len(set(script.all("parents"))) == 2


def test_while_a_pool_lives(start: Start) -> None:
    script = start(f"""{IN_CHILD}
ex = forkpool.ForkPoolExecutor(1)
future = ex.submit(abs, -1)
mark("host", f"{{future.result()}} {{os.getpid()}}")
def use():
    ex.submit(abs, -2)
mark("child", in_child(use))
mark("after", ex.submit(abs, -3).result())
ex.shutdown()
""").finish()
    error = script.value("error")
    assert error.startswith("RuntimeError")
    assert script.value("host").split()[1] in error
    assert "post_fork" in error
    assert "worker_process_init" in error
    assert script.value("after") == "3"


@pytest.mark.parametrize(
    "do",
    [
        "ex.shutdown()",
        "ex.shutdown(wait=False, cancel_futures=True)",
        "ex.__exit__(None, None, None)",
        "globals().pop('ex')",
        "sys.exit(0)",
        "future.cancel()",
    ],
)
def test_child_touches_the_pool_of_the_host(start: Start, do: str) -> None:
    """Whatever it does, the host's pool is untouched and the child does not hang."""
    script = start(f"""{IN_CHILD}
ex = forkpool.ForkPoolExecutor(1)
future = ex.submit(abs, -1)
future.result()
def touch():
    {do}
in_child(touch)
mark("after", [f.result() for f in [ex.submit(abs, -n) for n in range(5)]])
ex.shutdown()
""").finish()
    assert script.value("after") == "[0, 1, 2, 3, 4]"


def test_child_makes_its_own_pool(start: Start) -> None:
    script = start(f"""{IN_CHILD}
ex = forkpool.ForkPoolExecutor(1)
ex.submit(abs, -1).result()
def use():
    with forkpool.ForkPoolExecutor(1) as mine:
        mark("value", mine.submit(abs, -2).result())
mark("child", in_child(use))
mark("after", ex.submit(abs, -3).result())
ex.shutdown()
""").finish()
    assert script.value("value") == "2"
    assert script.value("child") == "0"
    assert script.value("after") == "3"


def test_child_leaves_in_the_normal_way(start: Start) -> None:
    """exit() in the child runs atexit and threading's exit functions: they must not wait for the host's supervisor."""
    script = start("""
import forkpool
ex = forkpool.ForkPoolExecutor(1)
ex.submit(abs, -1).result()
pid = os.fork()
if pid == 0:
    sys.exit(7)
mark("child", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
mark("after", ex.submit(abs, -3).result())
""").finish()
    assert script.value("child") == "7"
    assert script.value("after") == "3"


def test_fork_from_another_thread_in_a_storm_of_submits(start: Start) -> None:
    script = start(
        f"""{IN_CHILD}
ex = forkpool.ForkPoolExecutor(2)
stop = False
def storm():
    futures = []
    while not stop:
        futures.append(ex.submit(abs, -1))
    mark("storm", {{f.result() for f in futures}})
ex.submit(abs, -1).result()  # what is imported at the first submit must not be half imported in a fork
thread = threading.Thread(target=storm)
thread.start()
def use():
    try:
        ex.submit(abs, -2)
    except RuntimeError:
        pass
    with forkpool.ForkPoolExecutor(1) as mine:
        assert mine.submit(abs, -2).result() == 2
mark("children", [in_child(use) for _ in range(10)])
stop = True
thread.join()
ex.shutdown()
""",
        python=["-W", "ignore::DeprecationWarning"],
    ).finish()
    assert script.value("children") == str([0] * 10)
    assert script.value("storm") == "{1}"


def test_a_living_child_keeps_nothing_of_the_host_alive(start: Start) -> None:
    """The child holds copies of the host's descriptors; the host closes its pool and the workers end."""
    script = start("""
import forkpool
ex = forkpool.ForkPoolExecutor(2)
worker, server = ex.submit(os.getpid).result(), ex.submit(os.getppid).result()
read, write = os.pipe()
pid = os.fork()
if pid == 0:
    os.read(read, 1)
    os._exit(0)
ex.shutdown()
mark("gone", [os.path.exists(f"/proc/{p}") for p in (worker, server)])
os.write(write, b".")
os.waitpid(pid, 0)
""").finish()
    assert script.value("gone") == "[False, False]"


def test_a_number_that_was_closed_is_nobodys_in_the_child(start: Start) -> None:
    """It may be another thread's by then: a fork must not close what is the program's.

    Each time that the supervisor has closed a descriptor, the program opens another with that number, and forks. (A worker of
    the standard pool lost its pipe so, one time in thousands.)
    """
    script = start("""
import forkpool, signal, threading, warnings
from tests.process.test_stolen_packets import leave_thread
from tests.support import processes
warnings.simplefilter("ignore")  # CPython 3.12 warns of forks beside threads
null, close, host, forks, lost = os.open(os.devnull, os.O_RDONLY), os.close, os.getpid(), 0, []

def close_open_and_fork(fd):
    global forks
    close(fd)
    if os.getpid() != host or threading.current_thread().name != "forkpool-supervisor":
        return
    os.dup2(null, fd)
    pid = os.fork()
    if pid == 0:
        try:
            os.fstat(fd)
            os._exit(0)
        finally:
            os._exit(1)
    if os.waitpid(pid, 0)[1]:
        caller = sys._getframe(1)
        lost.append(f"{caller.f_code.co_filename}:{caller.f_lineno} from {caller.f_back.f_code.co_qualname}")
    forks += 1
    close(fd)

os.close = close_open_and_fork
with forkpool.ForkPoolExecutor(2) as ex:
    server = ex.submit(os.getppid).result()
    ex.submit(os._exit, 3).exception()
    ex.restart_workers()
    processes.wait_exit(server)
    ex.submit(leave_thread).result()
    [ex.submit(abs, -n).result() for n in range(3)]  # the thread takes one of them: our end of that pipe is closed
    os.kill(ex.submit(os.getppid).result(), signal.SIGKILL)
    ex.submit(os._exit, 3).exception()
    many = [os.dup(null) for _ in range(50)]  # the guards of orphans must move
    ex.submit(os.kill, ex.submit(os.getppid).result(), signal.SIGKILL).exception()
    [ex.submit(abs, -n).result() for n in range(3)]
mark("lost", lost)
mark("forks", forks > 20)
""").finish()
    assert script.value("lost") == "[]"
    assert script.value("forks") == "True"
