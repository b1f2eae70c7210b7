"""Try the rows of docs/how-to/why-did-my-worker-die.md where a worker ended. Runs in: the probe."""

import ctypes
import faulthandler
import mmap
import os
import resource
import signal
import tempfile
import time
from concurrent.futures import CancelledError
from pathlib import Path

from claims import error_of
from symptoms import crash, pool, symptom
from tasks import invert, mark, wait_for, wait_for_release, wait_marked

from forkpool import ForkPoolExecutor, diagnostics
from forkpool._core.states import GroupMemory
from forkpool._host import exit_status, oom, supervisor

# -- a signal ended it


def read_address_0():
    ctypes.string_at(0)


@symptom("`was killed by SIGSEGV`, `Python stack of the worker at the fault`")
def _():
    error = crash(read_address_0)
    assert "in string_at" in error.crash_traceback
    assert "in read_address_0" in error.crash_traceback
    yield error


@symptom("`was killed by SIGABRT`, `Fatal Python error: Aborted`")
def _():
    yield crash(lambda: os.abort())


def read_what_was_truncated():
    with tempfile.TemporaryFile() as file:
        file.truncate(4096)
        memory = mmap.mmap(file.fileno(), 4096)
        file.truncate(0)
        return memory[0]


@symptom("`was killed by SIGBUS`, `no room left for shared memory`")
def _():
    yield crash(read_what_was_truncated)


@symptom("`was killed by SIGILL`, `was killed by SIGFPE`")
def _():
    for number in (signal.SIGILL, signal.SIGFPE):
        yield crash(signal.raise_signal, number)


@symptom("`(no Python frame: the task is a C function)`")
def _():
    yield crash(os.abort)


def enable_and_crash():
    with open(os.devnull, "w") as elsewhere:
        faulthandler.enable(elsewhere)
        ctypes.string_at(0)


@symptom("`No Python stack was written`")
def _():
    error = crash(enable_and_crash)
    assert error.crash_traceback is None
    yield error


def be_killed_for_want_of_memory(counter):
    """As the kernel does it: first count, then kill. A real kill: tests/process/test_oom.py."""
    Path(counter).write_text("oom_kill 8\n")
    os.kill(os.getpid(), signal.SIGKILL)


@symptom("`was killed by SIGKILL`, `out-of-memory killer acted`")
def _():
    with tempfile.TemporaryDirectory() as root:
        counter = Path(root, "proc/vmstat")
        counter.parent.mkdir()
        counter.write_text("oom_kill 7\n")
        oom.OomWatch.__init__.__defaults__ = (root,)
        with ForkPoolExecutor(1) as ex:
            error = ex.submit(be_killed_for_want_of_memory, counter).exception()
        oom.OomWatch.__init__.__defaults__ = ("/",)
    assert error.oom_hint in str(error)
    assert error.peak_rss > 1 << 20
    yield error


@symptom("`was killed by SIGKILL`, `SIGKILL comes from outside`")
def _():
    with mark() as path:
        future = pool.submit(wait_marked, path)
        wait_for(path)
        (process,) = [one for one in diagnostics.snapshot(pool).processes if one.role == "worker"]
        os.kill(process.pid, signal.SIGKILL)
        error = future.exception()
    assert error.oom_hint is None
    yield error


def restore_sigterm():
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.raise_signal(signal.SIGTERM)


@symptom("`was killed by SIGTERM`")
def _():
    assert pool.submit(signal.raise_signal, signal.SIGTERM).result() is None  # it does nothing else
    yield crash(restore_sigterm)


def compute_for_ages(seconds):
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, -1))
    while True:
        pass


@symptom("`was killed by SIGXCPU`, `It had used up its CPU time`")
def _():
    yield crash(compute_for_ages, 1)


@symptom("`was killed by SIGSYS`, `A seccomp filter`")
def _():
    yield crash(signal.raise_signal, signal.SIGSYS)


def set_an_alarm():
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    time.sleep(60)


@symptom("`was killed by SIGALRM`, `was killed by SIGUSR1`, `was killed by SIGHUP`")
def _():
    yield crash(set_an_alarm)
    for number in (signal.SIGUSR1, signal.SIGHUP):
        yield crash(signal.raise_signal, number)


# -- it ended otherwise


def exit_in_c():
    ctypes.CDLL(None).exit(3)


@symptom("`exited with status 3`, `exited with status 0`")
def _():
    yield crash(exit_in_c)
    yield crash(os._exit, 3)
    yield crash(os._exit, 0)
    yield crash(os.execv, "/bin/true", ["true"])


