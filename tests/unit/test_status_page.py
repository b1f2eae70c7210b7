"""The page on which a worker says what it is doing, with both sides in one process.

Runs in: pytest.
"""

import os
from collections.abc import Iterator

import pytest

from forkpool._core.ahead import MAX_AHEAD
from forkpool._shared.status_page import BEGAN_ROOM, LINE_BYTES, SIZE, TAIL, Stage, StatusPage


@pytest.fixture
def fd() -> Iterator[int]:
    fd = StatusPage.create()
    yield fd
    os.close(fd)


@pytest.fixture
def sides(fd: int) -> Iterator[tuple[StatusPage, StatusPage]]:
    worker, host = StatusPage(fd), StatusPage(fd)
    yield worker, host
    worker.close()
    host.close()


def test_a_new_page_says_nothing(sides: tuple[StatusPage, StatusPage]) -> None:
    _, host = sides
    assert host.started_at(1) is None
    assert host.stage(1) is Stage.IDLE
    assert host.crash_traceback() is None
    assert not host.terminate_asked()


def test_the_host_sees_how_far_the_worker_is(sides: tuple[StatusPage, StatusPage]) -> None:
    worker, host = sides
    worker.take(7, 1_500_000_000)
    seen = [host.stage(7)]
    for stage in (Stage.RUNNING, Stage.ENCODING, Stage.ANSWERED):
        worker.set_stage(stage)
        seen.append(host.stage(7))
    assert seen == [Stage.LOADING, Stage.RUNNING, Stage.ENCODING, Stage.ANSWERED]
    assert host.started_at(7) == 1.5


def test_the_host_learns_which_descriptor_calls_are_read_from(fd: int, sides: tuple[StatusPage, StatusPage]) -> None:
    worker, host = sides
    assert host.task_fd() is None
    worker.read_from(1007)
    assert host.task_fd() == 1007
    for scribble in (b"\0", b"\xff", b"garbage!"):
        os.pwrite(fd, scribble * (SIZE // len(scribble)), 0)
        assert host.task_fd() is None


def test_the_page_remembers_when_the_last_tasks_began(sides: tuple[StatusPage, StatusPage]) -> None:
    """The worker is ahead of the host by all that may be sent ahead, and by the one that it runs."""
    worker, host = sides
    assert BEGAN_ROOM > MAX_AHEAD + 1
    for count in range(100):
        worker.take(1000 - count, 7_000_000_000 + count)
        for unread in range(max(0, count - MAX_AHEAD - 1), count + 1):
            assert host.began_ns(unread) == 7_000_000_000 + unread


def test_a_forked_child_of_the_worker_has_no_part_in_it(sides: tuple[StatusPage, StatusPage]) -> None:
    worker, host = sides
    worker.take(7, 1)
    worker.set_stage(Stage.RUNNING)
    worker.part()
    worker.set_stage(Stage.ENCODING)
    worker.announce(99)
    assert host.stage(7) is Stage.RUNNING
    assert host.announced() == 0


def test_what_the_page_says_is_of_one_task_only(sides: tuple[StatusPage, StatusPage]) -> None:
    worker, host = sides
    worker.take(7, 1)
    worker.set_stage(Stage.ANSWERED)
    assert host.stage(8, answered=7) is Stage.IDLE
    worker.take(8, 2)
    assert host.stage(9, answered=8) is Stage.IDLE
    assert host.stage(8) is Stage.LOADING, "never the stage of the task before"


def test_large_numbers_are_whole(sides: tuple[StatusPage, StatusPage]) -> None:
    worker, host = sides
    worker.take((1 << 64) - 1, (1 << 63) + 1)
    assert host.started_at((1 << 64) - 1) == ((1 << 63) + 1) / 1e9


def test_the_host_asks_for_the_end(sides: tuple[StatusPage, StatusPage]) -> None:
    worker, host = sides
    host.ask_terminate()
    assert worker.terminate_asked()


def test_a_page_that_a_crash_scribbled_on_is_read_all_the_same(fd: int, sides: tuple[StatusPage, StatusPage]) -> None:
    worker, host = sides
    worker.take(7, 1)
    os.pwrite(fd, b"\xff" * 8, 8)
    assert host.stage(7) is Stage.RUNNING, "it had begun, and we do not know how far it came"


def test_the_text_of_faulthandler_lies_behind_the_words(fd: int, sides: tuple[StatusPage, StatusPage]) -> None:
    _, host = sides
    os.pwrite(fd, b"Fatal Python error: \xff\n", TAIL)
    assert host.crash_traceback() == "Fatal Python error: \\xff\n"


@pytest.mark.parametrize("filler", [b"\0", b"\xff", b"garbage!"])
def test_a_page_without_sense_makes_no_task_look_as_if_it_had_not_begun(fd: int, filler: bytes) -> None:
    worker, host = StatusPage(fd), StatusPage(fd)
    worker.take(8, 1)
    worker.set_stage(Stage.RUNNING)
    os.pwrite(fd, filler * (SIZE // len(filler)), 0)
    assert host.stage(8, answered=7) is Stage.RUNNING
    assert host.stage(8) is Stage.RUNNING
    assert not host.never_took(8, 7)
    assert host.started_at(8) is None
    assert host.unfinished_line(1) == host.unfinished_line(2) == b""
    assert host.crash_traceback() is None
    for page in (worker, host):
        page.close()


def test_what_a_task_wrote_before_it_crashed_is_no_stack(fd: int, sides: tuple[StatusPage, StatusPage]) -> None:
    _, host = sides
    os.pwrite(fd, b"garbage\nFatal Python error: Aborted\n", TAIL)
    assert host.crash_traceback() == "Fatal Python error: Aborted\n"


def test_nobody_can_shrink_or_grow_a_page(fd: int) -> None:
    for size in (0, SIZE - 1, SIZE * 2):
        with pytest.raises(PermissionError):
            os.ftruncate(fd, size)


def test_the_descriptor_may_be_closed_before_the_mapping() -> None:
    before = set(os.listdir("/proc/self/fd"))
    fd = StatusPage.create()
    page = StatusPage(fd)
    os.close(fd)
    page.take(1, 1)
    assert page.stage(1) is Stage.LOADING
    page.close()
    assert set(os.listdir("/proc/self/fd")) == before


def test_an_unfinished_line_is_read_by_the_other_side_however_the_page_looks() -> None:
    fd = StatusPage.create()
    worker, host = StatusPage(fd), StatusPage(fd)
    os.close(fd)
    assert (host.unfinished_line(1), host.unfinished_line(2)) == (b"", b"")
    for number, text in ((1, b"to stdout"), (2, b"to stderr")):
        with worker.line_room(number) as room:
            room[: len(text)] = text
        worker.set_line_length(number, len(text))
    assert (host.unfinished_line(1), host.unfinished_line(2)) == (b"to stdout", b"to stderr")
    worker.set_line_length(1, 1 << 60)  # a crash scribbled here
    assert host.unfinished_line(1) == b""
    worker.set_line_length(1, LINE_BYTES)
    assert len(host.unfinished_line(1)) == LINE_BYTES
    worker.close()
    host.close()
