"""The soak's accountant finds what is wrong: it is given false histories, and true ones that look odd.

Runs in: pytest; no process is started.
"""

from dataclasses import replace

import pytest

from tests.chaos.accountant import audit
from tests.chaos.history import Act, Harm, History, Outcome, Story
from tests.chaos.marks import Mark, Stage
from tests.chaos.report import Violation, tell

PID, OTHER = 100, 200
RESULT = Outcome(value=(1, PID, 0))
CRASH = Outcome("WorkerCrashedError", pid=PID, exitcode=-9, may_have_run="maybe")
TIMEOUT = Outcome("TaskTimeoutError", pid=PID, exitcode=-9, may_have_run="maybe", seconds=0.5)
CANCELLED = Outcome("CancelledError")


def story(outcome: Outcome | None, deed: str = "nothing", **more: object) -> Story:
    made = Story(1, deed, accepted=True, outcome=outcome, submitted=1.0, done=[9.0])
    for name, value in more.items():
        assert hasattr(made, name)
        setattr(made, name, value)
    return made


def mark(stage: Stage, time: float = 2.0, *, task: int = 1, pid: int = PID, slot: int = 0, attempt: int = 1) -> Mark:
    return Mark(task, pid, slot, attempt, stage, time)


NOT_IMPORTED = Outcome("OSError", text="[Errno 24] Too many open files: '/x/deeds.py'")
BEGIN, END = mark(Stage.BEGIN, 2.0), mark(Stage.END, 3.0)
SECOND = mark(Stage.BEGIN, 2.0, attempt=2)
KILL = Act(2.5, Harm.KILL, PID)


def history(one: Story, marks: list[Mark], *acts: Act, **more: object) -> History:
    return replace(History({1: one}, sorted(marks, key=lambda mark: mark.time), list(acts)), **more)  # type: ignore[arg-type]


def rules(of: History) -> set[str]:
    return {violation.rule for violation in audit(of)}


TRUE = {
    "a result": (story(RESULT), [BEGIN, END]),
    "a crash of its own": (story(CRASH, "kill myself"), [BEGIN]),
    "exit code unknown": (story(replace(CRASH, exitcode=None), "segfault"), [BEGIN]),
    "killed from outside": (story(CRASH), [BEGIN], KILL),
    "killed from outside after its end": (story(CRASH), [BEGIN, END], KILL),
    "killed before the first mark": (story(CRASH), [], KILL),
    "stopped with the pool": (story(CRASH), [BEGIN], Act(2.5, Harm.TERMINATE)),
    "timed out": (story(TIMEOUT, "hang", timeout=0.5), [BEGIN]),
    "cancelled": (story(CANCELLED, cancelled=True), []),
    "killed by its user": (story(CANCELLED, "hang", killed=True), [BEGIN]),
    "cancelled while it ran, as asked": (story(CANCELLED, "hang", cancelled=True, cancel_running=True), [BEGIN]),
    "cancelled with the pool": (story(CANCELLED), [], Act(2.5, Harm.CLOSE_CANCELLING)),
    "Ctrl-C": (story(CANCELLED), [BEGIN], Act(2.5, Harm.ABORT)),
    "raised": (story(Outcome("ValueError"), "raise"), [BEGIN, END]),
    "raised while loading": (story(Outcome("LookupError"), "argument raises"), []),
    "a crash while loading": (story(replace(CRASH, exitcode=3, may_have_run="no"), "argument crashes"), []),
    "a crash while pickling": (story(replace(CRASH, exitcode=3, may_have_run="yes"), "result crashes"), [BEGIN, END]),
    "refused": (story(Outcome("SerializationError"), "a lock as argument"), []),
    "after shutdown": (story(Outcome("RuntimeError"), accepted=False), [], Act(0.5, Harm.CLOSE)),
    "a stray child": (story(RESULT), [BEGIN, mark(Stage.STRAY, 2.5, pid=OTHER), END]),
    "no file for its module": (story(NOT_IMPORTED), [], Act(0.5, Harm.SHORTAGE)),
    "an item nobody saw": (story(None, watched=False, own_future=False, done=[]), []),
    "a second attempt": (story(RESULT, attempts=2), [mark(Stage.BEGIN, 1.5, pid=OTHER), SECOND, END]),
    "a second attempt that left no mark": (
        story(replace(CRASH, pid=OTHER), attempts=2),
        [BEGIN],
        KILL,
        Act(3.0, Harm.KILL, OTHER),
    ),
    "cancelled between two attempts": (story(CANCELLED, cancelled=True, attempts=2), [BEGIN], KILL),
    "each attempt crashes": (story(CRASH, "kill myself", attempts=2), [mark(Stage.BEGIN, 1.5, pid=OTHER), SECOND]),
}


