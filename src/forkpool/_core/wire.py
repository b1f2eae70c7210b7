"""The frames that host and worker exchange.

Runs in: host and worker; pure. Every frame is a fixed header and a payload:

    version u8 | kind u8 | flags u16 | micros u32 | seq u64 | payload length u64 | stamp u64

`micros` is how long the worker had the task, in answers (the largest value: that or longer); in tasks how often the call was
tried before; else 0.
Host to worker: a frame of at most `PACKET_BYTES` is one packet of the task pipe, read whole or not at all. A larger one
is its header as a packet (with `STREAM` set), then the payload as plain bytes. Only an idle worker
gets such a one, and nothing is sent behind it.
Worker to host: header and payload in one byte stream. A worker is not trusted to write well-formed frames: a task may
write to our descriptors.

Hard part: what a task wrote must neither be believed, nor hide the answer of another task behind it. So an answer is stamped
with a number that host and worker have agreed on, plus the bytes of all answers before it: whatever else a header says, the
copy of one too, its stamp is wrong. One write of up to `PACKET_BYTES` is never torn (pipe(7)); a larger answer has its stamp
once more at its end, which lies elsewhere if somebody wrote in between. Behind what is none, the next is found by its stamp.
Tests: tests/unit/test_wire.py
"""

from __future__ import annotations

import struct
from enum import IntEnum

VERSION = 2
HEADER = struct.Struct("=BBHIQQQ")
STAMP = struct.Struct("=Q")
_BEFORE_STAMP = HEADER.size - STAMP.size
PACKET_BYTES = 4096  # PIPE_BUF: what pipe(7) guarantees to be one packet
INLINE_BYTES = PACKET_BYTES - HEADER.size
FIRST_ALLOCATION = 1 << 24  # a header may lie about its length: memory grows with the bytes that come


class Kind(IntEnum):
    """What a frame is. Tasks flow from host to worker, answers back."""

    INIT = 1
    TASK = 2
    STOP = 3
    READY = 10
    VALUE = 11
    EXCEPTION = 12
    RESULT_ERROR = 13
    INIT_FAILED = 14
    LACKING = 15  # the call needs a content that the worker was not sent, or has no more: it did not begin


STREAM = 1  # task: the payload follows the packet as plain bytes
PLAIN = 2  # answer: builtin data, safe to unpickle on the supervisor's thread
TRACKED = 4  # answer: the worker may have told the resource tracker something, which the host is to hear first

_ANSWERS = frozenset({Kind.READY, Kind.VALUE, Kind.EXCEPTION, Kind.RESULT_ERROR, Kind.INIT_FAILED, Kind.LACKING})
_KNOWN_FLAGS = STREAM | PLAIN | TRACKED

Answer = tuple[int, int, int, int, "bytes | bytearray"]  # kind, flags, micros, seq, payload
MAX_MICROS = (1 << 32) - 1


class MalformedFrame(Exception):
    """The bytes are not a frame that a worker sends."""


def pack(kind: int, seq: int, payload: bytes = b"", flags: int = 0, micros: int = 0, stamp: int = 0) -> bytes:
    """A whole frame, for one write. Only of at most `INLINE_BYTES` of payload if it is an answer."""
    return HEADER.pack(VERSION, kind, flags, micros, seq, len(payload), stamp) + payload


def pack_header(kind: int, seq: int, length: int, flags: int = 0, micros: int = 0, stamp: int = 0) -> bytes:
    """The header alone, for a payload that is written beside it."""
    return HEADER.pack(VERSION, kind, flags, micros, seq, length, stamp)


def pack_large_answer(kind: int, seq: int, payload: bytes, flags: int, micros: int, stamp: int) -> tuple[bytes, bytes, bytes]:
    """The parts of an answer with more than `INLINE_BYTES` of payload."""
    return pack_header(kind, seq, len(payload), flags, micros, stamp), payload, STAMP.pack(stamp)


def unpack_header(frame: bytes | bytearray) -> tuple[int, int, int, int, int]:
    """Kind, flags, seq, payload length and number of tries before of a task frame."""
    version, kind, flags, tried, seq, length, _ = HEADER.unpack_from(frame)
    if version != VERSION:
        raise MalformedFrame(f"frame of version {version}, expected {VERSION}")
    return kind, flags, seq, length, tried


