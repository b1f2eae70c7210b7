"""Descriptors inside a call: sockets and `multiprocessing`'s connections arrive in the worker that runs it.

Runs in: host (`Holding`: the thread that submits), worker (`PassedFd.detach`, `rebuild_socket`: the task's thread, while it
unpickles). A worker imports it when it meets such a thing, not before.

What travels in the payload is a key. The host keeps a duplicate of the descriptor with the payload, and lends it to the worker
that unpickles it and asks for it over a socket (`_host.fd_server`).
Hard part: how long the host keeps it. `multiprocessing.resource_sharer`, which does the same for other pools, gives each
duplicate to the first who asks, once, and to nobody else: a call that is tried again finds nothing, and one that is
cancelled in the queue leaves a descriptor and a thread. Here the payload owns it, so it is there for each attempt and each
worker that is initialized, and closed when nobody can run the call any more, however that came. Of a call that will not be
tried again it is given away when it is fetched: the other end of a pipe sees its end when the task closes it, not later.
A descriptor has one duplicate, in however many calls it waits, or a long queue would use up all numbers. And one key, or a
global that is a socket would count as changed with every call.
Tests: tests/process/test_sockets_as_arguments.py, tests/unit/test_payload_multiprocessing.py
"""

from __future__ import annotations

import errno
import itertools
import os
import socket
import stat
from _thread import _local
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import ref

from .descriptors import close_all, recv_packet

_KEY_BYTES = 128
_FIRST_FD = 3  # a program may have closed 0, 1 and 2: see `_host.stdio_guard`
_NOT_HANDED_OVER = (
    "the process that submitted this call could not hand over a socket or connection of it: it has no file descriptors left, "
    "or the call was given up meanwhile"
)


class HeldFd:
    """A duplicate of a descriptor, closed when nobody holds this object any more.

    Not by a `__del__`: while that runs, another thread may still get the object from a weak reference. A callback of such a
    reference comes when it is too late for that.
    """

    __slots__ = ("__weakref__", "fd")

    def __init__(self, fd: int) -> None:
        self.fd = fd


class _Ref(ref[HeldFd]):
    """Closes the descriptor of what it refers to."""

    __slots__ = ("fd", "key")

    def __init__(self, held: HeldFd, _: Callable[[_Ref], None], key: str) -> None:
        super().__init__(held, _)  # type: ignore[call-arg]
        self.fd = held.fd
        self.key = key

    def __new__(cls, held: HeldFd, callback: Callable[[_Ref], None], key: str) -> _Ref:
        return super().__new__(cls, held, callback)


def _duplicate(fd: int, key: str) -> HeldFd:
    import fcntl

    held = HeldFd(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _FIRST_FD))
    made = _refs[held.fd] = _Ref(held, _on_dropped, key)
    _shared[key] = made  # in a race of two threads there are two, one of which nobody else will share: no harm
    return held


def _on_dropped(dead: _Ref) -> None:
    del _refs[dead.fd]
    if _shared.get(dead.key) is dead:
        _shared.pop(dead.key, None)
    os.close(dead.fd)


class Holding:
    """The descriptors of one payload."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held: dict[str, tuple[HeldFd, int]] = {}  # how often its key stands in the payload

    def __bool__(self) -> bool:
        return bool(self._held)

    def hold(self, fd: int, serial: int | None = None) -> str:
        """Keep a duplicate of `fd`; the key for it.

        Args:
            serial: Of a file: a number that means this one and no other, see `serial_of`; its position does not matter then.
        Raises:
            OSError: There is no descriptor for it, or `fd` is none.
        """
        key = _key_of(fd, serial)
        held, uses = self._held.get(key, (None, 0))
        if held is None and (known := _shared.get(key)) is not None:
            held = known()
        if held is None:
            held = _duplicate(fd, key)
        self._held[key] = held, uses + 1
        return key

    def lend(self, key: str, *, again: bool) -> HeldFd | None:
        """What is kept under `key`. With `again` it stays; else it goes once everybody has it who knows the key."""
        held, uses = self._held.get(key, (None, 0))
        if held is not None and not again:
            if uses > 1:
                self._held[key] = held, uses - 1
            else:
                del self._held[key]
        return held


class PassedFd:
    """What stands for a descriptor in a payload. The name of the method is `multiprocessing`'s."""

    __slots__ = ("_address", "_key")

    def __init__(self, address: bytes, key: str) -> None:
        self._address = address
        self._key = key

    def __reduce__(self) -> tuple[Any, ...]:
        return PassedFd, (self._address, self._key)

    def detach(self) -> int:
        """Get the descriptor; the caller owns it. It is not inheritable.

        Raises:
            OSError: There is no descriptor to be had, here or there.
        """
        here: Holding | None = getattr(_lender, "holding", None)
        if here is None:
            return _fetch(self._address, self._key)
        held = here.lend(self._key, again=True)
        if held is None:
            raise ConnectionError(_NOT_HANDED_OVER)
        return os.dup(held.fd)


