"""The rules about workers and about the pool as a whole. See `accountant`, which has those about one task.

Runs in: the soak's process, after a round. Pure.
Tests: tests/unit/test_chaos_accountant.py
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from .deeds import DEEDS, Deed, End
from .history import History, Outcome
from .marks import Mark, Stage
from .report import Violation


def of_workers(history: History) -> Iterator[Violation]:
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


def of_counts(history: History) -> Iterator[Violation]:
    """`statistics()` counts each call once, and as it ended."""
    if not history.counts:
        return
    own = [story for story in history.stories.values() if story.own_future and story.accepted and story.outcome is not None]
    others = any(not story.own_future for story in history.stories.values())
    counted = dict.fromkeys(("done", "failed", "crashed", "cancelled", "timed_out", "over_memory"), 0)
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
