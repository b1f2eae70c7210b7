"""Hold what the futures say against the marks and against what was done: each task has one end, and the right one.

Runs in: the soak's process, after a round. Pure: a history goes in, violations come out.
Hard part: much is possible when workers are killed from outside at any moment, so each rule says what *explains* an end, and
an end without an explanation is a violation. Acts are noted before they are done, callbacks after the future ended: an
explanation is never missed for the order of the clock.
Tests: tests/unit/test_chaos_accountant.py
"""

from __future__ import annotations

import errno
from collections import defaultdict
from collections.abc import Callable, Iterator

from .deeds import DEEDS, Deed, End
from .history import Harm, History, Outcome, Story
from .marks import Mark, Stage
from .report import Violation
from .workers import of_counts, of_workers

CLOCK_SLACK_S = 0.002  # the status page has the start in whole microseconds, and is written before the mark
_STOPS_ALL = {Harm.TERMINATE, Harm.KILL_ALL, Harm.ABORT}
_CANCELS_QUEUED = _STOPS_ALL | {Harm.CLOSE_CANCELLING}
_CLOSES = _CANCELS_QUEUED | {Harm.CLOSE}
_ENDS_WITHOUT_BEGIN = {End.LOAD_RAISES, End.LOAD_CRASHES, End.REFUSED}
_RAISES = {End.REFUSED, End.RAISES, End.LOAD_RAISES, End.RESULT_RAISES, End.RESULT_REFUSED}


class Case:
    """One task, with what is known of it."""

    def __init__(self, story: Story, marks: list[Mark], history: History) -> None:
        self.story = story
        self.deed: Deed = DEEDS[story.deed]
        self.begins = [mark for mark in marks if mark.stage is Stage.BEGIN]
        self.ends = [mark for mark in marks if mark.stage is Stage.END]
        self.outcome = story.outcome
        self._history = history

    @property
    def done_at(self) -> float:
        """When it had ended at the latest."""
        return self.story.done[-1] if self.story.done else float("inf")

    def happened(self, *harms: Harm, pid: int | None = None) -> bool:
        """Was this done (to that worker), before the task had ended?"""
        return any(act.harm in harms and pid in (None, act.pid) and act.time <= self.done_at for act in self._history.acts)

    @property
    def was_retried(self) -> bool:
        """It may have waited for another attempt after it had begun."""
        return self.story.attempts > 1

    @property
    def last_begin(self) -> Mark | None:
        """The mark of the attempt that its end is about, if that one left a mark."""
        if not self.begins or len(self.begins) < self.story.attempts > 1:
            return None  # the last attempt may have died before its mark
        return self.begins[-1]

    @property
    def may_break(self) -> bool:
        return self._history.may_break

    def wrong(self, rule: str, text: str) -> Violation:
        pid = self.outcome.pid if self.outcome is not None and self.outcome.pid else 0
        if not pid and self.begins:
            pid = self.begins[-1].pid
        return Violation(rule, text, self.story.task, pid)


def audit(history: History) -> list[Violation]:
    """Everything that is wrong."""
    marks: defaultdict[int, list[Mark]] = defaultdict(list)
    for mark in history.marks:
        marks[mark.task].append(mark)
    found: list[Violation] = []
    for story in history.stories.values():
        found += _of_one(Case(story, marks[story.task], history))
    found += of_workers(history)
    found += of_counts(history)
    found += [Violation("left behind", text) for text in history.left]
    found += [Violation("said", text) for text in history.said]
    found += [Violation("unknown task", f"mark {mark}") for mark in history.marks if mark.task not in history.stories]
    return found


# --- one task


def _of_one(case: Case) -> Iterator[Violation]:
    yield from _runs_once(case)
    if not case.story.accepted:
        yield from _not_accepted(case)
    elif case.outcome is None:
        if case.story.watched:
            yield case.wrong("no outcome", "its future is not done")
    else:
        yield from _ends_once(case)
        yield from _promises_kept(case)
        yield from _JUDGES.get(case.outcome.error or "", _judge_own_error)(case)


