"""Count the threads of this process, and tell which of them a fork may ignore.

Runs in: fork server, main thread, before the first fork. Reads /proc/self.

A fork copies the thread that calls it. Locks that another one holds at that moment stay locked in the child for ever. The
threads of OpenBLAS and OpenMP runtimes are harmless: they wait for work, and their libraries handle the fork
(pthread_atfork). Importing numpy starts some.
Hard part: whose a thread is. Python's own have names. A native one inherits the process's name, so its stack is looked at:
/proc/self/task/<tid>/syscall tells the stack pointer of a thread that sleeps, and what lies above it are return addresses
into the libraries that it runs. Of a thread that is just running nothing is told. It may be one that Python has joined and
the kernel has yet to end, or one of OpenBLAS that spins before it sleeps: both are over in a moment, which it is given.
One that runs on is taken to be such a library's if it has the process's name and such a library is loaded.
Where /proc shows another pid namespace, threads have other numbers there than here, and nothing is told.
Tests: tests/process/test_preload_threads.py, tests/process/test_degraded.py
"""

from __future__ import annotations

import os
import re
import sys
from contextlib import suppress

from .._shared import clock
from .._shared.own_proc import numbers_as_we_do

FORK_SAFE = re.compile(r"openblas|libgomp|libiomp|libomp|libmkl|libblis", re.IGNORECASE)
_NOT_TELLING = re.compile(r"^(libc|ld-linux|libpthread|ld-musl|libm)\b|^\[")
_PYTHON = re.compile(r"python", re.IGNORECASE)
_PATIENCE_S = 0.1  # arbitrary: a thread ends in microseconds, OpenBLAS spins for 2**26 cycles
_STACK_BYTES = 16384  # arbitrary: where a thread waits is a few frames below its start

Mapping = tuple[int, int, str]  # of executable memory: first address, end, name of the file


class Census:
    """Who left which thread. Invariant: a thread is attributed to the first one after which it was seen."""

    def __init__(self) -> None:
        self._left_by: dict[int, str] = {}

    def attribute(self, cause: str) -> None:
        """Threads that are new were left by `cause`."""
        for tid in _others():
            self._left_by.setdefault(tid, cause)

    def dangerous(self) -> list[str]:
        """A description of each thread that is still there and is not known to be fork-safe."""
        tids = _others()
        if not tids:
            return []
        python, code = _python_threads(), _executable_mappings()
        found = []
        for tid in tids:
            what = f"thread {python[tid]!r}" if tid in python else _native_thread(tid, code)
            if what is not None:
                found.append(f"{what}, left by {self._left_by.get(tid, 'an import')}")
        return found


def _others() -> list[int]:
    own = os.getpid()  # the main thread's id
    if not numbers_as_we_do():
        return []
    try:
        return sorted(tid for tid in map(int, os.listdir("/proc/self/task")) if tid != own)
    except OSError:  # no /proc: nothing can be told
        return []


def _python_threads() -> dict[int, str]:
    threading = sys.modules.get("threading")
    return {} if threading is None else {one.native_id: one.name for one in threading.enumerate() if one.native_id}


def _executable_mappings() -> list[Mapping]:
    mappings = []
    with suppress(OSError), open("/proc/self/maps", encoding="utf-8", errors="replace") as lines:
        for line in lines:
            addresses, rights, *rest = line.split(None, 5)
            if "x" in rights and len(rest) == 4:
                first, _, end = addresses.partition("-")
                mappings.append((int(first, 16), int(end, 16), os.path.basename(rest[3].strip())))
    return mappings


def _native_thread(tid: int, code: list[Mapping]) -> str | None:
    """A description; None: it is gone, or harmless."""
    try:
        name, state = _read(tid, "comm"), _state(tid)
        if state == ["running"]:
            is_safe = name == _read(os.getpid(), "comm") and any(FORK_SAFE.search(file) for _, _, file in code)
            return None if is_safe else f"native thread {name!r}"
    except (FileNotFoundError, ProcessLookupError):
        return None
    files = _files_on_stack(int(state[-2], 16), code)
    if any(map(FORK_SAFE.search, files)) and not any(map(_PYTHON.search, files)):
        return None
    telling = [file for file in files if not _NOT_TELLING.match(file)]
    return f"native thread {name!r}" + (f" of {telling[0]}" if telling else "")


def _state(tid: int) -> list[str]:
    """The words of `syscall`, the last but one of which is the stack pointer; ["running"]: it does not go to sleep."""
    end = clock.now() + _PATIENCE_S
    while True:
        try:
            state = _read(tid, "syscall").split()
        except PermissionError:  # a container without ptrace
            return ["running"]
        if state != ["running"] or clock.now() > end:
            return state
        os.sched_yield()  # the kernel tells nobody when another thread goes to sleep or ends


def _files_on_stack(pointer: int, code: list[Mapping]) -> list[str]:
    """The files that the words above a stack pointer point into, innermost first."""
    found: dict[str, None] = {}
    for word in _stack(pointer):
        for first, end, file in code:
            if first <= word < end:
                found[file] = None
                break
    return list(found)


def _stack(pointer: int) -> list[int]:
    data = b""
    try:
        with open("/proc/self/mem", "rb", buffering=0) as memory:
            memory.seek(pointer)
            while len(data) < _STACK_BYTES and (part := memory.read(1024)):  # EIO at the end of the stack
                data += part
    except (OSError, ValueError):
        pass
    return list(memoryview(data[: len(data) // 8 * 8]).cast("Q"))


def _read(tid: int, what: str) -> str:
    with open(f"/proc/self/task/{tid}/{what}", encoding="utf-8", errors="replace") as file:
        return file.read().strip()
