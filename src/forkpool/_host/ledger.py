"""Remember what becomes of the pools of this process, also after their executors are gone.

Runs in: host; whatever thread makes or starts a pool. Steps are single and atomic, as in `pool`: a signal handler may come in.
Light, and imported before any pool: `forkpool run` starts programs of which most will not make one.
Must not keep an executor alive: the garbage collector closes the pool of one that nobody holds. It is the pool below that is
kept, and only from its first call until the next pool is started after its end; then just its counts.
Tests: tests/process/test_diagnostics.py
"""

from __future__ import annotations

import itertools
import os

TYPE_CHECKING = False  # as typing's, whose import is not for free

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..events import PoolStatistics
    from .any_pool import AnyPool

observers: list[Ledger] = []  # each pool tells them that it was made, and that it gets its first call


class Ledger:
    """What becomes of all pools that this process makes from now on, until `close()`.

    Args:
        on_made_in_fork: Called, there, when a fork of this process makes a pool, whose counts are not known here.

    Thread safe.

    .. versionadded:: 0.1
    """

    def __init__(self, on_made_in_fork: Callable[[], object] | None = None) -> None:
        self._pid = os.getpid()
        self._on_made_in_fork = on_made_in_fork
        self._made: list[None] = []  # an item for each: appending is one step
        self._numbers = itertools.count()
        self._live: dict[int, AnyPool] = {}
        self._ended: dict[int, PoolStatistics] = {}
        observers.append(self)

    @property
    def made(self) -> int:
        """How many pools were made, used or not."""
        return len(self._made)

    def statistics(self) -> list[PoolStatistics]:
        """The counts of each pool that was used, in the order of their first calls. See `ForkPoolExecutor.statistics`."""
        self._sort_out_ended()
        live = {number: pool.statistics() for number, pool in self._live.copy().items()}
        return [counts for _, counts in sorted({**live, **self._ended}.items())]

    def close(self) -> None:
        """Look no more."""
        if self in observers:
            observers.remove(self)

    def on_made(self) -> None:
        """For pools."""
        if os.getpid() == self._pid:
            self._made.append(None)
        elif self._on_made_in_fork is not None:
            self._on_made_in_fork()

    def on_started(self, pool: AnyPool) -> None:
        """For pools. Two threads that start the same one both tell."""
        if os.getpid() == self._pid and pool not in list(self._live.values()):
            self._sort_out_ended()
            self._live[next(self._numbers)] = pool

    def _sort_out_ended(self) -> None:
        for number, pool in self._live.copy().items():
            if pool.has_ended():
                self._ended[number] = pool.statistics()
                self._live.pop(number, None)
