"""What the executor and its futures call; it starts the supervisor with the first task.

Runs in: host; any thread. The supervisor thread owns everything else (processes, descriptors, decisions).

Hard part: an exception may interrupt any line here (Ctrl-C, a signal handler), and the same thread may come in again (a
finalizer). `submit` pickles, makes sure that a supervisor serves the pool, then hands the task over in one step: accepted, or
not. Several threads may start a supervisor at once: these settle among themselves which one serves (`claim`), the others end.
Tests: tests/process/test_interruptions.py, tests/process/test_fork.py
"""

from __future__ import annotations

import _thread
import contextlib
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from queue import Empty, SimpleQueue
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from .._core.states import RepeatableTask, Task
from .._shared.calls import name_of
from .._shared.payload import PayloadError
from ..config import PoolConfig, TaskOptions
from ..events import Placement, PoolStatistics
from ..future import ForkFuture, Run
from .any_pool import AnyPool, check_accepts, keep_until_exit, warn
from .intake import Intake, Request
from .inventory import PoolSnapshot
from .pinning import placement_before_start
from .servers import MakeError, Restart
from .snapshot import take_snapshot
from .supervisor import Supervisor
from .tally import Counter
from .worker_process import WorkerProcess

if TYPE_CHECKING:
    from .worker_link import WorkerLink

T = TypeVar("T")
_LOOK_S = 5.0  # arbitrary: a supervisor that does not answer is starved, or user code holds the interpreter


