"""Rows "host forks (os.fork) before the pool's first submit" and "while a pool lives"."""

from collections.abc import Callable

import pytest

from tests.support.gate import Gate
from tests.support.script import Script

Start = Callable[..., Script]

IN_CHILD = """
import forkpool, signal, threading
def tell(error):
    return f"{type(error).__name__}: {error}".replace(chr(10), " ")
def in_child(do):
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            do()
            status = 0
        except BaseException as error:
            mark("error", tell(error))
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
    assert says_whose_it_is_and_what_to_do(script.value("error"), script.value("host").split()[1])
    assert script.value("after") == "3"


def says_whose_it_is_and_what_to_do(error: str, owner: str) -> bool:
    words = ("RuntimeError", f"process {owner},", "post_fork", "worker_process_init")
    return all(word in error for word in words)


WHOSE = "whose it is, and what to do"
# what is done in the child, and what comes of it
USES = {
    "len(wait(pending).done)": "2",
    "len(list(as_completed(pending)))": "2",
    "[f.done() for f in pending]": "[True, True]",
    "[f.running() for f in pending]": "[False, False]",
    "[f.cancel() or f.cancelled() for f in pending]": "[False, False]",
    "[f.kill() or f.cancelled() for f in pending]": "[False, False]",
    "running.result()": WHOSE,
    "queued.exception()": WHOSE,
    "running.add_done_callback(lambda f: mark('said', tell(f.exception())))": WHOSE,
    "[done.result(), unpickled_when_asked.result()]": "[1, {1}]",
    "(len(wait([killed]).done), killed.cancelled())": "(1, True)",
    "ex.submit(abs, -1)": WHOSE,
    "ex.map(abs, [-1])": WHOSE,
    "ex.options(timeout=1).submit(abs, -1)": WHOSE,
    "ex.kill_workers()": WHOSE,
    "ex.terminate_workers()": WHOSE,
    "ex.recycle_workers()": WHOSE,
    "ex.restart_workers()": WHOSE,
    "ex.statistics()": WHOSE,
    "ex.placement()": WHOSE,
    "forkpool.diagnostics.snapshot(ex)": WHOSE,
    "dict(ex._processes)": "{}",
    "ex.shutdown()": "None",
    "ex.shutdown(wait=False, cancel_futures=True)": "None",
    "ex.__exit__(None, None, None)": "None",
    "ex.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)": "None",
}


def test_child_uses_what_the_host_has_not_finished(start: Start, gate: Gate) -> None:
    """Nothing hangs, nothing lies, no callback of the host runs; and the host's calls end as if there had been no fork."""
    script = start(
        f"""{IN_CHILD}
import forkpool.diagnostics
from concurrent.futures import as_completed, wait
from tests.support import tasks
from tests.support.gate import GateInTask
gate = GateInTask(sys.argv[1], sys.argv[2])
ex = forkpool.ForkPoolExecutor(1)
done, unpickled_when_asked = ex.submit(abs, -1), ex.submit(set, [1])
wait([done, unpickled_when_asked])
running, queued, killed = ex.submit(tasks.enter, gate, "ran"), ex.submit(abs, -2), ex.submit(tasks.enter, gate)
assert killed.kill()
mark("owner", os.getpid())
mark("ready")
while not running.running():
    os.sched_yield()
pending = [running, queued]
for future in pending:
    future.add_done_callback(lambda f: mark("callback", f"{{os.getpid()}} {{f.result()}}"))
def use():
    said = eval(what)
    mark("said", tell(said) if isinstance(said, BaseException) else said)
for what in {list(USES)}:
    mark("use", what)
    in_child(use)
mark("used")
mark("after", [running.result(), queued.result(), ex.submit(abs, -3).result()])
ex.shutdown()
""",
        args=[gate.inside_path, gate.go_path],
    )
    script.wait_mark("used")
    gate.open_for_all()
    script.finish()
    assert script.value("after") == "['ran', 2, 3]"
    owner = script.value("owner")
    assert script.all("callback") == [f"{owner} ran", f"{owner} 2"]
    said = said_of_each(script, owner)
    assert said == USES


def said_of_each(script: Script, owner: str) -> dict[str, str]:
    """What the marks tell, by use. Adding a callback in the child says what that was told, then None."""
    said: dict[str, str] = {}
    for line in script.lines:
        word, _, value = line.removeprefix("MARK ").partition(" ")
        if word == "use":
            use = value
        elif word in ("said", "error") and use not in said:
            said[use] = WHOSE if says_whose_it_is_and_what_to_do(value, owner) else value
    return said


@pytest.mark.parametrize("call", ["first", "second"])
@pytest.mark.parametrize("how", ["in a signal handler", "while an argument is pickled"])
def test_a_fork_in_the_middle_of_submit(start: Start, call: str, how: str) -> None:
    """The child goes on in it. No call is accepted for a pool that is not there; before the first one it makes its own."""
    script = start(f"""{IN_CHILD}
ex, host, children = forkpool.ForkPoolExecutor(1), os.getpid(), []
if {call!r} == "second":
    ex.submit(abs, -1).result()
def fork(*_):
    if not children:
        children.append(os.fork())
signal.signal(signal.SIGUSR1, fork)
class Forks:
    def __reduce__(self):
        fork() if {how!r} == "while an argument is pickled" else signal.raise_signal(signal.SIGUSR1)
        return int, ("7",)
try:
    said = ex.submit(abs, Forks()).result()
except RuntimeError as error:
    said = tell(error)
if os.getpid() == host:
    mark("ended", os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]))
    mark("host", f"{{said}} {{host}}")
    ex.shutdown()
else:
    mark("child", said)
    ex.shutdown()
    os._exit(0)
""").finish()
    said, owner = script.value("host").split()
    assert (said, script.value("ended")) == ("7", "0")
    child = script.value("child")
    assert child == "7" if call == "first" else says_whose_it_is_and_what_to_do(child, owner)