@pytest.mark.parametrize("what", TRUE.values(), ids=TRUE.keys())
def test_what_is_right_is_not_held_against_anybody(what: tuple[Story, list[Mark], *tuple[Act, ...]]) -> None:
    assert audit(history(*what)) == []


FALSE = {
    "no outcome": ("no outcome", story(None, done=[]), []),
    "no callback": ("callbacks", story(RESULT, done=[]), [BEGIN, END]),
    "two callbacks": ("callbacks", story(RESULT, done=[8.0, 9.0]), [BEGIN, END]),
    "ran twice": ("ran twice", story(RESULT), [BEGIN, END, mark(Stage.BEGIN, 4.0, pid=OTHER)]),
    "more attempts than allowed": (
        "ran twice",
        story(RESULT, attempts=2),
        [mark(Stage.BEGIN, 1.1, pid=1), mark(Stage.BEGIN, 1.2, pid=2, attempt=2), mark(Stage.BEGIN, 2.0, attempt=3), END],
    ),
    "the same attempt twice": ("ran twice", story(RESULT, attempts=2), [mark(Stage.BEGIN, 1.1, pid=1), BEGIN, END]),
    "attempts left": ("retries", story(CRASH, "kill myself", attempts=3), [mark(Stage.BEGIN, 1.1, pid=1), SECOND]),
    "ended twice": ("ran twice", story(RESULT), [BEGIN, END, mark(Stage.END, 4.0)]),
    "a result of what never ran": ("result", story(RESULT), []),
    "somebody else's result": ("result", story(Outcome(value=(2, PID, 0))), [BEGIN, END]),
    "a stray child's result": ("result", story(Outcome(value=(1, OTHER, 0))), [BEGIN, END]),
    "a damaged argument": ("result", story(RESULT, filler=7), [BEGIN, END]),
    "a result of what crashes": ("result", story(RESULT, "segfault"), [BEGIN, END]),
    "an exception that it does not raise": ("exception", story(Outcome("KeyError")), [BEGIN, END]),
    "an exception without marks": ("exception", story(Outcome("ValueError"), "raise"), []),
    "no file, and nobody took one away": ("exception", story(NOT_IMPORTED), []),
    "no file for its module, and it began": ("exception", story(NOT_IMPORTED), [BEGIN], Act(0.5, Harm.SHORTAGE)),
    "a crash without a cause": ("blame", story(CRASH), [BEGIN]),
    "a crash of another worker's death": ("blame", story(CRASH), [BEGIN], Act(2.5, Harm.KILL, OTHER)),
    "a crash before its cause": ("blame", story(CRASH), [BEGIN], Act(9.5, Harm.KILL, PID)),
    "another signal than its own": ("blame", story(replace(CRASH, exitcode=-15), "segfault"), [BEGIN]),
    "its own crash, and it never began": ("blame", story(CRASH, "kill myself"), []),
    "another worker is named": ("pid", story(replace(CRASH, pid=OTHER), "kill myself"), [BEGIN]),
    "it says no, and it ran": ("may_have_run", story(replace(CRASH, may_have_run="no")), [BEGIN], KILL),
    "it says yes, and it had not returned": ("may_have_run", story(replace(CRASH, may_have_run="yes")), [BEGIN], KILL),
    "a timeout nobody set": ("timeout", story(TIMEOUT), [BEGIN]),
    "a timeout too early": ("timeout", story(TIMEOUT, "hang", timeout=0.6), [BEGIN]),
    "a timeout of another worker": ("pid", story(replace(TIMEOUT, pid=OTHER), "hang", timeout=0.5), [BEGIN]),
    "cancelled by nobody": ("cancelled", story(CANCELLED), []),
    "cancelled with the pool while it ran": ("cancelled", story(CANCELLED), [BEGIN], Act(2.5, Harm.CLOSE_CANCELLING)),
    "cancel() lied": ("cancel lied", story(RESULT, cancelled=True), [BEGIN, END]),
    "cancelled, and it began": ("cancel lied", story(CANCELLED, cancelled=True), [BEGIN]),
    "kill() lied": ("cancel lied", story(RESULT, killed=True), [BEGIN, END]),
    "a pool that breaks for nothing": ("broken", story(Outcome("PoolBrokenError")), []),
    "an internal error": ("internal", story(Outcome("InternalError")), []),
    "refused for nothing": ("submit", story(Outcome("RuntimeError"), accepted=False), []),
    "refused, and it ran": ("ran", story(Outcome("RuntimeError"), accepted=False), [BEGIN], Act(0.5, Harm.CLOSE)),
    "ran with what cannot be pickled": ("result", story(RESULT, "a lock as argument"), [BEGIN, END]),
    "refused, and it began": ("ran", story(Outcome("SerializationError"), "a lock as argument"), [BEGIN]),
    "began with an argument that cannot be loaded": ("ran", story(Outcome("LookupError"), "argument raises"), [BEGIN]),
    "a worker did not end it, and it has a result": ("lost", story(RESULT), [BEGIN, mark(Stage.END, 3.0, pid=OTHER)]),
}


