"""Keep our descriptors away from the numbers 0, 1 and 2.

Runs in: host. A program may have closed one of them; the next descriptor that anybody opens then gets its number, and what is
printed would go into a pipe or an eventfd of ours, or a child would take that for its stderr.
Tests: tests/process/test_host.py
"""

from __future__ import annotations

import os

from .._shared.descriptors import close_all

_Identity = tuple[int, int, int]  # of a file: device, number there, and the device that it stands for


class StdioGuard:
    """Holds `/dev/null` open on each of the three numbers that was free, from `open` to `close`."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held: dict[int, _Identity | None] = {}

    def open(self) -> None:
        while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
            os.set_inheritable(fd, True)  # the fork server's, too
            self._held[fd] = _identity(fd)
        os.close(fd)

    def close(self) -> None:
        """Give them back; not one in whose place the program has put a file of its own meanwhile, as `dup2` does."""
        held, self._held = self._held, {}
        close_all(fd for fd, identity in held.items() if _identity(fd) == identity)


def _identity(fd: int) -> _Identity | None:
    try:
        found = os.fstat(fd)
    except OSError:  # it was closed
        return None
    return found.st_dev, found.st_ino, found.st_rdev
