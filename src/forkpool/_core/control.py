"""The messages between the host and its fork server.

Runs in: host and fork server; pure. Each message is one packet of a SOCK_SEQPACKET pair; descriptors travel beside it.
Tests: tests/unit/test_wire.py
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple


class Ask(IntEnum):
    """Host to fork server."""

    SPAWN = 1  # descriptors: the task pipe to read, the answer pipe to write, the status page
    KILL = 2  # the host cannot: it could not take the worker's pidfd, or gave up its rights
    TERMINATE = 3  # likewise: SIGTERM


class Tell(IntEnum):
    """Fork server to host."""

    HELLO = 1  # configured, ready to fork
    SPAWNED = 2  # descriptor: the worker's pidfd
    SPAWN_FAILED = 3  # text: why
    EXITED = 4  # the worker is dead and reaped, its process group with it
    START_FAILED = 5  # text: why this server can do nothing
    PRELOAD_FAILED = 6  # the same, and a descriptor: a file with what a preloaded module raised
    PRELOADING = 7  # text: the module that is next
    THREADS = 8  # text: threads that are there when it forks, and that no library is known to handle


_ASK = struct.Struct("=BBHIQ")
_TELL = struct.Struct("=BxxxIqqQ")
_ASKS = {int(ask): ask for ask in Ask}  # a call of an enum runs four functions
_TELLS = {int(tell): tell for tell in Tell}
HAS_INITIALIZER = 1
MAX_TEXT = 16384
PACKET = _TELL.size + MAX_TEXT


class Request(NamedTuple):
    """One message of the host."""

    ask: Ask
    generation: int
    slot: int
    flags: int


class Report(NamedTuple):
    """One message of the fork server. `status` is the wait status, `peak_rss` in bytes."""

    tell: Tell
    generation: int = 0
    pid: int = 0
    status: int = 0
    peak_rss: int = 0
    text: str = ""


def pack_request(ask: Ask, generation: int, slot: int = 0, flags: int = 0) -> bytes:
    return _ASK.pack(ask, flags, 0, slot, generation)


def unpack_request(data: bytes) -> Request:
    ask, flags, _, slot, generation = _ASK.unpack(data)
    return Request(_ASKS.get(ask) or Ask(ask), generation, slot, flags)


def pack_report(report: Report) -> bytes:
    text = report.text.encode("utf-8", "backslashreplace")[:MAX_TEXT]
    return _TELL.pack(report.tell, report.pid, report.status, report.peak_rss, report.generation) + text


def unpack_report(data: bytes) -> Report:
    tell, pid, status, peak_rss, generation = _TELL.unpack_from(data)
    return Report(
        _TELLS.get(tell) or Tell(tell), generation, pid, status, peak_rss, data[_TELL.size :].decode("utf-8", "replace")
    )
