"""Tasks that write to forkpool's descriptors in their worker, close or replace them. One task is lost at most: their own.

Row "a worker writes malformed frames". Every descriptor above 2 gets its turn: the task pipe, the answer pipe, the status page,
the lifeline, the resource tracker's relay. Beside them an innocent task runs, whose result must come.
"""

import contextlib
import fcntl
import os
import socket
import stat
from collections.abc import Callable
from concurrent.futures import wait
from queue import SimpleQueue
from typing import Any

import pytest

from forkpool import ForkPoolExecutor, WorkerCrashedError
from forkpool._core.wire import Kind, pack, pack_header
from forkpool._host.lookout import Lookout
from forkpool._host.worker_link import WorkerLink
from forkpool._shared.status_page import SIZE
from tests.support import tasks
from tests.support.gate import Gate, GateInTask, Marks


def ours() -> list[int]:
    """The numbers of all descriptors of this worker that are not 0, 1 or 2, in the order of what they are for."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the listing's own
            fd = int(name)
            if fd > 2:
                fcntl.fcntl(fd, fcntl.F_GETFL)
                found.append(fd)
    return sorted(found)


def write(fd: int, data: bytes) -> None:
    os.set_blocking(fd, False)
    os.write(fd, data)
    os.set_blocking(fd, True)


def overwrite(fd: int, filler: bytes) -> None:
    if stat.S_ISREG(os.fstat(fd).st_mode):
        os.pwrite(fd, filler * (SIZE // len(filler)), 0)


def shut(fd: int) -> None:
    copy = os.dup(fd)
    try:
        socket.socket(fileno=copy).shutdown(socket.SHUT_RDWR)
    finally:
        os.close(copy)


def replace(fd: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, fd)
    os.close(null)


def replace_by_silence(fd: int) -> None:
    """As one who closes all descriptors and then opens his own: who reads waits for ever, what is written is lost."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        os.dup2(ours.fileno(), fd)
        fcntl.fcntl(theirs, fcntl.F_DUPFD, 2000)  # stays open, behind all that are counted here


def replace_and_keep(fd: int) -> None:
    """As one who puts a descriptor aside to bring it back later, and does not: its pipe stays open here."""
    fcntl.fcntl(fd, fcntl.F_DUPFD, 2000)
    replace_by_silence(fd)


def write_and_leave(fd: int) -> None:
    with contextlib.suppress(OSError):
        os.write(fd, pack_header(Kind.VALUE, 1, 100)[:11])
    os._exit(3)


def from_a_child(fd: int) -> None:
    """It writes when the task has long returned."""
    if os.fork() == 0:
        with contextlib.suppress(OSError):
            for _ in range(100):
                os.write(fd, b"stray")
        os._exit(0)


ACTIONS: dict[str, Callable[[int], object]] = {
    "garbage": lambda fd: write(fd, b"garbage" * 20),
    "zeros": lambda fd: write(fd, bytes(4096)),
    "a gigantic length": lambda fd: write(fd, pack_header(Kind.VALUE, 1, (1 << 48) - 1)),
    "an impossible length": lambda fd: write(fd, pack_header(Kind.VALUE, 1, (1 << 64) - 1)),
    "answers of others": lambda fd: write(fd, b"".join(pack(Kind.VALUE, seq, b"N.") for seq in range(60))),
    "READY": lambda fd: write(fd, pack(Kind.READY, 0)),
    "INIT_FAILED": lambda fd: write(fd, pack(Kind.INIT_FAILED, 0, b"nonsense")),
    "a part, then the end": write_and_leave,
    "a stray child": from_a_child,
    "close": os.close,
    "dup2": replace,
    "dup2 of what never says anything": replace_by_silence,
    "the same, and a copy is kept": replace_and_keep,
    "non-blocking": lambda fd: os.set_blocking(fd, False),
    "no flags": lambda fd: fcntl.fcntl(fd, fcntl.F_SETFL, 0),
    "shutdown": shut,
    "page of zeros": lambda fd: overwrite(fd, b"\0"),
    "page of ones": lambda fd: overwrite(fd, b"\xff"),
    "page of text": lambda fd: overwrite(fd, b"garbage!"),
}


def do_to(action: str, number: int) -> int:
    """Do it to the descriptor that comes at this number; how many there are."""
    fds = ours()
    if number < len(fds):
        with contextlib.suppress(OSError):
            ACTIONS[action](fds[number])
    return len(fds)