class Pool(AnyPool):
    """Runs calls on worker processes."""

    def __init__(self, config: PoolConfig) -> None:
        super().__init__(config)
        self.intake = Intake(preloads=bool(config.preload))
        self._claim: dict[str, Supervisor] = {}  # "supervisor": the one that serves, once there is one
        self._in_use = False  # a supervisor was started: the pool is to be told when nobody needs it
        self._refused = Counter()  # calls that could not be pickled: the supervisor never hears of them
        self.stuck_callbacks: threading.Event | None = None  # what the last caller waited for in vain; see ForkFuture

    # --- the user's side -------------------------------------------------------------------------------

    def submit(
        self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], options: TaskOptions
    ) -> ForkFuture[Any]:
        """Accept a call. Raises what `ForkPoolExecutor.submit` promises."""
        self._check_open()
        try:
            payload = self.encoder.encode(fn, args, kwargs, options.name)
        except PayloadError as error:
            self._refused.add()
            return self.future_of_refused(error)
        future: ForkFuture[Any] = ForkFuture()
        future._pool = self
        make = RepeatableTask if options.retries else Task
        future._task = task = make(future, payload, options.name or name_of(fn), options)
        if not self._claim:
            self._start()
        intake = self.intake
        if not intake.gate.is_open or intake.gate.notices:
            self._wait_for_preload()
        intake.put(task)
        if intake.closed and future._refuse():
            self._check_open()
            raise RuntimeError("cannot schedule new futures after shutdown")
        return future

    def ask_kill(self, task: Task | None) -> None:
        """None: it has ended meanwhile."""
        if task is not None:
            self._post((Request.KILL, task))

    def forget(self, task: Task) -> None:
        """Its user has cancelled it."""
        self._post((Request.CANCEL, task))

    def find_run(self, task: Task) -> Run | None:
        """What is known of a call that runs now; None: it does not, or not yet."""
        supervisor, seq = self._claim.get("supervisor"), task.seq
        return None if supervisor is None or not seq else supervisor.find_run(seq)

    def close(self, *, cancel_queued: bool) -> None:
        """Accept no more; finish what was accepted, or only what runs. Does not wait."""
        self._end((Request.CLOSE, cancel_queued))

    def let_go(self) -> None:
        """The executor is gone: the pool closes, if it is in use.

        A global of the program may live longer than our modules' globals. Pools that were used are closed by then
        (`_finish_all`), or belong to the process that forked this one.
        """
        if self._in_use and not self.intake.closing and not self.intake.closed:
            self.close(cancel_queued=False)

    def abort(self) -> None:
        """Cancel what is queued, give what runs the grace period, then kill. A second call kills at once."""
        self._end((Request.ABORT, None))

    def kill_all(self, request: Request) -> None:
        """Stop everything now: `Request.KILL_ALL` or `Request.TERMINATE_ALL`."""
        self.check_owner()
        self._end((request, None))

    def wait_closed(self) -> None:
        """Wait until a pool that was told to close has given everything back. Returns at once on the supervisor's thread."""
        supervisor = self._claim.get("supervisor")
        if supervisor is None or self.pid != os.getpid() or self.is_supervisor_thread():
            return
        self.intake.done.wait()
        supervisor.join()

    def is_of_another_process(self) -> bool:
        return self.pid != os.getpid() and bool(self._claim)

    def check_owner(self) -> None:
        """Raises the RuntimeError of a pool in a fork of the process that owns it."""
        if self.is_of_another_process():
            raise self.error_in_fork()

    def is_supervisor_thread(self) -> bool:
        """True on the thread that finishes futures: waiting for one there would never end."""
        supervisor = self._claim.get("supervisor")
        return supervisor is not None and supervisor.is_current_thread()

    def worker_processes(self) -> dict[int, WorkerProcess]:
        """The workers that live now, by pid."""
        supervisor = self._claim.get("supervisor")
        links = [] if supervisor is None or self.is_of_another_process() else supervisor.in_slots()
        return {link.pid: WorkerProcess(self, link) for link in links}

    def signal_worker(self, link: WorkerLink, send: Callable[[], object]) -> None:
        """Have the supervisor send it, unless the worker has ended. Does not wait."""
        self.check_owner()
        self._post((Request.ASK, lambda supervisor: supervisor.signal_worker(link, send)))

    def has_ended(self) -> bool:
        return self.intake.done.is_set()

    def look(self) -> PoolSnapshot:
        """What the pool holds now. See `diagnostics.snapshot`."""
        return self._ask(Supervisor.look, PoolSnapshot)

    def statistics(self) -> PoolStatistics:
        """What became of all calls. See `ForkPoolExecutor.statistics`."""
        none_yet = PoolStatistics(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, MappingProxyType({}), (0.0,) * self.config.max_workers)
        counts = self._ask(Supervisor.statistics, lambda: none_yet)
        return replace(counts, failed=counts.failed + self._refused.value)

    def recycle(self) -> None:
        """Replace all workers. See `ForkPoolExecutor.recycle_workers`."""
        self.check_owner()
        self._post((Request.RECYCLE, None))

    def restart(self) -> None:
        """Replace fork server and workers by such as the host is now. See `ForkPoolExecutor.restart_workers`."""
        self._check_open()
        if not self._claim:
            return
        snapshot = take_snapshot(self.config.env, self.config.max_workers, self.config.preload, self.encoder.path_of_calls())
        answer: SimpleQueue[MakeError | None] = SimpleQueue()
        self._post((Request.RESTART, Restart(snapshot, answer.put)))
        if self.is_supervisor_thread():
            return
        if self.intake.closed:  # it may have had its last look
            self.intake.done.wait()
            self._check_open()
        failure = answer.get()
        if failure is not None:
            raise failure()

    def _ask(self, question: Callable[[Supervisor], T], before_the_first_call: Callable[[], T]) -> T:
        """Have a question answered between two steps of the supervisor, after all that was handed to it before."""
        supervisor = self._claim.get("supervisor")
        if supervisor is None:
            return before_the_first_call()
        self.check_owner()
        if not supervisor.is_current_thread():
            answer: SimpleQueue[T] = SimpleQueue()
            self._post((Request.ASK, lambda supervisor: answer.put(question(supervisor))))
            if self.intake.closed:  # as for tasks, see `intake`: it may have had its last look
                self.intake.done.wait(_LOOK_S)
            else:
                with contextlib.suppress(Empty):
                    return answer.get(timeout=_LOOK_S)
        return question(supervisor)

    def placement(self) -> Placement:
        """Where the workers run."""
        self.check_owner()
        supervisor = self._claim.get("supervisor")
        return placement_before_start(self.config) if supervisor is None else supervisor.pinning.placement

    # --- the supervisor's side -------------------------------------------------------------------------

    def claim(self, supervisor: Supervisor) -> bool:
        """True for the first supervisor that asks: it serves this pool."""
        return self._claim.setdefault("supervisor", supervisor) is supervisor

    def close_in_fork(self) -> None:
        """In a fork of the host: let go of the descriptors, so that nothing here keeps the host's processes alive."""
        supervisor = self._claim.get("supervisor")
        if supervisor is not None:
            supervisor.close_in_fork()
            self.intake.closed = True  # for a submit that is forked in its middle: by a signal handler, or while it pickles
            self.intake.gate.open()

    # --- private ---------------------------------------------------------------------------------------

    def _check_open(self) -> None:
        if self.pid != os.getpid():
            self.check_owner()
            self.pid = os.getpid()  # nothing was started before the fork: both processes have a pool of their own
        check_accepts(self.intake.closing, self.intake.broken)

    def _wait_for_preload(self) -> None:
        """Raises what preloading raised, and warns of what it left."""
        if not self.is_supervisor_thread():  # there, a finalizer submits: it would wait for itself
            self.intake.gate.wait()
        with contextlib.suppress(IndexError):  # another thread was quicker
            warn(self.intake.gate.notices.popleft(), RuntimeWarning)
        self._check_open()

    def _start(self) -> None:
        _check_not_preloading()
        self._check_open()  # once more: a fork may have come in between
        init = None if self.config.initializer is None else self.encode_initializer()
        supervisor = Supervisor(self.config, self.intake, self.claim, init, self.name, self.encoder.path_of_calls())
        self._in_use = True
        keep_until_exit(self)
        settled = _thread.allocate_lock()
        settled.acquire()
        # One C call: an exception here finds the thread started, or not; `threading.Thread.start` has steps in between.
        _thread.start_new_thread(supervisor.boot, (settled,))
        settled.acquire()  # released when some supervisor serves this pool, or this one cannot
        if supervisor.error is not None:
            raise supervisor.error
        self.tell_started()

    def _end(self, request: tuple[Request, Any]) -> None:
        """In this order: an exception in between leaves a pool that ends, not one that takes no calls and never ends."""
        self._post(request)
        self.intake.closing = True  # the supervisor does that too, but the caller's next submit may come before

    def _post(self, request: tuple[Request, Any]) -> None:
        if self.pid == os.getpid():
            self.intake.put(request)


def _check_not_preloading() -> None:
    preload = sys.modules.get("forkpool._child.preload")
    if preload is not None and preload.running:
        raise RuntimeError(
            f"this is a fork server that preloads {preload.running!r}, whose code submits to a pool: that would start "
            'a fork server that preloads it again, without end. Put what starts the work under `if __name__ == "__main__":`.'
        )
