"""What is told of a violation: the history of its task and of its worker.

Runs in: the soak's process.
"""

from __future__ import annotations

from dataclasses import dataclass

from .history import Act, Harm, History, Story
from .marks import Mark

_TO_ONE_WORKER = {Harm.KILL, Harm.STOP, Harm.CONTINUE, Harm.ASK_TO_END}


@dataclass(frozen=True)
class Violation:
    """A promise that was not kept. `task` 0: none in particular; `pid` 0 likewise."""

    rule: str
    text: str
    task: int = 0
    pid: int = 0

    def __str__(self) -> str:
        return f"{self.rule}: {self.text}"


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
