"""ForkFuture: the standard library's Future, and `kill()`.

Runs in: host; any thread. The supervisor finishes it through the `_finish_*` methods, which run no user code: results
that are not plain data are unpickled by the first caller that wants them, and callbacks run on their own thread.

Hard part: who ends it, and never to wait for user code. An exception may interrupt the user's thread at any line, also with
a lock just taken (`Condition.__enter__` is Python code), so `cancel` and `kill` begin with one atomic step (`dict.setdefault`)
against the supervisor's. Who starts or cancels it first takes `_owner`; who answers or kills it first takes `_ending`.
The end is written under the base class's condition, if anyone has asked for that (see `_lazy_future`). A thread may hold it
while a garbage-collection finalizer of the user's runs in it: the supervisor waits only so long, then another thread finishes
the future.
In a fork of its pool's process a future that had not ended ends in RuntimeError, there alone, when somebody looks at it.
Tests: tests/unit/test_future.py, tests/unit/test_future_results.py, tests/process/test_fork.py
"""

from __future__ import annotations

import contextlib
import os
import threading
from concurrent.futures._base import (
    CANCELLED,
    CANCELLED_AND_NOTIFIED,
    FINISHED,
    LOGGER,
    PENDING,
    RUNNING,
)
from typing import Any, TypeVar

from . import _lazy_future
from ._lazy_future import _NO_CONDITION, LazyFuture
from ._unpickling import EncodedAnswer, is_of_the_moment, is_shortage

T = TypeVar("T")
# Pid and slot, when its worker took the call (monotonic nanoseconds), and how many seconds it had it (None: it still has it).
# A plain tuple, of which each ended future has one.
Run = tuple[tuple[int, int], int, float | None]
CALLBACK_PATIENCE_S = 0.5  # arbitrary: far longer than a callback that only counts takes to be run on a busy machine

_RAN = threading.Event()
_RAN.set()
_threads_in_callbacks: set[int] = set()  # identities of those that run callbacks now: they must not wait for others
_leaving = threading.RLock()  # of this process: made anew in each fork


