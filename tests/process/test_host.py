"""Hosts of every kind: nothing is noticed, blame stays right, no zombies.

Rows "host with SIGCHLD ignored, a waitpid(-1) elsewhere, as PID 1, with blocked signals", "sys.executable is not a
Python", "host forks", and hosts that are daemonic processes of multiprocessing and billiard.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from forkpool import ForkPoolExecutor
from tests.support import processes, tasks
from tests.support.gate import Gate
from tests.support.script import Script

Start = Callable[..., Script]

# What each of these programs does after its own preparation: results, a crash with its facts, the end, no zombies.
USE_A_POOL = """
import forkpool

def square(n):
    return n * n

def use_a_pool():
    with forkpool.ForkPoolExecutor(2) as ex:
        mark("results", [f.result() for f in [ex.submit(square, n) for n in range(5)]])
        error = ex.submit(os._exit, 3).exception()
        mark("crash", f"{type(error).__name__} {error.exitcode}")
        error = ex.submit(lambda: os.kill(os.getpid(), 9)).exception()
        mark("kill", f"{type(error).__name__} {error.signal}")
        mark("after", ex.submit(square, 7).result())
    with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:
        mark("children", file.read().split())
"""


def check(script: Script, *, quiet: bool = True) -> None:
    assert script.value("results") == "[0, 1, 4, 9, 16]"
    assert script.value("crash") == "WorkerCrashedError 3"
    assert script.value("kill") == "WorkerCrashedError SIGKILL"
    assert script.value("after") == "49"
    assert script.value("children") == "[]", "a zombie, or one that lives"
    assert not quiet or script.errors == "", "nothing is noticed"


@pytest.mark.parametrize(
    "preparation",
    [
        "",
        "import signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN)",
        "import signal; signal.signal(signal.SIGPIPE, signal.SIG_DFL)",
        "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())",
        "import signal\nfor n in (1, 2, 3, 10, 12, 15): signal.signal(n, signal.SIG_IGN)",
        "import signal; signal.signal(signal.SIGCHLD, lambda *_: None)",
        "import signal; signal.set_wakeup_fd(os.open('/dev/null', os.O_WRONLY | os.O_NONBLOCK))",
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))",
        "os.close(0)",
        "os.close(2)",
        "os.umask(0o777)",
        "os.environ.clear()",
        "sys.path[:] = [p for p in sys.path if p]",
        "sys.setrecursionlimit(200)",
        "import gc; gc.disable()",
        "import gc; gc.set_threshold(1)",
        "sys.setswitchinterval(1e-6)",
        "os.setpriority(os.PRIO_PROCESS, 0, 19)",
        "sys.stdout = sys.stderr = None",
        "import socket; socket.setdefaulttimeout(3)",
        "import socket; socket.setdefaulttimeout(0)",
        "import tempfile; os.chdir(tempfile.mkdtemp()); os.rmdir(os.getcwd())",
    ],
)
def test_prepared_host(start: Start, preparation: str) -> None:
    check(start(f"{USE_A_POOL}\n{preparation}\nuse_a_pool()\n").finish())


def test_a_program_that_opens_its_log_in_place_of_a_closed_stdout(start: Start) -> None:
    """The pool held the number with a file of its own, and closed it at its end: the program's log by then."""
    program = start("""
        from forkpool import ForkPoolExecutor

        out = os.dup(1)
        for number in 0, 1:
            os.close(number)
        with ForkPoolExecutor(1) as ex:
            ex.submit(int).result()
            os.dup2(out, 1)
        mark("after")
        try:
            os.fstat(0)
        except OSError:
            os.write(out, b"MARK given_back\\n")
        """).finish()
    assert program.all("after") == [""]
    assert program.all("given_back") == [""]


@pytest.mark.parametrize("how", ["file", "-c", "stdin"])
def test_program_without_a_guard(start: Start, how: str) -> None:
    check(start(f"{USE_A_POOL}\nuse_a_pool()\n", how).finish())


@pytest.mark.parametrize(
    "options",
    [
        *(["-I"], ["-O"], ["-X", "dev"], ["-W", "error"], ["-E"], ["-s"], ["-X", "utf8"]),
        ["-X", "warn_default_encoding", "-W", "error"],
    ],
)
def test_options_of_the_interpreter(start: Start, options: list[str]) -> None:
    source = f"sys.path[:0] = {sys.path!r}\n{USE_A_POOL}\nuse_a_pool()\n"
    check(start(source, python=options).finish())


def test_a_thread_that_waits_for_any_child(start: Start) -> None:
    """`waitpid(-1)` elsewhere steals what children the host has; ours hang on facts that it cannot steal."""
    script = start(f"""{USE_A_POOL}
import threading
stop = False
def thief():
    while not stop:
        try:
            os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            pass
        os.sched_yield()
thread = threading.Thread(target=thief)
thread.start()
use_a_pool()
stop = True
thread.join()
""").finish()
    check(script)


def test_sigchld_handler_that_reaps_everything(start: Start) -> None:
    script = start(f"""{USE_A_POOL}
import signal
def reap(*_):
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass
signal.signal(signal.SIGCHLD, reap)
use_a_pool()
""").finish()
    check(script)


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="unshare --pid wants root")


