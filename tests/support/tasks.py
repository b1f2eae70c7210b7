"""Tasks that tests submit. A worker imports this module, so it imports next to nothing.

Runs in: workers.
"""

import os
import signal
from typing import Any

from tests.support.gate import GateInTask, Marks


def add(a: int, b: int) -> int:
    return a + b


def identity(value: Any) -> Any:
    return value


def pid() -> int:
    return os.getpid()


def call(do: Any, *args: Any) -> Any:
    return do(*args)


def raise_this(error: BaseException) -> None:
    raise error


def raise_new(kind: type[BaseException], *args: Any) -> None:
    """As raise_this, without an exception in the test whose traceback would hold the frames of the host."""
    raise kind(*args)


def segfault() -> None:
    import ctypes

    ctypes.string_at(0)


def segfault_of_faulthandler() -> None:
    import faulthandler

    faulthandler._sigsegv()  # type: ignore[attr-defined]


def abort() -> None:
    os.abort()


def kill_myself(signum: int = signal.SIGKILL) -> None:
    os.kill(os.getpid(), signum)


def stop_myself() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def leave(code: int) -> None:
    os._exit(code)


def enter(gate: GateInTask, value: Any = None) -> Any:
    """Wait in the gate, then return the value."""
    gate.enter()
    return value


def enter_then(gate: GateInTask, do: Any, *args: Any) -> Any:
    gate.enter()
    return do(*args)


def tell_then(gate: GateInTask, do: Any, *args: Any) -> Any:
    gate.tell()
    return do(*args)


def leave_mark(marks: Marks, word: str) -> str:
    marks.add(word)
    return word


def mark_then(marks: Marks, word: str, do: Any = None, *args: Any) -> Any:
    """One function for calls that are short and one that is not, so that this one too is taken for short."""
    marks.add(word)
    return word if do is None else do(*args)


def task_pipe() -> int:
    """The pipe that this worker reads, and that does not end it: the lifeline has a signal."""
    import contextlib
    import fcntl
    import stat

    for name in os.listdir("/proc/self/fd"):
        fd = int(name)
        with contextlib.suppress(OSError):  # the listing's own
            flags = fcntl.fcntl(fd, fcntl.F_GETFL)
            is_read = flags & os.O_ACCMODE == os.O_RDONLY and not flags & os.O_ASYNC
            if fd > 2 and is_read and stat.S_ISFIFO(os.fstat(fd).st_mode):
                return fd
    raise AssertionError("no task pipe")


def do_before_others(marks: Marks, do: Any, *args: Any) -> Any:
    """Do it as soon as a call lies behind this one in the pipe, and leave a mark if there is one.

    The host takes it back after some 5 ms, so whoever is to find it there has to be quick.
    """
    import select

    poll = select.poll()
    poll.register(task_pipe(), select.POLLIN)
    if poll.poll(100):
        marks.add("behind")
    return do(*args)


_counts: dict[str, Any] = {}  # files that this worker has mapped, by path


def count_run(path: str, number: int, pause: float = 0.0) -> None:
    """Count this run in the file's byte of that number: cheaper than a mark by far. Then take a while."""
    if path not in _counts:
        import mmap

        with open(path, "r+b") as file:
            _counts[path] = mmap.mmap(file.fileno(), 0)
    _counts[path][number] += 1
    if pause:
        import time

        time.sleep(pause)


def busy_in_c() -> None:
    """Never come back from one C call that keeps the GIL."""
    import collections
    import itertools

    collections.deque(itertools.repeat(None), maxlen=0)


def end_as(how: str) -> None:
    """For programs: end this process as hosts end. Nothing happens for other ways than these."""
    if how == "SIGKILL":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "os._exit":
        os._exit(0)
    if how == "execv":
        os.execv("/bin/true", ["true"])


def busy_in_python() -> None:
    while True:
        pass


def swallow_everything() -> None:
    while True:
        try:
            signal.pause()
        except BaseException:
            continue


def start_child(gate: GateInTask) -> None:
    """Start a process that lives until it is killed, tell its pid through the gate, wait for it."""
    import subprocess

    child = subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE)
    gate.tell(child.pid)
    child.wait()


def leave_a_thread(gate: GateInTask, do: Any, *args: Any) -> int:
    """Return the pid; a thread stays behind and does it when the gate is opened."""
    import threading

    def wait_and_do() -> None:
        gate.wait_go()
        do(*args)

    threading.Thread(target=wait_and_do, daemon=True).start()
    return os.getpid()


_hoard: list[bytes] = []


def grow(mib: int) -> None:
    """Take and touch so much memory, and keep it."""
    _hoard.append(b"x" * (mib << 20))


def grow_then(mib: int, do: Any, *args: Any) -> Any:
    grow(mib)
    return do(*args)


def grow_and_stay_in_c(mib: int) -> None:
    """One C call that takes so much memory and then never comes back, and that keeps the GIL."""
    from itertools import chain, repeat

    list(chain(repeat(None, mib << 17), filter(None, repeat(0))))


class DoesWhileUnpickled:
    """As an argument or a result: calls a function when it is unpickled."""

    def __init__(self, do: Any, *args: Any) -> None:
        self.do = do
        self.args = args

    def __reduce__(self) -> tuple[Any, ...]:
        return self.do, self.args


class DoesWhilePickled:
    """As a result: calls a function when it is pickled."""

    def __init__(self, do: Any, *args: Any) -> None:
        self.do = do
        self.args = args

    def __getstate__(self) -> Any:
        self.do(*self.args)
        return None


def does_while_unpickled(do: Any, *args: Any) -> DoesWhileUnpickled:
    return DoesWhileUnpickled(do, *args)


def does_while_pickled(do: Any, *args: Any) -> DoesWhilePickled:
    return DoesWhilePickled(do, *args)


class TwoArguments(Exception):
    """Pickles, but cannot be unpickled in the standard way: `args` has one entry."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code
        self.text = text


class HoldsALock(Exception):
    """Cannot be pickled."""

    def __init__(self, text: str) -> None:
        import threading

        super().__init__(text)
        self.lock = threading.Lock()


def raise_two_arguments() -> None:
    raise TwoArguments(7, "seven")


def raise_holder() -> None:
    raise HoldsALock("held")


class Flaky(ConnectionError):
    """What `retry_on` names, also by a base class."""


def fail_until(attempt: int, marks: Marks, do: Any, *args: Any) -> int:
    """Mark the attempt, and do what fails unless it is this one; then return the pid."""
    present = _attempt_and_slot()[0]
    marks.add(str(present))
    if present < attempt:
        do(*args)
    return os.getpid()


def fail_on_first_slot(marks: Marks) -> int:
    """Mark the slot, and fail in the first attempt; then return the slot."""
    attempt, slot = _attempt_and_slot()
    marks.add(str(slot))
    if attempt == 1:
        raise Flaky(slot)
    return slot


def _attempt_and_slot() -> tuple[int, int]:
    from forkpool import current_task

    task = current_task()
    assert task is not None
    return task.attempt, task.slot


def crash_if_marked(marks: Marks) -> int:
    """Return a deadly signal; once there are marks, send it at once."""
    if marks.words():
        kill_myself()
    return signal.SIGKILL
