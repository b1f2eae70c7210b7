"""What a pool holds at a moment, and what of it is still there later: for leak checks, and for looking at a pool that hangs.

Runs in: host; any thread. Public, but not part of `forkpool`'s own names: `from forkpool import diagnostics`.
The pytest plugin knows of a pool what this module tells, and nothing more.
Tests: tests/process/test_diagnostics.py
"""

from __future__ import annotations

import threading

from ._host.inventory import (
    DescriptorSnapshot,
    PoolSnapshot,
    ProcessSnapshot,
    TaskSnapshot,
    identify,
    is_alive,
    wait_for_end,
)
from ._host.ledger import Ledger
from ._host.shared_names import exists
from ._shared import clock
from .executor import ForkPoolExecutor, OptionsView

__all__ = ["DescriptorSnapshot", "Ledger", "PoolSnapshot", "ProcessSnapshot", "TaskSnapshot", "leftovers", "snapshot"]


def snapshot(executor: ForkPoolExecutor | OptionsView) -> PoolSnapshot:
    """Look at a pool: exact at one moment between the call and its return.

    A task is in it from the return of `submit` until its future is done. Looking starts nothing and changes nothing.

    Raises:
        RuntimeError: In a fork of the process that owns the pool.

    Thread safe. It waits for the pool's supervisor thread, a millisecond at most unless the machine is starved.

    .. versionadded:: 0.1
    """
    return executor._pool.look()


def leftovers(before: PoolSnapshot, *, patience: float = 2.0) -> list[str]:
    """Tell what of a snapshot is still there, a line each: what a pool that was shut down has left behind.

    Shut the pool down with `wait=True` in between; whatever is named then is a leak: of a task (shared memory that nobody
    unlinked, a process in a session of its own), of a done-callback that has not returned, or of forkpool.

    Args:
        patience: Seconds to wait for processes and threads to end: what was killed takes a moment to be gone. It does not
            wait when all of them have ended.

    .. versionadded:: 0.1
    """
    end = clock.now() + patience
    for process in before.processes:
        wait_for_end(process, end - clock.now())
    for thread in before.threads:
        if thread is not threading.current_thread():
            thread.join(max(0.0, end - clock.now()))
    left = [_line(process) for process in before.processes if is_alive(process)]
    left += [f"thread {thread.name!r}" for thread in before.threads if thread.is_alive()]
    left += [
        f"file descriptor {one.fd} ({one.purpose}: {one.target})"
        for one in before.descriptors
        if identify(one.fd) == (one.target, one.identity)
    ]
    left += [f"shared memory {name!r}: a task made it, nobody has unlinked it" for name in before.shared_memory if exists(name)]
    return left


def _line(process: ProcessSnapshot) -> str:
    if process.role == "descendant":
        return f"process {process.name!r} (pid {process.pid}): a task on slot {process.slot} started it"
    where = "" if process.slot is None else f" of slot {process.slot}"
    return f"{process.role}{where} (pid {process.pid})"
