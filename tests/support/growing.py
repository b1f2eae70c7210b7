"""Let a dict grow just while somebody walks over it, as another thread may: up to CPython 3.11 whenever a tuple is made there.

Runs in: the pytest process.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def at_each_collection(do: Callable[[], None]) -> Iterator[None]:
    """While this is entered, garbage is collected all the time, and `do` is called each time."""

    def collected(phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            do()

    thresholds = gc.get_threshold()
    gc.callbacks.append(collected)
    gc.set_threshold(1)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        gc.callbacks.remove(collected)
