"""What one pool holds at a moment: tasks, processes, threads, descriptors, shared memory.

Runs in: host, supervisor thread, between two of its steps, where each task is in exactly one place; the records are then
read by whoever asked. It only reads.
Hard part: none of the numbers in it is proof of anything later (a pid or descriptor is given to somebody else the moment it is
free), so each record carries what tells the thing itself from its successor.
Tests: tests/process/test_diagnostics.py
"""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from .._shared.own_proc import folder_of
from .._shared.pidfd import open_pidfd
from ..future import ForkFuture
from .process_facts import read_stat

TaskState = Literal["waiting", "running", "ending"]
Role = Literal["fork server", "worker", "descendant"]


@dataclass(frozen=True, slots=True)
class TaskSnapshot:
    """A task that was accepted and has not ended.

    Attributes:
        name: What messages call it.
        state: "waiting": it has not begun. "running". "ending": it is being killed.
        slot: Where it runs; None while it waits.
        pid: Of the worker that runs it; None while it waits.
        seconds: How long it has run; 0.0 while it waits.
        future: Its future.
    """

    name: str
    state: TaskState
    slot: int | None
    pid: int | None
    seconds: float
    future: ForkFuture[Any]


@dataclass(frozen=True, slots=True)
class ProcessSnapshot:
    """A process that the pool started, or that a task started.

    Attributes:
        role: "fork server", "worker", or "descendant" (of a worker: a task started it).
        pid: Its number.
        slot: The worker's; None for the fork server.
        name: What the kernel calls it.
        started: When it was started, in ticks since boot: tells it from a later process of that number.
    """

    role: Role
    pid: int
    slot: int | None
    name: str
    started: int


@dataclass(frozen=True, slots=True)
class DescriptorSnapshot:
    """A file descriptor of this process that belongs to the pool.

    Attributes:
        fd: Its number.
        purpose: What it is for.
        target: What the kernel says it leads to; None if that cannot be read.
        identity: Device and inode of what it leads to.
    """

    fd: int
    purpose: str
    target: str | None
    identity: tuple[int, int]


@dataclass(frozen=True, slots=True)
class PoolSnapshot:
    """What one pool holds. Everything is empty before the first call and after shutdown.

    Attributes:
        tasks: Accepted and not ended: those that run or end first, then those that wait, in order.
        processes: The fork server, then each worker followed by what its tasks started.
        threads: Of this process.
        descriptors: Of this process.
        shared_memory: Names of POSIX shared memory that tasks made or attached, and that is still there.
    """

    tasks: tuple[TaskSnapshot, ...] = ()
    processes: tuple[ProcessSnapshot, ...] = ()
    threads: tuple[threading.Thread, ...] = ()
    descriptors: tuple[DescriptorSnapshot, ...] = ()
    shared_memory: tuple[str, ...] = ()


def describe_processes(servers: Iterable[int], workers: Iterable[tuple[int, int]]) -> tuple[ProcessSnapshot, ...]:
    """The processes of a pool and of its tasks. `servers`: pids. `workers`: pid and slot."""
    return tuple(_processes(servers, workers))


def _processes(servers: Iterable[int], workers: Iterable[tuple[int, int]]) -> Iterator[ProcessSnapshot]:
    for pid in servers:
        yield from _process("fork server", pid, None)
    for pid, slot in workers:
        yield from _process("worker", pid, slot)
        for descendant in _descendants(pid):
            yield from _process("descendant", descendant, slot)


def _process(role: Role, pid: int, slot: int | None) -> Iterator[ProcessSnapshot]:
    stat = read_stat(pid)
    if stat is not None and stat.state not in "ZX":
        yield ProcessSnapshot(role, pid, slot, stat.name, stat.started)


def is_alive(process: ProcessSnapshot) -> bool:
    """Is it still there, and not another one of its number?"""
    stat = read_stat(process.pid)
    return stat is not None and stat.state not in "ZX" and stat.started == process.started  # the name changes with exec


def wait_for_end(process: ProcessSnapshot, seconds: float) -> None:
    """Return when it has ended, or so many seconds have passed."""
    try:
        fd = open_pidfd(process.pid)
    except OSError:  # it is gone; or there are no descriptors left, and we do not wait
        return
    if fd < 0:  # nothing to wait with
        return
    try:
        if is_alive(process):
            poll = select.poll()
            poll.register(fd, select.POLLIN)
            poll.poll(max(0.0, seconds) * 1000)
    finally:
        os.close(fd)


def _descendants(pid: int) -> Iterator[int]:
    for child in _children(pid):
        yield child
        yield from _descendants(child)


def _children(pid: int) -> list[int]:
    found: list[int] = []
    try:
        threads = f"{folder_of(pid)}/task"
        for thread in os.listdir(threads):
            with open(f"{threads}/{thread}/children", encoding="ascii") as file:
                found += map(int, file.read().split())
    except OSError:  # it has ended, or a kernel without CONFIG_PROC_CHILDREN, or no /proc of ours
        pass
    return found


def describe_descriptors(fds: Iterable[tuple[int, str]]) -> tuple[DescriptorSnapshot, ...]:
    """Those that are open. `fds`: number and purpose."""
    found = ((fd, purpose, identify(fd)) for fd, purpose in fds)
    return tuple(DescriptorSnapshot(fd, purpose, *known) for fd, purpose, known in found if known is not None)


def identify(fd: int) -> tuple[str | None, tuple[int, int]] | None:
    """Where a descriptor leads; None if it is not open."""
    try:
        status = os.fstat(fd)
    except OSError:
        return None
    try:
        target = os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        target = None
    return target, (status.st_dev, status.st_ino)
