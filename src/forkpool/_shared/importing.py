"""What is imported when it is first needed, in whichever thread: a fork of the process waits until no such import is half done.

Runs in: host.
Hard part: CPython does not renew the locks of modules in a fork. A module that another thread was just importing can never be
imported in the child, which then waits for a thread that it does not have. So such an import holds `importing`, and a fork
takes that first. It waits for a second at most: the import may need a module that the forking thread imports itself.
Tests: tests/process/test_fork.py
"""

from __future__ import annotations

import _thread
import os

importing = _thread.RLock()  # a real one also where gevent has replaced those of `threading`
_LONGEST_S = 1.0  # arbitrary: several times what cloudpickle takes to be imported on a busy machine
_held: dict[int, bool] = {}  # by thread that is about to fork: whether it holds it


def _before_fork() -> None:
    _held[_thread.get_ident()] = importing.acquire(timeout=_LONGEST_S)


def _after_fork() -> None:
    if _held.pop(_thread.get_ident(), False):
        importing.release()


def _after_fork_in_child() -> None:
    if not _held.get(_thread.get_ident()):  # it belongs to a thread that does not exist here
        importing._at_fork_reinit()  # type: ignore[attr-defined]  # as `threading` does with its own
    _after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child)
