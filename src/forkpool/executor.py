"""ForkPoolExecutor: the arguments of the public calls, checked and passed on. Those of a task are in `_views`.

Runs in: host; any thread.
It follows CPython 3.14's `concurrent.futures.ProcessPoolExecutor`, also on the older Pythons; what is new is keyword-only.
Tests: tests/contract/, tests/process/
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any, Literal

from ._host.any_pool import AnyPool
from ._host.intake import Request
from ._host.topology import affinity_mask, usable_cpus
from ._host.which_pool import check_preload, inline_kind, pool_kind
from ._views import OptionsView as OptionsView
from ._views import Submitter
from .config import DEFAULT_OPTIONS, Serializer, pool_config
from .events import Placement, PoolStatistics

if TYPE_CHECKING:
    from ._host.worker_process import WorkerProcess


class ForkPoolExecutor(Submitter):
    """A drop-in `concurrent.futures.Executor` on worker processes, where one crash costs one future.

    It never forks your process: a small fork server is started with the first call, and forks the workers as tasks come.
    The constructor checks its arguments and starts nothing.

    Args:
        max_workers: Number of workers at most; None: as many as this process may use CPUs (affinity mask and cgroup quota,
            rounded up). At most 65536.
        mp_context: For compatibility: None, or a "forkserver" or "spawn" context, which all mean the same here.
        initializer: Called in each worker before its first task. If it raises, the pool is broken, as in the standard library.
        initargs: Its arguments, in a tuple.
        max_tasks_per_child: Tasks after which a worker is replaced; None: never. While the last one runs, the replacement is
            started and initialized; it is on the same slot and gets its first task when the last one is answered.
        max_tasks_jitter: Each worker is replaced after up to so many tasks fewer, drawn anew for each, so that not all are
            replaced at once.
        env: Set in the workers' environment before anything is imported there.
        serializer: "auto": plain pickle where that is safe, else by value with cloudpickle; "pickle": the
            standard pickle, which ships nothing by value; "cloudpickle": always by value. It is about calls, not results.
        grace_period: Seconds that a worker may take to leave, and that running tasks get after Ctrl-C.
        pin: Which CPUs each worker is bound to. "auto": one of its own, if no other pool of this user claims it and there is
            one for each worker and another for this process, else none is bound (`placement()` says why); also none in a
            worker of another pool, and where a cgroup's quota is smaller than the affinity mask. True: one of its own, and
            an error at the first submit where CPUs cannot be claimed. False: none is bound. A list has a CPU number, or a
            list of them, for each worker.
        threads_per_worker: How many threads BLAS, OpenMP, numexpr and numba start in each worker, told in the environment
            before anything is imported. "auto": as many as the worker has CPUs. A number: that many; and `pin` then gives
            each worker as many CPUs. None: what they find for themselves, which is the CPUs that the worker is bound to.
        preload: Modules that the fork server imports once, before it forks: workers share their memory. "__main__" runs the
            program as `__mp_main__` there (guard what must not run twice). The first submit waits for it, and raises what a
            module raised. Names are not looked up before.
    Raises:
        TypeError, ValueError: An argument is wrong; the message says what is right.
        RuntimeError: On a platform without the means (Windows), or in a subinterpreter that allows no daemon threads (an
            isolated one; on Python 3.11 the first `submit` raises it). `InlineExecutor` works there.

    With FORKPOOL_INLINE=1 in the environment it is an `InlineExecutor`.
    Thread safe. In a fork of the process that used it, all methods but `shutdown` raise a RuntimeError that says where to make
    another, and so does each future that had not ended.

    .. versionadded:: 0.1
    """

    def __init__(
        self,
        max_workers: int | None = None,
        mp_context: Any = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        max_tasks_per_child: int | None = None,
        max_tasks_jitter: int = 0,
        env: Mapping[str, str] | None = None,
        serializer: Serializer = "auto",
        grace_period: float = 5.0,
        pin: Literal["auto"] | bool | Sequence[int] | Sequence[Iterable[int]] = "auto",
        threads_per_worker: Literal["auto"] | int | None = None,
        preload: tuple[str, ...] = (),
    ) -> None:
        kind = self._pool_kind()
        config = pool_config(
            max_workers=max_workers,
            mp_context=mp_context,
            initializer=initializer,
            initargs=initargs,
            max_tasks_per_child=max_tasks_per_child,
            max_tasks_jitter=max_tasks_jitter,
            env=env,
            serializer=serializer,
            grace_period=grace_period,
            pin=pin,
            threads_per_worker=threads_per_worker,
            mask=affinity_mask(),
            count_cpus=usable_cpus,
            preload=preload,
        )
        check_preload(config.preload)
        self._options = DEFAULT_OPTIONS
        self._pool = kind(config)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Accept no more calls, and release everything when what was accepted is done.

        Args:
            wait: Return only when all futures are done and nothing is left: no process, thread or descriptor.
            cancel_futures: Cancel the calls that have not begun.

        May be called again, from any thread, and from a callback. Does nothing in a fork of the process that owns the pool.
        """
        self._pool.close(cancel_queued=cancel_futures)
        if wait:
            self._pool.wait_closed()

    def placement(self) -> Placement:
        """Tell which CPUs the workers of each slot are bound to, and why: `print(ex.placement())`.

        It is chosen at the first submit; until then nothing is bound. After shutdown it tells what was.

        Raises:
            RuntimeError: In a fork of the process that owns the pool.
        """
        return self._pool.placement()

    def recycle_workers(self) -> None:
        """Replace all workers that there are, one by one, without disturbing the calls that they run.

        Each goes on until its replacement is ready, and leaves when it has answered the call that it runs then: no slot
        has a gap. Does not wait. Does nothing before the first call and after shutdown. Thread safe.

        Raises:
            RuntimeError: In a fork of the process that owns the pool.

        .. versionadded:: 0.1
        """
        self._pool.recycle()

    def restart_workers(self) -> None:
        """Replace all workers by such as this process is now: environment, `sys.path`, cwd ..., and modules as on disk.

        A fresh fork server is started, and imports what is to be preloaded; the workers go on meanwhile. When it is ready this
        returns. From then on every call that starts, starts in a new worker; those that run are not disturbed.

        Raises:
            Exception: What preloading raised in the new fork server. The pool goes on with the workers that it had.
            RuntimeError: No fork server could be started (likewise), the pool was shut down, or this is a fork of its process.

        Blocks for a fork server's start, some 0.1 s without preloading. Thread safe. Before the first call it does nothing.

        .. versionadded:: 0.1
        """
        self._pool.restart()

    def statistics(self) -> PoolStatistics:
        """Return what became of all calls and workers: exact at one moment between this call and its return.

        A call is counted from the return of `submit` on, and counted as ended before its future tells so. After
        shutdown the last counts stay.

        Raises:
            RuntimeError: In a fork of the process that owns the pool.

        Thread safe. It waits for the pool's supervisor thread, a millisecond at most unless the machine is starved.

        .. versionadded:: 0.1
        """
        return self._pool.statistics()

    def terminate_workers(self) -> None:
        """Send SIGTERM to the workers, SIGKILL to those that stay for the grace period; cancel what is queued; close the pool.

        Running calls end in `WorkerCrashedError`. Does not wait.

        Raises:
            RuntimeError: In a fork of the process that owns the pool.
        """
        self._pool.kill_all(Request.TERMINATE_ALL)

    def kill_workers(self) -> None:
        """Kill the workers at once, cancel what is queued, and close the pool.

        Running calls end in `WorkerCrashedError`. Does not wait.

        Raises:
            RuntimeError: In a fork of the process that owns the pool.
        """
        self._pool.kill_all(Request.KILL_ALL)

    def __enter__(self) -> ForkPoolExecutor:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        """Shut down and wait. On Ctrl-C: cancel what is queued, wait the grace period for what runs, then kill."""
        try:  # around all: who presses Ctrl-C twice presses fast
            if kind is not None and issubclass(kind, KeyboardInterrupt):
                self._pool.abort()
                self._pool.wait_closed()
            else:
                self.shutdown(wait=True)
        except KeyboardInterrupt:
            if kind is not None and issubclass(kind, KeyboardInterrupt):
                self._hurry()
            else:
                self._abort()
            raise

    def __del__(self) -> None:
        pool = self.__dict__.get("_pool")
        if pool is not None:
            pool.let_go()

    @staticmethod
    def _pool_kind() -> type[AnyPool]:
        return pool_kind()

    def _executor_of_views(self) -> ForkPoolExecutor:
        return self

    @property
    def _max_workers(self) -> int:
        return self._pool.config.max_workers

    @property
    def _processes(self) -> Mapping[int, WorkerProcess]:
        return MappingProxyType(self._pool.worker_processes())

    def _abort(self) -> None:
        try:
            self._pool.abort()
            self._pool.wait_closed()
        except KeyboardInterrupt:
            self._hurry()
            raise

    def _hurry(self) -> None:
        """No more patience. Twice, for nobody knows how far the first abort came that Ctrl-C interrupted."""
        self._pool.abort()
        self._pool.abort()
        self._pool.wait_closed()


class InlineExecutor(ForkPoolExecutor):
    """A ForkPoolExecutor without workers: each call runs in `submit`, in the calling thread and process.

    For breakpoints, profilers and coverage, and where there is no fork. Calls, results and exceptions are pickled as ever, so
    arguments are copies, and what could not be sent to a worker fails here too; futures are done when `submit` returns. The
    task's function is your own, on your own globals. A crash is one of this process, and nothing can stop a call: `timeout`
    is not enforced, which a RuntimeWarning says once. `initializer` runs once, before the first call. Workers are not
    started, pinned, replaced or killed: such arguments and methods are checked and do nothing.

    Arguments and errors as `ForkPoolExecutor`; a KeyboardInterrupt goes through `submit`. Works on every platform.
    Thread safe: calls of several threads run at the same time. Usable in a fork of the process that made it.

    .. versionadded:: 0.1
    """

    @staticmethod
    def _pool_kind() -> type[AnyPool]:
        return inline_kind()
