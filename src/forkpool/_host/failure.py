"""End all futures of a pool whose supervisor cannot go on: a bug of ours, or no memory for our own work.

Runs in: host, supervisor thread, once, as the last thing before the pool gives everything back.
It must not trust what it looks at, which may be what is broken, and it may find no memory for its own work either: what failed
for that is done again after a pause, for memory that others give back comes with no event.
Hard part: a task may have been between two places at that moment, taken out of one list and not yet in the other. The frames
that the error ended have it in their local variables.
Tests: tests/process/test_logging.py
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from traceback import walk_tb

from .._core.machine import PoolMachine
from .._core.states import Task
from .endings import Endings
from .intake import Intake
from .log import Log
from .verdicts import internal_error

_PAUSE_S = 0.01  # arbitrary


def break_pool(error: BaseException, machine: PoolMachine, intake: Intake, endings: Endings, log: Log) -> None:
    """Nobody is left waiting: all futures end, in the error that says so, and no call is accepted any more. Never raises."""
    while not _try_to_break(error, machine, intake, endings, log):
        time.sleep(_PAUSE_S)
    log.critical("forkpool's supervisor failed; its pool is broken", error)


def _try_to_break(error: BaseException, machine: PoolMachine, intake: Intake, endings: Endings, log: Log) -> bool:
    """False: there was no memory for all of it."""
    try:
        intake.broken = partial(internal_error, error)
        intake.closed = True
        places = (
            lambda: (task for worker in machine.workers.values() for task in worker.tasks),
            lambda: machine.queue,
            lambda: (task for _, _, task in machine.actions if task is not None),
            lambda: (item for item in list(intake.items) if isinstance(item, Task)),
            lambda: _in_hand(error),
        )
        all_ended = True
        for find in places:  # each of them: what one gives back, another may need
            all_ended = _try_to_end(find, error, endings, log) and all_ended
        return all_ended
    except MemoryError:
        return False


def _try_to_end(find: Callable[[], Iterable[Task]], error: BaseException, endings: Endings, log: Log) -> bool:
    """End the futures of these tasks. False: there was no memory for it."""
    try:
        for task in find():
            endings.error(task.future, internal_error, error)
    except MemoryError:
        return False
    except BaseException as another:  # what we look at may be what is broken
        log.critical("forkpool's supervisor could not end all futures of its pool", another)
    return True


def _in_hand(error: BaseException) -> Iterator[Task]:
    for frame, _ in walk_tb(error.__traceback__):
        for value in frame.f_locals.values():
            if isinstance(value, Task):
                yield value
            elif isinstance(value, list | deque):
                yield from (one for one in list(value) if isinstance(one, Task))
