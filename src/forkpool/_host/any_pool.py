"""What every kind of pool does with a call before it runs, and the surface that executor and futures know.

Runs in: host; any thread. Imports what exists on every platform: a pool that runs calls inline works where there is no fork.
Tests: tests/process/test_interruptions.py, tests/process/test_inline.py
"""

from __future__ import annotations

import os
import sys
import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .._shared.importing import importing
from .._shared.notes import add_note
from .._shared.payload import CallEncoder, PayloadError
from ..future import ForkFuture
from .ledger import observers

if TYPE_CHECKING:
    from .._core.states import Task
    from ..config import PoolConfig, TaskOptions
    from ..errors import SerializationError
    from ..events import Placement, PoolStatistics
    from .intake import Request
    from .inventory import PoolSnapshot
    from .worker_process import WorkerProcess


class AnyPool(ABC):
    """One per executor. It makes nothing until the first submit."""

    def __init__(self, config: PoolConfig) -> None:
        self.config = config
        self.pid = os.getpid()
        self.name = f"forkpool-{os.urandom(12).hex()}"  # nobody else has it, or can guess it
        self.encoder = CallEncoder(
            config.serializer,
            _warn_of_payload,
            preloads_main="__main__" in config.preload,
            initializer=config.initializer,
            pool_name=self.name,
        )
        for ledger in observers:
            ledger.on_made()

    def tell_started(self) -> None:
        """The first call comes."""
        for ledger in observers:
            ledger.on_started(self)

    def encode_initializer(self) -> bytes:
        """Pickle the initializer's call. Raises SerializationError."""
        initializer = self.config.initializer
        assert initializer is not None
        try:
            return self.encoder.encode_initializer(initializer, self.config.initargs)
        except PayloadError as error:
            raise _serialization_error(error) from error.__cause__

    def future_of_refused(self, error: PayloadError) -> ForkFuture[Any]:
        """The future of a call that cannot be pickled: it tells that, and calls that are submitted with it are untouched."""
        future: ForkFuture[Any] = ForkFuture()
        future._pool = self
        why = _serialization_error(error)
        why.__cause__ = _without_frames(error.__cause__)
        future._finish(error=why)
        return future

    @abstractmethod
    def submit(
        self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], options: TaskOptions
    ) -> ForkFuture[Any]:
        """Accept a call. Raises what `ForkPoolExecutor.submit` promises."""

    @abstractmethod
    def ask_kill(self, task: Task | None) -> None:
        """None: it has ended meanwhile."""

    @abstractmethod
    def forget(self, task: Task) -> None:
        """Its user has cancelled it."""

    @abstractmethod
    def close(self, *, cancel_queued: bool) -> None:
        """Accept no more; finish what was accepted, or only what runs. Does not wait."""

    @abstractmethod
    def let_go(self) -> None:
        """The executor is gone. Perhaps so late that modules are empty: no global may be looked up unless there is work."""

    @abstractmethod
    def abort(self) -> None:
        """Cancel what is queued, give what runs the grace period, then kill. A second call kills at once."""

    @abstractmethod
    def kill_all(self, request: Request) -> None:
        """Stop everything now: `Request.KILL_ALL` or `Request.TERMINATE_ALL`."""

    @abstractmethod
    def wait_closed(self) -> None:
        """Wait until a pool that was told to close has given everything back. Returns at once on the supervisor's thread."""

    @abstractmethod
    def is_of_another_process(self) -> bool:
        """This is a fork of the process that uses the pool: nothing that was submitted there ends here."""

    def error_in_fork(self, what: str = "pool", why: str = "") -> RuntimeError:
        """What this pool or a future of it raises then."""
        return RuntimeError(
            f"this {what} belongs to process {self.pid}, and this is a fork of it (pid {os.getpid()}){why}. Make a pool in "
            "this process after the fork: in gunicorn's post_fork hook, in celery's worker_process_init signal."
        )

    @abstractmethod
    def is_supervisor_thread(self) -> bool:
        """True on the thread that finishes futures: waiting for one there would never end."""

    @abstractmethod
    def worker_processes(self) -> dict[int, WorkerProcess]:
        """The workers that live now, by pid."""

    @abstractmethod
    def has_ended(self) -> bool:
        """Nothing runs any more, and nothing will: the counts are the last ones."""

    @abstractmethod
    def look(self) -> PoolSnapshot:
        """What the pool holds now. See `diagnostics.snapshot`."""

    @abstractmethod
    def statistics(self) -> PoolStatistics:
        """What became of all calls. See `ForkPoolExecutor.statistics`."""

    @abstractmethod
    def recycle(self) -> None:
        """Replace all workers. See `ForkPoolExecutor.recycle_workers`."""

    @abstractmethod
    def restart(self) -> None:
        """Replace fork server and workers by such as the host is now. See `ForkPoolExecutor.restart_workers`."""

    @abstractmethod
    def placement(self) -> Placement:
        """Where the workers run."""

    @abstractmethod
    def close_in_fork(self) -> None:
        """In a fork of the host: let go of the descriptors, so that nothing here keeps the host's processes alive."""


