"""Wait for descriptors and call who watches them.

Runs in: host, supervisor thread. Owns the epoll; each descriptor belongs to whoever registered it.
Tests: tests/unit/test_reactor.py
"""

from __future__ import annotations

import select
from collections.abc import Callable

from .green_poll import GreenPoll, open_poll

_LONGEST_S = 86400.0
_EVENTS = 64  # a batch; what is left is returned by the next call


class Reactor:
    """An epoll with a handler for each descriptor."""

    def __init__(self) -> None:
        self._epoll: select.epoll | GreenPoll = None  # type: ignore[assignment]  # from `open` on
        self._handlers: dict[int, Callable[[], object]] = {}
        self._reserved: set[int] = set()  # in the epoll also while nobody waits for them

    def open(self) -> None:
        """Raises as `open_poll`."""
        self._epoll = open_poll()

    def fileno(self) -> int:
        return -1 if self._epoll is None or self._epoll.closed else self._epoll.fileno()

    def watch(self, fd: int, handler: Callable[[], object], *, writable: bool = False) -> None:
        """Call `handler` whenever `fd` is readable, or writable if that is asked.

        Raises:
            OSError: No memory, or no watch to be had (ENOSPC, /proc/sys/fs/epoll/max_user_watches). Never for a reserved one.
        """
        events = select.EPOLLOUT if writable else select.EPOLLIN
        if fd in self._reserved:
            self._epoll.modify(fd, events)
        else:
            self._epoll.register(fd, events)
        self._handlers[fd] = handler

    def reserve(self, fd: int) -> None:
        """Have a watch for it from now on, until `release`. It must not be one whose other end can go away.

        Raises:
            OSError: As `watch`.
        """
        self._epoll.register(fd, 0)
        self._reserved.add(fd)

    def release(self, fd: int) -> None:
        """Give the watch back; nothing happens if there is none. Call before the descriptor is closed."""
        self.unwatch(fd)
        if fd in self._reserved:
            self._reserved.remove(fd)
            self._epoll.unregister(fd)

    def unwatch(self, fd: int) -> None:
        """Forget it; nothing happens if it is not watched. Call before the descriptor is closed."""
        if self._handlers.pop(fd, None) is not None:
            if fd in self._reserved:
                self._epoll.modify(fd, 0)
            else:
                self._epoll.unregister(fd)

    def wait(self, timeout: float | None) -> list[int]:
        """Wait for events at most so many seconds (None: as long as it takes); which descriptors are ready."""
        if timeout is not None and timeout > _LONGEST_S:
            timeout = _LONGEST_S  # epoll counts milliseconds in 31 bits; the caller looks at its clock again
        return [fd for fd, _ in self._epoll.poll(timeout, _EVENTS)]

    def handle(self, ready: list[int]) -> None:
        """Call the handlers of what is ready and, after those before it, still watched."""
        handlers = self._handlers
        for fd, handler in [(fd, handlers.get(fd)) for fd in ready]:
            # One before it may have closed this descriptor, and opened another that got its number: that one is not ready.
            if handler is not None and handlers.get(fd) is handler:
                handler()

    def close(self) -> None:
        if self._epoll is not None:
            self._epoll.close()
        self._reserved.clear()
        self._handlers.clear()  # they keep their owners alive
