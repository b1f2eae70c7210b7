"""Let sockets, and multiprocessing's locks, queues, events and connections travel inside a call.

Runs in: host, the thread that submits, while it pickles. Costs a few dictionary look-ups when multiprocessing is not in use.
Must not import multiprocessing: without it in `sys.modules` there is no such object either.
Hard part: a process that unpickles is not the child of one that spawns, as multiprocessing expects. It is told that one is
being spawned while a call is pickled, and where it would share a descriptor with that child, ours is put (`passed_fds`).
Tests: tests/unit/test_payload_multiprocessing.py
"""

from __future__ import annotations

import sys
from _thread import _local
from pickle import PicklingError
from typing import Any

from forkpool._shared.owning_payload import Kept, let_go


def reducers() -> Any:
    """Return multiprocessing's reducers for its own objects (connections, shared values), or None when there are none."""
    global _reducers
    reduction = sys.modules.get("multiprocessing.reduction")
    known = getattr(getattr(reduction, "ForkingPickler", None), "_extra_reducers", None)
    if not known:
        return None
    count, found = _reducers
    synchronize = sys.modules.get("multiprocessing.synchronize")
    now = len(known) + (synchronize is not None)
    if count != now:
        found = {cls: ours for cls, reducer in known.copy().items() if (ours := _ours(cls, reducer)) is not None}
        for name in ("Lock", "RLock", "Semaphore", "BoundedSemaphore") if synchronize is not None else ():
            found[getattr(synchronize, name)] = _reduce_lock
        _reducers = (now, found)
    return found


def is_of_fork_context(lock: Any) -> bool:
    """Tell whether a multiprocessing lock exists only for forks of this process."""
    told = getattr(lock, "_is_fork_ctx", None)
    semaphore = getattr(lock, "_semlock", None)
    if told is not None or semaphore is None:
        return bool(told)
    # Early 3.11 does not say, and pickles. The name of such a semaphore is taken away as soon as it was made.
    return semaphore.name is None


def _reduce_lock(lock: Any) -> Any:
    if is_of_fork_context(lock):
        raise RuntimeError("a lock of a fork context cannot be shared with a process that is no fork")
    popen: _Popen | None = getattr(_pickling, "popen", None)
    if popen is not None:
        popen.keep(lock)
    return lock.__reduce_ex__(5)


_reducers: tuple[int, dict[Any, Any]] = (0, {})  # how much multiprocessing knew, and what we take of it


def _ours(cls: Any, reducer: Any) -> Any:
    if cls.__module__ == "multiprocessing.heap":
        return _reduce_arena
    if reducer.__module__ == "multiprocessing.sharedctypes":
        return _reduce_ctype
    return reducer if cls.__module__.startswith("multiprocessing.") else None


def _reduce_ctype(obj: Any) -> Any:
    # Registered for the plain class (`c_int`), shared or not. One in shared memory that ctypes itself pickled would be
    # a copy: `value.value += 1` in a task would be lost without a word.
    if hasattr(obj, "_wrapper"):
        return sys.modules["multiprocessing.sharedctypes"].reduce_ctype(obj)
    return obj.__reduce_ex__(5)


def _reduce_arena(arena: Any) -> Any:
    """The memory of shared values, which is a file: one descriptor for all calls, by a name that does not change."""
    heap = sys.modules["multiprocessing.heap"]
    if not is_pickling_call() or arena.fd < 0:
        return heap.reduce_arena(arena)
    from forkpool._shared.passed_fds import serial_of

    return heap.rebuild_arena, (arena.size, pass_file(arena.fd, serial_of(arena)))


def is_pickling_call() -> bool:
    """Tell whether this thread pickles a call, so that descriptors can travel."""
    return getattr(_pickling, "popen", None) is not None


def pass_file(fd: int, serial: int) -> Any:
    """Return what stands for the descriptor of a file in the call that this thread pickles.

    Args:
        serial: A number for what the file is used for, for which its position does not matter. See `passed_fds.serial_of`.
    """
    popen: _Popen = _pickling.popen
    return popen.DupFd(fd, serial)


class UnsharedError(PicklingError):
    """A call holds memory that is shared with other processes, and a worker cannot be given that: its own would be another."""


def is_unshared(exc: BaseException) -> bool:
    """Tell whether that is the reason why an entry, or a part of one, cannot be pickled."""
    return isinstance(exc, UnsharedError) or isinstance(exc.__cause__, UnsharedError)


def reduce_socket(sock: Any) -> Any:
    """What a socket is pickled as. Raises TypeError where it cannot travel: when no call is being pickled, or it is closed."""
    popen: _Popen | None = getattr(_pickling, "popen", None)
    if popen is None:
        raise TypeError("a socket can be an argument, and not a result")
    if sock.fileno() < 0:
        raise TypeError("this socket is closed")
    from forkpool._shared import passed_fds

    return passed_fds.reduce_socket(sock, popen.DupFd(sock.fileno()))


class _Popen:
    """What multiprocessing expects of the process that is being spawned. `name`: of the pool."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.holding: Any = None  # the descriptors, once there are some
        self.kept: Kept | None = None  # the locks, once there are some

    def keep(self, lock: Any) -> None:
        if self.kept is None:
            self.kept = Kept()
        self.kept.keep(lock)

    def duplicate_for_child(self, fd: int) -> int:
        return fd

    def DupFd(self, fd: int, serial: int | None = None) -> Any:
        from forkpool._shared import passed_fds

        if self.holding is None:
            self.holding = passed_fds.Holding()
        return passed_fds.PassedFd(passed_fds.address_of(self._name), self.holding.hold(fd, serial))


class Spawning:
    """Between `begin` and `end`, objects that only travel with a call or at spawn time may be pickled in this thread."""

    def __init__(self, name: str) -> None:
        self._context = sys.modules.get("multiprocessing.context")
        self._outer = None if self._context is None else self._context.get_spawning_popen()
        self._outer_call = getattr(_pickling, "popen", None)
        self._popen = _Popen(name)
        let_go()

    def take_holding(self) -> Any:
        """The descriptors that the payload needs, or None. What is pickled from now on counts no more."""
        holding, self._popen.holding = self._popen.holding, None
        return holding

    def take_kept(self) -> Kept | None:
        """The same for locks."""
        kept, self._popen.kept = self._popen.kept, None
        return kept

    def begin(self) -> None:
        """Set the state; the caller's `finally` ends it, so an interrupt in here leaves nothing behind."""
        _pickling.popen = self._popen
        if self._context is not None:
            self._context.set_spawning_popen(self._popen)

    def end(self) -> None:
        """Restore what was set before: user code may pickle inside its own spawn."""
        _pickling.popen = self._outer_call
        if self._context is not None:
            self._context.set_spawning_popen(self._outer)


_pickling = _local()  # `popen`: of the call that this thread pickles
