"""Tests of CPython's own suite that cannot pass on our pool, each with the reason. All others must pass.

Read by test_cpython_suite.py, which runs them all the same: one that passes has no place here.
Names: class without its start method, and method. What such a test looks for stands in a test of ours where that is said.
"""

from dataclasses import dataclass
from typing import Literal

Outcome = Literal["failed", "skipped", "either"]


@dataclass(frozen=True)
class CannotApply:
    """Why; what becomes of it ("either": it depends on who is faster); the first Python that has it for sure."""

    reason: str
    outcome: Outcome = "failed"
    since: tuple[int, int] = (3, 11)


ITS_OWN_EXCEPTION = "expects the pool to break: here this call alone ends, in that exception (process/test_where_and_how.py)"
PRIVATE = "private attribute: "
WORKERS_COME_LATER = "expects that `_processes` is filled when submit returns: here workers are forked beside the caller"

CANNOT_APPLY = {
    "ExecutorDeadlockTest.test_error_at_task_unpickle": CannotApply(ITS_OWN_EXCEPTION),
    "ExecutorDeadlockTest.test_exit_at_task_unpickle": CannotApply(ITS_OWN_EXCEPTION),
    "ExecutorDeadlockTest.test_error_during_result_unpickle_in_result_handler": CannotApply(ITS_OWN_EXCEPTION),
    "ExecutorDeadlockTest.test_exit_during_result_unpickle_in_result_handler": CannotApply(ITS_OWN_EXCEPTION),
    "ExecutorDeadlockTest.test_shutdown_deadlock_pickle": CannotApply(PRIVATE + "_executor_manager_thread"),
    "FailingInitializerTest.test_initializer": CannotApply(
        PRIVATE + "_broken; and expects a record in the worker's log: here the error is the cause of InitializerError"
    ),
    "FailingInitializerResourcesTest.test_forkserver": CannotApply(
        "runs the test above, whose failure keeps a queue alive until garbage is collected", "either", since=(3, 13)
    ),
    "ProcessPoolExecutorTest.test_killed_child": CannotApply(
        WORKERS_COME_LATER + "; and expects the pool to break, of which one call is lost here (process/test_crash.py)"
    ),
    "ProcessPoolExecutorTest.test_max_tasks_per_child_defaults_to_spawn_context": CannotApply(PRIVATE + "_mp_context"),
    "ProcessPoolExecutorTest.test_max_workers_too_large": CannotApply("the suite runs it on Windows only", "skipped"),
    "ProcessPoolExecutorTest.test_python_finalization_error": CannotApply(
        "expects the pool to break where it may start only one thread: here one is enough", since=(3, 13)
    ),
    "ProcessPoolExecutorTest.test_saturation": CannotApply(
        WORKERS_COME_LATER
        + "; its call, `Semaphore.acquire` of a lock of fork, cannot be pickled, so no worker is needed at all"
    ),
    "ProcessPoolExecutorTest.test_traceback": CannotApply(PRIVATE + "concurrent.futures.process._RemoteTraceback"),
    "ProcessPoolShutdownTest.test_cancel_futures": CannotApply(
        "expects calls to run that no worker had begun, since they stood in its queue: here they are cancelled", "either"
    ),
    "ProcessPoolShutdownTest.test_del_shutdown": CannotApply(PRIVATE + "_executor_manager_thread"),
    "ProcessPoolShutdownTest.test_hang_gh83386": CannotApply(
        "the suite leaves it out for process pools, and its program lacks an import (contract/test_life.py has the like)",
        "skipped",
    ),
    "ProcessPoolShutdownTest.test_processes_terminate": CannotApply(WORKERS_COME_LATER),
    "ProcessPoolShutdownTest.test_shutdown_no_wait": CannotApply(PRIVATE + "_executor_manager_thread"),
}
