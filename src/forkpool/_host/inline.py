"""Run each call in the thread that submits it: for breakpoints, profilers, coverage, and where there is no fork.

Runs in: host; any thread. No supervisor, no process, no descriptor; it works on every platform.
A call takes the way that it takes to a worker and back, as bytes, and only does not leave the process: what could not travel
fails as it would with workers, arguments are copies, and the future is one that a worker might have answered.

Hard part: several threads submit at once, and a finalizer or signal handler may submit in the middle of a call. Nobody waits
for anybody (but for the initializer): such calls run beside each other or one inside the other. What is counted is counted in
single steps, a slot is taken with one (`dict.setdefault`), and a call that runs holds a lock of its own, for `shutdown`.
Ctrl-C is the user's: it goes through `submit`, and the call has failed.
Tests: tests/process/test_inline.py, tests/contract/
"""

from __future__ import annotations

import _thread
import importlib
import os
from collections.abc import Callable
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from .._core.placement import free_placement
from .._core.repeating import is_asked_for
from .._core.states import RepeatableTask, Task
from .._shared import clock
from .._shared.calls import name_of
from .._shared.payload import PayloadError
from .._unpickling import EncodedAnswer
from ..config import PoolConfig, TaskOptions
from ..events import Placement, PoolStatistics
from ..future import ForkFuture
from .any_pool import AnyPool, check_accepts, keep_until_exit, warn
from .inline_worker import Answer, EnvironmentOf, Running, initialize, work
from .intake import Request
from .inventory import PoolSnapshot, TaskSnapshot
from .retries import note, text_of, with_notes
from .tally import Counter

if TYPE_CHECKING:
    from .worker_process import WorkerProcess

_NO_TIMEOUT = (
    "timeout= cannot be enforced by a pool that runs calls inline: nobody else is there to stop them. "
    "They run as long as they take."
)
_NO_MEMORY_LIMIT = (
    "memory_limit= cannot be enforced by a pool that runs calls inline: what they take is this process's memory, and nobody "
    "could stop them."
)
_WHY_FREE = "calls run inline, in the calling process, which is not bound"


