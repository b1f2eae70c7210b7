"""What tasks do, and how each may end.

Runs in: workers, which import this module (so it imports little); the soak reads the table.
Each call is `act(path, task, name, filler)`: it leaves a mark, does the deed, leaves the second mark, and returns or raises.
"""

from __future__ import annotations

import contextlib
import os
import signal
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from forkpool import current_task

from .marks import Stage, leave


class End(Enum):
    """How a deed ends if nobody interferes."""

    RESULT = "its result"
    RAISES = "what it raised"
    CRASHES = "its worker dies of it, between the two marks"
    STUCK = "never: a timeout, a kill or the pool's end stops it"
    HOSTILE = "its result, or its worker dies: it harmed its worker"
    REFUSED = "SerializationError: an argument cannot be pickled; it never begins"
    LOAD_RAISES = "what unpickling its argument raised; it never begins"
    LOAD_CRASHES = "its worker dies while it unpickles the argument; it never begins"
    RESULT_REFUSED = "SerializationError: its result cannot be pickled"
    RESULT_CRASHES = "its worker dies while it pickles the result"
    RESULT_RAISES = "what unpickling the result raised, in the host"


@dataclass(frozen=True)
class Deed:
    """One row of the table.

    Attributes:
        do: Called between the marks.
        end: How it ends.
        detail: Which exception, or how the worker dies: a signal's name or "exit 3".
        weight: How often it is chosen.
        returns: Builds what the call returns or raises, from (task, pid, checksum); None: that itself.
        filler: Builds what goes along as an argument, in the host.
    """

    do: Callable[[], object]
    end: End
    detail: str = ""
    weight: int = 1
    returns: Callable[[Any], Any] | None = None
    filler: Callable[[], object] | None = None


def act(path: str, task: int, name: str, filler: Any = b"") -> Any:
    """Do the deed of this name as the task of this number."""
    deed = DEEDS[name]
    info = current_task()
    slot, attempt = (-1, 1) if info is None else (info.slot, info.attempt)
    me = os.getpid()
    leave(path, task, Stage.BEGIN, slot, attempt)
    deed.do()
    leave(path, task, Stage.END if os.getpid() == me else Stage.STRAY, slot, attempt)
    value = expected(task, os.getpid(), filler)  # a forked child that returns is told by its pid
    return value if deed.returns is None else deed.returns(value)


def act_all(path: str, name: str, task: int) -> Any:
    """For `map`: the item comes last."""
    return act(path, task, name)


def expected(task: int, pid: int, filler: Any) -> tuple[int, int, int]:
    """The result of a call that went well."""
    return task, pid, zlib.crc32(filler) if isinstance(filler, bytes) else 0


# --- what is done between the marks


def nothing() -> None:
    pass


def compute(rounds: int = 20_000) -> None:
    sum(number * number for number in range(rounds))


def compute_long() -> None:
    compute(1_000_000)


def hang() -> None:
    while True:
        signal.pause()


def hang_with_the_gil() -> None:
    import collections
    import itertools

    collections.deque(itertools.repeat(None), maxlen=0)


def hang_and_heed_nothing() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        try:
            signal.pause()
        except BaseException:
            continue


def stop_myself() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)
    hang()


def segfault() -> None:
    import faulthandler

    faulthandler._sigsegv()  # type: ignore[attr-defined]


def kill_myself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def leave_with_0() -> None:
    os._exit(0)


def leave_with_3() -> None:
    os._exit(3)


def scribble() -> None:
    """Fill stdout and stderr, with and without an end of line."""
    print("x" * 50_000)
    print("unfinished", end="", flush=True)
    os.write(2, b"more\nunfinished")


def close_all() -> None:
    os.closerange(0, 4096)


def write_garbage() -> None:
    """Write into every pipe there is that can be written."""
    for fd in foreign_pipes():
        with contextlib.suppress(OSError):
            os.set_blocking(fd, False)
            os.write(fd, b"\xff\0garbage\n" * 9)


def read_what_is_not_mine() -> None:
    """Take all that lies in every pipe that can be read: calls that were sent ahead, too."""
    for fd in foreign_pipes():
        with contextlib.suppress(OSError):
            os.set_blocking(fd, False)
            while os.read(fd, 1 << 16):
                pass


def foreign_pipes() -> list[int]:
    found = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if int(name) > 2 and os.readlink(f"/proc/self/fd/{name}").startswith("pipe:"):
                found.append(int(name))
    return found


def fork_and_both_return() -> None:
    try:
        child = os.fork()
    except OSError:  # forks fail now and then here
        return
    if child:
        os.waitpid(child, 0)


def fork_and_leave_a_child() -> None:
    try:
        child = os.fork()
    except OSError:
        return
    if child == 0:
        hang_and_heed_nothing()


def fork_and_crash() -> None:
    """The child lives on with our pipes open."""
    fork_and_leave_a_child()
    kill_myself()


def leave_a_thread() -> None:
    import threading

    threading.Thread(target=threading.Event().wait, daemon=True).start()


