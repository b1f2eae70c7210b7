"""Wait for descriptors where gevent has made greenlets of threads: `monkey.patch_all()`.

Runs in: host, supervisor thread. There, what starts a thread starts a greenlet beside those of the thread that asked, and so
the supervisor is one. Locks and events are gevent's as well: who waits for a future lets other greenlets run. gevent takes
epoll away, since it would stop them all; gevent's poll(2) does not.
Hard part: a greenlet runs only when its thread lets it. The main thread does as long as the program lives; another one may
never do it again after its first submit. So the supervisor must be a greenlet of the main thread.
Tests: tests/process/test_gevent.py
"""

from __future__ import annotations

import _thread
import os
import select

_NOT_THE_MAIN_THREAD = (
    "in a process that gevent has patched, the first submit to a pool must come from the main thread: the pool is served by a "
    "greenlet there. Submit something there first, at start say; then any thread may use the pool"
)
_NO_POLL = (
    "select.epoll and select.poll are gone, as after eventlet.monkey_patch(): forkpool cannot wait for its workers. It works "
    "with threads and with gevent; FORKPOOL_INLINE=1 runs calls without worker processes"
)


class GreenPoll:
    """What is used of an epoll, made of gevent's poll."""

    closed = False

    def __init__(self) -> None:
        self._poll = select.poll()

    def register(self, fd: int, events: int) -> None:
        self._poll.register(fd, events)

    modify = register

    def unregister(self, fd: int) -> None:
        self._poll.unregister(fd)

    def poll(self, timeout: float | None, most: int) -> list[tuple[int, int]]:
        """Timeout in seconds, as an epoll has it; all that is ready, however many."""
        return self._poll.poll(None if timeout is None else timeout * 1000)

    def fileno(self) -> int:
        """It has no descriptor of its own."""
        return -1

    def close(self) -> None:
        """Nothing to give back."""


def open_poll() -> select.epoll | GreenPoll:
    """An epoll, or what does its work here.

    Raises:
        OSError: There is no descriptor to be had.
        RuntimeError: No supervisor can live in this thread.
    """
    if hasattr(select, "epoll"):
        return select.epoll()
    if not hasattr(select, "poll"):
        raise RuntimeError(_NO_POLL)
    if _thread.get_native_id() != os.getpid():  # gettid(2): the main thread's is the pid
        raise RuntimeError(_NOT_THE_MAIN_THREAD)
    return GreenPoll()