class ForkFuture(LazyFuture[T]):
    """A `concurrent.futures.Future` whose task can be stopped, and that tells where and when it ran.

    Thread safe. `cancel()` never lies: it returns False for a task that runs, unless the task was submitted with
    `options(cancel_running=True)`, or by `kill()`: then it is stopped.

    .. versionadded:: 0.1
    """

    _pool: Any = None  # where requests go; set by the pool
    _encoded: EncodedAnswer | None
    _attempt: int = 1
    _left: int | None = None  # the fork of the pool's process in which it has left the host
    _run: Run | None = None  # set by the supervisor at the end, before anybody is told; until then the worker's page tells

    def kill(self) -> bool:
        """Stop the task, also when it is stuck in C code or stopped by a signal.

        Its worker and the process group of the worker are killed, and the slot is filled again. The future ends in
        `CancelledError` when the worker is dead.

        Returns:
            True: this future ends (or has ended, if it had not begun) cancelled. False: it was done already; or this is a fork
            of the process that owns the pool, which can stop nothing.

        Does not block. Any thread, signal handlers and callbacks included.
        """
        if self.cancel():
            return True
        return self._stop(self._task)

    def cancel(self) -> bool:
        """Cancel the task if no worker has it yet; with `options(cancel_running=True)` stop it also then, as `kill()` does.

        Returns:
            True: it never runs, or it is being stopped and ends in `CancelledError` when its worker is dead. False: a worker
            has it, or it is done; or this is a fork of the process that owns the pool, where it may run all the same.
        """
        if _lazy_future.in_fork:
            self._leave_host()
        if self.__dict__.setdefault("_owner", "user") == "user":
            self._tell_the_pool()
            if self._tell_of_cancel():
                self._invoke_callbacks()  # type: ignore[attr-defined]  # the base class's: here, as there
        else:
            task = self._task
            if task is not None and task.options.cancel_running:
                return self._stop(task)
        return self.cancelled()

    def running(self) -> bool:
        """Tell whether a worker has begun with it and has not ended it yet.

        A call that was sent to a worker in advance, and stands behind others there, does not run: it may still be taken back
        for another worker. (`cancel()` says False for it all the same: whether it can be taken back is known later.)
        """
        if self.done() or self._state != RUNNING:
            return False
        return self._pool is None or self._known_run() is not None

    @property
    def pid(self) -> int | None:
        """The worker that runs it, or ran it; None before it runs, and if it never did."""
        run = self._known_run()
        return None if run is None else run[0][0]

    @property
    def slot(self) -> int | None:
        """That worker's seat in the pool, from 0."""
        run = self._known_run()
        return None if run is None else run[0][1]

    @property
    def started_at(self) -> float | None:
        """When the worker began with it, on the clock of `time.monotonic()`; None as for `pid`.

        Monotonic, because that clock is the same in all processes of a machine and is never set: what started before what, and
        when it ended (`started_at + duration`), is always right. `time.time() - time.monotonic()` added makes it a date.
        """
        run = self._known_run()
        return None if run is None else run[1] / 1e9

    @property
    def duration(self) -> float | None:
        """Seconds that the worker had it, unpickling and pickling included; None until it has ended, and if it never ran."""
        run = self._run
        return None if run is None else run[2]

    @property
    def attempt(self) -> int:
        """Which attempt it waits for, runs, or has ended with: 1, or more with `options(retries=)`. All facts are of it."""
        return self._attempt

    def result(self, timeout: float | None = None) -> T:
        """Return the call's result, or raise what it raised.

        Args:
            timeout: Seconds to wait; None: as long as it takes.
        Raises:
            TimeoutError: It is not done after `timeout` seconds; it goes on.
            CancelledError: It was cancelled or killed.
            RuntimeError: This process is a fork of the one that owns the pool, and it was not done then: nothing arrives here.
        """
        if self._state == FINISHED and self._is_plain():
            return self._result  # type: ignore[no-any-return]
        if not self.done():
            self._check_may_wait()
        try:
            try:
                value = super().result(timeout)
            finally:
                if self._has_callbacks:
                    self._let_callbacks_run(timeout)
            if value is None:  # or not unpickled when we looked; by now another thread may have done it
                self._decode()
                if self._exception is not None:  # the base class takes one whose truth value is False for none
                    raise self._exception
                return self._result  # type: ignore[no-any-return]
            return value
        finally:
            self = None  # type: ignore[assignment]  # what it raised holds this frame: as in the base class, no cycle

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return what the call raised, None if it returned. Arguments and errors as in `result`."""
        if not self.done():
            self._check_may_wait()
        error = super().exception(timeout)
        if self._has_callbacks:
            self._let_callbacks_run(timeout)
        if error is None:  # as in `result`
            try:
                self._decode()
            except BaseException as lacking:
                if not is_shortage(lacking):
                    raise
                return lacking  # what `result` would raise: asyncio asks here, and never tells who awaits if this raises
            return self._exception
        return error

    def _get_snapshot(self) -> tuple[bool, bool, T | None, BaseException | None]:
        """Is it done, was it cancelled, its result, its exception: asyncio asks so from Python 3.14 on.

        The base class reads the fields where both are, in which an answer that nobody has unpickled yet is not.
        """
        if not self.done():
            return False, False, None, None
        if self.cancelled():
            return True, True, None, None
        error = self.exception()
        return True, False, self._result if error is None else None, error

    # --- the supervisor's side -------------------------------------------------------------------------

    def _try_start(self) -> bool:
        """Claim it for running; False if the user was quicker and cancelled it."""
        if self.__dict__.setdefault("_owner", "pool") != "pool":
            return False
        self._state = RUNNING
        return True

    def _refuse(self) -> bool:
        """Claim it for nobody: `submit` raises instead of returning it. False if the pool was quicker: it runs."""
        owner: str = self.__dict__.setdefault("_owner", "nobody")
        return owner == "nobody"

    def _is_refused(self) -> bool:
        return self.__dict__.get("_owner") == "nobody"

    def _is_plain(self) -> bool:
        """Whether an end that was written needs no more than to be read: most results do not."""
        return self._exception is None and self._encoded is None and not self._has_callbacks

    def _put_back(self) -> None:
        """The worker never took it: it is pending again."""
        self._state = PENDING
        del self.__dict__["_owner"]

    def _repeat(self) -> bool:
        """Its attempt failed, and it is pending again. False: the user was quicker and killed it."""
        if self.__dict__.get("_ending") == "kill":
            return False
        self._run = None
        self._attempt += 1
        self._put_back()
        return True

    def _claim_answer(self) -> bool:
        """Whether it ends as the pool says; False if the user's `kill()` was first: then it ends cancelled."""
        ending: str = self.__dict__.setdefault("_ending", "answer")
        return ending != "kill"

    def _finish(
        self,
        result: Any = None,
        error: BaseException | None = None,
        encoded: EncodedAnswer | None = None,
        *,
        patience: float = -1,
    ) -> bool | None:
        """End it.

        Args:
            patience: Seconds to wait for a thread that holds the condition; -1: as long as it takes.
        Returns:
            Whether there are callbacks to run; None: nothing was done, somebody holds the condition.
        """
        if self.__dict__.setdefault("_owner", "pool") != "pool" or not self._claim_answer():
            return self._finish_cancelled(patience=patience)
        if self._end_unseen((FINISHED, result, error, encoded)):
            return False
        if not self._condition.acquire(timeout=patience):
            return None
        try:
            if self.done():
                return False
            failed = error is not None or (encoded is not None and encoded.is_error)
            self._result, self._exception, self._encoded = result, error, encoded
            self._state, self._task = FINISHED, None
            for waiter in self._waiters:
                if failed:
                    waiter.add_exception(self)
                else:
                    waiter.add_result(self)
            self._condition.notify_all()
            return self._has_callbacks
        finally:
            self._condition.release()

    def _finish_cancelled(self, *, patience: float = -1) -> bool | None:
        """End it in `CancelledError`. Arguments and result as in `_finish`."""
        if self._end_unseen((CANCELLED_AND_NOTIFIED, None, None, None)):
            return False
        if not self._condition.acquire(timeout=patience):
            return None
        try:
            if self._state == FINISHED or self._state == CANCELLED_AND_NOTIFIED:
                return False
            return self._end_cancelled()
        finally:
            self._condition.release()

    def _tell_the_pool(self) -> None:
        """It need keep neither payload nor place of the call. If this is interrupted, it does until the call's turn comes."""
        task = self._task
        if task is not None:
            self._pool.forget(task)
            self._task = None

    def _tell_of_cancel(self) -> bool:
        """Tell who waits, in the thread that cancels. If that is interrupted, the pool does it instead of starting the task."""
        with self._condition._lock:  # `with` on a C lock cannot be interrupted half-way
            return self._state in (PENDING, CANCELLED) and self._end_cancelled()

    def _end_cancelled(self) -> bool:
        self._state = CANCELLED
        for waiter in self._waiters:
            waiter.add_cancelled(self)
        self._condition.notify_all()
        self._state, self._task = CANCELLED_AND_NOTIFIED, None
        return self._has_callbacks

    def _run_callbacks(self) -> None:
        me = threading.get_ident()
        _threads_in_callbacks.add(me)
        try:
            for callback in self._done_callbacks:
                if _lazy_future.in_fork and self._pool is not None and self._pool.is_of_another_process():
                    return  # a callback forked, and the child returned from it: the others are the host's
                try:
                    callback(self)
                except BaseException:  # SystemExit and KeyboardInterrupt too: this thread serves all futures
                    with contextlib.suppress(BaseException):  # a handler of the user's raises
                        LOGGER.exception("exception calling callback for %r", self)
        finally:
            _threads_in_callbacks.discard(me)
            self.__dict__.setdefault("_callbacks_ran", _RAN).set()

    def _let_callbacks_run(self, timeout: float | None) -> None:
        """Wait until the callbacks have run: programs count on it (tqdm counts tasks in one), though nobody promises it.

        In the standard library the thread that finishes a future goes on to its callbacks, before who waits is awake. Here they
        run on a thread of their own, which may be stuck in one: that costs those who wait a moment, once.
        """
        if self._pool is None:  # a future that was made by hand
            return
        stuck = self._pool.stuck_callbacks
        if self._state != FINISHED or (stuck is not None and not stuck.is_set()):
            return
        ran: threading.Event = self.__dict__.setdefault("_callbacks_ran", threading.Event())
        if ran.is_set() or threading.get_ident() in _threads_in_callbacks or self._pool.is_supervisor_thread():
            return
        patience = CALLBACK_PATIENCE_S if timeout is None else min(timeout, CALLBACK_PATIENCE_S)
        if not ran.wait(patience) and patience == CALLBACK_PATIENCE_S:
            self._pool.stuck_callbacks = ran

    # --- private ---------------------------------------------------------------------------------------

    def _stop(self, task: Any) -> bool:
        """Whether the user is first to end it: then it ends cancelled for sure."""
        if self.__dict__.setdefault("_ending", "kill") != "kill":
            return False
        self._pool.ask_kill(task)
        return True

    def _known_run(self) -> Run | None:
        """Once it has ended: what was noted then. Before: what the worker that has it says on its page."""
        if _lazy_future.in_fork:
            self._leave_host()
        run, task = self._run, self._task
        if run is None and task is not None and self._pool is not None:
            run = self._pool.find_run(task)
        return self._run if run is None else run  # it may have ended while we looked

    def _decode(self) -> None:
        encoded = self._encoded
        if encoded is None:
            return
        if encoded.is_being_unpickled_here():
            raise RuntimeError("unpickling this future's result asks for this future's result")
        with encoded.lock:
            if self._encoded is not None:
                self._decode_alone(encoded)

    def _decode_alone(self, encoded: EncodedAnswer) -> None:
        try:
            value = encoded.decode(encoded.data)
        except BaseException as error:
            if is_of_the_moment(error):
                raise  # whoever asks again gets the answer
            self._settle(None, error)
        else:
            self._settle(*((None, value) if encoded.is_error else (value, None)))

    def _settle(self, result: Any, error: BaseException | None) -> None:
        """In one step: who is interrupted has settled it or has not, and nobody unpickles twice what somebody holds."""
        self.__dict__.update(_result=result, _exception=error, _encoded=None)

    def _check_may_wait(self) -> None:
        pool = self._pool
        if pool is not None and pool.is_supervisor_thread():
            raise RuntimeError(
                "a finalizer that runs on the pool's own thread waits for a future of that pool, which cannot be finished "
                "then: do not wait in __del__ or in weakref callbacks"
            )

    def _leave_host(self) -> None:
        pool = self._pool
        if pool is None or not pool.is_of_another_process() or self._left == os.getpid():
            return
        with _leaving:
            if self._left != os.getpid():
                self._end_in_fork()
                self._left = os.getpid()

    def _end_in_fork(self) -> None:
        """The threads of the host may have been anywhere: in the middle of ending it, or of telling of it, or of unpickling."""
        own = self.__dict__
        if type(end := own.get("_meeting")) is tuple:
            self._write(end)
        if self._state not in (FINISHED, CANCELLED_AND_NOTIFIED):
            cancelled = self._state == CANCELLED or own.get("_owner") == "user" or own.get("_ending") == "kill"
            self._result, self._encoded, self._task = None, None, None
            self._exception = None if cancelled else self._pool.error_in_fork("future", ": no result can arrive here")
            own.setdefault("_ending", "answer")
            self._state = CANCELLED_AND_NOTIFIED if cancelled else FINISHED
        encoded = self._encoded
        if encoded is not None and not encoded.is_being_unpickled_here():
            self._encoded = EncodedAnswer(encoded.data, encoded.decode, encoded.is_error)
        own["_meeting"] = _NO_CONDITION  # with the callbacks that were left there: they are the host's to run


def _note_fork() -> None:
    global _leaving
    _leaving = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)
