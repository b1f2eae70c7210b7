"""ForkPoolExecutor and its views: the arguments of the public calls, checked and passed on.

Runs in: host; any thread.
It follows CPython 3.14's `concurrent.futures.ProcessPoolExecutor`, also on the older Pythons; what is new is keyword-only.
Tests: tests/contract/, tests/process/
"""

from __future__ import annotations

import functools
import inspect
import itertools
import time
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from types import MappingProxyType, TracebackType
from typing import Any, Literal, ParamSpec, TypeVar

from ._host.any_pool import AnyPool
from ._host.intake import Request
from ._host.topology import affinity_mask, usable_cpus
from ._host.which_pool import check_preload, inline_kind, pool_kind
from ._shared.calls import run_chunk
from .config import DEFAULT_OPTIONS, Serializer, TaskOptions, pool_config, task_options
from .events import Placement, PoolStatistics
from .future import ForkFuture

P = ParamSpec("P")
T = TypeVar("T")


class _Submitter(Executor):
    """What the executor and its views have in common: calls with options."""

    _pool: AnyPool
    _options: TaskOptions

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> ForkFuture[T]:
        """Schedule `fn(*args, **kwargs)` on a worker.

        The call is pickled here, in the caller's thread: it runs with what its arguments, closure and globals hold now.
        It runs once at most, and its future ends exactly once.

        Returns:
            The call's future.
        Raises:
            SerializationError: A part of the call cannot be pickled; nothing ran, the pool is untouched.
            TypeError: `fn` is not callable, or an async or generator function (caller's fault).
            BrokenProcessPool: The pool can never work again (`PoolBrokenError`, `InitializerError`).
            RuntimeError: After shutdown, in a fork of the process that owns the pool, or without a Python to run.

        Thread safe; may be called from signal handlers, finalizers, callbacks. An exception that interrupts it leaves
        the pool usable, and the call accepted or not.
        """
        _check_callable(fn)
        return self._pool.submit(fn, args, kwargs, self._options)

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[T]:
        """Return an iterator over `fn` applied to the items, in order.

        Args:
            timeout: Seconds from this call until the last result must have been asked for; None: no limit. (The running
                time of each call is limited by `options(timeout=)`.)
            chunksize: Items per task. A crash costs the whole task.
            buffersize: Most results that are not yet yielded; the iterables are then read as results are taken.
                None: read all of them now.
        Raises:
            TimeoutError: From the iterator. What is pending is cancelled.
            Whatever the call raised, from the iterator, when it reaches that item.
            ValueError, TypeError: An argument is wrong (caller's fault).
        """
        _check_callable(fn)
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        if buffersize is not None and not isinstance(buffersize, int):
            raise TypeError("buffersize must be an integer or None")
        if buffersize is not None and buffersize < 1:
            raise ValueError("buffersize must be None or > 0")
        end = None if timeout is None else time.monotonic() + timeout
        items = zip(*iterables, strict=False)
        if chunksize == 1:
            return _results(self, (functools.partial(self.submit, fn), items), buffersize, end)
        run: Callable[..., ForkFuture[list[T]]] = functools.partial(self.submit, functools.partial(run_chunk, fn))
        lists = _results(self, (run, ((chunk,) for chunk in _chunks(items, chunksize))), buffersize, end)
        return itertools.chain.from_iterable(lists)

    def options(
        self,
        *,
        timeout: float | None = None,
        name: str | None = None,
        priority: int | None = None,
        cancel_running: bool | None = None,
        retries: int | None = None,
        retry_on: type[BaseException] | Collection[type[BaseException]] | None = None,
    ) -> OptionsView:
        """Return a light view of this pool whose calls have these options.

        Args:
            timeout: Seconds that a call may run, from its real start; then its worker is killed and the future gets
                `TaskTimeoutError`. At first there is no limit; `math.inf` takes one away.
            name: What messages call the task; at first the callable's qualified name.
            priority: Among the calls that wait for a worker, one of a higher priority is next, and within one priority the
                one that was submitted first. At first 0. A steady stream of higher ones lets lower ones wait for ever.
            cancel_running: True: `cancel()` also stops a call that runs, as `kill()` does, and so does cancelling the asyncio
                future that wraps it (`wait_for`, `TaskGroup`), or leaving a `map`. At first False, as in the standard library.
            retries: How often a call that fails is run again, at most. At first 0: a call that may have run is never run again
                unless you ask. The next attempt stands in front of those of its priority, and goes to another worker if one is
                idle (after a crash or a timeout it is always another). Each has the whole timeout. The last error tells of the
                others in its `__notes__`. A call that you cancelled or killed is not run again, nor is any that fails after
                `shutdown(cancel_futures=True)` or in a broken pool.
            retry_on: The errors after which it is: exception classes, as in an `except` clause; also such as the call raises.
                At first `WorkerCrashedError`.
        Options of a view's view combine: what is None or left out stays as it was.
        Returns:
            An Executor: `submit`, `map` and `loop.run_in_executor` work with it. Shutting it down does nothing to the pool.
        Raises:
            TypeError, ValueError: An argument is wrong.
        """
        options = task_options(
            self._options,
            timeout=timeout,
            name=name,
            priority=priority,
            cancel_running=cancel_running,
            retries=retries,
            retry_on=retry_on,
        )
        return OptionsView(self._executor_of_views(), options)

    @abstractmethod
    def _executor_of_views(self) -> ForkPoolExecutor:
        """Whose views these are."""


