"""Hold what the futures say against the marks and against what was done: each task has one end, and the right one.

Runs in: the soak's process, after a round. Pure: a history goes in, violations come out.
Hard part: much is possible when workers are killed from outside at any moment, so each rule says what *explains* an end, and
an end without an explanation is a violation. Acts are noted before they are done, callbacks after the future ended: an
explanation is never missed for the order of the clock.
Tests: tests/unit/test_chaos_accountant.py
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .deeds import DEEDS, Deed, End
from .history import Act, Harm, History, Outcome, Story
from .marks import Mark, Stage

CLOCK_SLACK_S = 0.002  # the status page has the start in whole microseconds, and is written before the mark
_STOPS_ALL = {Harm.TERMINATE, Harm.KILL_ALL, Harm.ABORT}
_TO_ONE_WORKER = {Harm.KILL, Harm.STOP, Harm.CONTINUE, Harm.ASK_TO_END}
_CANCELS_QUEUED = _STOPS_ALL | {Harm.CLOSE_CANCELLING}
_CLOSES = _CANCELS_QUEUED | {Harm.CLOSE}
_ENDS_WITHOUT_BEGIN = {End.LOAD_RAISES, End.LOAD_CRASHES, End.REFUSED}
_RAISES = {End.RAISES, End.LOAD_RAISES, End.RESULT_RAISES, End.RESULT_REFUSED}


@dataclass(frozen=True)
class Violation:
    """A promise that was not kept. `task` 0: none in particular; `pid` 0 likewise."""

    rule: str
    text: str
    task: int = 0
    pid: int = 0

    def __str__(self) -> str:
        return f"{self.rule}: {self.text}"


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
    found += _of_workers(history)
    found += _of_counts(history)
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
    if len(case.ends) > 1 or len(case.ends) > len(case.begins):
        yield case.wrong("ran twice", f"it ended {len(case.ends)} times and began {len(case.begins)} times")
    if case.begins and case.deed.end in _ENDS_WITHOUT_BEGIN:
        yield case.wrong("ran", f"it cannot have begun: {case.deed.end.value}")


def _not_accepted(case: Case) -> Iterator[Violation]:
    error = "" if case.outcome is None else case.outcome.error or ""
    if case.begins:
        yield case.wrong("ran", f"submit raised {error}, and it began")
    allowed = {
        "SerializationError": case.deed.end is End.REFUSED,
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
    if case.deed.end is End.REFUSED:
        yield case.wrong("submit", "a call that cannot be pickled was accepted")


def _promises_kept(case: Case) -> Iterator[Violation]:
    """What `cancel()` and `kill()` said."""
    cancelled = case.outcome is not None and case.outcome.error == "CancelledError"
    if (case.story.cancelled or case.story.killed) and not cancelled:
        yield case.wrong("cancel lied", f"cancel() or kill() returned True, and it ended so: {case.outcome}")
    if case.story.cancelled and case.begins and not case.story.cancel_running:
        yield case.wrong("cancel lied", "cancel() returned True, and it began")


def _judge_result(case: Case) -> Iterator[Violation]:
    assert case.outcome is not None
    if case.deed.end not in (End.RESULT, End.HOSTILE):
        yield case.wrong("result", f"it returned, and should end so: {case.deed.end.value}")
    elif len(case.begins) < 1 or len(case.ends) != 1:
        yield case.wrong("result", f"it returned, and left {len(case.begins)} marks of a begin, {len(case.ends)} of an end")
    elif case.outcome.value != (case.story.task, case.ends[0].pid, case.story.filler):
        yield case.wrong("result", f"it returned {case.outcome.value}, marks by pid {case.ends[0].pid}")


def _judge_own_error(case: Case) -> Iterator[Violation]:
    """What the task itself raised."""
    assert case.outcome is not None
    if case.deed.end not in _RAISES or case.deed.detail != case.outcome.error:
        yield case.wrong("exception", f"{case.outcome} is not how it may end: {case.deed.end.value}")
    elif case.deed.end is not End.LOAD_RAISES and not (case.begins and case.ends):
        yield case.wrong("exception", "it raised, and there are no marks of a begin and an end")


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
    may = case.outcome.may_have_run
    if may == "no" and case.begins:
        yield case.wrong("may_have_run", "it says no, and it began")
    if may == "yes" and not case.ends:
        yield case.wrong("may_have_run", "it says that the task had returned, and there is no mark of its end")


def _same_pid(case: Case) -> Iterator[Violation]:
    assert case.outcome is not None
    if case.begins and case.begins[-1].pid != case.outcome.pid:
        yield case.wrong("pid", f"the error names pid {case.outcome.pid}, the mark is of pid {case.begins[-1].pid}")


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


# --- one worker


def _of_workers(history: History) -> Iterator[Violation]:
    yield from _one_crash_one_future(history)
    yield from _one_task_at_a_time(history)
    yield from _one_worker_a_slot(history)


def _one_crash_one_future(history: History) -> Iterator[Violation]:
    blamed: defaultdict[int, list[int]] = defaultdict(list)
    for story in history.stories.values():
        if story.own_future and story.outcome is not None and story.outcome.error in ("WorkerCrashedError", "TaskTimeoutError"):
            blamed[story.outcome.pid].append(story.task)
    for pid, tasks in blamed.items():
        if len(tasks) > 1:
            yield Violation("one crash, one future", f"worker {pid} took tasks {tasks} with it", tasks[1], pid)


def _one_task_at_a_time(history: History) -> Iterator[Violation]:
    """The marks of one worker alternate: begin, end, begin, end ...; only its last task may lack the end."""
    inside: dict[int, int] = {}  # task by pid
    for mark in history.marks:
        if mark.stage is Stage.BEGIN:
            if mark.pid in inside:
                text = f"worker {mark.pid} began {mark.task} before {inside[mark.pid]} had ended"
                yield Violation("one at a time", text, mark.task, mark.pid)
            inside[mark.pid] = mark.task
        elif mark.stage is Stage.END and inside.pop(mark.pid, None) != mark.task:
            yield Violation(
                "one at a time", f"worker {mark.pid} ended {mark.task}, which it had not begun", mark.task, mark.pid
            )
    for pid, task in inside.items():
        yield from _was_lost(history, pid, task)


def _was_lost(history: History, pid: int, task: int) -> Iterator[Violation]:
    """A task that a worker began and did not end has an end that says so."""
    story = history.stories.get(task)
    if story is None or not story.watched or story.outcome is None or story.attempts > 1:
        return
    if story.outcome.error not in ("WorkerCrashedError", "TaskTimeoutError", "CancelledError"):
        yield Violation("lost", f"worker {pid} never ended it, and its outcome is {story.outcome}", task, pid)


def _one_worker_a_slot(history: History) -> Iterator[Violation]:
    """No two tasks that surely run at the same time have the same slot."""
    inside: dict[int, Mark] = {}  # by slot; what ended, by mark or by its worker's death, is not in it
    ends = {(mark.task, mark.pid) for mark in history.marks if mark.stage is Stage.END}
    for mark in history.marks:
        if (mark.task, mark.pid) not in ends or mark.stage is Stage.STRAY:
            continue
        if mark.stage is Stage.END:
            inside.pop(mark.slot, None)
        elif mark.slot in inside:
            text = f"tasks {inside[mark.slot].task} and {mark.task} ran at the same time on slot {mark.slot}"
            yield Violation("one worker a slot", text, mark.task, mark.pid)
        else:
            inside[mark.slot] = mark


# --- the pool


def _of_counts(history: History) -> Iterator[Violation]:
    """`statistics()` counts each call once, and as it ended."""
    if not history.counts:
        return
    own = [story for story in history.stories.values() if story.own_future and story.accepted and story.outcome is not None]
    others = any(not story.own_future for story in history.stories.values())
    counted = dict.fromkeys(("done", "failed", "crashed", "cancelled", "timed_out"), 0)
    for story in own:
        assert story.outcome is not None
        counted[_column(story.outcome, DEEDS[story.deed])] += 1
    for name, count in counted.items():
        told = history.counts.get(name, 0)
        if told < count or (told > count and not others):
            yield Violation("statistics", f"{name}: {told} told, {count} counted")
    for name in ("queued", "running"):
        if history.counts.get(name, 0):
            yield Violation("statistics", f"{name}: {history.counts[name]} after the end")


def _column(outcome: Outcome, deed: Deed) -> str:
    if outcome.error is None or (deed.end is End.RESULT_RAISES and outcome.error == deed.detail):
        return "done"
    return {"WorkerCrashedError": "crashed", "CancelledError": "cancelled", "TaskTimeoutError": "timed_out"}.get(
        outcome.error, "failed"
    )


def tell(violation: Violation, history: History) -> str:
    """The violation with the history of its task and of its worker."""
    lines = [f"VIOLATION {violation}"]
    story = history.stories.get(violation.task)
    if story is not None:
        lines.append(f"  {story}")
    pids = {mark.pid for mark in history.marks if mark.task == violation.task} | {violation.pid}
    pids.discard(0)
    lines += [f"  task's mark {_line(mark)}" for mark in history.marks if mark.task == violation.task]
    near = [mark for mark in history.marks if mark.pid in pids]
    lines += [f"  worker's mark {_line(mark)} {_deed(history, mark)}" for mark in near[-12:]]
    lines += [f"  {act}" for act in history.acts if act.pid in pids or _is_near(act, story)]
    return "\n".join(lines)


def _is_near(act: Act, story: Story | None) -> bool:
    """Was it done while the task was there, and not to one worker?"""
    if story is None or act.harm in _TO_ONE_WORKER:
        return False
    return story.submitted - 0.5 < act.time < (story.done[-1] + 0.5 if story.done else float("inf"))


def _deed(history: History, mark: Mark) -> str:
    story = history.stories.get(mark.task)
    return "" if story is None else f"{story.deed}: {'-' if story.outcome is None else story.outcome.error or 'result'}"


def _line(mark: Mark) -> str:
    return f"{mark.time:.6f} {mark.stage.name} task {mark.task} pid {mark.pid} slot {mark.slot} attempt {mark.attempt}"
