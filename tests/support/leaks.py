"""Compare what this process owns before and after a test: fds, threads, processes, shared memory.

Runs in: the pytest process.
The end of a process or thread is waited for as a fact, bounded; what is still there then is a leak.
Hard part: an object in a reference cycle holds its fds until the collector runs, so we collect first. That would take a third
of the suite's time, for pytest holds hundreds of thousands of objects; so what was there before the test is frozen: none of it
was made by the test.
"""

import gc
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support import processes

THREAD_PATIENCE_S = 10.0


@dataclass(frozen=True)
class Belongings:
    fds: dict[int, str]
    children: frozenset[int]
    threads: frozenset[threading.Thread]
    shared_memory: frozenset[str]
    memfd_mappings: int


def belongings() -> Belongings:
    return Belongings(
        fds=open_fds(),
        children=frozenset(processes.children()),
        threads=frozenset(threading.enumerate()),
        shared_memory=frozenset(name for name in os.listdir("/dev/shm") if "forkpool" in name),  # other programs run too
        memfd_mappings=memfd_mappings(),
    )


def open_fds() -> dict[int, str]:
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:  # the fd of this very listing
            continue
    return found


def memfd_mappings() -> int:
    return Path("/proc/self/maps").read_text().count("/memfd:")


def what_is_left(before: Belongings) -> list[str]:
    """One line per thing that is here now and was not there before."""
    gc.collect()
    now = belongings()
    left = [f"fd {fd} -> {target}" for fd, target in now.fds.items() if before.fds.get(fd) != target]
    left += [f"thread {thread}" for thread in now.threads - before.threads]
    left += [f"child {processes.describe([pid])}" for pid in now.children - before.children]
    left += [f"process {processes.describe([pid])}" for pid in processes.marked() - before.children]
    left += [f"/dev/shm/{name}" for name in now.shared_memory - before.shared_memory]
    if now.memfd_mappings > before.memfd_mappings:
        left.append(f"{now.memfd_mappings - before.memfd_mappings} mapped memfds")
    return left


@contextmanager
def no_leaks() -> Iterator[None]:
    """Mark what the block starts; fail when something of it is left afterwards."""
    os.environ[processes.MARK_VARIABLE] = processes.new_mark()
    gc.collect()
    gc.freeze()
    before = belongings()
    try:
        yield
        wait_for_ends(before)
        left = what_is_left(before)
        assert not left, "left behind:\n" + "\n".join(left)
    finally:
        processes.kill_marked()
        del os.environ[processes.MARK_VARIABLE]


def wait_for_ends(before: Belongings) -> None:
    gc.collect()
    for pid in (processes.marked() | processes.children()) - before.children:
        try:
            processes.wait_exit(pid, THREAD_PATIENCE_S)
        except processes.StillThere:
            return  # what_is_left says it better
    for thread in set(threading.enumerate()) - before.threads:
        thread.join(THREAD_PATIENCE_S)