class AnswerReader:
    """Cut a worker's byte stream into answers.

    Small frames are cut from what was read; the payload of a large one is gathered in one buffer, into which
    the owner may read directly (`gathering`, `space`, `advance`).
    """

    __slots__ = ("_big", "_filled", "_first", "_head", "_is_lost", "_rest", "_size", "_stamp", "malformed")

    def __init__(self, stamp: int = 0) -> None:
        """
        Args:
            stamp: Of the first answer.
        """
        self.malformed: str | None = None  # what is wrong with what comes next; nothing is read on before `go_on`
        self._first = self._stamp = stamp  # of the first answer; of the next one
        self._rest = b""  # an incomplete small frame; all that is not read on
        self._is_lost = False  # where the next answer begins must be found
        self._big: bytearray | None = None  # the payload being gathered, and the stamp behind it
        self._head = (0, 0, 0, 0)
        self._size = 0  # of `_big` when it is complete
        self._filled = 0

    def feed(self, data: bytes) -> list[Answer]:
        """Take bytes as they came; return the frames that are complete now, up to what is none: see `malformed`."""
        answers: list[Answer] = []
        if self._big is not None:
            data = self._fill(data, answers)
        if self._rest:
            data = self._rest + data
        if self.malformed is not None:
            self._rest = data
        else:
            self._cut(data, answers)
        return answers

    def go_on(self) -> list[Answer]:
        """Return the answers behind what is none."""
        self.malformed = None
        return self.feed(b"")

    def lose(self, why: str) -> None:
        """A part of a frame is here whose rest will never come: it is no frame, and the next answer is to be found."""
        self.malformed, self._is_lost, self._big = why, True, None

    def _cut(self, data: bytes, answers: list[Answer]) -> None:
        position = self._find(data) if self._is_lost else 0
        end = len(data)
        while end - position >= HEADER.size:
            version, kind, flags, micros, seq, length, stamp = HEADER.unpack_from(data, position)
            if stamp != self._stamp or version != VERSION or kind not in _ANSWERS or flags & ~_KNOWN_FLAGS or length >> 48:
                self._is_lost = True
                self.malformed = f"not an answer of a worker: {data[position : position + HEADER.size]!r}"
                position += 1  # what looks for the next one finds another
                break
            body = position + HEADER.size
            if length > INLINE_BYTES:
                self._begin((kind, flags, micros, seq), length)
                data, position = self._fill(data[body:], answers), 0
                end = len(data)
                if self.malformed is not None:
                    break
            elif end - body < length:
                break
            else:
                answers.append((kind, flags, micros, seq, data[body : body + length]))
                position = body + length
                self._stamp += HEADER.size + length
        self._rest = data[position:]

    def _find(self, data: bytes) -> int:
        """Where the next answer begins, or may begin."""
        at = data.find(STAMP.pack(self._stamp), _BEFORE_STAMP)
        if at < 0:
            return max(0, len(data) - HEADER.size + 1)
        self._is_lost = False
        return at - _BEFORE_STAMP

    @property
    def incomplete(self) -> bool:
        """True while a part of a frame is here, and the rest must come."""
        return self._big is not None or (bool(self._rest) and not self._is_lost)

    @property
    def seen(self) -> int:
        """Bytes of answers that came, the incomplete one included, without what is none."""
        part = len(self._rest) if self._big is None else HEADER.size + self._filled
        return self._stamp - self._first + part

    @property
    def gathering(self) -> bool:
        """True while a large payload is incomplete: read into `space()` then."""
        return self._big is not None

    def space(self) -> memoryview:
        """Where the next bytes of the large payload belong. Release it before `advance`."""
        big = self._big
        assert big is not None
        if self._filled == len(big):
            self._grow(min(self._size, 2 * len(big)))
        return memoryview(big)[self._filled :]

    def advance(self, count: int) -> list[Answer]:
        """Say that `count` bytes were read into `space()`."""
        answers: list[Answer] = []
        self._filled += count
        self._complete(answers)
        return answers

    def _begin(self, head: tuple[int, int, int, int], length: int) -> None:
        self._head, self._size, self._filled = head, length + STAMP.size, 0
        self._big = bytearray(min(self._size, FIRST_ALLOCATION))

    def _fill(self, data: bytes, answers: list[Answer]) -> bytes:
        """Put what belongs there into the large payload; returns the rest."""
        taken = min(len(data), self._size - self._filled)
        self._grow(self._filled + taken)
        assert self._big is not None
        self._big[self._filled : self._filled + taken] = data[:taken]
        self._filled += taken
        self._complete(answers)
        return data[taken:]

    def _grow(self, size: int) -> None:
        big = self._big
        assert big is not None
        if size > len(big):
            big.extend(bytes(size - len(big)))

    def _complete(self, answers: list[Answer]) -> None:
        if self._filled < self._size:
            return
        big, self._big = self._big, None
        assert big is not None
        length = self._size - STAMP.size
        if big[length:] != STAMP.pack(self._stamp):
            self._is_lost, self.malformed = True, "something was written into the middle of an answer"
        else:
            del big[length:]
            answers.append((*self._head, big))
        self._stamp += HEADER.size + self._size
