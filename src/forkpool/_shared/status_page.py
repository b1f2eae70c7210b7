"""The page of shared memory on which a worker says what it is doing, and dies.

Runs in: the worker (writer) and the host (reader). One memfd per worker. Words of 8 bytes, each with one writer and
stored in one instruction (`memoryview.cast("Q")`; `struct.pack_into` would store byte by byte and be torn).
The host reads it to decide only when the worker is gone, or to ask when a task really began; else it is a hint.
A page that a crash scribbled on must not make a task that ran look as if it had not: `never_took` trusts only the very
number that the worker left there itself, and zero is none of those.
Behind the words lies room for faulthandler, which writes with write(2) on the memfd.
Tests: tests/unit/test_status_page.py
"""

from __future__ import annotations

import os
import sys
from enum import IntEnum
from mmap import mmap

_LINES = 4096  # where the unfinished lines of fd 1 and fd 2 lie
LINE_BYTES = 8192  # room for each: as long as what the interpreter's own stream would hold together
TAIL = _LINES + 2 * LINE_BYTES  # where faulthandler's text begins
SIZE = TAIL + 60 * 1024  # what is never written takes no memory
_LENGTH_OF_LINE = 15  # the words of their lengths: behind this one
_SEQ, _STAGE, _STARTED_NS, _TERMINATE, _READING, _ANNOUNCED, _STAMP, _TASK_FD = range(8)
_BEGAN = 32  # from this word on: when each of the last tasks began, the n-th one of the worker at n modulo their number
BEGAN_ROOM = 32  # a power of two, and more than a worker can have answered and begun without the host having read of it
_FAULT = b"Fatal Python error: "  # how faulthandler's text begins
_A_NUMBER = 1 << 62  # beside a descriptor's: no page that was overwritten looks like that
NOTHING_YET = (1 << 63) | 0x464F524B  # in the place of a seq: arbitrary, but neither a seq nor zeros


class Stage(IntEnum):
    """What the worker does with the task whose seq is on the page."""

    IDLE = 0
    LOADING = 1  # unpickling the call: nothing of the task has run
    RUNNING = 2
    ENCODING = 3  # pickling the result
    ANSWERED = 4

    @property
    def is_work(self) -> bool:
        """Is the worker busy with it?"""
        return Stage.LOADING <= self <= Stage.ENCODING


_LOADING = int(Stage.LOADING)  # to look up a member of an enum takes as long as the rest of `take`


