"""End futures: with the answer that came, or with what is known of an answer that will not come.

Runs in: host, supervisor thread. No user code runs here: answers that are not plain data, and errors, are built by the first
caller who asks for them, callbacks run on their own thread.
Tests: tests/process/test_crash.py, tests/process/test_callbacks.py
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from .._core.states import Task, Verdict, Worker
from .._core.wire import PLAIN, Kind
from .._shared import clock
from .._unpickling import EncodedAnswer
from ..future import ForkFuture, Run
from .answers import decode_exception, decode_value
from .callbacks import CallbackRunner
from .late_ends import End, LateEnds
from .oom import OomWatch
from .retries import Failure, may_have_run, never_again, note, text_of, with_notes
from .tally import OF_VERDICT, Outcome, Tally
from .verdicts import CrashFacts, headline, result_error, task_error
from .worker_link import WorkerLink

_DECODERS: dict[int, tuple[Callable[[Any], Any], bool]] = {
    Kind.VALUE: (decode_value, False),
    Kind.EXCEPTION: (decode_exception, True),
    Kind.RESULT_ERROR: (result_error, True),
}
ANSWER_KINDS = frozenset(_DECODERS)
_WHY_NO_MORE = {
    Verdict.CANCELLED: "it is not tried again: the pool was told to stop",
    Verdict.POOL_BROKEN: "it is not tried again: the pool is broken",
}
_PATIENCE_S = 0.001  # arbitrary: far longer than a thread needs that was interrupted with the condition held


class Endings:
    """How a task's future learns its end. Owns the callback runner, and the list of those that could not be ended yet."""

    def __init__(self, pool_is_closing: Callable[[], bool], why_broken: Callable[[], BaseException], tally: Tally) -> None:
        self._tally = tally
        self._pool_is_closing = pool_is_closing
        self._why_broken = why_broken
        self._callbacks = CallbackRunner()
        self._late = LateEnds(self._try_end)
        self._oom: OomWatch | None = None  # from `begin` on

    def begin(self) -> None:
        """Call on the supervisor's thread before the first worker starts."""
        self._oom = OomWatch()
        self._oom.baseline()

    def on_time(self, now: float) -> None:
        """Call before tasks are sent."""
        if self._oom is not None:
            self._oom.look_if_due(now)
        if self._late.due is not None and self._late.due <= now:
            self._late.try_again(now)
        if self._callbacks.due is not None and self._callbacks.due <= now:
            self._callbacks.try_again(now)

    def next_times(self) -> tuple[float | None, float | None]:
        """When `on_time` is needed (monotonic seconds), unless they are None."""
        return self._late.due, self._callbacks.due

    def answer(self, task: Task, kind: int, flags: int, payload: bytes | bytearray) -> None:
        """The worker answered."""
        self._count(task.future, Outcome.DONE if kind == Kind.VALUE else Outcome.FAILED)
        if flags & PLAIN and kind == Kind.VALUE:
            self._plain(task.future, payload)
        else:
            decode, is_error = _DECODERS[kind]
            if task.attempt > 1 and is_error:
                decode = with_notes(task, decode)
            self._finish(task.future, encoded=EncodedAnswer(payload, decode, is_error))

    def without_answer(self, task: Task, worker: Worker | None, link: WorkerLink | None) -> None:
        """The task ends as its verdict says; `worker` and `link`, dead, held it if it was sent."""
        verdict, future = task.verdict, task.future
        assert verdict is not None
        if (verdict is Verdict.POOL_BROKEN or verdict is Verdict.CANCELLED) and not future._try_start():
            if future._is_refused():
                return  # it came as the pool ended, and `submit` said so
            verdict = Verdict.CANCELLED  # its user was quicker, and the pool broke before his word was heard
        if task.attempt > 1 and verdict in _WHY_NO_MORE and future._try_start():
            self._last_failure(task, _WHY_NO_MORE[verdict])
            return
        self._count(future, OF_VERDICT[verdict])
        if link is not None:
            future._run = _ended(link.find_run(task.seq))
        if verdict is Verdict.CANCELLED or verdict is Verdict.KILLED:
            self.cancelled(future)
        elif verdict is Verdict.POOL_BROKEN:
            self.error(future, lambda _: self._why_broken(), None)
        else:
            assert worker is not None
            assert link is not None
            facts = self._facts(task, worker, link, verdict)
            self._tally.busy[worker.slot] += facts.seconds
            self.error(future, with_notes(task, task_error), facts)

    def _last_failure(self, task: Task, why: str) -> None:
        """It waited to be tried again, and is not: then it ends as its last attempt did, for it has run."""
        failure, future = never_again(task, why), task.future
        self._count(future, failure.outcome)
        future._run, future._attempt = failure.run, future._attempt - 1
        self._finish(future, encoded=failure.ended)

    def answered_in_vain(self, task: Task, kind: int, payload: bytes | bytearray, run: Run | None) -> None:
        """This answer is not the last one: another attempt follows."""
        ended = EncodedAnswer(payload, *_DECODERS[kind])
        note(task, text_of(kind, payload, run), Failure(ended, Outcome.FAILED, run), "yes")

    def lost_in_vain(self, task: Task, worker: Worker, link: WorkerLink) -> None:
        """The worker, now dead, did not answer, and another attempt follows."""
        verdict = worker.doom or Verdict.CRASHED
        facts = self._facts(task, worker, link, verdict)
        self._tally.busy[worker.slot] += facts.seconds
        ended = EncodedAnswer(b"", lambda _: task_error(facts), True)
        failure = Failure(ended, OF_VERDICT[verdict], _ended(link.find_run(task.seq)))
        note(task, headline(facts), failure, facts.may_have_run)

    def error(self, future: ForkFuture[Any], make: Callable[[Any], BaseException], argument: Any) -> None:
        """End it with the error that `make(argument)` builds, when somebody asks for it."""
        self._finish(future, encoded=EncodedAnswer(b"", lambda _: make(argument), True))

    def cancelled(self, future: ForkFuture[Any]) -> None:
        """End it in `CancelledError`."""
        self._end(future, future._finish_cancelled)

    def _count(self, future: ForkFuture[Any], outcome: Outcome) -> None:
        self._tally.ended[outcome if future._claim_answer() else Outcome.CANCELLED] += 1

    def stop(self) -> None:
        """No future will be ended any more. Waits for those that could not be ended yet, so call it last."""
        self._late.finish()
        self._callbacks.stop()

    def any_is_held_here(self) -> bool:
        """Does the thread that asks hold the condition of a future that is still to be ended? It must not wait for `stop`."""
        return self._late.any_is_held_here()

    @property
    def threads(self) -> list[threading.Thread | None]:
        return [self._callbacks.side.thread]

    def join(self) -> None:
        """Wait until the callbacks have run. From another thread than the supervisor's, after `stop`."""
        self._callbacks.join()

    def _plain(self, future: ForkFuture[Any], payload: bytes | bytearray) -> None:
        try:
            value = decode_value(payload)
        except Exception as error:  # a worker that was tampered with
            self._finish(future, error=error)
        else:
            self._finish(future, value)

    def _finish(
        self,
        future: ForkFuture[Any],
        result: Any = None,
        error: BaseException | None = None,
        encoded: EncodedAnswer | None = None,
    ) -> None:
        self._end(future, partial(future._finish, result, error, encoded))

    def _end(self, future: ForkFuture[Any], end: End) -> None:
        if not self._try_end(future, end, _PATIENCE_S if self._late.due is None else 0):
            self._late.add(future, end)

    def _try_end(self, future: ForkFuture[Any], end: End, patience: float) -> bool:
        """False: a thread holds the future's condition, and may wait for us in a finalizer."""
        try:
            has_callbacks = end(patience=patience)
            if has_callbacks:
                self._callbacks.put(future)
            return has_callbacks is not None
        except MemoryError:  # the supervisor fails, and ends all that has not ended: this one may have, and nobody was told
            if future.done() and future._has_callbacks:
                self._callbacks.put(future)
            raise

    def _facts(self, task: Task, worker: Worker, link: WorkerLink, verdict: Verdict) -> CrashFacts:
        assert link.death is not None
        started = link.started_at(task.seq)
        group = worker.group if verdict is Verdict.GROUP_FULL else None
        by_signal_9 = link.death.status is not None and link.death.status & 0x7F == 9
        return CrashFacts(
            verdict=verdict,
            task_name=task.name,
            timeout=task.options.timeout,
            memory_limit=task.options.memory_limit if group is None else group.limit,
            memory_file=None if group is None else group.file,
            grown=worker.grown,
            pid=link.pid,
            slot=worker.slot,
            status=link.death.status,
            peak_rss=link.death.peak_rss,
            seconds=0.0 if started is None else max(0.0, clock.now() - started),
            may_have_run=may_have_run(task, link.may_have_run(task.seq)),
            traceback=link.crash_traceback(),
            oom_hint=self._oom.hint(worker.head_since if started is None else started)
            if self._oom is not None and by_signal_9 and worker.doom is None and link.note is None
            else None,
            # Else the end that we saw coming was its own.
            note=link.note if by_signal_9 or link.has_hung_up or link.was_left_alone else None,
            pool_usable=not self._pool_is_closing(),
        )


def _ended(run: Run | None) -> Run | None:
    """It ends now."""
    return None if run is None else (run[0], run[1], max(0.0, clock.now() - run[1] / 1e9))
