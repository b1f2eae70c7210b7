"""Calls with options: what the executor and the views that `options()` makes have in common.

Runs in: host; any thread.
`submit` and `map` follow CPython 3.14's `concurrent.futures`, also on the older Pythons. No option is taken from the keyword
arguments of the user's function: options stand in the view.
Tests: tests/contract/, tests/process/test_kill_and_timeout.py, test_cancel_running.py, test_retries.py, test_memory_limit.py
"""

from __future__ import annotations

import functools
import itertools
from _thread import TIMEOUT_MAX
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec, TypeVar

from ._callables import check_task
from ._host.any_pool import AnyPool
from ._shared import clock
from ._shared.calls import run_chunk
from .config import TaskOptions, map_arguments, task_options
from .future import ForkFuture

if TYPE_CHECKING:
    from .executor import ForkPoolExecutor

P = ParamSpec("P")
T = TypeVar("T")


class Submitter(Executor):
    """What the executor and its views have in common: calls with options."""

    _pool: AnyPool
    _options: TaskOptions

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> ForkFuture[T]:
        """Schedule `fn(*args, **kwargs)` on a worker.

        The call is pickled here, in the caller's thread: it runs with what its arguments, closure and globals hold now.
        It runs once at most, unless `options(retries=)` says otherwise, and its future ends exactly once. If a part of
        it cannot be pickled, that future ends at once, in a `SerializationError` that names the part; the pool and all other
        calls are untouched.

        Returns:
            The call's future.
        Raises:
            SerializationError: The initializer or its arguments cannot be pickled (first call).
            TypeError: `fn` is not callable, or an async or generator function (caller's fault).
            BrokenProcessPool: The pool can never work again (`PoolBrokenError`, `InitializerError`).
            RuntimeError: After shutdown, in a fork of the process that owns the pool, or without a Python to run.

        Thread safe; may be called from signal handlers, finalizers, callbacks. An exception that interrupts it leaves
        the pool usable, and the call accepted or not.
        """
        check_task(fn)
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
        check_task(fn)
        patience, chunksize, buffersize = map_arguments(timeout, chunksize, buffersize)
        end = None if patience > TIMEOUT_MAX else clock.now() + patience
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
        memory_limit: int | float | None = None,
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
            memory_limit: Bytes of private memory that the worker may grow by while a call runs; beyond, it is killed and the
                future gets `TaskMemoryError`. Arguments and result count, shared memory and child processes do not.
                The worker is looked at every 10 to 500 ms, the nearer the limit the sooner, so it may get beyond it for a
                moment. At first there is no limit; `math.inf` takes one away.
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
            memory_limit=memory_limit,
        )
        return OptionsView(self._executor_of_views(), options)

    def __copy__(self) -> NoReturn:
        """Raise TypeError: a copy that is dropped would shut down the pool that it shares."""
        raise TypeError(
            f"cannot copy a {type(self).__name__}: its workers belong to one executor. Pass that on, or make another"
        )

    def __deepcopy__(self, memo: object) -> NoReturn:
        """Raise TypeError, as for a copy."""
        self.__copy__()

    @abstractmethod
    def _executor_of_views(self) -> ForkPoolExecutor:
        """Whose views these are."""


for _method in (Submitter.submit, Submitter.map, Submitter.options):
    _method.__qualname__ = _method.__name__  # in "submit() missing 1 required ...": the class is none that the user knows


class OptionsView(Submitter):
    """A pool seen with options for each call. Made by `ForkPoolExecutor.options`; keeps the pool alive."""

    def __init__(self, executor: ForkPoolExecutor, options: TaskOptions) -> None:
        self._executor = executor  # kept alive: a pool whose executor is gone closes
        self._pool = executor._pool
        self._options = options

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Do nothing: the pool belongs to the executor that the view was made from."""

    def _executor_of_views(self) -> ForkPoolExecutor:
        return self._executor


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
        return future.result(None if end is None else end - clock.now())
    finally:
        future.cancel()
        del future  # what it raised holds this frame
