"""The host's end of one worker.

Runs in: host, supervisor thread (and `started_at` for whoever asks). It owns at most five descriptors: the task pipe's write
end, a read end of the same pipe, the answer pipe's read end, the worker's pidfd, and the mapping of its status page.

Hard part: what a worker that died had taken. What still lies in its task pipe it had not, see `task_sender`. But a
worker that dies between two tasks may take a frame with it. Then the status page, on which a worker notes a task before it does
anything else with it, tells that it never began (`never_took`).

Where there are no pidfds, the fork server tells that a worker has ended, through a pipe that stands in for one. Once the server
is gone that pipe tells nothing, and nobody would learn of the worker's end: it is killed then (`kill_orphan`).
Tests: tests/process/test_crash.py, tests/unit/test_worker_link.py, tests/process/test_without_pidfds.py
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .._core.control import Ask
from .._core.wire import Answer, AnswerReader, Kind, MalformedFrame
from .._shared import clock
from .._shared.descriptors import close_all
from .._shared.pidfd import is_stand_in
from .._shared.status_page import NOTHING_YET, Stage, StatusPage
from .exit_status import orphan_status, reap
from .private_memory import private_memory
from .process_facts import has_ended, has_open, is_exiting, leads_to, read_stat, send_signal
from .server_link import SERVER_PATIENCE_S, ServerGone, ServerLink
from .task_sender import Payload, TaskSender

if TYPE_CHECKING:
    from ..future import Run

_READ_BYTES = 1 << 16
_LOOKS = 10  # arbitrary: between two reads of ours a worker hardly ever gets on, unless something scribbles on its page
SIGNAL_GROUP = 1 << 2  # PIDFD_SIGNAL_PROCESS_GROUP, Linux 6.9


@dataclass(frozen=True, slots=True)
class Death:
    """How a worker ended. `status` is the wait status, None if nobody could tell."""

    status: int | None
    peak_rss: int | None  # bytes


class WorkerLink:
    """Channel, status page and pidfd of one worker."""

    __slots__ = (
        "_answer_fd", "_born", "_lifeline", "_page", "_reader", "_sender", "answered", "child_fds", "death", "generation",
        "is_full", "is_robbed", "note", "orphan", "patience_end", "pid", "pidfd", "seat", "server", "slot", "void",
        "waiters", "without_pidfd", "without_proc",
    )  # fmt: skip

    def __init__(self, slot: int) -> None:
        self.slot = slot
        self.server: ServerLink | None = None  # who was asked to fork it, and reaps it
        self.generation = 0  # what that one calls it
        self.pid = 0
        self.seat = (0, slot)  # pid and slot: one record for all tasks of this worker
        self.pidfd = -1  # or what stands in for it; ours from `begin` to `close`
        self.without_pidfd = False
        self._born: int | None = None  # only without a pidfd: tells the worker from a later process of its number
        self.note: str | None = None  # why we killed it, when a task was not the reason
        self.death: Death | None = None
        self.waiters: list[threading.Event] | None = []  # set by `close`. None: it was closed
        # Monotonic seconds: then we stop waiting for what must follow (to a request to fork, to a death).
        self.patience_end: float | None = None
        self.answered = NOTHING_YET  # seq of the last task that it answered
        self.is_full = False  # its task pipe: what else is sent waits until there is room
        self.void: set[int] = set()  # seqs whose answers count for nothing: their tasks wrote what is no answer
        self.is_robbed = False  # tasks that it was sent were read by somebody else there
        self.orphan = False  # the fork server that forked it is gone: nobody reaps it and tells
        stamp = int.from_bytes(os.urandom(7), "little")  # there is room for all answers behind it
        self._reader = AnswerReader(stamp)
        self._lifeline = -1  # only without /proc: a server cannot make descriptions of the pool's one then
        opened: list[int] = []
        try:
            task_read, task_write = _opened(opened, os.pipe2(os.O_CLOEXEC | os.O_DIRECT))
            self._answer_fd, answer_write = _opened(opened, os.pipe2(os.O_CLOEXEC))
            untaken = _own_end(task_read)
            self.without_proc = untaken < 0
            if self.without_proc:
                untaken = os.dup(task_read)
            opened.append(untaken)
            if self.without_proc:
                lifeline, self._lifeline = _opened(opened, os.pipe2(os.O_CLOEXEC))
            self._sender = TaskSender(task_write, untaken, self.without_proc)
            opened += self._sender.fds[2:]
            page_fd = StatusPage.create(stamp)
            opened.append(page_fd)
            self._page = StatusPage(page_fd)
        except BaseException:
            close_all(opened)
            raise
        os.set_blocking(self._answer_fd, False)
        self.child_fds: tuple[int, ...] = (task_read, answer_write, page_fd)  # the worker's; closed here once they were sent
        if self.without_proc:
            self.child_fds += (lifeline,)

    def begin(self, pid: int, pidfd: int) -> None:
        """It was forked. Called while the fork server has not reaped it."""
        self.pid, self.pidfd, self.seat, self.patience_end = pid, pidfd, (pid, self.slot), None
        self.without_pidfd = is_stand_in(pidfd)
        if self.without_pidfd and (stat := read_stat(pid)) is not None:
            self._born = stat.started

    @property
    def fds(self) -> list[int]:
        """What a fork of the host must not keep open."""
        fds = (*self.child_fds, *self._sender.fds, self._answer_fd, self.pidfd, self._lifeline)
        return [fd for fd in fds if fd >= 0]

    @property
    def answer_fd(self) -> int:
        return self._answer_fd

    @property
    def task_fd(self) -> int:
        return self._sender.task_fd

    def close_child_fds(self) -> None:
        fds, self.child_fds = self.child_fds, ()
        close_all(fds)

    def close(self) -> None:
        """Give everything back. The worker is dead, or was never born."""
        close_all(self.fds)
        self._page.close()
        waiters, self.waiters = self.waiters, None
        for waiter in waiters or ():
            waiter.set()

    # --- tasks

    def send(self, kind: Kind, seq: int, payload: Payload, tried: int = 0) -> None:
        """Take a frame on, to be written by the next `flush`. A large one only for an idle worker."""
        self._sender.add(kind, seq, payload, tried)

    def flush(self) -> bool:
        """Write what was taken on. False: a part is left, call again when the pipe is writable."""
        return self._sender.flush()

    def recall(self) -> list[int]:
        """Take back the frames that the worker has not taken; returns their seqs."""
        return self._sender.recall()

    def hang_up(self) -> None:
        """Close our end: who reads finds the end of file, and the worker leaves when it has done what it has taken."""
        self._sender.hang_up()

    @property
    def has_hung_up(self) -> bool:
        return self._sender.task_fd < 0

    def all_was_read(self) -> bool:
        """Is the pipe empty, and nothing left to be written? False also after `hang_up`."""
        return self._sender.all_was_read()

    def goes_on(self) -> bool:
        """Is its main thread on a CPU, or waiting for one or for a disk? False also if nobody can tell."""
        stat = read_stat(self.pid)
        return stat is not None and stat.state in ("R", "D")

    def can_read(self) -> bool:
        """Does the worker still have its end of the pipe? A task may have put another file in its place. True if unknown."""
        ours, theirs = self._sender.untaken_fd, self._page.task_fd()
        if theirs is not None and leads_to(self.pid, theirs, ours) is False:
            return False
        return has_open(self.pid, ours) is not False

    def present_task(self) -> tuple[int, Stage, int]:
        """The last task that the worker took, how far it is with it, and how many bytes of answers it had told of by then."""
        page = self._page
        for _ in range(_LOOKS):
            seq = page.noted()
            stage, announced = page.stage(seq), page.announced()
            if (seq, stage) == (page.noted(), page.stage(seq)):
                return seq, stage, announced
        return seq, stage, 0

    def lacks(self, announced: int) -> bool:
        """Have fewer bytes of answers come than that?"""
        return self._reader.seen < announced

    def has_all_answers(self) -> bool:
        """Has everything come that the worker has written or is about to write?"""
        return self._reader.seen == self._page.announced()

    def never_took(self, seqs: list[int]) -> list[int]:
        """Which of these the worker, now dead, never began, though they may be in its pipe no more."""
        noted = self._page.noted()
        if noted in seqs:  # it took them in order, and its answers were read
            before = self.has_all_answers()  # else it wrote some elsewhere
            found = [seq for seq in seqs if seq > noted or (seq < noted and before)]
        else:
            found = [seq for seq in seqs if seq != self.answered and self._page.never_took(seq, self.answered)]
        # Those that it had come to were answered, whatever that looked like.
        return [seq for seq in found if seq not in self.void or noted == NOTHING_YET or seq > noted]

    # --- answers

    def read_answers(self) -> list[Answer]:
        """The frames that are complete now.

        Raises:
            BlockingIOError: Nothing has come.
            EOFError: The worker's end is closed.
        """
        reader = self._reader
        if not reader.gathering:
            data = os.read(self._answer_fd, _READ_BYTES)
            if not data:
                raise EOFError
            return reader.feed(data)
        with reader.space() as space:
            count = os.readv(self._answer_fd, [space])
        if not count:
            raise EOFError
        return reader.advance(count)

    def check_stream(self) -> None:
        """Call when what `read_answers` returned was processed. A frame that will never be complete is not waited for.

        A task that writes into our pipe may write less than a header, and the real answer would be waited for in vain. But the
        worker tells the length of an answer before it writes it: a part of a frame is no answer's when all that was told of
        is here.

        Raises:
            MalformedFrame: There is something in the stream that is no frame. `read_on` returns the answers behind it.
        """
        reader = self._reader
        if reader.malformed is None and reader.incomplete and reader.seen >= self._page.announced():
            reader.lose("bytes that belong to no answer")
        if reader.malformed is not None:
            raise MalformedFrame(reader.malformed)

    def read_on(self) -> list[Answer]:
        """The answers behind what is none. Call `check_stream` again when they were processed."""
        return self._reader.go_on()

    # --- facts about the process

    def ended(self) -> bool:
        """Is the process gone, whatever its grandchildren keep open?"""
        return has_ended(self.pidfd) or (self.without_pidfd and self._is_zombie())

    def is_ending(self) -> bool:
        """Has it ended, or begun to, so that it closes its descriptors by itself? False also if nobody can tell."""
        return bool(is_exiting(self.pid)) or self.ended()  # in this order: it may end, and be reaped, in between

    def _is_zombie(self) -> bool:
        """Has it ended, though its fork server has not come to tell? As long as that one has not, the number is its own."""
        stat = read_stat(self.pid)
        return stat is not None and stat.state in "ZX"

    def private_memory(self) -> int | None:
        """Bytes that the worker has for itself; None: it has ended.

        Raises:
            OSError: That cannot be read.
        """
        try:
            found = private_memory(self.pid)
        except OSError:
            if self.ended():
                return None
            raise
        return None if self.ended() else found  # else it may be of a process that got the number later

    def started_at(self, seq: int) -> float | None:
        """When (monotonic seconds) the worker took this task; None: it has not, or its page is overwritten."""
        started = self._page.started_at(seq)
        return None if started is None or started > clock.now() else started

    def began_ns(self, count: int) -> int:
        """When (monotonic nanoseconds) it took the task whose answer, its `count`-th from 0, is read now."""
        return self._page.began_ns(count)

    def find_run(self, seq: int) -> Run | None:
        """What is known of this task, if the worker has it now. Any thread, and a page that is closed meanwhile."""
        try:
            started = self._page.started_ns(seq)
        except ValueError:
            return None
        return None if started is None else (self.seat, started, None)

    def may_have_run(self, seq: int) -> str:
        """Did the task's function run? "no", "maybe" (it was entered) or "yes" (it had returned)."""
        if self.answered != NOTHING_YET and seq < self.answered:
            return "maybe"  # the worker took it before one that it answered, and of that the page tells
        stage = self._page.stage(seq, self.answered)
        if stage >= Stage.ENCODING:
            return "yes"
        return "maybe" if stage == Stage.RUNNING else "no"

    def unfinished_line(self, fd: int) -> bytes:
        return self._page.unfinished_line(fd)

    def crash_traceback(self) -> str | None:
        return self._page.crash_traceback()

    # --- signals

    def kill(self) -> bool:
        """SIGKILL, and never a process that got the number later. The fork server kills the group.

        False: we may not. The fork server was asked, if there is one; it may be stopped.
        """
        if self.without_pidfd and self.patience_end is None:
            self.patience_end = clock.now() + SERVER_PATIENCE_S  # only the server will tell, and it may be stopped
        if self.pidfd < 0 or send_signal(self.pidfd, self.pid, signal.SIGKILL):
            return True
        self.ask_server(Ask.KILL)
        return False

    def ask_server(self, ask: Ask) -> None:
        """Have the fork server signal it: that one knows it, whatever we lack."""
        if self.server is not None and not self.orphan:
            with contextlib.suppress(ServerGone):
                self.server.ask(ask, self.generation, self.slot, 0)

    def kill_group(self) -> None:
        """The worker's whole group, when no fork server is there to do it. Whom we may not signal ends with the lifeline."""
        if self.pidfd < 0:  # never born, or nobody told
            return
        try:
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL, None, SIGNAL_GROUP)
        except ProcessLookupError:
            pass  # nobody is left in it
        except (OSError, AttributeError):  # EINVAL before Linux 6.9: only while the leader still holds the number
            if not self.ended():
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(self.pid, signal.SIGKILL)

    @property
    def was_left_alone(self) -> bool:
        """Was it killed because its fork server was gone?"""
        return self.without_pidfd and self.orphan

    def kill_orphan(self) -> None:
        """The worker's whole group, when there is no pidfd and its fork server is gone: nobody would tell of its end."""
        lifeline, self._lifeline = self._lifeline, -1
        close_all([lifeline] if lifeline >= 0 else [])  # the kernel kills
        stat = read_stat(self.pid)
        if stat is not None and stat.started == self._born:
            try:
                os.killpg(self.pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                self._born = None  # not ours to wait for

    def orphan_status(self) -> int | None:
        """The wait status of this worker, which has ended and which no fork server reaped; None: nobody can tell."""
        if not self.without_pidfd:
            return orphan_status(self.pidfd, self.pid)
        stat = read_stat(self.pid)
        is_our_child = stat is not None and stat.started == self._born and stat.parent == os.getpid()
        return reap(os.P_PID, self.pid, os.WEXITED) if is_our_child else None  # it was killed, and is about to end

    def terminate(self) -> None:
        """SIGTERM that is meant for this worker: its default action, or the task's own handler."""
        self._page.ask_terminate()
        if not send_signal(self.pidfd, self.pid, signal.SIGTERM):
            self.ask_server(Ask.TERMINATE)


def _own_end(fd: int) -> int:
    """A description of our own, which does not block, of the pipe that may be read here; -1: there is no /proc."""
    try:
        return os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return -1


def _opened(record: list[int], pair: tuple[int, int]) -> tuple[int, int]:
    record.extend(pair)
    return pair
