"""The words that the core speaks: states, verdicts, actions, and the two records it keeps.

Runs in: host; pure.
Tests: tests/unit/test_machine.py
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, ClassVar

from ..config import DEFAULT_OPTIONS, TaskOptions

_NO_CONTENTS: Mapping[Any, Any] = {}
MOST_NOTED = 1000  # contents of a worker; of a program that makes more of them than it will use again, the note is begun anew


def contents_of(payload: bytes) -> Mapping[Any, Any]:
    """Return what a payload has beside it: by key, what has a `digest`."""
    return getattr(payload, "contents", _NO_CONTENTS)


class WorkerState(Enum):
    """A worker's life, in this order. `GONE` is final."""

    SPAWNED = auto()  # asked of the fork server; not ready for tasks
    WAITING = auto()  # an heir: ready, while the slot's last worker still runs its last task
    READY = auto()  # idle
    BUSY = auto()  # holds one task
    RETIRING = auto()  # asked to leave, holds nothing
    GONE = auto()

    @property
    def holds_nothing(self) -> bool:
        """Whether such a worker can be asked to leave: it lives, and has no task."""
        return self in (WorkerState.SPAWNED, WorkerState.WAITING, WorkerState.READY)


class Expiry(Enum):
    """Why a worker that works well is replaced."""

    TASK_LIMIT = "max_tasks_per_child"
    RECYCLE = "recycle_workers"
    RESTART = "restart_workers"
    LOST_TASK = "lost_task"  # somebody in it reads our pipe
    GROUP_FULL_IDLE = "group_full_idle"  # it held much of a control group that the kernel was about to kill


class Verdict(Enum):
    """How a task that its worker will not answer ends. The first one given stays."""

    CRASHED = auto()
    TIMED_OUT = auto()
    OVER_MEMORY = auto()
    GROUP_FULL = auto()  # of the busy workers, its own held most of a control group that the kernel was about to kill
    KILLED = auto()
    CANCELLED = auto()  # never ran
    POOL_BROKEN = auto()  # never ran
    POOL_KILLED = auto()  # by kill_workers() or terminate_workers()


class Verb(Enum):
    """What the host has to do. An action is (verb, worker, task); one on a worker that is GONE by then is dropped."""

    SPAWN = auto()  # fork this worker
    LOOK = auto()  # read how much private memory this worker has, report `on_memory`
    LOOK_AT_GROUP = auto()  # read how much memory the control groups have, report `on_group_memory`
    SEND = auto()  # write this task into this worker's pipe
    SEND_WHOLE = auto()  # the same, with all contents that its payload has beside it
    RECALL = auto()  # take back what this worker has not taken, report `on_recalled`
    STOP = auto()  # ask this idle worker to leave
    KILL = auto()  # SIGKILL this worker
    END = auto()  # end this task as its `verdict` says; `worker` held it, or is None
    FINISHED = auto()  # closed, nothing left to wait for


@dataclass(frozen=True, slots=True)
class GroupMemory:
    """What was read of a control group that the kernel would kill as a whole: of several, the one with the least room."""

    limit: int  # bytes
    used: int | None  # bytes that it has and would not give back; None: nobody can tell
    file: str  # that says what the limit is
    tightest: int  # bytes: the smallest limit of these groups; the pool's own group may be in a much larger one


@dataclass(slots=True, eq=False)
class Task:
    """One call. The core reads `name`, `options`, and how large the payload is; the rest only passes through it."""

    future: Any
    payload: bytes
    name: str  # for messages, and the key under which its length is learnt
    options: TaskOptions = DEFAULT_OPTIONS  # one record for all calls of a view
    seq: int = 0  # unique in the pool, given when it is sent; 0: it waits
    verdict: Verdict | None = None  # how it is to end, or has ended, without an answer
    attempt: ClassVar[int] = 1  # which one it waits for, or that runs


@dataclass(slots=True, eq=False)
class RepeatableTask(Task):
    """A call that is to be run again if it fails in a way that its options name."""

    attempt: int = 1  # type: ignore[misc]  # what one of them has, not all
    failures: list[str] = field(default_factory=list)  # a line for each attempt that failed before
    last_failure: Any = None  # how the last one of them ended; the host's
    has_run: bool = False  # whether the function may have been entered in one of them


@dataclass(slots=True, eq=False)
class Worker:
    """One worker. Invariant: `tasks` is empty exactly while the state is not BUSY."""

    generation: int  # unique in the pool
    slot: int
    state: WorkerState = WorkerState.SPAWNED
    tasks: deque[Task] = field(default_factory=deque)  # sent, in order; the first runs, the others may still lie in the pipe
    tasks_done: int = 0
    task_limit: int | None = None  # tasks that it runs at most
    expiry: Expiry | None = None  # set: it is to be replaced, and gets no more tasks unless it is RECYCLE
    ahead_s: float = 0.0  # what the tasks behind the first are expected to take together
    head_since: float = 0.0  # monotonic seconds: when the first one became the first
    sent_at: float = 0.0  # monotonic seconds: when something of the first one was written last; set if that has a timeout
    deadline: float | None = None  # monotonic seconds: when the task's timeout or the grace to leave ends
    owns_slot: bool = True  # False for an heir that waits for the slot, and once a replacement may take it
    has: dict[Any, bytes] = field(default_factory=dict, repr=False)  # digests of contents that it was sent, by the global's key
    first_is_whole: bool = False  # the first task is on its way with contents: nothing is sent behind it
    heir: Worker | None = field(default=None, repr=False)  # takes over the slot when this one has answered its last task
    heir_of: Worker | None = field(default=None, repr=False)  # whose slot this one waits for
    leaving: bool = False  # it was asked to leave
    terminated: bool = False  # the host sent SIGTERM because the user wants all workers to end
    doom: Verdict | None = None  # set once SIGKILL was asked for: what its task gets
    grown: int = 0  # bytes: by how much its private memory had grown at the last look (GROUP_FULL: all of it); for messages
    group: GroupMemory | None = None  # GROUP_FULL: which one was nearly full; for messages

    def lacks(self, payload: bytes) -> bool:
        """Whether it was not sent a content that this payload needs."""
        if type(payload) is bytes:
            return False
        has: Any = self.has.get
        return any(has(key) != content.digest for key, content in contents_of(payload).items())

    def note_contents(self, payload: bytes) -> None:
        """It is sent this payload whole."""
        if len(self.has) > MOST_NOTED:
            self.has.clear()
        self.has.update((key, content.digest) for key, content in contents_of(payload).items())

    @property
    def has_ready_heir(self) -> bool:
        """Whether its slot can be taken over at once."""
        return self.heir is not None and self.heir.state is WorkerState.WAITING

    @property
    def is_ready(self) -> bool:
        """Whether it works, or could."""
        return self.state in (WorkerState.WAITING, WorkerState.READY, WorkerState.BUSY)

    @property
    def is_useless(self) -> bool:
        """Whether it was ready, and has done and holds nothing, though nobody wants it to end: asked when it has ended."""
        wanted = self.doom is None and not self.terminated and self.expiry is not Expiry.LOST_TASK
        return self.is_ready and wanted and not self.tasks and not self.tasks_done