def nest() -> None:
    """A pool in the task. If the task is killed, so is that pool: by the end of its host, no group reaches it."""
    from concurrent.futures import BrokenExecutor

    from forkpool import ForkPoolExecutor

    try:
        with ForkPoolExecutor(1) as ex:
            assert ex.submit(len, "abc").result() == 3
    except (OSError, BrokenExecutor):  # no descriptors, or no forks
        pass


def change_much() -> None:
    """What the next task must not notice, or may as with the standard library."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.chdir("/")
    os.umask(0o777)


# --- what is returned, or raised


def raise_value_error(value: Any) -> None:
    raise ValueError(value)


def raise_exit(value: Any) -> None:
    raise SystemExit(value)


def raise_interrupt(value: Any) -> None:
    raise KeyboardInterrupt(value)


class OddError(Exception):
    """Has two arguments: the standard pickle cannot rebuild it."""

    def __init__(self, value: Any, more: int) -> None:
        super().__init__(f"{value} {more}")
        self.value = value


def raise_odd(value: Any) -> None:
    raise OddError(value, 1)


class Calls:
    """Calls a function when it is unpickled."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> Any:
        return self.call


class CallsWhilePickled:
    """Calls a function when it is pickled."""

    def __init__(self, function: Any) -> None:
        self.function = function

    def __getstate__(self) -> object:
        return self.function()


def fail_to_load() -> None:
    raise LookupError("while it was unpickled")


def fail_to_load_in_the_host() -> None:
    raise LookupError("a result that cannot be unpickled")


def return_a_lock(_: Any) -> Any:
    import threading

    return threading.Lock()


def return_bomb(_: Any) -> Any:
    return Calls(fail_to_load_in_the_host)


def return_crash(_: Any) -> Any:
    return CallsWhilePickled(leave_with_3)


def return_big(value: Any) -> Any:
    return value, b"r" * 700_000


def a_lock() -> object:
    import threading

    return threading.Lock()


def some_bytes() -> bytes:
    return os.urandom(3000)


def many_bytes() -> bytes:
    return os.urandom(1000) * 300


DEEDS = {
    "nothing": Deed(nothing, End.RESULT, weight=40),
    "some bytes": Deed(nothing, End.RESULT, weight=6, filler=some_bytes),
    "many bytes": Deed(nothing, End.RESULT, weight=3, filler=many_bytes),
    "big result": Deed(nothing, End.RESULT, weight=2, returns=return_big),
    "compute": Deed(compute, End.RESULT, weight=20),
    "compute long": Deed(compute_long, End.RESULT, weight=3),
    "scribble": Deed(scribble, End.RESULT, weight=3),
    "fork, both return": Deed(fork_and_both_return, End.RESULT, weight=2),
    "leave a child": Deed(fork_and_leave_a_child, End.RESULT, weight=2),
    "leave a thread": Deed(leave_a_thread, End.RESULT, weight=2),
    "nest": Deed(nest, End.RESULT, weight=1),
    "change much": Deed(change_much, End.RESULT, weight=2),
    "raise": Deed(nothing, End.RAISES, "ValueError", 4, raise_value_error),
    "raise SystemExit": Deed(nothing, End.RAISES, "SystemExit", 1, raise_exit),
    "raise KeyboardInterrupt": Deed(nothing, End.RAISES, "KeyboardInterrupt", 1, raise_interrupt),
    "raise an odd error": Deed(nothing, End.RAISES, "OddError", 1, raise_odd),
    "segfault": Deed(segfault, End.CRASHES, "SIGSEGV", 2),
    "abort": Deed(os.abort, End.CRASHES, "SIGABRT", 1),
    "kill myself": Deed(kill_myself, End.CRASHES, "SIGKILL", 2),
    "exit 0": Deed(leave_with_0, End.CRASHES, "exit 0", 2),
    "exit 3": Deed(leave_with_3, End.CRASHES, "exit 3", 2),
    "fork and crash": Deed(fork_and_crash, End.CRASHES, "SIGKILL", 1),
    "hang": Deed(hang, End.STUCK, weight=3),
    "hang with the GIL": Deed(hang_with_the_gil, End.STUCK, weight=1),
    "hang, heed nothing": Deed(hang_and_heed_nothing, End.STUCK, weight=1),
    "stop myself": Deed(stop_myself, End.STUCK, weight=1),
    "close all": Deed(close_all, End.HOSTILE, weight=1),
    "write garbage": Deed(write_garbage, End.HOSTILE, weight=1),
    "read what is not mine": Deed(read_what_is_not_mine, End.HOSTILE, weight=2),
    "a lock as argument": Deed(nothing, End.REFUSED, "SerializationError", 1, filler=a_lock),
    "argument raises": Deed(nothing, End.LOAD_RAISES, "LookupError", 1, filler=lambda: Calls(fail_to_load)),
    "argument crashes": Deed(nothing, End.LOAD_CRASHES, "exit 3", 1, filler=lambda: Calls(leave_with_3)),
    "a lock as result": Deed(nothing, End.RESULT_REFUSED, "SerializationError", 1, return_a_lock),
    "result raises": Deed(nothing, End.RESULT_RAISES, "LookupError", 1, return_bomb),
    "result crashes": Deed(nothing, End.RESULT_CRASHES, "exit 3", 1, return_crash),
}
