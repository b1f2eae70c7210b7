"""Find the calls that a worker will never take: somebody else in it has read them out of its task pipe.

Runs in: host, supervisor thread. Reads pipes and status pages, tells the core what is lost, hangs up on workers or kills
them; owns nothing.
A task may read descriptors that are not its own, and so may a thread or a child that it left. A packet that it reads is gone:
no answer comes and nobody dies, so the future would wait for ever. A clock says when to look, never what is lost.
So it would if a task put another file in place of the worker's end of the pipe. Such a worker is killed, and all that it was
sent is still there. And so it would if the task's answer went to such a file: then the task is to blame. (A worker looks for
itself when a task took so long that nobody looks here any more.)

Hard part: a worker that has read a packet and not noted it yet looks like one that was robbed. What is certain:
- An answer proves that what was sent before was answered or lost: the worker takes one after the other, and the answer's stamp
  counts the bytes of all answers before it (`on_skipped`).
- The pipe is empty, and after that the page names a task that is at work: the worker had not come to those behind it.
- The page names a task, and all answers that the worker told of are here: those before it are lost.
- The page says that the answer was written, or names a later task that has not come to its answer, and not all that was told of
  by then is here: the rest went elsewhere.
- Else the worker has ended, or begun to: its death will tell what it took.
- Else the worker is about to read, or to note what it read. If its main thread runs, or waits for a CPU or a disk, it will.
- Else we hang up: the end of a file is what nobody can steal. A worker that waits leaves, and its page tells what it took
  (`never_took`); one that was merely slow does that task, and leaves then.
Tests: tests/process/test_stolen_packets.py, tests/unit/test_machine_losses.py
"""

from __future__ import annotations

from collections.abc import Callable

from .._core.machine import PoolMachine
from .._core.states import Worker
from .._shared import clock
from .._shared.status_page import Stage
from .log import Log
from .worker_link import WorkerLink

LOOK_AFTER_S = 0.05  # arbitrary: far longer than a worker needs to take what lies in its pipe
_MAX_PAUSE_S = 5.0  # between two looks at a worker that is stopped
_LOST = (
    "worker %d (pid %d) did not get all calls that it was sent: a task, or what one left running there, read or replaced "
    "forkpool's file descriptors. These calls run elsewhere, and the worker is replaced"
)
_UNNOTED = (
    "worker %d (pid %d) did not begin with a call that it was sent: it was stopped as it took it (SIGSTOP), or a task, or what "
    "one left running there, read it. The call runs elsewhere, and the worker is replaced"
)


class Lookout:
    """Looks at workers whose first task has not been answered for a while."""

    def __init__(
        self,
        machine: PoolMachine,
        links: dict[int, WorkerLink],
        read_answers: Callable[[int], bool],
        hang_up: Callable[[WorkerLink], None],
        give_up: Callable[[Worker], None],
        log: Log,
    ) -> None:
        """
        Args:
            read_answers: Processes answers of the worker of this generation; False: nothing more is there.
            hang_up: Closes our end of the task pipe.
            give_up: The first task of this worker has written its answer elsewhere.
        """
        self.due: float | None = None  # monotonic seconds: when `look` is needed
        self._machine = machine
        self._links = links
        self._read_answers = read_answers
        self._hang_up = hang_up
        self._give_up = give_up
        self._log = log

    def on_sent(self) -> None:
        """Something was sent to some worker."""
        soon = clock.now() + LOOK_AFTER_S
        if self.due is None or self.due > soon:
            self.due = soon

    def on_skipped(self, worker: Worker, seq: int) -> None:
        """The worker has answered this task, and not those before it."""
        void = self._links[worker.generation].void
        self._tell(worker, [task.seq for task in worker.tasks if task.seq < seq and task.seq not in void])

    def look(self, now: float) -> None:
        """Look at all workers that may have lost something."""
        self.due = None
        for worker in list(self._machine.workers.values()):
            if worker.tasks and worker.doom is None:
                again = self._look_at(worker, now)
                if again is not None and (self.due is None or again < self.due):
                    self.due = again

    def _look_at(self, worker: Worker, now: float) -> float | None:
        """Returns when to look again; None: not before something is sent."""
        link = self._links[worker.generation]
        if now - worker.head_since < LOOK_AFTER_S:
            return worker.head_since + LOOK_AFTER_S
        is_empty = link.all_was_read()  # first: see the head
        present, stage, announced = link.present_task()
        while self._read_answers(worker.generation):
            pass
        seqs = [task.seq for task in worker.tasks if task.seq and task.seq not in link.void]
        if present in seqs:
            has_written = stage is Stage.ANSWERED or (present != seqs[0] and stage in (Stage.LOADING, Stage.RUNNING))
            if has_written and link.lacks(announced):
                self._give_up(worker)
            else:
                before, behind = link.has_all_answers(), is_empty and stage.is_work
                self._tell(worker, _lost(seqs, present, before=before, behind=behind))
        elif seqs:
            self._look_at_idle(worker, link, is_empty=is_empty and now - worker.head_since >= LOOK_AFTER_S)
        if not worker.tasks or (len(worker.tasks) == 1 and present == worker.tasks[0].seq):
            return None
        return now + max(LOOK_AFTER_S, min(now - worker.head_since, _MAX_PAUSE_S))

    def _look_at_idle(self, worker: Worker, link: WorkerLink, *, is_empty: bool) -> None:
        """It was sent something, and has not noted it.

        Whether it ends is asked last: one that is killed while we look neither goes on nor has descriptors.
        """
        if is_empty and not link.goes_on() and not link.is_ending():
            self._hang_up(link)
            self._machine.on_unreliable(worker)
        elif not link.can_read() and not link.is_ending():
            self.warn(link)
            self._machine.on_unreliable(worker)
            link.kill()

    def _tell(self, worker: Worker, lost: list[int]) -> None:
        if lost:
            link = self._links[worker.generation]
            self.warn(link)
            self._machine.on_lost(worker, lost, clock.now(), alive=True)

    def warn(self, link: WorkerLink, *, certain: bool = True) -> None:
        """Say once of each worker that it was robbed. Not `certain`: it may have read the call itself, and come no further."""
        if not link.is_robbed:
            link.is_robbed = True
            self._log.warning(_LOST if certain else _UNNOTED, link.slot, link.pid)


def _lost(seqs: list[int], present: int, *, before: bool, behind: bool) -> list[int]:
    at = seqs.index(present)
    return (seqs[:at] if before else []) + (seqs[at + 1 :] if behind else [])
