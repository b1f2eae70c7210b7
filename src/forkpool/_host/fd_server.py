"""Hand descriptors to the workers that unpickle the calls which need them.

Runs in: host, supervisor thread. Owns a listening socket, from the first such call that is sent until the pool's end, and at
most one connection per worker. Never blocks: a worker connects, sends a key, gets one packet with the descriptor: of a call
that was sent to this very worker, or of the initializer's.

Hard part: whom to trust. The name is abstract (unix(7)): it leaves no file behind however the host ends, but any process may
connect. Who asks is told by the kernel (SO_PEERCRED), and a stranger gets nothing but its end.
And no descriptors left: a listener from which nobody can be taken would wake us without end. It is closed then, so that those
who wait are told, and made anew.
Tests: tests/unit/test_fd_server.py, tests/process/test_sockets_as_arguments.py
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Callable, Iterable

from .._shared.descriptors import send_packet
from .._shared.owning_payload import OwningPayload
from .._shared.passed_fds import HeldFd, asked_for
from .reactor import Reactor

_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid


class FdServer:
    """The pool's counter for descriptors."""

    def __init__(
        self, address: bytes, reactor: Reactor, calls_of: Callable[[int], Iterable[tuple[bytes, bool]] | None]
    ) -> None:
        """
        Args:
            address: Where it listens.
            calls_of: Asked with a pid: the payloads that this worker was sent, and whether each may be sent again; None:
                it is no worker.
        """
        self._address = address
        self._reactor = reactor
        self._calls_of = calls_of
        self._listener: socket.socket | None = None
        self._asking: dict[int, socket.socket] = {}  # by pid: connections whose key has not come

    def open(self) -> None:
        """Listen, if that is not done. Without descriptors for it the worker is told, and its task fails."""
        if self._listener is not None:
            return
        with contextlib.suppress(OSError):
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            try:
                listener.setblocking(False)
                listener.bind(self._address)
                listener.listen(socket.SOMAXCONN)
                self._reactor.watch(listener.fileno(), self._on_connection)
            except BaseException:
                listener.close()
                raise
            self._listener = listener

    def fds(self) -> list[int]:
        """All that is open. Any thread."""
        links = [self._listener, *list(self._asking.values())]
        return [link.fileno() for link in links if link is not None and link.fileno() >= 0]

    def forget(self, pid: int) -> None:
        """This worker is dead."""
        if pid in self._asking:
            self._drop(self._asking.pop(pid))

    def close(self) -> None:
        """Who waits for a descriptor is told that there is none."""
        for pid in list(self._asking):
            self.forget(pid)
        self._stop_listening()

    def close_in_fork(self) -> None:
        """In a fork of the host: close, and leave the reactor alone, which is the host's."""
        for link in (self._listener, *self._asking.values()):
            if link is not None:
                link.close()

    def _on_connection(self) -> None:
        assert self._listener is not None
        try:
            link, _ = self._listener.accept()
        except (BlockingIOError, ConnectionError):
            return
        except OSError:  # EMFILE, ENFILE, ENOMEM
            self._stop_listening()
            self.open()
            return
        try:
            link.setblocking(False)
            pid = _CREDENTIALS.unpack(link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))[0]
            if self._calls_of(pid) is not None:
                self.forget(pid)
                self._reactor.watch(link.fileno(), lambda: self._on_key(pid))
                self._asking[pid] = link
                return
        except OSError:
            pass
        link.close()

    def _on_key(self, pid: int) -> None:
        link = self._asking[pid]
        try:
            held = self._find(pid, asked_for(link))
            if held is not None:
                send_packet(link, b"\1", (held.fd,), socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return
        except OSError:  # it is gone
            pass
        self.forget(pid)

    def _find(self, pid: int, key: str) -> HeldFd | None:
        found = (
            payload.holding.lend(key, again=again)
            for payload, again in self._calls_of(pid) or ()
            if isinstance(payload, OwningPayload) and payload.holding is not None
        )
        return next((held for held in found if held is not None), None)

    def _drop(self, link: socket.socket) -> None:
        self._reactor.unwatch(link.fileno())
        link.close()

    def _stop_listening(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            self._drop(listener)
