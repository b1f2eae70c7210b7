"""One round: a pool, its users, its villain, its end; then the account.

Runs in: the soak's process, main thread.
Order at the end: the pool is closed while the villain goes on (it gives back what it withholds, so closing never waits for
ever), then users and villain are joined, then all processes must be gone, and only then are marks and futures read.
"""

from __future__ import annotations

import gc
import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from forkpool import ForkPoolExecutor
from tests.support import leaks
from tests.support.shortage import ForkFails

from .closes import DoubleCloses
from .harm import Acts, Villain
from .history import History, Story
from .marks import Mark, MarkReader
from .pools import Closing, Plan, closes, draw
from .work import Numbers, Submitter, outcome_of_future


class Errors(logging.Handler):
    """What the log says from "error" upwards."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(self.format(record))


_USUAL = gc.get_threshold()


def let_others_run(phase: str, _: object) -> None:
    """A collection may begin in the middle of many a C function (Python 3.11), and finalizers let other threads run."""
    if phase == "start":
        time.sleep(0)  # waits for nothing: it only lets go of the interpreter, as a finalizer's system call would


class Round:
    """Made for one seed; `run` once. What is known so far may be read by the watchdog at any moment."""

    def __init__(self, seed: int, folder: Path, reader: MarkReader, numbers: Numbers, closes: DoubleCloses) -> None:
        self.plan: Plan = draw(seed)
        self.acts = Acts()
        self.submitters: list[Submitter] = []
        self._folder = folder
        self._reader = reader
        self._numbers = numbers
        self._closes = closes
        self._errors = Errors()
        self._facts = 0
        self._early = threading.Event()

    def run(self, end: float, tell: Callable[[], object]) -> History:
        """Play it.

        Args:
            end: When (monotonic seconds) nothing is submitted any more.
            tell: Called when a task begins or ends.
        """
        before = leaks.belongings()
        first = self._numbers.last + 1
        logging.getLogger("forkpool").addHandler(self._errors)
        gc.set_threshold(self.plan.collect_every)
        gc.callbacks.append(let_others_run)
        try:
            counts = self._play(end, tell)
        finally:
            logging.getLogger("forkpool").removeHandler(self._errors)
            gc.callbacks.remove(let_others_run)
            gc.set_threshold(*_USUAL)
        leaks.wait_for_ends(before)
        history = History(
            stories=self._stories(),
            marks=self._reader.take(first, self._numbers.last),
            acts=self.acts.all,
            may_break=self.plan.may_break,
            counts=counts,
            said=[*self._errors.texts, *self._closes.take()],
        )
        self.submitters.clear()
        history.left = leaks.what_is_left(before)
        return history

    def _play(self, end: float, tell: Callable[[], object]) -> dict[str, int]:
        forks = ForkFails(self._folder, 11) if self.plan.forks_fail else None
        ex = ForkPoolExecutor(**self.plan.arguments, env=None if forks is None else forks.env)
        pool = ex._pool
        villain = Villain(ex, self.plan, self.acts, forks)

        def on_fact(fact: Mark | None) -> None:
            tell()
            villain.facts.put(fact)

        self._reader.on_begin = on_fact
        self.submitters += [self._submitter(ex, index, end, on_fact) for index in range(self.plan.submitters)]
        villain.thread.start()
        for submitter in self.submitters:
            submitter.thread.start()
        holder = [ex]
        del ex
        self._wait_to_close()
        self._close(holder, villain)
        for submitter in self.submitters:
            submitter.thread.join()
        villain.stop()
        self._reader.on_begin = lambda _: None
        for error in (villain.error, *(submitter.error for submitter in self.submitters)):
            if error is not None:
                raise error
        numbers = pool.statistics()
        names = ("queued", "running", "done", "failed", "crashed", "cancelled", "timed_out", "over_memory")
        return {name: getattr(numbers, name) for name in names}

    def _submitter(self, ex: ForkPoolExecutor, index: int, end: float, on_fact: Callable[[None], object]) -> Submitter:
        def tick() -> None:
            self._facts += 1
            if self.plan.early and self._facts * 3 > self.plan.calls * self.plan.submitters:
                self._early.set()
            on_fact(None)

        return Submitter(ex, self.plan, self._reader.path, self._numbers, index, end, tick, self._early.set)

    def _wait_to_close(self) -> None:
        if self.plan.early and self.plan.closing is not Closing.COLLECT:
            self._early.wait()  # a third has ended, or a user has finished
        else:
            for submitter in self.submitters:
                submitter.thread.join()

    def _close(self, holder: list[ForkPoolExecutor], villain: Villain) -> None:
        self.acts.note(self.plan.closing.harm)
        if self.plan.closing is Closing.COLLECT:
            villain.leave_the_pool()
        closes(holder, self.plan.closing)

    def _stories(self) -> dict[int, Story]:
        found: dict[int, Story] = {}
        for submitter in self.submitters:
            for story in submitter.stories:
                found[story.task] = story
                future = submitter.futures.get(story.task)
                if future is not None and future.done():
                    story.outcome = outcome_of_future(future, story.deed)
        return found


def resident() -> int:
    """Bytes of this process that are in memory and no file's."""
    fields = Path("/proc/self/statm").read_text().split()
    return (int(fields[1]) - int(fields[2])) * os.sysconf("SC_PAGESIZE")
