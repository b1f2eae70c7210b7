"""What becomes of a line when its descriptor does not take it at once.

Runs in: pytest.
"""

import os
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from forkpool._child import output
from forkpool._child.output import LineStream
from forkpool._shared.status_page import LINE_BYTES

FILLED = 4096


class Page:
    """A status page that nobody else looks at."""

    def __init__(self) -> None:
        self.room = memoryview(bytearray(LINE_BYTES))
        self.length = 0

    def line_room(self, fd: int) -> memoryview:
        return self.room

    def set_line_length(self, fd: int, length: int) -> None:
        self.length = length

    def line(self) -> bytes:
        return bytes(self.room[: self.length])


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """One that does not block the writer."""
    ends = os.pipe()
    os.set_blocking(ends[1], False)
    yield ends
    for fd in ends:
        os.close(fd)


def fill(fd: int) -> int:
    """Its bytes."""
    count = 0
    try:
        while True:
            count += os.write(fd, bytes(FILLED))
    except BlockingIOError:
        return count


def stream_to(fd: int) -> tuple[LineStream, Page]:
    stream, page = LineStream(fd, "<stdout>"), Page()
    page_like: Any = page
    stream.begin(page_like)
    return stream, page


def read(fd: int, count: int) -> bytes:
    data = b""
    while len(data) < count:
        data += os.read(fd, count - len(data))
    return data


def test_a_slow_reader_of_what_does_not_block_loses_nothing(pipe: tuple[int, int]) -> None:
    """An unfinished line was lost without a word, and what was written of a long one came again."""
    reader, writer = pipe
    stream, page = stream_to(writer)
    filled = fill(writer)
    wanted = b"begun" + b"y" * 3 * filled + b"\nno end"

    def write() -> None:
        stream.write(b"begun")
        stream.write(wanted[5:])
        stream.flush()

    thread = threading.Thread(target=write)
    thread.start()
    got = read(reader, filled + len(wanted))
    thread.join()
    assert got[filled:] == wanted
    assert page.line() == b""


@pytest.mark.parametrize("begun", [b"", b"short", b"b" * LINE_BYTES])
def test_what_is_out_is_not_written_again_when_a_signal_handler_raises(
    begun: bytes, pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer = pipe
    stream, page = stream_to(writer)
    stream.write(begun)
    filled = fill(writer)
    read(reader, FILLED)  # so much room there is

    def interrupted(fd: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(output, "wait_for_room", interrupted)
    more = b"y" * 2 * FILLED
    with pytest.raises(KeyboardInterrupt):
        stream.write(more + b"\n")
    assert read(reader, filled) == bytes(filled - FILLED) + (begun + more)[:FILLED]
    assert page.line() == begun[FILLED:]
    stream.flush()
    assert page.line() == b""


def test_a_line_that_nobody_takes_stays_on_the_page(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    stream, page = stream_to(pipe[1])
    stream.write(b"no end")
    fill(pipe[1])

    def interrupted(fd: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(output, "wait_for_room", interrupted)
    with pytest.raises(KeyboardInterrupt):
        stream.flush()
    assert page.line() == b"no end"
    page.length = 0  # the stream itself would be flushed when it is collected
    stream.write_through()