def _runs_once(case: Case) -> Iterator[Violation]:
    if len(case.begins) > case.story.attempts:
        yield case.wrong("ran twice", f"it began {len(case.begins)} times, {case.story.attempts} allowed")
    attempts = [mark.attempt for mark in case.begins]
    if attempts != sorted(set(attempts)):
        yield case.wrong("ran twice", f"its attempts were {attempts}")
    if len(case.ends) > min(case.story.attempts, len(case.begins)):
        yield case.wrong("ran twice", f"it ended {len(case.ends)} times and began {len(case.begins)} times")
    if case.begins and case.deed.end in _ENDS_WITHOUT_BEGIN:
        yield case.wrong("ran", f"it cannot have begun: {case.deed.end.value}")


def _not_accepted(case: Case) -> Iterator[Violation]:
    error = "" if case.outcome is None else case.outcome.error or ""
    if case.begins:
        yield case.wrong("ran", f"submit raised {error}, and it began")
    allowed = {
        "RuntimeError": case.happened(*_CLOSES),
        "OSError": case.happened(Harm.SHORTAGE),
        "PoolBrokenError": case.may_break,
        "InitializerError": case.may_break,
    }
    if not allowed.get(error, False):
        yield case.wrong("submit", f"submit raised {error} without a reason: {case.outcome}")


def _ends_once(case: Case) -> Iterator[Violation]:
    if case.story.own_future and len(case.story.done) != 1:
        yield case.wrong("callbacks", f"its done-callback was called {len(case.story.done)} times")


def _promises_kept(case: Case) -> Iterator[Violation]:
    """What `cancel()` and `kill()` said."""
    cancelled = case.outcome is not None and case.outcome.error == "CancelledError"
    if (case.story.cancelled or case.story.killed) and not cancelled:
        yield case.wrong("cancel lied", f"cancel() or kill() returned True, and it ended so: {case.outcome}")
    if case.story.cancelled and case.begins and not (case.story.cancel_running or case.was_retried):
        yield case.wrong("cancel lied", "cancel() returned True, and it began")


def _judge_result(case: Case) -> Iterator[Violation]:
    assert case.outcome is not None
    if case.deed.end not in (End.RESULT, End.HOSTILE):
        yield case.wrong("result", f"it returned, and should end so: {case.deed.end.value}")
    elif not case.ends or (len(case.ends) > 1 and not case.was_retried):
        yield case.wrong("result", f"it returned, and left {len(case.begins)} marks of a begin, {len(case.ends)} of an end")
    elif case.outcome.value != (case.story.task, case.ends[-1].pid, case.story.filler):
        yield case.wrong("result", f"it returned {case.outcome.value}, marks by pid {case.ends[-1].pid}")


def _judge_own_error(case: Case) -> Iterator[Violation]:
    """What the task itself raised."""
    assert case.outcome is not None
    if _not_imported(case, case.outcome):
        return
    if case.deed.end not in _RAISES or case.deed.detail != case.outcome.error:
        yield case.wrong("exception", f"{case.outcome} is not how it may end: {case.deed.end.value}")
    elif case.deed.end not in _ENDS_WITHOUT_BEGIN and not (case.begins and case.ends):
        yield case.wrong("exception", "it raised, and there are no marks of a begin and an end")


def _not_imported(case: Case, outcome: Outcome) -> bool:
    """Its worker inherited a limit that allowed it no file, so it could not open the module of the task."""
    no_file = outcome.error == "OSError" and f"[Errno {errno.EMFILE}]" in outcome.text and ".py" in outcome.text
    return no_file and not case.begins and case.happened(Harm.SHORTAGE)


