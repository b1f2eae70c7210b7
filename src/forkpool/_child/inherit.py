"""Become like the host: the fork server once, each worker after its fork.

Runs in: fork server and workers, main thread. Imports little, since every worker carries it; never the exceptions.
`apply_in_server` does what all workers share, `prepare_worker` the rest of it, when everything is preloaded;
`Identity.take` is on the path of every spawn, and does what differs between them.
What workers see is promised row by row in docs/reference/what-a-worker-sees.md.
Tests: tests/process/test_inheritance_*.py
"""

from __future__ import annotations

import _locale
import _thread
import contextlib
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from .._shared.current_task import SEAT, SLOT_VARIABLE
from .._shared.on_import import watch
from .._shared.own_proc import numbers_as_we_do
from .family import Family, adopt_levels
from .filters import HostFilters
from .preload import leave_exits_to_the_server
from .signal_guard import reset_signals

__all__ = ["Identity", "apply_in_server", "prepare_worker", "tells_tracker"]

Snapshot = dict[str, Any]


@dataclass(slots=True)
class _Prepared:
    """What `apply_in_server` leaves for the workers that are forked from it."""

    family: Family
    filters: HostFilters


_prepared: _Prepared | None = None


def apply_in_server(snapshot: Snapshot) -> None:
    """Take over what all workers share. Once, before anything of the user's is imported.

    Args:
        snapshot: From `take_snapshot`, with `tracker_fd` added: our end of the host's TrackerRelay (-1: none).
    """
    global _prepared
    os.environ.pop(SLOT_VARIABLE, None)  # ours is a worker's: it says nothing about the workers here
    if snapshot["cwd"] is not None:
        _enter(snapshot["cwd"])
    if snapshot["umask"] is not None:
        os.umask(snapshot["umask"])
    sys.path[:] = snapshot["sys_path"]
    sys.argv[:] = snapshot["argv"]
    _read_from_nothing()
    _apply_interpreter_settings(snapshot["interpreter"])
    _apply_locale(snapshot["locale"])
    watch.install()
    if snapshot["logging"] is not None:
        adopt_levels(snapshot["logging"])
    family = Family(snapshot, snapshot.get("tracker_fd", -1))
    family.join()
    _prepared = _Prepared(family, HostFilters(snapshot["warnings"]))


class Identity:
    """What makes a worker one of its own, prepared in the fork server."""

    __slots__ = ("_family", "_host_cwd", "_numpy_random")

    def __init__(self, prepared: _Prepared, host_cwd: str | None) -> None:
        self._family = prepared.family
        self._host_cwd = host_cwd
        self._numpy_random = sys.modules.get("numpy.random")

    def before_fork(self) -> None:
        """In the fork server: the next worker is to draw other random numbers than the last one.

        Not in the worker, which would copy 40 pages of memory for it. `random` does it itself, in the child of os.fork.
        """
        if self._numpy_random is not None:
            _reseed(self._numpy_random)

    def take(self, slot: int) -> None:
        """In a worker, right after the fork."""
        SEAT.slot = slot
        os.environ[SLOT_VARIABLE] = str(slot)
        if self._host_cwd is not None:
            _enter(self._host_cwd)
        self._family.become_worker(slot)
        leave_exits_to_the_server()


def prepare_worker(snapshot: Snapshot, keep_signals: Iterable[int] = ()) -> Identity:
    """Take over what workers need, and what must not be there while modules are preloaded. In the fork server, once.

    Args:
        keep_signals: Those whose handlers the caller has set already.
    """
    assert _prepared is not None, "apply_in_server comes first"
    SEAT.max_workers = snapshot["max_workers"]
    _prepared.family.join_again()
    _prepared.filters.install()
    reset_signals(keep_signals)
    # Deleted: there, a task that writes `out.txt` gets the error that the host would get.
    is_there = snapshot["cwd"] is not None and os.path.isdir(snapshot["cwd"])
    host_cwd = f"/proc/{snapshot['host_pid']}/cwd" if not is_there and numbers_as_we_do() else None
    return Identity(_prepared, host_cwd)


def tells_tracker() -> bool:
    """Whether this process may have told the resource tracker something."""
    return "multiprocessing.resource_tracker" in sys.modules


def _enter(cwd: str) -> None:
    with contextlib.suppress(OSError):  # deleted since, or not for us: stay where exec put us
        os.chdir(cwd)


def _read_from_nothing() -> None:
    """Make fd 0 /dev/null: `input()` and `pdb` see the end of the file at once."""
    fd = os.open(os.devnull, os.O_RDONLY)
    if fd != 0:
        os.dup2(fd, 0)
        os.close(fd)
    os.set_inheritable(0, True)
    if sys.stdin is None:  # the host had closed its own
        sys.stdin = sys.__stdin__ = open(0, encoding="utf-8", closefd=False)  # type: ignore[misc]  # noqa: SIM115  # kept for good


def _apply_interpreter_settings(settings: dict[str, Any]) -> None:
    sys.setswitchinterval(settings["switch_interval"])
    sys.setrecursionlimit(settings["recursion_limit"])
    sys.set_int_max_str_digits(settings["int_max_str_digits"])
    sys.dont_write_bytecode = settings["dont_write_bytecode"]
    sys.pycache_prefix = settings["pycache_prefix"]
    _thread.stack_size(settings["thread_stack_size"])


def _apply_locale(names: dict[str, str]) -> None:
    for category, name in names.items():
        number = getattr(_locale, category)
        if _locale.setlocale(number, None) != name:
            with contextlib.suppress(_locale.Error):  # type: ignore[attr-defined]  # not in typeshed
                _locale.setlocale(number, name)


def _reseed(numpy_random: Any) -> None:
    """Otherwise every worker would draw the same numbers."""
    with contextlib.suppress(AttributeError):  # being imported, or a stand-in of a test
        try:
            # The whole state from the kernel. `seed()` draws as well, and touches twice as much memory that workers share.
            key = sys.modules["numpy"].frombuffer(os.urandom(2496), "u4")
            numpy_random.set_state(("MT19937", key, 624))
        except (TypeError, ValueError):  # set_bit_generator() was called: the global functions draw from another one
            numpy_random.set_bit_generator(type(numpy_random.get_bit_generator())())