@needs_root
def test_as_pid_1_without_an_init(start: Start) -> None:
    script = start(
        f"""{USE_A_POOL}
assert os.getpid() == 1
use_a_pool()
with forkpool.ForkPoolExecutor(2) as ex:
    server = ex.submit(os.getppid).result()
    os.kill(server, 9)  # its workers become our children now
    mark("orphans", [f.result() for f in [ex.submit(square, n) for n in range(5)]])
    error = ex.submit(os._exit, 3).exception()
    mark("orphan-crash", type(error).__name__)
    mark("orphans-after", ex.submit(square, 3).result())
states = [open(f"/proc/{{pid}}/stat").read().split()[2] for pid in os.listdir("/proc") if pid.isdigit() and pid != "1"]
mark("left", states)
""",
        prefix=["unshare", "--pid", "--fork", "--mount-proc"],
    ).finish()
    check(script, quiet=False)  # it may say that it needs another fork server
    assert script.value("orphans") == "[0, 1, 4, 9, 16]"
    assert script.value("orphan-crash") == "WorkerCrashedError"
    assert script.value("orphans-after") == "9"
    assert script.value("left") == "[]"


MAKE_A_PROCESS = ("os.fork", "os.forkpty", "os.posix_spawn", "os.system", "subprocess.Popen")


@pytest.mark.parametrize("executable", ["", "/bin/false", "/bin/cat", "/no/such/file", None])
def test_executable_is_no_python(start: Start, executable: str | None) -> None:
    script = start(f"""
import forkpool
sys.executable = {executable!r}
made = []
sys.addaudithook(lambda event, _: made.append(event) if event in {MAKE_A_PROCESS} else None)
ex = forkpool.ForkPoolExecutor(1)
for _ in range(2):
    try:
        ex.submit(abs, -1).result()
    except RuntimeError as error:
        mark("error", str(error).replace(chr(10), " "))
ex.shutdown()
mark("made", made)
mark("children", open(f"/proc/self/task/{{os.getpid()}}/children").read().split())
""").finish()
    errors = script.all("error")
    assert len(errors) == 2
    assert all("sys.executable" in error for error in errors)
    assert script.value("made") == "[]", "also none that has ended since"
    assert script.value("children") == "[]"


def test_nothing_starts_before_the_first_submit() -> None:
    before = (set(os.listdir("/proc/self/fd")), set(os.listdir("/proc/self/task")), processes.children())
    pools = [ForkPoolExecutor(2) for _ in range(3)]
    assert (set(os.listdir("/proc/self/fd")), set(os.listdir("/proc/self/task")), processes.children()) == before
    for ex in pools:
        ex.shutdown()
    assert (set(os.listdir("/proc/self/fd")), set(os.listdir("/proc/self/task")), processes.children()) == before


def test_a_worker_costs_the_host_at_most_five_fds(gate: Gate) -> None:
    with ForkPoolExecutor(6) as ex:
        first = ex.submit(tasks.enter, gate)
        gate.wait_inside()
        with_one = len(os.listdir("/proc/self/fd"))
        more = [ex.submit(tasks.enter, gate) for _ in range(5)]
        for _ in more:
            gate.wait_inside()
        processes.wait_fds(os.getpid(), with_one + 5 * 5)
        gate.open_for_all()
        assert first.result() is None


@pytest.mark.slow
@pytest.mark.parametrize("library", ["multiprocessing", "billiard"])
def test_daemonic_host(start: Start, library: str) -> None:
    pytest.importorskip(library)
    script = start(f"""{USE_A_POOL}
import {library} as library
def host():
    assert library.current_process().daemon
    use_a_pool()
if __name__ == "__main__":
    process = library.get_context("fork").Process(target=host, daemon=True)
    process.start()
    process.join()
    mark("exitcode", process.exitcode)
""").finish()
    check(script)
    assert script.value("exitcode") == "0"


@pytest.mark.slow
@pytest.mark.parametrize("library", ["multiprocessing", "billiard"])
def test_worker_of_a_prefork_pool(start: Start, library: str) -> None:
    """celery's prefork and gunicorn's preload: the pool is made at the top of a module, and used in the children."""
    pytest.importorskip(library)
    script = start(f"""
import forkpool
import {library} as library
ex = forkpool.ForkPoolExecutor(1)
def task(n):
    return ex.submit(abs, -n).result()
if __name__ == "__main__":
    with library.get_context("fork").Pool(2) as pool:
        mark("results", pool.map(task, range(5)))
    mark("own", ex.submit(abs, -7).result())
    ex.shutdown()
""").finish()
    assert script.value("results") == "[0, 1, 2, 3, 4]"
    assert script.value("own") == "7"


def test_host_started_by_a_shell_pipeline() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import forkpool as f; e = f.ForkPoolExecutor(1); print(e.submit(abs, -3).result())"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
        start_new_session=True,
    )
    assert (done.stdout, done.stderr) == ("3\n", "")


def stopped_host(start: Start) -> Any:
    return start(f"{USE_A_POOL}\nmark('ready')\nuse_a_pool()\n")


def test_host_is_stopped_and_goes_on(start: Start) -> None:
    script = stopped_host(start)
    script.wait_mark("ready")
    script.send(signal.SIGSTOP)
    processes.wait_state(script.pid, "T")
    script.send(signal.SIGCONT)
    check(script.finish())