def _judge_cancelled(case: Case) -> Iterator[Violation]:
    if not (case.story.cancelled or case.story.killed or case.happened(*_CANCELS_QUEUED)):
        yield case.wrong("cancelled", "nobody cancelled it, killed it or stopped the pool")
    elif case.begins and not (case.story.killed or case.story.cancelled or case.happened(Harm.ABORT)):
        yield case.wrong("cancelled", "it began, and only what had not begun was cancelled")


def _judge_timeout(case: Case) -> Iterator[Violation]:
    assert case.outcome is not None
    timeout = case.story.timeout
    if timeout is None:
        yield case.wrong("timeout", "it had no timeout")
        return
    yield from _same_pid(case)
    if case.outcome.seconds < timeout - CLOCK_SLACK_S:
        yield case.wrong("timeout", f"stopped after {case.outcome.seconds} s, before its {timeout} s")
    if case.done_at - case.story.submitted < timeout:
        yield case.wrong("timeout", f"ended {case.done_at - case.story.submitted} s after its submit, before its {timeout} s")


def _judge_broken(case: Case) -> Iterator[Violation]:
    if not case.may_break:
        yield case.wrong("broken", f"nothing broke the pool: {case.outcome}")
    if case.begins:
        yield case.wrong("broken", "it began, and its error says that it did not run")


def _judge_internal(case: Case) -> Iterator[Violation]:
    yield case.wrong("internal", f"{case.outcome}")


def _judge_crash(case: Case) -> Iterator[Violation]:
    assert case.outcome is not None
    yield from _same_pid(case)
    if not _is_explained(case, case.outcome):
        yield case.wrong("blame", f"nothing explains this crash: {case.outcome}")
    if _gave_up(case, case.outcome):
        yield case.wrong("retries", f"{case.story.attempts} attempts were allowed, and it began {len(case.begins)} times")
    may = case.outcome.may_have_run
    if may == "no" and case.last_begin is not None:
        yield case.wrong("may_have_run", "it says no, and it began")
    if may == "yes" and not case.ends:
        yield case.wrong("may_have_run", "it says that the task had returned, and there is no mark of its end")


def _gave_up(case: Case, outcome: Outcome) -> bool:
    """It crashes each time, and was not run as often as its user allowed, though nobody else had a hand in it."""
    interfered = case.may_break or case.happened(Harm.KILL, *_CLOSES)
    return case.deed.end is End.CRASHES and not interfered and len(case.begins) != case.story.attempts


def _same_pid(case: Case) -> Iterator[Violation]:
    assert case.outcome is not None
    begin = case.last_begin
    if begin is not None and begin.pid != case.outcome.pid:
        yield case.wrong("pid", f"the error names pid {case.outcome.pid}, the mark is of pid {begin.pid}")


def _is_explained(case: Case, outcome: Outcome) -> bool:
    if case.happened(Harm.KILL, pid=outcome.pid) or case.happened(*_STOPS_ALL):
        return True
    end = case.deed.end
    if end is End.HOSTILE:
        return bool(case.begins)
    marks_fit = {
        End.CRASHES: bool(case.begins) and not case.ends,
        End.LOAD_CRASHES: outcome.may_have_run == "no",
        End.RESULT_CRASHES: bool(case.ends) and outcome.may_have_run == "yes",
    }.get(end, False)
    return marks_fit and (outcome.exitcode is None or _name_of_exit(outcome.exitcode) == case.deed.detail)


def _name_of_exit(exitcode: int) -> str:
    import signal

    return f"exit {exitcode}" if exitcode >= 0 else signal.Signals(-exitcode).name


_JUDGES: dict[str, Callable[[Case], Iterator[Violation]]] = {
    "": _judge_result,
    "CancelledError": _judge_cancelled,
    "TaskTimeoutError": _judge_timeout,
    "WorkerCrashedError": _judge_crash,
    "PoolBrokenError": _judge_broken,
    "InitializerError": _judge_broken,
    "InternalError": _judge_internal,
}