class ForkPoolExecutor(_Submitter):
    """A drop-in `concurrent.futures.Executor` on worker processes, where one crash costs one future.

    It never forks your process: a small fork server is started with the first call, and forks the workers as tasks come.
    The constructor checks its arguments and starts nothing.

    Args:
        max_workers: Number of workers at most; None: as many as this process may use CPUs (affinity mask and cgroup quota,
            rounded up).
        mp_context: For compatibility: None, or a "forkserver" or "spawn" context, which all mean the same here.
        initializer: Called in each worker before its first task. If it raises, the pool is broken, as in the standard library.
        initargs: Its arguments.
        max_tasks_per_child: Tasks after which a worker is replaced; None: never. While the last one runs, the replacement is
            started and initialized; it is on the same slot and gets its first task when the last one is answered.
        max_tasks_jitter: Each worker is replaced after up to so many tasks fewer, drawn anew for each, so that not all are
            replaced at once.
        env: Set in the workers' environment before anything is imported there.
        serializer: "auto": plain pickle where that is safe, else by value with cloudpickle; "pickle"; "cloudpickle".
        grace_period: Seconds that a worker may take to leave, and that running tasks get after Ctrl-C.
        pin: Which CPUs each worker is bound to. "auto": one of its own, if no other pool of this user claims it and there is
            one for each worker, else none is bound (`placement()` says why); also none in a worker of another pool, and where
            a cgroup's quota is smaller than the affinity mask. True: as "auto", but an error at the first submit where
            CPUs cannot be claimed. False: none is bound. A list has a CPU number, or a list of them, for each worker.
        threads_per_worker: How many threads BLAS, OpenMP, numexpr and numba start in each worker, told in the environment
            before anything is imported. "auto": as many as the worker has CPUs. A number: that many; and `pin` then gives
            each worker as many CPUs. None: what they find for themselves, which is the CPUs that the worker is bound to.
        preload: Modules that the fork server imports once, before it forks: workers share their memory. "__main__" runs the
            program as `__mp_main__` there (guard what must not run twice). The first submit waits for it, and raises what a
            module raised. Names are not looked up before.
    Raises:
        TypeError, ValueError: An argument is wrong; the message says what is right.
        RuntimeError: On a platform without the means (Windows), where `InlineExecutor` works, or in a subinterpreter.

    With FORKPOOL_INLINE=1 in the environment it is an `InlineExecutor`.
    Thread safe. Not usable in a fork of the process that made it.

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

        May be called again, from any thread, and from a callback.
        """
        self._pool.close(cancel_queued=cancel_futures)
        if wait:
            self._pool.wait_closed()

    def placement(self) -> Placement:
        """Tell which CPUs the workers of each slot are bound to, and why: `print(ex.placement())`.

        It is chosen at the first submit; until then nothing is bound. After shutdown it tells what was.
        """
        return self._pool.placement()

    def recycle_workers(self) -> None:
        """Replace all workers that there are, one by one, without disturbing the calls that they run.

        Each goes on until its replacement is ready, and leaves when it has answered the call that it runs then: no slot
        has a gap. Does not wait. Does nothing before the first call and after shutdown. Thread safe.

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
        """
        self._pool.kill_all(Request.TERMINATE_ALL)

    def kill_workers(self) -> None:
        """Kill the workers at once, cancel what is queued, and close the pool.

        Running calls end in `WorkerCrashedError`. Does not wait.
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
            pool.close(cancel_queued=False)

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
        return MappingProxyType({pid: WorkerProcess(pid, slot) for pid, slot in self._pool.worker_pids().items()})

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


class OptionsView(_Submitter):
    """A pool seen with options for each call. Made by `ForkPoolExecutor.options`; keeps the pool alive."""

    def __init__(self, executor: ForkPoolExecutor, options: TaskOptions) -> None:
        self._executor = executor  # kept alive: a pool whose executor is gone closes
        self._pool = executor._pool
        self._options = options

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Do nothing: the pool belongs to the executor that the view was made from."""

    def _executor_of_views(self) -> ForkPoolExecutor:
        return self._executor


