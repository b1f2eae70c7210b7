"""Submit at random, take back at random: what the users of the pool do.

Runs in: threads of the soak's process, several at once. They keep the stories; nobody waits here for anything but the end
of a future.
"""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from functools import partial
from typing import Any

from forkpool import ForkFuture, ForkPoolExecutor
from forkpool.errors import ForkPoolError, TaskError, TaskTimeoutError, WorkerCrashedError
from forkpool.executor import OptionsView

from . import deeds
from .deeds import DEEDS, Deed, End
from .history import Outcome, Story
from .pools import Plan
from .program import Program

MOST_OPEN = 40  # futures of one submitter; arbitrary, so that a stopped worker does not stop the queue from moving
_NAMES = list(DEEDS)
_WEIGHTS = [deed.weight for deed in DEEDS.values()]
_GENTLE = [name for name, deed in DEEDS.items() if deed.end is End.RESULT]
_NO_LIMIT_S = 100.0
_NO_LIMIT = 1 << 40  # bytes: it is looked at, and goes on
_RETRY_ON: list[tuple[type[BaseException], ...]] = [(WorkerCrashedError,), (WorkerCrashedError, TaskTimeoutError)]


class Numbers:
    """Numbers of tasks, unique in the run. Thread safe: `next` of a count is one C call."""

    def __init__(self) -> None:
        self._count = itertools.count(1)
        self.last = 0

    def __call__(self) -> int:
        self.last = number = next(self._count)
        return number