def test_a_callback_forks_and_the_child_returns_from_it(start: Start) -> None:
    """It ends there, and runs no other callback."""
    script = start(
        """
import forkpool, multiprocessing
host = os.getpid()
receiver, sender = multiprocessing.Pipe(duplex=False)
def fork(future):
    pid = os.fork()
    if pid:
        mark("child", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
def tell(future):
    mark("told", os.getpid() == host)
with forkpool.ForkPoolExecutor(1) as ex:
    for _ in range(2):
        future = ex.submit(receiver.recv)  # not over yet: else callbacks are called right here
        future.add_done_callback(fork)
        future.add_done_callback(tell)
    sender.send(1)
    sender.send(2)
""",
        python=["-W", "ignore::DeprecationWarning"],
    ).finish()
    assert script.all("told") == ["True", "True"]
    assert script.all("child") == ["0", "0"]


def test_threads_of_the_host_are_anywhere_when_it_forks(start: Start) -> None:
    """Others end, cancel, await and unpickle futures: a child may use each of them all the same."""
    script = start(
        f"""{IN_CHILD}
from concurrent.futures import as_completed, wait
from tests.support import tasks
ex = forkpool.ForkPoolExecutor(2)
ex.submit(set, [1]).result()
stop, futures = False, []
sys.setswitchinterval(1e-5)
def storm(number):
    while not stop:
        mine = [ex.submit(set, [n]) for n in range(20)]
        futures[:] = futures[-200:] + mine
        for future in mine[::3]:
            future.cancel()
        wait(mine[::2]) if number else [f.cancelled() or f.result() for f in as_completed(mine)]
threads = [threading.Thread(target=storm, args=[n]) for n in range(3)]
for thread in threads:
    thread.start()
def use():
    mine = list(futures)
    assert not wait(mine).not_done
    assert len(list(as_completed(mine))) == len(set(mine))
    for future in mine:
        assert future.done()
        if not future.cancelled():
            error = future.exception()
            assert error is None or "is a fork of it" in str(error), tell(error)
mark("children", [in_child(use) for _ in range(40)])
stop = True
for thread in threads:
    thread.join()
mark("after", ex.submit(abs, -3).result())
ex.shutdown()
""",
        python=["-W", "ignore::DeprecationWarning"],
    ).finish()
    assert script.value("children") == str([0] * 40), script.all("error")
    assert script.value("after") == "3"


@pytest.mark.parametrize(
    "do",
    [
        "ex.shutdown()",
        "ex.shutdown(wait=False, cancel_futures=True)",
        "ex.__exit__(None, None, None)",
        "globals().pop('ex')",
        "sys.exit(0)",
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


@pytest.mark.slow
@pytest.mark.alarm(120)
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


@pytest.mark.parametrize("module", ["cloudpickle", "concurrent.futures.process"])
def test_another_thread_imports_at_the_fork(start: Start, module: str) -> None:
    """CPython leaves the lock of a half imported module to the child for ever."""
    script = start(f"""
        import threading
        from forkpool import ForkPoolExecutor
        inside, go = threading.Event(), threading.Event()
        class Slow:
            def find_spec(self, name, path=None, target=None):
                if name == {module!r}:
                    inside.set()
                    go.wait()
        sys.meta_path.insert(0, Slow())
        os.register_at_fork(before=go.set)  # the last one that was registered is the first that is called
        value = 1
        def task(error):
            if error:
                raise ValueError
            return value
        def use(ex):
            ex.submit(task, True).exception()
            return ex.submit(task, False).result()
        ex = ForkPoolExecutor(1)
        thread = threading.Thread(target=use, args=(ex,))
        thread.start()
        inside.wait()
        pid = os.fork()
        if pid == 0:
            with ForkPoolExecutor(1) as mine:
                os._exit(use(mine))
        mark("child", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        thread.join()
        mark("here", use(ex))
        ex.shutdown()
        """).finish()
    assert script.value("child") == script.value("here") == "1"


def test_a_fork_does_not_wait_for_an_import_for_ever(start: Start) -> None:
    """The import may wait for the thread that forks. What needs no such import works in the child."""
    script = start("""
        import threading
        from importlib.machinery import ModuleSpec
        from forkpool import ForkPoolExecutor
        inside, go = threading.Event(), threading.Event()
        class Slow:  # while it loads: a fork would wait for one that is looked for
            def find_spec(self, name, path=None, target=None):
                return ModuleSpec(name, self) if name == "cloudpickle" else None
            def create_module(self, spec):
                return None
            def exec_module(self, module):
                sys.meta_path.remove(self)
                inside.set()
                go.wait()
                raise ImportError("not here")
        sys.meta_path.insert(0, Slow())
        ex = ForkPoolExecutor(1)
        def use():
            try:
                ex.submit(lambda: 1)
            except ImportError:
                mark("failed")
        thread = threading.Thread(target=use)
        thread.start()
        inside.wait()
        pid = os.fork()
        if pid == 0:
            with ForkPoolExecutor(1) as mine:
                os._exit(mine.submit(abs, -2).result())
        mark("child", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        go.set()
        thread.join()
        ex.shutdown()
        """).finish()
    assert script.value("child") == "2"