@pytest.mark.parametrize("what", FALSE.values(), ids=FALSE.keys())
def test_each_broken_promise_of_one_task_is_found(what: tuple[str, Story, list[Mark], *tuple[Act, ...]]) -> None:
    rule, *false = what
    assert rule in rules(history(*false))


def test_one_worker_that_takes_two_futures_with_it() -> None:
    second = replace(story(CRASH, "kill myself"), task=2)
    false = history(story(CRASH, "kill myself"), [BEGIN, mark(Stage.BEGIN, 2.1, task=2)])
    false.stories[2] = second
    assert {"one crash, one future", "one at a time"} <= rules(false)


def test_two_workers_on_one_slot() -> None:
    second = replace(story(Outcome(value=(2, OTHER, 0))), task=2)
    marks = [mark(Stage.BEGIN, 2.5, task=2, pid=OTHER), mark(Stage.END, 3.5, task=2, pid=OTHER)]
    false = history(story(RESULT), [BEGIN, END, *marks])
    false.stories[2] = second
    assert rules(false) == {"one worker a slot"}


def test_what_is_left_and_said_and_not_known() -> None:
    assert rules(history(story(RESULT), [BEGIN, END], left=["fd 7"])) == {"left behind"}
    assert rules(history(story(RESULT), [BEGIN, END], said=["forkpool's supervisor failed"])) == {"said"}
    assert "unknown task" in rules(history(story(RESULT), [BEGIN, END, mark(Stage.STRAY, task=9)]))


COUNTS = {"done": 1, "failed": 0, "crashed": 0, "cancelled": 0, "timed_out": 0, "queued": 0, "running": 0}


@pytest.mark.parametrize("wrong", [{}, {"done": 0}, {"done": 2}, {"failed": 1}, {"queued": 1}, {"running": 1}])
def test_statistics_that_are_wrong(wrong: dict[str, int]) -> None:
    assert rules(history(story(RESULT), [BEGIN, END], counts={**COUNTS, **wrong})) == ({"statistics"} if wrong else set())


def test_the_report_tells_of_the_task_and_of_its_worker() -> None:
    before = mark(Stage.BEGIN, 1.5, task=7)
    text = tell(Violation("blame", "why?", 1, PID), history(story(CRASH), [before, BEGIN], KILL, Act(2.0, Harm.KILL, OTHER)))
    assert "blame: why?" in text
    assert "task 7" in text
    assert str(KILL) in text
    assert str(OTHER) not in text