class Submitter:
    """One user of the pool. `futures` and `stories` belong to its thread until that has ended."""

    def __init__(
        self, ex: ForkPoolExecutor, plan: Plan, path: str, numbers: Numbers, index: int, end: float, tick: Any, finished: Any
    ) -> None:
        """
        Args:
            end: When (monotonic seconds) to stop submitting.
            tick: Called with each future that ended, on the thread of the pool's callbacks.
            finished: Called when it submits nothing any more.
        """
        self.stories: list[Story] = []
        self.futures: dict[int, ForkFuture[Any]] = {}
        self.error: BaseException | None = None
        self._ex: ForkPoolExecutor | None = ex
        self._plan = plan
        self._path = path
        self._numbers = numbers
        self._dice = random.Random(f"{plan.seed}/{index}")
        self._end = end
        self._tick = tick
        self._finished = finished
        self._open: set[Future[Any]] = set()
        self._closed = False
        self._program = Program(f"chaos_program_{index}", self._dice)
        self._by_value = plan.arguments["serializer"] != "pickle"
        self.thread = threading.Thread(target=self._run, name=f"chaos-submitter-{index}", daemon=True)

    def _run(self) -> None:
        try:
            for _ in range(self._plan.calls):
                if self._closed or time.monotonic() > self._end:
                    break
                self._do_something()
        except BaseException as error:  # the round tells it
            self.error = error
        finally:
            self._program.close()
            self._ex = None  # who collects the pool must find no reference
            self._finished()

    def _do_something(self) -> None:
        choice = self._dice.random()
        if choice < 0.80:
            self._submit()
        elif choice < 0.85:
            self._map()
        elif choice < 0.90:
            self._take_back()
        elif choice < 0.95 and self._open:
            self._wait_for_one()
        else:
            for _ in range(15):
                self._submit()
        if len(self._open) > MOST_OPEN:
            self._wait_for_one()

    # --- submit

    def _submit(self) -> None:
        if self._closed:
            return
        name = self._dice.choices(_NAMES, _WEIGHTS)[0]
        deed = DEEDS[name]
        filler = deed.filler() if deed.filler is not None else b""
        story = self._story(name, filler, self._timeout(deed))
        future = self._send(story, filler)
        if future is None:
            return
        self.futures[story.task] = future
        self._open.add(future)
        future.add_done_callback(partial(self._on_done, story))
        if deed.end is End.STUCK and story.timeout is None:
            self._kill(story, future)

    def _story(self, name: str, filler: object, timeout: float | None) -> Story:
        story = Story(self._numbers(), name, timeout=timeout, submitted=time.monotonic())
        story.filler = deeds.expected(0, 0, filler)[2]
        self.stories.append(story)
        return story

    def _timeout(self, deed: Deed) -> float | None:
        if deed.end is End.STUCK:
            return self._dice.choice([0.02, 0.1, 0.3, None])
        return self._dice.choice([None, None, None, None, _NO_LIMIT_S, 0.05])

    def _send(self, story: Story, filler: object) -> ForkFuture[Any] | None:
        assert self._ex is not None
        try:
            future = self._view(self._ex, story).submit(self._function(), self._path, story.task, story.deed, filler)
        except Exception as error:
            story.outcome = outcome_of(error)
            self._closed = type(error).__name__ != "OSError"
            return None
        story.accepted = True
        return future

    def _view(self, ex: ForkPoolExecutor, story: Story) -> ForkPoolExecutor | OptionsView:
        if self._dice.random() < 0.4 and story.timeout is None:
            return ex
        story.cancel_running = self._dice.random() < 0.2
        story.attempts = self._dice.choice([1, 1, 1, 2, 3])
        view = ex.options(
            timeout=story.timeout,
            cancel_running=story.cancel_running,
            retries=story.attempts - 1,
            retry_on=self._dice.choice(_RETRY_ON),
            memory_limit=self._dice.choice([None, None, None, None, _NO_LIMIT]),
        )
        return view if self._dice.random() < 0.7 else view.options(priority=self._dice.randrange(-2, 3))

    def _function(self) -> Any:
        choice = self._dice.random() if self._by_value else 1.0
        if choice < 0.1:
            return lambda *args: deeds.act(*args)
        return self._program.function() if choice < 0.3 else deeds.act

    def _on_done(self, story: Story, future: Any) -> None:
        story.done.append(time.monotonic())
        self._tick()
        if story.task % 50 == 0:
            raise LookupError("a callback that raises harms nobody")

    # --- take back, wait

    def _take_back(self) -> None:
        """Cancel or kill one of those that may be open."""
        if not self.futures:
            return
        index = self._dice.randrange(min(len(self.futures), MOST_OPEN))
        task = next(itertools.islice(reversed(self.futures), index, None))
        story = next(story for story in reversed(self.stories) if story.task == task)
        if self._dice.random() < 0.5:
            story.cancelled |= self.futures[task].cancel()
        else:
            self._kill(story, self.futures[task])

    def _kill(self, story: Story, future: ForkFuture[Any]) -> None:
        if future.done():  # `kill()` on a future that was cancelled says True, and says nothing about us
            return
        story.killed |= future.kill()

    def _wait_for_one(self) -> None:
        done, self._open = wait(self._open, return_when=FIRST_COMPLETED)
        for future in done:
            if self._dice.random() < 0.2:
                outcome_of_future(future)  # reading it early must not change it

    # --- map

    def _map(self) -> None:
        assert self._ex is not None
        names = self._dice.choices(_GENTLE, k=1)
        count = self._dice.choice([3, 20])
        stories = [self._story(names[0], b"", None) for _ in range(count)]
        for story in stories:
            story.own_future, story.watched = False, False
        function = partial(deeds.act_all, self._path, names[0])
        try:
            results = self._ex.map(
                function,
                [story.task for story in stories],
                chunksize=self._dice.choice([1, 1, 4]),
                buffersize=self._dice.choice([None, 2]),
            )
        except Exception as error:
            self._give_up(stories, error)
            return
        self._take_results(stories, results)

    def _give_up(self, stories: list[Story], error: Exception) -> None:
        """Nobody knows how many of them were accepted."""
        for story in stories:
            story.accepted = True
        if type(error).__name__ == "RuntimeError":
            self._closed = True

    def _take_results(self, stories: list[Story], results: Iterator[Any]) -> None:
        for story in stories:
            story.accepted = True
        stop_at = self._dice.choice([None, None, 2])
        for index, story in enumerate(stories):
            if index == stop_at:
                return
            try:
                value = next(results)
            except (Exception, CancelledError) as error:
                self._note_error_of_map(stories[index:], error)
                return
            story.outcome, story.watched = outcome_of_value(value, story.deed), True

    def _note_error_of_map(self, rest: list[Story], error: BaseException) -> None:
        """It is the first one's, or its chunk's: the accountant holds it against nobody. An internal error is always one."""
        if type(error).__name__ == "InternalError":
            rest[0].outcome, rest[0].watched = outcome_of(error), True


# --- what a future says


def outcome_of_future(future: Future[Any], deed: str = "nothing") -> Outcome:
    try:
        return outcome_of_value(future.result(0), deed)
    except BaseException as error:
        return outcome_of(error)


def outcome_of_value(value: Any, deed: str) -> Outcome:
    if deed == "big result" and isinstance(value, tuple) and value[1:] == (b"r" * 700_000,):
        value = value[0]
    return Outcome(value=value)


def outcome_of(error: BaseException) -> Outcome:
    if isinstance(error, TaskError):
        return Outcome(
            type(error).__name__,
            pid=error.pid,
            exitcode=error.exitcode,
            may_have_run=error.may_have_run,
            seconds=error.seconds,
            text=str(error)[:400],
        )
    text = str(error)[:400]
    if isinstance(error, ForkPoolError) and error.__cause__ is not None:
        text += f" cause: {error.__cause__!r}"
    return Outcome(type(error).__name__, text=text)