class StatusPage:
    """A mapping of a worker's page. It keeps no descriptor but the mapping's own."""

    __slots__ = ("_map", "_taken", "_words")

    def __init__(self, fd: int) -> None:
        self._map = mmap(fd, SIZE)
        self._words = memoryview(self._map).cast("Q")
        self._taken = 0  # tasks, as the worker counts them

    @staticmethod
    def create(stamp: int = 0) -> int:
        """A descriptor of a new page; the caller owns it. Its size is sealed: nobody can make a reader's access fault.

        Args:
            stamp: Of the worker's first answer.
        """
        import fcntl

        fd = os.memfd_create("forkpool-status", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(fd, SIZE)
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
            os.pwrite(fd, NOTHING_YET.to_bytes(8, sys.byteorder), _SEQ * 8)
            os.pwrite(fd, stamp.to_bytes(8, sys.byteorder), _STAMP * 8)
            os.lseek(fd, TAIL, os.SEEK_SET)  # where faulthandler will write, in a process that has the same description of it
        except BaseException:
            os.close(fd)
            raise
        return fd

    def first_stamp(self) -> int:
        """The worker reads it before any task could write here."""
        return self._words[_STAMP]

    # --- the worker writes

    def take(self, seq: int, now_ns: int) -> None:
        """The worker has this task now; blame begins."""
        words = self._words
        words[_STARTED_NS] = words[_BEGAN + (self._taken & (BEGAN_ROOM - 1))] = now_ns
        self._taken += 1
        words[_STAGE] = _LOADING
        words[_SEQ] = seq

    def read_from(self, fd: int) -> None:
        """The worker reads its calls from this descriptor."""
        self._words[_TASK_FD] = _A_NUMBER | fd

    def read_on(self, seq: int) -> None:
        """The worker reads a large call: room for it may cost the worker its life, so blame begins before `take`."""
        self._words[_READING] = seq

    def set_stage(self, stage: int) -> None:
        self._words[_STAGE] = stage

    def part(self) -> None:
        """This process is a child that a task forked: what it says of itself from now on, it says to nobody."""
        self._words = memoryview(bytearray(SIZE)).cast("Q")

    def announce(self, count: int) -> None:
        """So many bytes of answers will have been written, from the worker's start to the end of the one that comes now."""
        self._words[_ANNOUNCED] = count

    def line_room(self, fd: int) -> memoryview:
        """Where the unfinished line of fd 1 or 2 is kept."""
        begin = _LINES + (fd - 1) * LINE_BYTES
        return memoryview(self._map)[begin : begin + LINE_BYTES]

    def set_line_length(self, fd: int, length: int) -> None:
        self._words[_LENGTH_OF_LINE + fd] = length

    def terminate_asked(self) -> bool:
        """True when the host itself sends SIGTERM, and no group-wide one is meant."""
        return bool(self._words[_TERMINATE])

    # --- the host reads

    def ask_terminate(self) -> None:
        """The one word that the host writes."""
        self._words[_TERMINATE] = 1

    def started_at(self, seq: int) -> float | None:
        """When (monotonic seconds) the worker took this task; None: it has not."""
        started = self.started_ns(seq)
        return None if started is None else started / 1e9

    def started_ns(self, seq: int) -> int | None:
        """The same in nanoseconds."""
        words = self._words
        return words[_STARTED_NS] if words[_SEQ] == seq else None

    def noted(self) -> int:
        """The seq of the last task that the worker took; `NOTHING_YET` if there is none."""
        return self._words[_SEQ]

    def task_fd(self) -> int | None:
        """Which descriptor the worker reads its calls from; None: it has not said so yet, or its page is overwritten."""
        fd = self._words[_TASK_FD] ^ _A_NUMBER
        return fd if fd < 1 << 31 else None

    def began_ns(self, count: int) -> int:
        """When (monotonic nanoseconds) the worker took its task of this number, from 0. Ask when its answer is read."""
        return self._words[_BEGAN + (count & (BEGAN_ROOM - 1))]

    def stage(self, seq: int, answered: int = NOTHING_YET) -> Stage:
        """How far the worker went with this task; IDLE if it never took it.

        Args:
            answered: The last seq that this worker answered.
        """
        words = self._words
        if words[_SEQ] != seq:  # another number than the one before: memory was overwritten
            return Stage.IDLE if words[_SEQ] in (answered, NOTHING_YET) else Stage.RUNNING
        number = words[_STAGE]
        # Another number: memory was overwritten before the crash, so the task had begun.
        return Stage(number) if number <= Stage.ANSWERED else Stage.RUNNING

    def never_took(self, seq: int, answered: int) -> bool:
        """Whether a dead worker had not even begun with this task, wherever its frame is.

        A process with a deadly signal pending may still take a frame out of the pipe: pipe_read() looks for data before it
        looks for signals. It then dies on the way back to user mode, and never writes here.

        Args:
            answered: The last seq that this worker answered; `NOTHING_YET` if there is none.
        """
        return self._words[_SEQ] == answered and self._words[_READING] != seq

    def announced(self) -> int:
        """How many bytes of answers the worker has written or is about to write. What was read is included: it told before."""
        return self._words[_ANNOUNCED]

    def unfinished_line(self, fd: int) -> bytes:
        """What a dead worker had printed to fd 1 or 2 behind its last whole line."""
        length = self._words[_LENGTH_OF_LINE + fd]
        if length > LINE_BYTES:  # a crash, or a task, wrote here: that is no text
            return b""
        with self.line_room(fd) as room:
            return bytes(room[:length])

    def crash_traceback(self) -> str | None:
        """What faulthandler wrote, if it did. A task may have written to the same descriptor before."""
        at = self._map.find(_FAULT, TAIL)
        if at < 0:
            return None
        return self._map[at:].rstrip(b"\0").decode("utf-8", "backslashreplace")

    def close(self) -> None:
        self._words.release()
        self._map.close()