class WorkerProcess:
    """What libraries look for in `_processes`: a worker's pid and slot."""

    __slots__ = ("pid", "slot")

    def __init__(self, pid: int, slot: int) -> None:
        self.pid = pid
        self.slot = slot

    def __repr__(self) -> str:
        return f"<worker {self.slot}, pid {self.pid}>"


def _check_callable(fn: Callable[..., Any]) -> None:
    if not callable(fn):
        raise TypeError(f"submit and map need a callable, not {type(fn).__name__}: pass the function itself, not its result")
    inner: Any = fn
    while isinstance(inner, functools.partial):
        inner = inner.func
    flags = getattr(getattr(inner, "__code__", None), "co_flags", 0)
    if flags & (inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR):
        raise TypeError(
            f"{inner.__qualname__!r} is an async function: a worker has no event loop. Submit a function that calls "
            "asyncio.run(...), or await it where the loop is."
        )
    if flags & inspect.CO_GENERATOR:
        raise TypeError(
            f"{inner.__qualname__!r} is a generator function: a generator cannot leave its process. Submit a function that "
            "returns list(...) of it."
        )


def _chunks(items: Iterable[tuple[Any, ...]], size: int) -> Iterator[tuple[tuple[Any, ...], ...]]:
    iterator = iter(items)
    while chunk := tuple(itertools.islice(iterator, size)):
        yield chunk


def _results(
    keep_alive: Executor,
    calls: tuple[Callable[..., ForkFuture[T]], Iterable[tuple[Any, ...]]],
    buffersize: int | None,
    end: float | None,
) -> Iterator[T]:
    """Submit now, as far as the buffer goes; the rest as results are taken."""
    submit, items = calls
    iterator = iter(items)
    futures = deque(submit(*args) for args in itertools.islice(iterator, buffersize))
    return _yield_results(keep_alive, submit, iterator if buffersize is not None else iter(()), futures, end)


def _yield_results(
    keep_alive: Executor,
    submit: Callable[..., ForkFuture[T]],
    rest: Iterator[tuple[Any, ...]],
    futures: deque[ForkFuture[T]],
    end: float | None,
) -> Iterator[T]:
    try:
        while futures:
            for args in itertools.islice(rest, 1):
                futures.append(submit(*args))
            # Popped first, so that the result is freed as soon as the caller lets go of it.
            yield _take(futures.popleft(), end)
    finally:
        for future in futures:
            future.cancel()


def _take(future: ForkFuture[T], end: float | None) -> T:
    try:
        return future.result(None if end is None else end - time.monotonic())
    finally:
        future.cancel()
        del future  # what it raised holds this frame
