"""What pool a round has, and how it is closed: drawn at random, told in one line.

Runs in: the soak's process; the initializers in workers.
"""

from __future__ import annotations

import gc
import os
import random
import threading
import weakref
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from forkpool import ForkPoolExecutor

from .history import Harm


class Closing(Enum):
    """How a pool ends, and what of it is noted."""

    WAIT = Harm.CLOSE
    CANCEL = Harm.CLOSE_CANCELLING
    TERMINATE = Harm.TERMINATE
    KILL = Harm.KILL_ALL
    ABORT = Harm.ABORT
    NO_WAIT = "shutdown(wait=False)"
    TWO_THREADS = "shutdown() in two threads"
    COLLECT = "garbage collection"

    @property
    def harm(self) -> Harm:
        return self.value if isinstance(self.value, Harm) else Harm.CLOSE


@dataclass(frozen=True)
class Plan:
    """One round.

    Attributes:
        arguments: Of the executor.
        harms: How often something is done to the pool: acts for each hundred facts.
        forks_fail: The fork server is one whose forks can be made to fail.
        may_break: The plan itself may break the pool.
        early: It is closed while work is still submitted.
        collect_every: The host collects garbage after so many new objects, and lets other threads run meanwhile.
    """

    arguments: dict[str, Any]
    closing: Closing
    submitters: int
    calls: int
    harms: int
    shortages: bool
    forks_fail: bool
    early: bool
    collect_every: int
    may_break: bool = False
    seed: int = field(default=0)


def initialize() -> None:
    pass


def crash_now_and_then() -> None:
    if os.urandom(1)[0] < 50:
        os._exit(3)


def crash_always() -> None:
    os._exit(3)


def raise_always() -> None:
    raise LookupError("the initializer")


def draw(seed: int) -> Plan:
    """The plan of the round with this seed."""
    dice = random.Random(seed)
    arguments, may_break = _arguments(dice)
    forks_fail = dice.random() < 0.2
    shortages = dice.random() < 0.3
    return Plan(
        arguments,
        closing=dice.choice([*Closing, Closing.WAIT, Closing.WAIT]),
        submitters=dice.choice([1, 1, 2, 3]),
        calls=dice.choice([5, 20, 60, 120]),
        harms=dice.choice([0, 2, 10, 30]),
        shortages=shortages,
        forks_fail=forks_fail,
        early=dice.random() < 0.3,
        collect_every=dice.choice([50, 700]),
        may_break=may_break or forks_fail or shortages,
        seed=seed,
    )


def _arguments(dice: random.Random) -> tuple[dict[str, Any], bool]:
    arguments: dict[str, Any] = {
        "max_workers": dice.choice([1, 2, 2, 3, 4]),
        "pin": dice.choice(["auto", False]),
        "serializer": dice.choice(["auto", "auto", "pickle", "cloudpickle"]),
        "grace_period": dice.choice([0.1, 1.0, 5.0]),
        "max_tasks_per_child": dice.choice([None, None, 1, 2, 10]),
        "preload": dice.choice([(), (), ("json",)]),
    }
    if (arguments["max_tasks_per_child"] or 0) > 1:
        arguments["max_tasks_jitter"] = dice.choice([0, 1])
    initializer = dice.choice([None] * 6 + [initialize] * 3 + [crash_now_and_then, crash_always, raise_always])
    arguments["initializer"] = initializer
    return arguments, initializer not in (None, initialize)


def closes(executor: list[ForkPoolExecutor], closing: Closing) -> None:
    """Close the pool; return when it has ended. `executor` holds the only reference, which is taken."""
    ex = executor.pop()
    match closing:
        case Closing.WAIT:
            with ex:
                pass
        case Closing.CANCEL:
            ex.shutdown(cancel_futures=True)
        case Closing.TERMINATE:
            ex.terminate_workers()
        case Closing.KILL:
            ex.kill_workers()
        case Closing.NO_WAIT:
            ex.shutdown(wait=False)
        case Closing.ABORT:
            _abort(ex)
        case Closing.TWO_THREADS:
            other = threading.Thread(target=ex.shutdown)
            other.start()
            ex.shutdown()
            other.join()
        case Closing.COLLECT:
            pool, is_there = ex._pool, weakref.ref(ex)
            del ex
            _collect(is_there)
            pool.wait_closed()
            return
    ex.shutdown()


def _abort(ex: ForkPoolExecutor) -> None:
    try:
        with ex:
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass


def _collect(is_there: weakref.ref[ForkPoolExecutor]) -> None:
    for _ in range(1000):  # `collect` does nothing while another thread is at it
        gc.collect()
        if is_there() is None:
            return
        os.sched_yield()
    raise AssertionError(f"the executor is held: {[str(one)[:300] for one in gc.get_referrers(is_there())]}")