@symptom("`the worker's channel was closed`")
def _():
    yield crash(os.execv, "/bin/sleep", ["sleep", "60"])


def write_to_our_pipe():
    """Into the one pipe that this worker may only write to, and that its fork server does not hold."""
    server = f"/proc/{os.getppid()}/fd"
    of_server = {os.readlink(f"{server}/{fd}") for fd in os.listdir(server)}
    for fd in map(int, os.listdir("/proc/self/fd")):
        with_info = Path(f"/proc/self/fdinfo/{fd}")
        if fd > 2 and with_info.exists() and os.readlink(f"/proc/self/fd/{fd}") not in of_server:
            mode = int(with_info.read_text().split("flags:")[1].split()[0], 8)
            if mode & os.O_ACCMODE == os.O_WRONLY and os.readlink(f"/proc/self/fd/{fd}").startswith("pipe:"):
                os.write(fd, b"garbage" * 20)


@symptom("`it wrote a malformed frame`")
def _():
    yield pool.submit(write_to_our_pipe).exception()


def kill_server_and_me():
    os.kill(os.getppid(), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


@symptom("`its exit code is unknown`")
def _():
    def cannot(_pidfd):  # as before Linux 6.15
        raise OSError

    ask_kernel, exit_status.ask_kernel = exit_status.ask_kernel, cannot
    read_stat, exit_status.read_stat = exit_status.read_stat, lambda _pid: None  # it is waited for at once
    try:
        with ForkPoolExecutor(1) as ex:
            errors = (ex.submit(kill_server_and_me).exception() for _ in range(100))  # the server may have told it just before
            yield next(error for error in errors if error.exitcode is None)
    finally:
        exit_status.ask_kernel, exit_status.read_stat = ask_kernel, read_stat


@symptom("`terminate_workers() or kill_workers() was called`")
def _():
    with mark() as path:
        ex = ForkPoolExecutor(1)
        future = ex.submit(wait_marked, path)
        wait_for(path)
        ex.kill_workers()
        error = future.exception()
    assert not error.pool_usable
    yield error


class Ends:
    """Ends the process in which it is pickled or unpickled, whichever is asked for."""

    def __init__(self, when):
        self.when = when

    def __reduce__(self):
        if self.when == "pickled":
            os._exit(1)
        return os._exit, (1,)


@symptom("`its arguments were being unpickled`")
def _():
    yield crash(invert, Ends("unpickled"), may_have_run="no")


@symptom("`The task had returned; its result was lost.`")
def _():
    yield crash(Ends, "pickled", may_have_run="yes")


# -- somebody stopped it


def grow_and_wait(size):
    taken = b"x" * size
    time.sleep(60)
    return len(taken)


@symptom("`TaskTimeoutError`: `the timeout of 0.2 s has passed`")
def _():
    error = pool.options(timeout=0.2).submit(time.sleep, 60).exception()
    assert isinstance(error, TimeoutError)
    yield error


@symptom("`TaskMemoryError`: `its private memory had grown by`")
def _():
    error = pool.options(memory_limit=16 << 20).submit(grow_and_wait, 64 << 20).exception()
    assert isinstance(error, MemoryError)
    yield error


class FullGroup:
    """A control group that the kernel would kill. Real workers in a recorded one: tests/process/test_group_guard.py."""

    def look(self):
        return GroupMemory(1 << 20, 1 << 20, "/sys/fs/cgroup/memory.max", 1 << 20)


@symptom("`TaskMemoryError`: `the memory of the control group was nearly full`")
def _():
    supervisor.find_groups = FullGroup
    with ForkPoolExecutor(1) as ex:
        error = ex.submit(grow_and_wait, 16 << 20).exception()
    supervisor.find_groups = lambda: None
    yield error


@symptom("`CancelledError`")
def _():
    with mark() as path:
        running, queued = pool.submit(wait_marked, path), pool.submit(invert, 1)
        wait_for(path)
        assert queued.cancel()
        assert running.kill()
        yield from (error_of(future.result) for future in (running, queued))
    with mark() as path:
        ex = ForkPoolExecutor(1)
        running, queued = ex.submit(wait_for_release, path), ex.submit(invert, 1)
        wait_for(path)
        path.with_suffix(".go").touch()
        ex.shutdown(cancel_futures=True)
        assert running.result() == "released"
        assert isinstance(error_of(queued.result), CancelledError)
