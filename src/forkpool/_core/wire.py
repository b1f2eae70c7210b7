"""The frames that host and worker exchange.

Runs in: host and worker; pure. Every frame is a fixed header and a payload:

    version u8 | kind u8 | flags u16 | micros u32 | seq u64 | payload length u64

`micros` is how long the worker had the task, in answers (the largest value: that or longer); else 0.
Host to worker: a frame of at most `PACKET_BYTES` is one packet of the task pipe, read whole or not at all. A larger one
is its header as a packet (with `STREAM` set), then the payload as plain bytes. Only an idle worker
gets such a one, and nothing is sent behind it.
Worker to host: header and payload in one byte stream. A worker is not trusted to write well-formed frames (a task may
write to our descriptors): `AnswerReader` raises `MalformedFrame`, and that ends the worker, never the host.
Tests: tests/unit/test_wire.py
"""

from __future__ import annotations

import struct
from enum import IntEnum

VERSION = 1
HEADER = struct.Struct("=BBHIQQ")
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


STREAM = 1  # task: the payload follows the packet as plain bytes
PLAIN = 2  # answer: builtin data, safe to unpickle on the supervisor's thread
TRACKED = 4  # answer: the worker may have told the resource tracker something, which the host is to hear first

_ANSWERS = frozenset({Kind.READY, Kind.VALUE, Kind.EXCEPTION, Kind.RESULT_ERROR, Kind.INIT_FAILED})
_KNOWN_FLAGS = STREAM | PLAIN | TRACKED

Answer = tuple[int, int, int, int, "bytes | bytearray"]  # kind, flags, micros, seq, payload
MAX_MICROS = (1 << 32) - 1


class MalformedFrame(Exception):
    """The bytes are not a frame that a worker sends."""


def pack(kind: int, seq: int, payload: bytes = b"", flags: int = 0, micros: int = 0) -> bytes:
    """A whole frame, for one write."""
    return HEADER.pack(VERSION, kind, flags, micros, seq, len(payload)) + payload


def pack_header(kind: int, seq: int, length: int, flags: int = 0, micros: int = 0) -> bytes:
    """The header alone, for a payload that is written beside it."""
    return HEADER.pack(VERSION, kind, flags, micros, seq, length)


def unpack_header(frame: bytes | bytearray) -> tuple[int, int, int, int]:
    """Kind, flags, seq and payload length of a task frame."""
    version, kind, flags, _, seq, length = HEADER.unpack_from(frame)
    if version != VERSION:
        raise MalformedFrame(f"frame of version {version}, expected {VERSION}")
    return kind, flags, seq, length


class AnswerReader:
    """Cut a worker's byte stream into answers.

    Small frames are cut from what was read; the payload of a large one is gathered in one buffer, into which
    the owner may read directly (`want`, `space`, `advance`).
    """

    __slots__ = ("_big", "_filled", "_head", "_length", "_rest", "malformed")

    def __init__(self) -> None:
        self._rest = b""  # an incomplete small frame
        self.malformed: str | None = None  # what was wrong, once something was
        self._big: bytearray | None = None  # the payload being gathered
        self._head = (0, 0, 0, 0)
        self._length = 0
        self._filled = 0

    def feed(self, data: bytes) -> list[Answer]:
        """Take bytes as they came; return the frames that are complete now.

        Raises:
            MalformedFrame: They are no frame. Nothing behind that can be trusted: each further call raises it too. Frames
                before that are returned; `malformed` is set then.
        """
        if self.malformed is not None:
            raise MalformedFrame(self.malformed)
        answers: list[Answer] = []
        try:
            self._cut(data, answers)
        except MalformedFrame as error:
            self.malformed = str(error)
            if not answers:
                raise
        return answers

    def _cut(self, data: bytes, answers: list[Answer]) -> None:
        if self._big is not None:
            taken = min(len(data), self._length - self._filled)
            self._grow(self._filled + taken)
            self._big[self._filled : self._filled + taken] = data[:taken]
            self._filled += taken
            data = data[taken:]
            if not self._complete(answers):
                return
        if self._rest:
            data = self._rest + data
        position, end = 0, len(data)
        while end - position >= HEADER.size:
            kind, flags, micros, seq, length = _check(data, position)
            body = position + HEADER.size
            if end - body < length:
                if length > INLINE_BYTES:
                    self._begin((kind, flags, micros, seq), length, data[body:])
                    position = end
                break
            answers.append((kind, flags, micros, seq, data[body : body + length]))
            position = body + length
        self._rest = data[position:]

    @property
    def incomplete(self) -> bool:
        """True while a part of a frame is here, and the rest must come."""
        return self._big is not None or bool(self._rest)

    @property
    def gathering(self) -> bool:
        """True while a large payload is incomplete: read into `space()` then."""
        return self._big is not None

    def space(self) -> memoryview:
        """Where the next bytes of the large payload belong. Release it before `advance`."""
        big = self._big
        assert big is not None
        if self._filled == len(big):
            self._grow(min(self._length, 2 * len(big)))
        return memoryview(big)[self._filled :]

    def advance(self, count: int) -> list[Answer]:
        """Say that `count` bytes were read into `space()`."""
        answers: list[Answer] = []
        self._filled += count
        self._complete(answers)
        return answers

    def _begin(self, head: tuple[int, int, int, int], length: int, first: bytes) -> None:
        self._head, self._length, self._filled = head, length, len(first)
        self._big = bytearray(min(length, max(FIRST_ALLOCATION, len(first))))
        self._big[: len(first)] = first

    def _grow(self, size: int) -> None:
        big = self._big
        assert big is not None
        if size > len(big):
            big.extend(bytes(size - len(big)))

    def _complete(self, answers: list[Answer]) -> bool:
        if self._filled < self._length:
            return False
        assert self._big is not None
        answers.append((*self._head, self._big))
        self._big = None
        return True


def _check(data: bytes, position: int) -> tuple[int, int, int, int, int]:
    version, kind, flags, micros, seq, length = HEADER.unpack_from(data, position)
    if version != VERSION or kind not in _ANSWERS or flags & ~_KNOWN_FLAGS or length >> 48:
        raise MalformedFrame(f"not an answer of a worker: {bytes(data[position : position + HEADER.size])!r}")
    return kind, flags, micros, seq, length
