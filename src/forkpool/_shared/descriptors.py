"""Own, move and pass file descriptors.

Runs in: host, fork server, workers.
Hard part: a task may close every descriptor it finds and open its own files, which then get our numbers. In the children
ours are therefore moved to numbers that no such loop usually reaches and no `open` ever returns.
And `recvmsg` hands over fewer descriptors than were sent, silently, when the table is full (MSG_CTRUNC; seen): the
receiver must count.
Tests: tests/unit/test_descriptors.py
"""

from __future__ import annotations

import _socket
import array
import fcntl
import os
import resource
import socket
from collections.abc import Iterable

_FIRST_HIGH = 1000


def move_high(fd: int) -> int:
    """Move a descriptor out of the reach of `open` and of close loops; the old number is closed. Close-on-exec."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = _FIRST_HIGH if soft == resource.RLIM_INFINITY else min(_FIRST_HIGH, max(3, soft // 2))
    try:
        high = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, lowest)
    except OSError:  # EINVAL or EMFILE under a tiny limit: any number serves
        os.set_inheritable(fd, False)
        return fd
    os.close(fd)
    return high


def close_all(fds: Iterable[int]) -> None:
    """Close, tolerating what is closed already."""
    for fd in fds:
        try:  # noqa: SIM105  # `suppress` is Python code, of which each worker would copy what it touches
            os.close(fd)
        except OSError:
            pass


def send_packet(sock: _socket.socket, data: bytes, fds: tuple[int, ...] = (), flags: int = 0) -> None:
    """Send one packet with descriptors; the caller keeps its own copies."""
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    sock.sendmsg([data], ancillary, flags)


def recv_packet(sock: _socket.socket, size: int, max_fds: int, flags: int = 0) -> tuple[bytes, list[int], bool]:
    """Receive one packet.

    Returns:
        The data (empty: the other end is gone), the descriptors (the caller owns them, close-on-exec), and
        whether some were lost because this process has no room for them.
    """
    room = array.array("i")
    data, ancillary, message_flags, _ = sock.recvmsg(
        size, socket.CMSG_SPACE(max_fds * room.itemsize), flags | socket.MSG_CMSG_CLOEXEC
    )
    for level, kind, body in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            room.frombytes(body[: len(body) - len(body) % room.itemsize])
    return data, list(room), bool(message_flags & socket.MSG_CTRUNC)