def check_accepts(closing: bool, broken: Callable[[], BaseException] | None) -> None:
    """Raise what a submit raises to a pool in this state, if it can take no call."""
    if broken is not None:
        raise broken()
    if closing:
        raise RuntimeError("cannot schedule new futures after shutdown")
    if _exiting:
        raise RuntimeError("cannot schedule new futures after interpreter shutdown")


def _serialization_error(error: PayloadError) -> SerializationError:
    with importing:
        from ..errors import SerializationError

    return SerializationError(str(error), part=error.part)


def _without_frames(error: BaseException | None) -> BaseException | None:
    """The same with its traceback as a note: its frames hold those that called them, so the executor and the call's arguments.

    A future that is kept would keep them: the pool of an executor that is dropped would never end.
    """
    if error is not None and error.__traceback__ is not None:
        import traceback

        add_note(error, "".join(traceback.format_tb(error.__traceback__)).rstrip())
    chain = [error]
    while chain:
        one = chain.pop()
        if one is not None and one.__traceback__ is not None:
            BaseException.with_traceback(one, None)  # past any `__setattr__`
            chain += one.__cause__, one.__context__
    return error


def keep_until_exit(pool: AnyPool) -> None:
    """It is in use: its work is finished before the interpreter ends."""
    _live_pools.add(pool)


def warn(text: str, category: type[Warning]) -> None:
    """Warn about the user's line that called us."""
    import warnings

    warnings.warn(text, category, stacklevel=_frames_of_ours())


def _warn_of_payload(text: str) -> None:
    with importing:
        from ..errors import PayloadWarning

    warn(text, PayloadWarning)


def _frames_of_ours() -> int:
    """The stack level of the user's line that called us."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("forkpool."):
        level, frame = level + 1, frame.f_back
    return level


_live_pools: weakref.WeakSet[AnyPool] = weakref.WeakSet()
_exiting = False


def interpreter_is_exiting() -> bool:
    """Is the main thread at its end? Where no thread can be started then (3.12.1), none will be."""
    return _exiting or getattr(threading, "_SHUTTING_DOWN", False)


def _finish_all() -> None:
    """At the interpreter's end, as in the standard library: the work is finished first."""
    global _exiting
    _exiting = True
    pools = [pool for pool in _all_live() if pool.pid == os.getpid()]
    for pool in pools:
        pool.close(cancel_queued=False)
    for pool in pools:
        try:
            pool.wait_closed()
        except BaseException:  # Ctrl-C: the user will not wait
            for each in pools:
                each.abort()
                each.abort()
            raise


def _close_in_fork() -> None:
    for pool in _all_live():
        pool.close_in_fork()


def _all_live() -> list[AnyPool]:
    while True:
        try:
            return list(_live_pools)
        except RuntimeError:  # another thread has just started its first pool: the set has grown while it was read
            continue


try:
    # The hook that concurrent.futures uses: before non-daemon threads are joined, unlike atexit.
    threading._register_atexit(_finish_all)  # type: ignore[attr-defined]
except RuntimeError:  # the interpreter is shutting down already
    _exiting = True
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_fork)
