"""The class that a program finds as `concurrent.futures.ProcessPoolExecutor` under `forkpool run`.

Runs in: host. Imported when the program imports `concurrent.futures.process`, and not before: it brings the whole pool.
It has the name and the arguments of the standard library's, so that it is pickled by name, and a worker, where nothing is
swapped, finds the standard library's.
Tests: tests/process/test_run_swap.py
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from typing import Any

from ..executor import ForkPoolExecutor
from .pool_options import PoolOptions


class ProcessPoolExecutor(ForkPoolExecutor):
    """The process pool of this program: forkpool's, see `forkpool.ForkPoolExecutor`."""

    _chosen = PoolOptions()  # what the command line says; it has the last word

    def __init__(
        self,
        max_workers: int | None = None,
        mp_context: Any = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        max_tasks_per_child: int | None = None,
    ) -> None:
        chosen = self._chosen
        super().__init__(
            initializer=initializer,
            initargs=initargs,
            mp_context=_without_fork(mp_context),
            **chosen.for_pool(max_workers, max_tasks_per_child),
        )
        # Libraries look at it. Asking for the default one settles the start method, as the standard library's pool does.
        self._mp_context = mp_context or sys.modules["multiprocessing"].get_context()
        if chosen.timeout is not None:
            self._options = self.options(timeout=chosen.timeout)._options


def _without_fork(context: Any) -> Any:
    get_method = getattr(context, "get_start_method", None)
    if get_method is None or get_method() != "fork":
        return context
    warnings.warn(
        'mp_context "fork" asks for workers that inherit this process\'s state; under `forkpool run` they do not: functions, '
        "closures and globals are shipped by value",
        RuntimeWarning,
        stacklevel=3,
    )
    return None


ProcessPoolExecutor.__module__ = "concurrent.futures.process"
