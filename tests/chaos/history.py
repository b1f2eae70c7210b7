"""Records of one round: what was asked, what was done to the pool, what came of it.

Runs in: the soak's process. Plain data, so that a test can write a false history.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

from .marks import Mark


class Harm(Enum):
    """What was done to the pool or to a worker, noted before it was done."""

    KILL = "SIGKILL to a worker"
    STOP = "SIGSTOP to a worker"
    CONTINUE = "SIGCONT to a worker"
    ASK_TO_END = "SIGTERM to a worker"
    KILL_SERVER = "SIGKILL to the fork server"
    STOP_SERVER = "SIGSTOP to the fork server"
    SHORTAGE = "no descriptors, in the host or in the fork server"
    SHORTAGE_OVER = "descriptors again"
    FORKS_FAIL = "os.fork fails in the fork server"
    FORKS_WORK = "os.fork works again"
    RECYCLE = "recycle_workers()"
    RESTART = "restart_workers()"
    CLOSE = "shutdown()"
    CLOSE_CANCELLING = "shutdown(cancel_futures=True)"
    TERMINATE = "terminate_workers()"
    KILL_ALL = "kill_workers()"
    ABORT = "Ctrl-C in the with block"


@dataclass(frozen=True)
class Act:
    time: float
    harm: Harm
    pid: int = 0

    def __str__(self) -> str:
        return f"{self.time:.6f} {self.harm.value} {self.pid or ''}"


@dataclass(frozen=True)
class Outcome:
    """How a future ended.

    Attributes:
        error: The exception's class; None: it returned `value`.
        seconds: The error's, as the pool measured it.
    """

    error: str | None = None
    value: object = None
    pid: int = 0
    exitcode: int | None = None
    may_have_run: str = ""
    seconds: float = 0.0
    text: str = ""


@dataclass
class Story:
    """One call.

    Attributes:
        task: Its number in this run.
        deed: A name in `deeds.DEEDS`.
        filler: Checksum of what went along.
        timeout: As given to `options`.
        attempts: How often it may run at most.
        cancel_running: `cancel()` stops it also when it runs.
        watched: False: it is an item of a `map` that was given up before the item's turn, so nobody saw its outcome.
        own_future: False: an item of a `map`, whose future nobody sees.
        accepted: `submit` returned.
        outcome: What the future says; None: it is not done. What `submit` raised, if it was not accepted.
        done: When its done-callback was called, each time (monotonic seconds).
        cancelled: `cancel()` returned True. `killed`: `kill()` did.
    """

    task: int
    deed: str
    filler: int = 0
    timeout: float | None = None
    attempts: int = 1
    cancel_running: bool = False
    watched: bool = True
    own_future: bool = True
    accepted: bool = False
    outcome: Outcome | None = None
    submitted: float = 0.0
    done: list[float] = field(default_factory=list)
    cancelled: bool = False
    killed: bool = False


@dataclass
class History:
    """All of one round.

    Attributes:
        stories: By number.
        may_break: The pool's own doing may break it: its initializer fails, or a shortage lasts.
        counts: What `statistics()` told in the end, by name.
        left: What was left behind, in words.
        said: What the log said, from "error" upwards.
    """

    stories: dict[int, Story]
    marks: Sequence[Mark]
    acts: Sequence[Act]
    may_break: bool = False
    counts: dict[str, int] = field(default_factory=dict)
    left: Sequence[str] = ()
    said: Sequence[str] = ()
