"""Where am I: the task that runs in this process, and the seat that it runs on.

Runs in: a worker (`SEAT` is set there), or a thread of the host that runs a call inline (`INLINE`); anywhere else
`current_task()` is None. Any thread may ask.
Must cost the hot path next to nothing: a worker stores what it has at hand anyway (the callable, an explicit name), in one
step; the record is made when somebody asks.
Hard part: threads. A plain global, no context variable: a worker runs one task at a time, and a thread that the task
starts begins with an empty context, so it would be told None exactly where a task asks for its GPU. A call that runs inline
has only its thread: other threads of the host may run calls at the same time, or have nothing to do with it.
Tests: tests/process/test_current_task.py, tests/process/test_inline.py
"""

from __future__ import annotations

from _thread import _local
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .calls import name_of

SLOT_VARIABLE = "FORKPOOL_SLOT"


@dataclass(frozen=True, slots=True)
class TaskInfo:
    """What `current_task()` tells a task about itself. A record of that moment: it does not change.

    Attributes:
        slot: The worker's seat in the pool, from 0 to `max_workers` - 1. No two tasks that run at the same time in one pool
            have the same one, and a worker that replaces another takes over its slot.
        name: What messages call the task: `options(name=)`, or the callable's qualified name.
        attempt: 1 for the first time that this task runs, more with `options(retries=)`.
        max_workers: Number of slots of the pool.

    .. versionadded:: 0.1
    """

    slot: int
    name: str
    attempt: int
    max_workers: int


class _Seat:
    """This process as a worker. `running` is replaced as a whole: other threads may look at any moment."""

    __slots__ = ("max_workers", "running", "slot")

    def __init__(self) -> None:
        self.slot = -1  # until this process becomes a worker
        self.max_workers = 0
        self.running: tuple[Callable[..., Any], str | None, int] | None = None  # the callable, its explicit name, the attempt


class _InlineSeat(_local):
    """This thread, while it runs a call of an inline pool."""

    # Callable, explicit name, slot, number of slots, attempt, and what says that the call still runs: an exception may hit us
    # at any line, also where we would forget it.
    task: tuple[Callable[..., Any], str | None, int, int, int, Callable[[], bool]] | None = None


SEAT = _Seat()
INLINE = _InlineSeat()


def current_task() -> TaskInfo | None:
    """Tell a task who it is: slot, name, attempt, and the pool's number of slots.

    A task is what runs between the call of its function and the pickling of its result. Threads of the task and processes
    that it forks are told the same; a thread that outlives its task is told of the task that runs then. In a call that runs
    inline only its own thread is told.

    Returns:
        The record; None outside a task: in the host, in the fork server (preloaded modules), in the initializer, while
        arguments are being unpickled. The environment variable FORKPOOL_SLOT holds the slot in the last two as well.

    Thread safe. Importing forkpool for it costs a worker nothing.

    .. versionadded:: 0.1
    """
    inline = INLINE.task
    if inline is not None and inline[5]():
        fn, name, slot, max_workers, attempt, _ = inline
        return TaskInfo(slot, name or name_of(fn), attempt, max_workers)
    running = SEAT.running
    if running is None:
        return None
    fn, name, attempt = running
    return TaskInfo(SEAT.slot, name or name_of(fn), attempt, SEAT.max_workers)
