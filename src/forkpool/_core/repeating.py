"""Decide whether a task whose attempt failed is run again.

Runs in: host, supervisor thread; pure. Called by PoolMachine alone.
A task that may have run is never run again unless its user has asked for that, for errors of this kind: `options(retries=)`.
Hard part: what kind an error is must be known without unpickling it, which would run user code on the supervisor's
thread. So classes are compared by their full names: the worker tells those of what the task raised, base classes included,
and those of our own errors, which are heavy to import, stand here. As with `except`, only real base classes count.
Tests: tests/unit/test_repeating.py, tests/unit/test_machine_options.py
"""

from __future__ import annotations

from collections.abc import Iterable

from .states import RepeatableTask, Task, Verdict

_OURS = ("forkpool.errors.ForkPoolError", "builtins.Exception", "builtins.BaseException", "builtins.object")
WORKER_CRASHED = (
    "forkpool.errors.WorkerCrashedError",
    "forkpool.errors.TaskError",
    "concurrent.futures.process.BrokenProcessPool",
    "concurrent.futures._base.BrokenExecutor",
    "builtins.RuntimeError",
    *_OURS,
)
TASK_TIMED_OUT = (
    "forkpool.errors.TaskTimeoutError",
    "forkpool.errors.TaskError",
    "builtins.TimeoutError",
    "builtins.OSError",
    *_OURS,
)
TASK_OVER_MEMORY = (
    "forkpool.errors.TaskMemoryError",
    "forkpool.errors.TaskError",
    "builtins.MemoryError",
    *_OURS,
)
RESULT_UNPICKLABLE = ("forkpool.errors.SerializationError", "_pickle.PicklingError", "_pickle.PickleError", *_OURS)
# How an attempt can fail without an answer. A task that was killed is not among these: nobody wants it any more.
OF_VERDICT = {
    Verdict.CRASHED: WORKER_CRASHED,
    Verdict.TIMED_OUT: TASK_TIMED_OUT,
    Verdict.OVER_MEMORY: TASK_OVER_MEMORY,
    Verdict.GROUP_FULL: TASK_OVER_MEMORY,
}


def is_asked_for(task: Task, error: Iterable[str]) -> bool:
    """Whether the user wants it run again after an error whose class and base classes have these names."""
    options = task.options
    return isinstance(task, RepeatableTask) and task.attempt <= options.retries and not options.retry_on.isdisjoint(error)
