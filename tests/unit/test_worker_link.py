"""The host's end of a worker, with the worker's ends in the same process.

Runs in: pytest; real pipes, no process.
"""

import contextlib
import fcntl
import mmap
import os
import select
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from forkpool._child import worker
from forkpool._child.worker import Payload, TaskPipe
from forkpool._core.wire import INLINE_BYTES, PACKET_BYTES, Kind, MalformedFrame, pack, pack_large_answer
from forkpool._host import worker_link
from forkpool._host.process_facts import has_open
from forkpool._host.worker_link import WorkerLink
from forkpool._shared.status_page import Stage, StatusPage

BIG = bytes(range(256)) * 20_000  # 5 MB: more than any pipe holds


@pytest.fixture(params=["with /proc", "without"])
def link(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[WorkerLink]:
    if request.param == "without":
        monkeypatch.setattr(worker_link, "_own_end", lambda _: -1)
    link = WorkerLink(3)
    assert link.without_proc == (request.param == "without")
    yield link
    link.close()


@pytest.fixture
def page(link: WorkerLink) -> Iterator[StatusPage]:
    """The worker's mapping."""
    page = StatusPage(link.child_fds[2])
    yield page
    page.close()


@pytest.fixture
def pipe(link: WorkerLink, page: StatusPage) -> TaskPipe:
    pipe = TaskPipe()
    pipe.begin(link.child_fds[0], page)
    return pipe


def open_fds() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def send(link: WorkerLink, kind: Kind, seq: int, payload: bytes, tried: int = 0) -> bool:
    link.send(kind, seq, payload, tried)
    return link.flush()


def write_all(link: WorkerLink, pipe: TaskPipe, kind: Kind, seq: int, payload: bytes) -> tuple[int, int, bytes]:
    """Write a streamed frame as the supervisor does, with a worker that reads it."""
    got: list[tuple[int, int, Payload, int]] = []
    reader = threading.Thread(target=lambda: got.append(pipe.receive()))
    reader.start()
    if not send(link, kind, seq, payload):
        wait_writable_and_go_on(link)
    reader.join()
    kind, seq, data, _ = got[0]
    assert not isinstance(data, MemoryError), data
    return kind, seq, bytes(data)


def wait_writable_and_go_on(link: WorkerLink) -> None:
    poll = select.poll()
    poll.register(link.task_fd, select.POLLOUT)
    while True:
        poll.poll()
        if link.flush():
            return


# --- descriptors


def test_a_worker_costs_the_host_five_descriptors_at_most() -> None:
    before = open_fds()
    link = WorkerLink(0)
    link.close_child_fds()
    link.pidfd = os.pidfd_open(os.getpid())
    assert len(open_fds() - before) <= 5
    link.close()
    assert open_fds() == before


def test_nothing_is_inherited_by_programs_that_the_host_starts(link: WorkerLink) -> None:
    assert not any(os.get_inheritable(fd) for fd in link.fds)


@pytest.mark.parametrize("works", range(8))
@pytest.mark.parametrize("needed", [4, 6], ids=["with /proc", "without"])
def test_without_descriptors_nothing_is_left_open(monkeypatch: pytest.MonkeyPatch, works: int, needed: int) -> None:
    calls = 0
    if needed == 6:
        monkeypatch.setattr(worker_link, "_own_end", lambda fd: -1)

    def failing(call: object) -> object:
        def attempt(*args: object, **kwargs: object) -> object:
            nonlocal calls
            calls += 1
            if calls > works:
                raise OSError(24, "Too many open files")
            return call(*args, **kwargs)  # type: ignore[operator]

        return attempt

    before = open_fds()
    for name in ("pipe2", "open", "memfd_create", "dup"):
        monkeypatch.setattr(os, name, failing(getattr(os, name)))
    link = None
    with contextlib.suppress(OSError):
        link = WorkerLink(0)
    monkeypatch.undo()
    assert (link is None) == (works < needed)
    if link is not None:
        link.close()
    assert open_fds() == before


# --- tasks


def test_a_task_says_how_often_it_was_tried(link: WorkerLink, pipe: TaskPipe) -> None:
    assert send(link, Kind.TASK, 1, b"small", 2)
    assert pipe.receive() == (Kind.TASK, 1, b"small", 2)
    payload = bytes(INLINE_BYTES + 1)
    assert send(link, Kind.TASK, 2, payload, 3), "it fits the pipe"
    assert pipe.receive() == (Kind.TASK, 2, payload, 3)


def no_memory(length: int) -> bytearray:
    raise MemoryError


def test_a_task_for_which_there_is_no_memory_is_read_all_the_same(
    link: WorkerLink, pipe: TaskPipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "bytearray", no_memory, raising=False)
    with pytest.raises(AssertionError, match=f"{len(BIG)} bytes of this call"):
        write_all(link, pipe, Kind.TASK, 1, BIG)
    monkeypatch.undo()
    assert send(link, Kind.TASK, 2, b"small")
    assert pipe.receive() == (Kind.TASK, 2, b"small", 0)
    assert write_all(link, pipe, Kind.TASK, 3, BIG) == (Kind.TASK, 3, BIG)


def test_a_large_task_through_a_pipe_that_was_made_non_blocking(link: WorkerLink, pipe: TaskPipe) -> None:
    """The worker found the head of the call, and nothing behind it: it left, and the call was blamed."""
    fd, got = link.child_fds[0], []
    assert not send(link, Kind.TASK, 1, BIG)
    os.set_blocking(fd, False)
    reader = threading.Thread(target=lambda: got.append(pipe.receive()))
    reader.start()
    while reader.is_alive() and not os.get_blocking(fd):
        pass
    wait_writable_and_go_on(link)
    reader.join()
    assert got == [(Kind.TASK, 1, bytearray(BIG), 0)]


def test_a_small_task_is_one_packet(link: WorkerLink, pipe: TaskPipe) -> None:
    for seq, payload in ((1, b""), (2, b"call"), (3, bytes(INLINE_BYTES))):
        assert send(link, Kind.TASK, seq, payload)
    received = [pipe.receive() for _ in range(3)]
    assert received == [(Kind.TASK, 1, b"", 0), (Kind.TASK, 2, b"call", 0), (Kind.TASK, 3, bytes(INLINE_BYTES), 0)]


def test_a_large_task_is_streamed_and_small_ones_are_packets_again(link: WorkerLink, pipe: TaskPipe) -> None:
    assert write_all(link, pipe, Kind.TASK, 5, BIG) == (Kind.TASK, 5, BIG)
    send(link, Kind.TASK, 6, b"a")
    send(link, Kind.TASK, 7, b"b")
    assert os.read(link.child_fds[0], PACKET_BYTES) == pack(Kind.TASK, 6, b"a"), "one read is one packet"
    assert pipe.receive() == (Kind.TASK, 7, b"b", 0)


def test_a_task_just_beyond_a_packet(link: WorkerLink, pipe: TaskPipe) -> None:
    payload = bytes(INLINE_BYTES + 1)
    assert send(link, Kind.TASK, 1, payload), "it fits the pipe"
    assert pipe.receive() == (Kind.TASK, 1, payload, 0)
    assert link.recall() == []


def test_stop_behind_an_initializer_that_is_still_being_written(link: WorkerLink, pipe: TaskPipe) -> None:
    # 1. a new worker gets large initargs, more than the pipe holds; 2. the pool is shut down before it has read them.
    assert not send(link, Kind.INIT, 0, BIG)
    assert not send(link, Kind.STOP, 0, b""), "it waits for its turn: not in the middle of the stream"
    got: list[tuple[int, int, Payload, int]] = []
    reader = threading.Thread(target=lambda: got.extend(pipe.receive() for _ in range(2)))
    reader.start()
    wait_writable_and_go_on(link)
    reader.join()
    assert got == [(Kind.INIT, 0, BIG, 0), (Kind.STOP, 0, b"", 0)]


def test_several_tasks_are_written_at_once_and_are_packets_all_the_same(
    link: WorkerLink, pipe: TaskPipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    writev = os.writev
    monkeypatch.setattr(os, "writev", lambda fd, parts: written.append(writev(fd, parts)) or written[-1])
    payloads = [bytes(length) for length in (0, 1, INLINE_BYTES - 1, INLINE_BYTES, 5)]
    for seq, payload in enumerate(payloads):
        link.send(Kind.TASK, seq, payload)
    assert link.flush()
    assert len(written) == 1
    assert [pipe.receive() for _ in payloads] == [(Kind.TASK, seq, payload, 0) for seq, payload in enumerate(payloads)]
    assert link.recall() == []


def test_a_pipe_of_one_page_takes_one_task_after_the_other(link: WorkerLink, pipe: TaskPipe) -> None:
    # What the kernel gives to a user who has more pipes than /proc/sys/fs/pipe-user-pages-soft allows.
    fcntl.fcntl(link.task_fd, fcntl.F_SETPIPE_SZ, mmap.PAGESIZE)
    for seq in range(1, 5):
        link.send(Kind.TASK, seq, b"%d" % seq)
    for seq in range(1, 5):
        assert link.flush() is (seq == 4)
        assert pipe.receive() == (Kind.TASK, seq, b"%d" % seq, 0)


def test_what_did_not_fit_into_the_pipe_comes_back_too(link: WorkerLink, pipe: TaskPipe) -> None:
    fcntl.fcntl(link.task_fd, fcntl.F_SETPIPE_SZ, 2 * mmap.PAGESIZE)
    for seq in range(1, 6):
        link.send(Kind.TASK, seq, b"")
    assert not link.flush()
    pipe.receive()
    assert link.recall() == [2, 3, 4, 5]
    assert link.flush()
    assert link.recall() == []


# --- recall


def test_what_was_not_taken_comes_back_once(link: WorkerLink, pipe: TaskPipe) -> None:
    assert link.recall() == []
    for seq in (1, 2, 3):
        send(link, Kind.TASK, seq, b"x" * seq)
    pipe.receive()
    assert link.recall() == [2, 3]
    assert link.recall() == []
    send(link, Kind.TASK, 4, b"")
    assert pipe.receive() == (Kind.TASK, 4, b"", 0)


def test_a_streamed_task_that_nobody_touched_comes_back(link: WorkerLink) -> None:
    send(link, Kind.TASK, 9, BIG)
    assert link.recall() == [9]


def test_a_streamed_task_of_which_the_header_was_read_was_taken(link: WorkerLink) -> None:
    send(link, Kind.TASK, 9, BIG)
    os.read(link.child_fds[0], PACKET_BYTES)
    assert link.recall() == []


def test_a_streamed_task_that_was_read_does_not_come_back(link: WorkerLink, pipe: TaskPipe) -> None:
    write_all(link, pipe, Kind.TASK, 9, BIG)
    assert link.recall() == []
    send(link, Kind.TASK, 10, b"")
    assert link.recall() == [10]


def test_recall_works_after_the_worker_is_dead(link: WorkerLink) -> None:
    send(link, Kind.TASK, 1, b"")
    link.close_child_fds()
    assert link.recall() == [1]
    send(link, Kind.TASK, 2, b"")  # the host has a read end: no SIGPIPE, no EPIPE
    assert link.recall() == [2]


@pytest.mark.parametrize("read", [0, PACKET_BYTES])
def test_a_worker_that_dies_with_an_unread_initializer_and_stop_behind_it(link: WorkerLink, read: int) -> None:
    """It ended the supervisor: the bytes of the stream were taken for frames."""
    assert send(link, Kind.INIT, 0, bytes(10_000))
    assert send(link, Kind.STOP, 0, b"")
    if read:
        os.read(link.child_fds[0], read)
    assert link.recall() == []


# --- what a worker that dies takes with it


def test_a_task_that_the_worker_read_and_did_not_note_never_began(link: WorkerLink, pipe: TaskPipe, page: StatusPage) -> None:
    for seq, answered in ((1, None), (2, 1)):
        send(link, Kind.TASK, seq, b"")
        pipe.receive()
        assert link.recall() == []
        link.answered = answered or link.answered
        assert link.never_took([seq]) == [seq]
        page.take(seq, 1)
        assert link.never_took([seq]) == []


def test_what_was_sent_behind_the_task_that_it_ran_never_began(link: WorkerLink, page: StatusPage) -> None:
    """Also if it is in the pipe no more: the task had read it."""
    page.take(1, 1)
    assert link.never_took([1, 2, 3]) == [2, 3]


def test_what_was_sent_before_the_task_that_it_ran_never_began_if_all_answers_are_here(
    link: WorkerLink, page: StatusPage
) -> None:
    page.take(3, 1)
    assert link.never_took([1, 2, 3, 4]) == [1, 2, 4]
    page.announce(len(answer(page, 2, b"")))  # and it went where a task had sent it, with dup2()
    assert link.never_took([1, 2, 3, 4]) == [4]


def test_a_task_whose_answer_was_not_believed_did_begin(link: WorkerLink, page: StatusPage) -> None:
    link.void.add(1)
    page.take(2, 1)
    assert link.never_took([2, 3, 1]) == [3]
    link.answered = 2
    assert link.never_took([1]) == [], "it ended and stands last: its death was waited for"


def test_a_task_that_was_not_believed_before_it_began_never_did(link: WorkerLink, page: StatusPage) -> None:
    """What an earlier one or the initializer left running wrote meanwhile."""
    link.void.add(2)
    assert link.never_took([2]) == [2]
    page.take(1, 1)
    link.answered = 1
    assert link.never_took([2]) == [2]


def test_whether_all_was_read(link: WorkerLink, pipe: TaskPipe) -> None:
    assert link.all_was_read()
    link.send(Kind.TASK, 1, b"")
    assert not link.all_was_read(), "it is not written"
    link.flush()
    assert not link.all_was_read()
    pipe.receive()
    assert link.all_was_read()
    assert not send(link, Kind.TASK, 2, BIG)
    while select.select([link.child_fds[0]], [], [], 0)[0]:
        os.read(link.child_fds[0], 1 << 20)
    assert not link.all_was_read(), "a part is not written"


def test_after_hanging_up_what_was_sent_is_read_and_then_the_end(link: WorkerLink, pipe: TaskPipe) -> None:
    for seq in (1, 2):
        send(link, Kind.TASK, seq, b"")
    link.hang_up()
    assert link.has_hung_up
    assert not link.all_was_read()
    assert pipe.receive()[1] == 1
    assert link.recall() == [2]
    with pytest.raises(EOFError):
        pipe.receive()
    assert link.recall() == []


def test_a_stream_whose_rest_will_not_come_is_not_charged_to_the_worker(link: WorkerLink, pipe: TaskPipe) -> None:
    send(link, Kind.TASK, 1, bytes(20_000))
    link.hang_up()
    read = os.read

    def steal_after_the_header(fd: int, size: int) -> bytes:
        packet = read(fd, size)
        read(fd, 5_000)
        return packet

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "read", steal_after_the_header)
        with pytest.raises(EOFError):
            pipe.receive()
    assert link.never_took([1]) == [1]


def test_a_streamed_task_is_taken_with_its_header(link: WorkerLink, pipe: TaskPipe) -> None:
    # Room for the rest may be what kills the worker: sent to one worker after the other it would kill them all.
    write_all(link, pipe, Kind.TASK, 9, BIG)
    assert link.never_took([9]) == []
    assert link.may_have_run(9) == "no"


def test_a_streamed_task_whose_header_was_read_as_the_worker_died(link: WorkerLink) -> None:
    send(link, Kind.TASK, 9, BIG)
    os.read(link.child_fds[0], PACKET_BYTES)
    assert link.recall() == []
    assert link.never_took([9]) == [9]


@pytest.mark.parametrize("filler", [b"\0", b"\xff", b"\7"])
def test_a_page_that_was_scribbled_on_makes_nobody_innocent(link: WorkerLink, page: StatusPage, filler: bytes) -> None:
    page.take(1, 1)
    os.pwrite(link.child_fds[2], filler * 4096, 0)
    assert link.never_took([1]) == []


# --- answers


def answer(page: StatusPage, seq: int, payload: bytes, before: int = 0, micros: int = 0) -> bytes:
    """A frame as this worker writes it, behind so many bytes of answers."""
    stamp = page.first_stamp() + before
    if len(payload) > INLINE_BYTES:
        return b"".join(pack_large_answer(Kind.VALUE, seq, payload, 0, micros, stamp))
    return pack(Kind.VALUE, seq, payload, 0, micros, stamp)


def test_answers_come_as_they_were_written(link: WorkerLink, page: StatusPage) -> None:
    with pytest.raises(BlockingIOError):
        link.read_answers()
    first = answer(page, 1, b"")
    os.write(link.child_fds[1], first + answer(page, 2, b"v", len(first), micros=7))
    assert link.read_answers() == [(Kind.VALUE, 0, 0, 1, b""), (Kind.VALUE, 0, 7, 2, b"v")]
    with pytest.raises(BlockingIOError):
        link.read_answers()


def test_a_large_answer_is_gathered(link: WorkerLink, page: StatusPage) -> None:
    payload = BIG[:300_000]
    rest = memoryview(answer(page, 1, payload))
    answers = []
    while rest:
        rest = rest[os.write(link.child_fds[1], rest[:40_000]) :]
        with contextlib.suppress(BlockingIOError):
            while True:
                answers += link.read_answers()
    assert answers == [(Kind.VALUE, 0, 0, 1, payload)]


def test_the_end_of_the_stream_is_told_after_what_was_written(link: WorkerLink, page: StatusPage) -> None:
    os.write(link.child_fds[1], answer(page, 1, b"last"))
    link.close_child_fds()
    assert link.read_answers() == [(Kind.VALUE, 0, 0, 1, b"last")]
    with pytest.raises(EOFError):
        link.read_answers()


def test_the_end_in_the_middle_of_a_large_answer(link: WorkerLink, page: StatusPage) -> None:
    os.write(link.child_fds[1], answer(page, 1, bytes(1 << 20))[:5000])
    link.close_child_fds()
    assert link.read_answers() == []
    with pytest.raises(EOFError):
        link.read_answers()


def test_a_frame_is_waited_for_while_the_worker_has_told_of_more(link: WorkerLink, page: StatusPage) -> None:
    frame = answer(page, 1, bytes(1000))
    page.announce(len(frame))
    os.write(link.child_fds[1], frame[:500])
    assert link.read_answers() == []
    link.check_stream()
    os.write(link.child_fds[1], frame[500:])
    assert [one[3] for one in link.read_answers()] == [1]
    link.check_stream()
    os.write(link.child_fds[1], answer(page, 2, bytes(1000), len(frame))[:11])  # somebody else
    assert link.read_answers() == []
    with pytest.raises(MalformedFrame):
        link.check_stream()


def test_a_large_frame_is_waited_for_as_long(link: WorkerLink, page: StatusPage) -> None:
    frame = answer(page, 1, bytes(60_000))
    page.announce(len(frame))
    os.write(link.child_fds[1], frame[:-1])
    assert link.read_answers() == []
    link.check_stream()
    page.announce(len(frame) - 1)
    with pytest.raises(MalformedFrame):
        link.check_stream()


def test_what_a_task_wrote_into_our_pipe_is_malformed(link: WorkerLink, page: StatusPage) -> None:
    os.write(link.child_fds[1], b"a task wrote this into a descriptor that is not its own\n" + answer(page, 1, b"x"))
    assert link.read_answers() == []
    with pytest.raises(MalformedFrame):
        link.check_stream()
    assert link.read_on() == [(Kind.VALUE, 0, 0, 1, b"x")]
    link.check_stream()


def test_a_task_that_was_answered_and_gets_no_answer_did_begin(link: WorkerLink, pipe: TaskPipe, page: StatusPage) -> None:
    """Its answer was not believed: something malformed came before it."""
    send(link, Kind.TASK, 1, b"")
    pipe.receive()
    page.take(1, 1)
    link.answered = 1
    assert link.never_took([1]) == []


def test_nor_is_it_said_not_to_have_run_when_one_behind_it_was_answered(link: WorkerLink, page: StatusPage) -> None:
    page.take(1, 1)
    page.take(2, 1)
    page.set_stage(Stage.ANSWERED)
    link.answered = 2
    assert link.may_have_run(1) == "maybe"
    assert link.may_have_run(3) == "no"


# --- status page, signals


def test_what_the_page_says_of_a_task(link: WorkerLink) -> None:
    page = StatusPage(link.child_fds[2])
    assert link.may_have_run(1) == "no"
    page.take(1, 2_000_000_000)
    said = [link.may_have_run(1)]
    for stage in (Stage.RUNNING, Stage.ENCODING, Stage.ANSWERED):
        page.set_stage(stage)
        said.append(link.may_have_run(1))
    assert said == ["no", "maybe", "yes", "yes"]
    link.answered = 1
    assert link.may_have_run(2) == "no"
    assert link.started_at(1) == 2.0
    assert link.started_at(2) is None
    page.close()


def test_signals_to_a_worker_that_was_never_born_go_nowhere(link: WorkerLink) -> None:
    link.kill_group()
    link.kill()


def test_a_dead_worker_is_not_signalled(link: WorkerLink) -> None:
    pid = os.posix_spawn("/bin/true", ["true"], {})
    link.pid, link.pidfd = pid, os.pidfd_open(pid)
    os.waitpid(pid, 0)
    assert link.ended()
    link.kill()
    link.terminate()
    link.kill_group()


def test_the_living_are_not_ended(link: WorkerLink) -> None:
    link.pidfd = os.pidfd_open(os.getpid())
    assert not link.ended()
    assert Path(f"/proc/self/fd/{link.pidfd}").exists()


def test_whether_a_process_has_our_pipe_open() -> None:
    read, write = os.pipe()
    try:
        assert has_open(os.getpid(), write)
        assert has_open(os.getppid(), write) is False  # opened after that one started us
        assert has_open(0, write) is None
    finally:
        os.close(read)
        os.close(write)