def check_end(future: Any) -> None:
    """A result, or a crash of which nothing wrong is said."""
    error = future.exception()
    if error is not None:
        assert type(error) is WorkerCrashedError, repr(error)
        assert error.may_have_run in ("maybe", "yes"), str(error)
        assert error.crash_traceback is None, str(error)


STRAY = "a stray child"  # it writes whenever it likes: another task may be running then


@pytest.mark.parametrize("actions", [[one for one in ACTIONS if one != STRAY], [STRAY]], ids=["itself", "its child"])
def test_what_is_done_to_each_descriptor_costs_one_task_at_most(
    actions: list[str], gate: Gate, capfd: pytest.CaptureFixture[str]
) -> None:
    with ForkPoolExecutor(2) as ex, contextlib.ExitStack() as stack:
        innocent = ex.submit(tasks.enter, gate, "innocent")
        stack.callback(gate.open_for_all)
        gate.wait_inside()
        for action in actions:
            for number in range(ex.submit(do_to, "close", 1000).result()):
                check_end(ex.submit(do_to, action, number))
                if action != STRAY:
                    assert ex.submit(tasks.add, number, 1).result() == number + 1, action
        stack.close()
        assert innocent.result() == "innocent"
    assert "garbage" not in capfd.readouterr().out


def answer_fd() -> int:
    """The only pipe that this worker may only write to, and that its fork server does not hold."""
    of_server = {os.readlink(f"/proc/{os.getppid()}/fd/{name}") for name in os.listdir(f"/proc/{os.getppid()}/fd")}
    (found,) = (
        fd
        for fd in ours()
        if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY
        and (target := os.readlink(f"/proc/self/fd/{fd}")).startswith("pipe:")
        and target not in of_server
    )
    return found


def answer_elsewhere(gate: GateInTask | None, marks: Marks) -> None:
    """It stays in the gate, if there is one, until nobody looks for its answer any more."""
    marks.add("guilty")
    replace_and_keep(answer_fd())
    if gate is not None:
        gate.enter()


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> SimpleQueue[tuple[float, float | None]]:
    """When the pool has looked at workers that do not answer, and when it will look again."""
    found: SimpleQueue[tuple[float, float | None]] = SimpleQueue()
    look = Lookout.look

    def look_and_tell(lookout: Lookout, now: float) -> None:
        look(lookout, now)
        found.put((now, lookout.due))

    monkeypatch.setattr(Lookout, "look", look_and_tell)
    return found


@pytest.mark.parametrize("length", ["short", "long"])
def test_an_answer_that_goes_elsewhere_is_not_waited_for(
    length: str, gate: Gate, marks: Marks, looks: SimpleQueue[tuple[float, float | None]]
) -> None:
    with ForkPoolExecutor(1) as ex:
        for number in range(20):  # so that the next ones are sent ahead
            ex.submit(tasks.leave_mark, marks, str(number)).result()
        guilty = ex.submit(answer_elsewhere, gate if length == "long" else None, marks)
        behind = [ex.submit(tasks.leave_mark, marks, str(number)) for number in range(20, 40)]
        if length == "long":
            gate.wait_inside()
            began = guilty.started_at
            while (look := looks.get()) and (look[0] < began or look[1] is not None):
                pass
            gate.open_for_all()
        error = guilty.exception()
        assert type(error) is WorkerCrashedError
        assert error.may_have_run in ("maybe", "yes")
        ends = [future.exception() for future in behind]
        assert all(end is None or type(end) is WorkerCrashedError for end in ends)
        assert ex.submit(tasks.add, 1, 1).result() == 2
    words = marks.words()
    assert words.count("guilty") == 1
    assert [words.count(str(number)) for number in range(40)] == [1] * 40


_known: list[int] = []


def write_if(now: bool, data: bytes, number: int, marks: Marks) -> int:
    """Short enough to be sent ahead."""
    if now:
        marks.add(str(number))
        if not _known:
            _known.append(answer_fd())
        os.write(_known[0], data)
    return number