@contextmanager
def lent_by(payload: Any) -> Iterator[None]:
    """Where a payload is unpickled in the process that made it: no need to ask anybody."""
    outer = getattr(_lender, "holding", None)
    try:
        _lender.holding = payload.holding
        yield
    finally:
        _lender.holding = outer


def reduce_socket(sock: socket.socket, fd: PassedFd) -> tuple[Any, ...]:
    """What a socket is pickled as, given what stands for its descriptor."""
    return rebuild_socket, (fd, int(sock.family), int(sock.type), sock.proto, sock.gettimeout())


def rebuild_socket(passed: PassedFd, family: int, kind: int, proto: int, timeout: float | None) -> socket.socket:
    """Make the socket object of a descriptor that has arrived.

    Whether a socket blocks is a property of the connection, which both processes share: it is set again to what it was at
    `submit`, since a socket object with another opinion would not work.
    """
    fd = passed.detach()
    try:
        made = socket.socket(family, kind, proto, fileno=fd)
    except BaseException:
        os.close(fd)
        raise
    made.settimeout(timeout)
    return made


def _fetch(address: bytes, key: str) -> int:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as link:
        link.settimeout(None)  # whatever `socket.setdefaulttimeout` said
        try:
            link.connect(address)
            link.send(key.encode(), socket.MSG_NOSIGNAL)
            _, fds, were_lost = recv_packet(link, 1, 1)
        except ConnectionError as error:
            raise ConnectionError(_NOT_HANDED_OVER) from error
    if fds:
        return fds[0]
    if were_lost:
        raise OSError(errno.EMFILE, "this worker has no file descriptor left for a socket or connection of the call")
    raise ConnectionError(_NOT_HANDED_OVER)


def address_of(name: str) -> bytes:
    """Where the pool of that name listens, in this process: one that is not used before a fork is used in both."""
    return f"\0{name}-{os.getpid()}".encode()


def asked_for(link: socket.socket) -> str:
    """In the host: the key that a worker sent. Raises OSError; BlockingIOError as long as nothing has come."""
    return link.recv(_KEY_BYTES).decode(errors="replace")


def serial_of(thing: Any) -> int:
    """Return a number that means this very object as long as the process lives.

    The inode of a file does not: when the file is gone, the next one may have it. A worker would keep what it has.
    """
    key = id(thing)
    known = _serials.get(key)
    if known is None or known[0]() is not thing:
        known = _serials[key] = ref(thing, lambda dead: _forget_serial(key, dead)), next(_numbers)
    return known[1]


def _forget_serial(key: int, dead: ref[Any]) -> None:
    known = _serials.get(key)
    if known is not None and known[0] is dead:
        _serials.pop(key, None)


def _key_of(fd: int, serial: int | None) -> str:
    """The same for all descriptors that are alike in everything, and for no other as long as one of them is open."""
    status = os.fstat(fd)
    key = f"{status.st_dev:x}.{status.st_ino:x}"
    if serial is not None:
        return f"{key}.m{serial}"
    if stat.S_ISSOCK(status.st_mode):
        return key
    if stat.S_ISFIFO(status.st_mode):  # both ends have the same number; each may have been opened anew through /proc
        import fcntl

        return f"{key}.{fcntl.fcntl(fd, fcntl.F_GETFL):x}"
    return f"{key}..{next(_numbers)}"  # a file: which descriptors share their offset cannot be told


def _close_in_fork() -> None:
    """A fork of the host does not keep connections open: no pool runs in it that could need them."""
    close_all(_refs)
    _shared.clear()
    _refs.clear()  # without a reference there is no callback


_refs: dict[int, _Ref] = {}  # by descriptor: all that there are
_shared: dict[str, _Ref] = {}  # by key
_serials: dict[int, tuple[ref[Any], int]] = {}  # by id of the object
_numbers = itertools.count()
_lender = _local()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_fork)