class InlinePool(AnyPool):
    """Runs calls where they are submitted."""

    def __init__(self, config: PoolConfig) -> None:
        super().__init__(config)
        self._closing = False
        self._broken: Callable[[], BaseException] | None = None
        self._ready = False  # modules are preloaded, and the initializer has run
        self._init_lock = _thread.allocate_lock()
        self._initializing = 0  # the thread that runs the initializer
        self._warned_of: set[str] = set()  # options that cannot be kept
        self._running: dict[Running, None] = {}
        self._seats: dict[int, Running] = {}  # by slot
        self._busy = [0.0] * config.max_workers  # seconds by slot
        self._accepted, self._done, self._failed = Counter(), Counter(), Counter()

    def submit(
        self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], options: TaskOptions
    ) -> ForkFuture[Any]:
        """Run a call. Raises what `ForkPoolExecutor.submit` promises, and a KeyboardInterrupt that comes while it runs."""
        self._check_open()
        try:
            payload = self.encoder.encode(fn, args, kwargs, options.name)
        except PayloadError as error:
            self._accepted.add()
            self._failed.add()
            return self.future_of_refused(error)
        self._warn_of_what_is_not_kept(options)
        if not self._ready:
            self.tell_started()
        init = None if self._ready else self._prepare()
        future: ForkFuture[Any] = ForkFuture()
        future._try_start()
        call = Running(future, options.name or name_of(fn), options)
        try:
            with call.lock:
                self._running[call] = None
                self._check_open()  # once more: who waits for the pool to close sees this call, or is seen by it
                self._run(call, payload, init)
        finally:
            self._running.pop(call, None)
        return future

    def close(self, *, cancel_queued: bool) -> None:
        """Accept no more. Nothing is ever queued."""
        self._closing = True

    def let_go(self) -> None:
        """The executor is gone."""
        self._closing = True

    def abort(self) -> None:
        """Accept no more. What other threads run cannot be stopped."""
        self._closing = True

    def kill_all(self, request: Request) -> None:
        """Accept no more. There are no workers."""
        self._closing = True

    def wait_closed(self) -> None:
        """Wait for the calls that other threads run. One that this thread is in cannot be waited for."""
        if self.pid != os.getpid():
            return
        for call in list(self._running):
            if call.thread != _thread.get_ident():
                with call.lock:
                    pass

    def restart(self) -> None:
        """Nothing to do: this process is as it is now."""
        self._check_open()

    def recycle(self) -> None:
        """Nothing to do."""

    def ask_kill(self, task: Task | None) -> None:
        """Nothing to do: who has the future knows that the call is over."""

    def forget(self, task: Task) -> None:
        """Nothing to do, as in `ask_kill`."""

    def is_of_another_process(self) -> bool:
        return False  # nor is anything of it: see `_check_open`

    def is_supervisor_thread(self) -> bool:
        return False

    def close_in_fork(self) -> None:
        """Nothing to do: see `_check_open`."""

    def worker_processes(self) -> dict[int, WorkerProcess]:
        return {}

    def placement(self) -> Placement:
        return free_placement(self.config.max_workers, "inline", _WHY_FREE)

    def has_ended(self) -> bool:
        return self._closing and not self._running

    def look(self) -> PoolSnapshot:
        now, pid = clock.now(), os.getpid()
        calls = [call for call in list(self._running) if call.lock.locked()]
        return PoolSnapshot(
            tasks=tuple(TaskSnapshot(call.name, "running", call.slot, pid, now - call.since, call.future) for call in calls)
        )

    def statistics(self) -> PoolStatistics:
        """Exact: two looks that agree had nothing happen between them."""
        counts = self._counts()
        while (again := self._counts()) != counts:
            counts = again
        accepted, done, failed, calls = counts
        running = accepted - done - failed
        if running and not calls:  # an exception cut calls off in the middle of our own lines
            failed, running = failed + running, 0
        busy = list(self._busy)
        for slot, call in self._seats.copy().items():
            busy[slot] += clock.now() - call.since
        return PoolStatistics(0, running, done, failed, 0, 0, 0, 0, 0, 0, MappingProxyType({}), tuple(busy))

    # --- private ---------------------------------------------------------------------------------------

    def _warn_of_what_is_not_kept(self, options: TaskOptions) -> None:
        """Once of each option."""
        for value, text in ((options.timeout, _NO_TIMEOUT), (options.memory_limit, _NO_MEMORY_LIMIT)):
            if value is not None and text not in self._warned_of:
                self._warned_of.add(text)
                warn(text, RuntimeWarning)

    def _check_open(self) -> None:
        if self.pid != os.getpid():  # a fork: the pool is usable here, and what other threads ran is not
            self._running.clear()
            self._seats.clear()
            self._init_lock = _thread.allocate_lock()
            self.pid = os.getpid()
        check_accepts(self._closing, self._broken)

    def _counts(self) -> tuple[int, int, int, list[Running]]:
        calls = [call for call in list(self._running) if call.lock.locked()]
        return self._accepted.value, self._done.value, self._failed.value, calls

    def _prepare(self) -> bytes | None:
        """Import here what a fork server would, and pickle the initializer's call.

        Raises what a module raises, or SerializationError; the next submit tries again.
        """
        keep_until_exit(self)
        for name in self.config.preload:
            if name != "__main__":  # that is what runs here
                importlib.import_module(name)
        if self.config.initializer is None:
            self._ready = True
            return None
        if self._initializing == _thread.get_ident():
            raise RuntimeError("the initializer submits to its own pool, whose calls wait for it")
        return self.encode_initializer()

    def _run(self, call: Running, payload: bytes, init: bytes | None) -> None:
        """Be the worker that gets a call, and the supervisor that gets its answer."""
        ended = self._failed
        self._accepted.add()
        try:
            call.slot = self._sit_down(call)
            with EnvironmentOf(call, self.config.env):
                if init is not None:
                    self._initialize(init)
                answer = self._why_not() or self._attempts(call, payload)
            if not answer.is_error:
                ended = self._done
        finally:
            call.note_end()
            ended.add()  # before the future tells
            self._stand_up(call)
        if answer.is_plain:
            call.future._finish(answer.decode(answer.data))
        else:
            call.future._finish(encoded=EncodedAnswer(answer.data, answer.decode, answer.is_error))

    def _attempts(self, call: Running, payload: bytes) -> Answer:
        """Run the call until it returns, or fails in a way for which it is not to be run again."""
        answer = work(call, payload, self.config.max_workers)
        task = RepeatableTask(call.future, payload, call.name, call.options)
        while answer.is_error and is_asked_for(task, answer.error):
            call.note_end()
            note(task, text_of(answer.kind, answer.data, call.future._run), None, "yes")
            task.attempt += 1
            call.begin_again()
            answer = work(call, payload, self.config.max_workers)
        return answer._replace(decode=with_notes(task, answer.decode)) if answer.is_error else answer

    def _initialize(self, payload: bytes) -> None:
        """Run the initializer, unless that was done. Another thread that does it is waited for."""
        with self._init_lock:
            if self._ready or self._broken is not None:
                return
            try:
                self._initializing = _thread.get_ident()
                self._broken = initialize(payload)
                self._ready = True
            finally:
                self._initializing = 0

    def _why_not(self) -> Answer | None:
        """The answer to a call that a broken pool has accepted."""
        why = self._broken
        return None if why is None else Answer(b"", lambda _: why(), is_error=True)

    def _sit_down(self, call: Running) -> int:
        """Take the lowest slot that is free; where more calls run than there are slots, these share the first one."""
        for slot in range(self.config.max_workers):
            holder = self._seats.setdefault(slot, call)
            if holder is call:
                return slot
            if not holder.lock.locked():  # an exception ended it before it could stand up
                self._seats[slot] = call
                return slot
        return 0

    def _stand_up(self, call: Running) -> None:
        if self._seats.get(call.slot) is call:
            del self._seats[call.slot]
        self._busy[call.slot] += clock.now() - call.since