@pytest.mark.parametrize(
    "data",
    [b"garbage" * 20, b"x", pack_header(Kind.VALUE, 3, 1 << 40), pack(Kind.VALUE, 3, b"N.") * 3, bytes(60_000)],
    ids=["garbage", "a byte", "header", "answers", "zeros"],
)
def test_tasks_that_were_sent_ahead_behind_it_keep_their_results(data: bytes, marks: Marks) -> None:
    """They were charged too: the one that the worker had taken meanwhile, and those whose answers came behind the garbage.

    And the guilty one ran again, when one behind it had answered before the worker was killed.
    """
    bad = {100, 300, 301}
    with ForkPoolExecutor(1) as ex:
        assert ex.submit(write_if, False, b"", 1, marks).result() == 1
        futures = [ex.submit(write_if, number in bad, data, number, marks) for number in range(400)]
        wait(futures)
        failed = {number for number, future in enumerate(futures) if future.exception() is not None}
        errors = [str(futures[number].exception()) for number in failed]
        assert failed == bad, errors
        assert "no" not in {getattr(futures[number].exception(), "may_have_run", None) for number in bad}, errors
        assert all("malformed" in error for error in errors), errors
        assert [future.result() for number, future in enumerate(futures) if number not in bad] == sorted({*range(400)} - bad)
    assert sorted(map(int, marks.words())) == sorted(bad)


def write_into_the_middle(size: int) -> bytes:
    """A thread of the task writes while its answer, larger than the pipe, is written."""
    import threading

    fd = answer_fd()

    def meanwhile() -> None:
        while True:
            with contextlib.suppress(BlockingIOError):
                os.write(fd, b"garbage")

    threading.Thread(target=meanwhile, daemon=True).start()
    return bytes(size)


def test_a_large_answer_that_was_written_into_is_not_believed() -> None:
    with ForkPoolExecutor(1) as ex:
        error = ex.submit(write_into_the_middle, 8 << 20).exception()
        assert type(error) is WorkerCrashedError, repr(error)
        assert "malformed" in str(error)
        assert ex.submit(tasks.add, 1, 1).result() == 2


def non_blocking_answers() -> bytes:
    os.set_blocking(answer_fd(), False)
    return bytes(8 << 20)


def test_a_large_answer_through_a_pipe_that_was_made_non_blocking() -> None:
    """asyncio does so with what it is given. The worker left, and the task was told that it had called os._exit()."""
    with ForkPoolExecutor(1) as ex:
        pid = ex.submit(tasks.pid).result()
        assert ex.submit(non_blocking_answers).result() == bytes(8 << 20)
        assert ex.submit(do_to, "non-blocking", 0).result() > 0
        assert ex.submit(tasks.pid).result() == pid


def overwrite_and_wait(gate: Any) -> None:
    for number in range(8):
        do_to("page of ones", number)
    gate.enter()


def test_a_timeout_is_kept_though_the_page_tells_nothing(gate: Gate) -> None:
    with ForkPoolExecutor(1) as ex:
        future = ex.options(timeout=0.2).submit(overwrite_and_wait, gate)
        assert "timeout" in str(future.exception())
        assert ex.submit(tasks.add, 1, 1).result() == 2


def test_an_answer_for_which_the_host_has_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """It ended the supervisor, and with it the pool."""
    from forkpool._core import wire

    begin = wire.AnswerReader._begin

    def failing(reader: wire.AnswerReader, head: Any, length: int) -> None:
        if length > 1 << 20:
            raise MemoryError
        begin(reader, head, length)

    monkeypatch.setattr(wire.AnswerReader, "_begin", failing)
    with ForkPoolExecutor(1) as ex:
        error = ex.submit(bytes, 1 << 21).exception()
        assert type(error) is WorkerCrashedError, repr(error)
        assert "no memory" in str(error)
        assert error.may_have_run == "yes"
        assert ex.submit(bytes, 100_000).result() == bytes(100_000)


@pytest.mark.parametrize("loses_what_came", [False, True])
@pytest.mark.parametrize("nth", [5, 30])
def test_no_memory_while_others_stand_behind_in_the_pipe(
    nth: int, loses_what_came: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their answers came after one that was given up, which stood in front of them: a recursion without end."""
    read, calls = WorkerLink.read_answers, iter(range(nth))

    def failing(link: WorkerLink) -> list[Any]:
        if next(calls, None) == nth - 1:
            if loses_what_came:
                read(link)
            raise MemoryError
        return read(link)

    monkeypatch.setattr(WorkerLink, "read_answers", failing)
    with ForkPoolExecutor(1) as ex:
        assert ex.submit(tasks.add, 1, 1).result() == 2
        futures = [ex.submit(tasks.add, number, 0) for number in range(2000)]
        errors = [error for future in futures if (error := future.exception()) is not None]
        assert {type(error) for error in errors} <= {WorkerCrashedError}
        assert ex.submit(tasks.add, 2, 2).result() == 4
