"""Is a descriptor ready? Asked of one, without another descriptor.

Runs in: host, any thread. Owns nothing.
Hard part: poll(2) refuses to look at more descriptors than RLIMIT_NOFILE, so at a single one if a program sets that to 0 while
its pool lives. select(2) does not, but it knows no numbers from 1024 on.
Tests: tests/process/test_shortage.py
"""

from __future__ import annotations

import select


def is_readable(fd: int, timeout_ms: float | None = 0) -> bool:
    """Can something be read, or is the end reached? Waits at most so many milliseconds (None: as long as it takes)."""
    return _is_ready(fd, select.POLLIN, timeout_ms)


def is_writable(fd: int, timeout_ms: float | None = 0) -> bool:
    """Is there room, or nobody to read it? Arguments as in `is_readable`."""
    return _is_ready(fd, select.POLLOUT, timeout_ms)


def _is_ready(fd: int, events: int, timeout_ms: float | None) -> bool:
    poll = select.poll()
    poll.register(fd, events)
    try:
        return bool(poll.poll(timeout_ms))
    except OSError:
        return _select(fd, events, None if timeout_ms is None else timeout_ms / 1000)


def _select(fd: int, events: int, seconds: float | None) -> bool:
    to_read, to_write = ([fd], []) if events == select.POLLIN else ([], [fd])
    try:
        return any(select.select(to_read, to_write, [], seconds))
    except ValueError:  # its number is too large: nobody can tell
        return False
