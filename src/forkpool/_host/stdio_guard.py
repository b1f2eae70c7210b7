"""Keep our descriptors away from the numbers 0, 1 and 2.

Runs in: host. A program may have closed one of them; the next descriptor that anybody opens then gets its number, and what is
printed would go into a pipe or an eventfd of ours, or a child would take that for its stderr.
Tests: tests/process/test_host.py
"""

from __future__ import annotations

import os

from .._shared.descriptors import close_all


class StdioGuard:
    """Holds `/dev/null` open on each of the three numbers that was free, from `open` to `close`."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held: list[int] = []

    def open(self) -> None:
        while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
            os.set_inheritable(fd, True)  # the fork server's, too
            self._held.append(fd)
        os.close(fd)

    def close(self) -> None:
        held, self._held = self._held, []
        close_all(held)
