"""What a task prints survives its crash, the line that it had not finished included.

Runs in: a worker, any thread of the task's; the streams are made in the fork server. Lines go out whole, in one write: lines
of several workers must not tear each other apart, as they do when each piece of a `print` is written at once (6 % of the
lines of two processes; seen).
Hard part: the unfinished line is in no buffer of ours then, for a crash would take that along. It lies on the status page, and
the host writes it when the worker is dead. A fork child of a task shares the page, so it writes everything through.
Tests: tests/process/test_inheritance_output.py, tests/unit/test_output.py
"""

from __future__ import annotations

import _thread
import contextlib
import io
import os
import select
import sys
from typing import Any

from .._shared.status_page import LINE_BYTES, StatusPage


class LineStream(io.RawIOBase):
    """A descriptor to which whole lines are written; what follows the last line is on the page until its end comes.

    Without a page everything is written at once: in the fork server, and in a fork child of a task.
    """

    _page: StatusPage

    def __init__(self, fd: int, name: str) -> None:
        self.name = name
        self._fd = fd
        self._room: memoryview | None = None
        self._length = 0  # of the unfinished line
        self._lock = _thread.RLock()  # reentrant: a signal handler may print

    def begin(self, page: StatusPage) -> None:
        """In a worker, before its first task."""
        self._page = page
        self._room = page.line_room(self._fd)

    def write_through(self) -> None:
        """In a fork child of a task: the page is the worker's."""
        self._room, self._length, self._lock = None, 0, _thread.RLock()

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._fd

    def isatty(self) -> bool:
        return os.isatty(self._fd)

    def write(self, data: Any) -> int:
        data = bytes(data)
        room = self._room
        if room is None:  # without the lock: in the fork server another thread might hold it while we fork
            self._write_out(data)
            return len(data)
        with self._lock:
            begun = self._length
            end = data.rfind(b"\n") + 1
            if end or begun + len(data) > LINE_BYTES:
                end = end if len(data) - end <= LINE_BYTES else len(data)
                self._write_out(bytes(room[:begun]) + data[: end or len(data)])
                begun, rest = 0, data[end or len(data) :]
            else:
                rest = data
            # The length last: a line is told of when it is there. Written twice rather than lost, if we are killed just here.
            room[begun : begun + len(rest)] = rest
            self._set_length(begun + len(rest))
        return len(data)

    def flush(self) -> None:
        super().flush()  # raises if closed
        if self._room is not None:
            with self._lock:
                if self._length:
                    self._write_out(bytes(self._room[: self._length]))
                    self._set_length(0)

    def _set_length(self, length: int) -> None:
        if length != self._length:
            self._length = length
            self._page.set_line_length(self._fd, length)

    def _write_out(self, data: bytes) -> None:
        """Write all of it: what was on the page, and perhaps more."""
        rest = memoryview(data)
        try:
            while rest:
                try:
                    rest = rest[os.write(self._fd, rest) :]
                except BlockingIOError:
                    wait_for_room(self._fd)
        finally:
            if rest:  # a handler raised, or nobody reads any more
                self._drop(len(data) - len(rest))

    def _drop(self, count: int) -> None:
        """So many bytes of what was to be written are out: they are not written again."""
        room, begun = self._room, self._length
        if room is not None and count and begun:
            left = bytes(room[count:begun])
            room[: len(left)] = left
            self._set_length(len(left))


def wait_for_room(fd: int) -> None:
    """Somebody who has the terminal or pipe too made it non-blocking: a print waits all the same, it does not lose lines."""
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    poll.poll()


def keep_unfinished_lines() -> list[LineStream]:
    """Replace the standard streams, if they are the interpreter's own and buffered (`-u`: nothing is ever kept then).

    In the fork server, for the workers; each then calls `begin` of what this returns.
    """
    streams = []
    for fd, name in ((1, "stdout"), (2, "stderr")):
        old = getattr(sys, name)
        with contextlib.suppress(AttributeError, ValueError, OSError):
            old.reconfigure(line_buffering=True)  # who holds it already (a logging handler) loses no line
            if type(old) is not io.TextIOWrapper or old.write_through or old.fileno() != fd:
                continue
            old.flush()
            raw = LineStream(fd, f"<{name}>")
            file: Any = raw
            new: Any = io.TextIOWrapper(file, encoding=old.encoding, errors=old.errors, newline="\n", write_through=True)
            new.mode = "w"
            setattr(sys, name, new)
            setattr(sys, f"__{name}__", new)
            streams.append(raw)
    return streams


def flush_output() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BaseException:  # closed or replaced by the task: its own business, be it SystemExit that it raises
            continue
