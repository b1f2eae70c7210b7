"""Every exception and warning that a user can get from forkpool.

Runs in: the host, and wherever an error is unpickled. It is imported only when an error is needed (its standard library
bases cost 60 ms of imports), which may be when the interpreter has begun to exit; children never import it, they send facts.
Each class also inherits the class that existing `except` clauses name. All pickle, and hold text and numbers, no live object.
Tests: tests/unit/test_errors.py; at exit, tests/process/test_shutdown.py
"""

from __future__ import annotations

import pickle
from typing import Any

try:
    from concurrent.futures.process import BrokenProcessPool
except RuntimeError:
    # The interpreter is exiting, and `threading` takes no more of the hooks that this module registers as it is imported. So
    # nobody else can import it either, and no `except` clause can name the class: its base is all that one may catch.
    from concurrent.futures import BrokenExecutor as BrokenProcessPool  # type: ignore[assignment]


class ForkPoolError(Exception):
    """Root of all errors of forkpool.

    Keyword arguments become attributes; they survive pickling.

    .. versionadded:: 0.1
    """

    def __init__(self, message: str = "", **facts: Any) -> None:
        super().__init__(message)
        self.__dict__.update(facts)


class TaskError(ForkPoolError):
    """What is known of a task that its worker did not live to answer.

    Attributes:
        task_name: The callable's qualified name, or the `name` given to `options()`.
        pid: The worker's process id.
        slot: The worker's seat in the pool, from 0.
        exitcode: The exit status (negative: killed by that signal number); None if unknown.
        signal: The signal's name, as "SIGSEGV"; None if no signal ended it or that is unknown.
        seconds: How long the task had run; 0.0 if it never began.
        peak_rss: The worker's peak resident memory in bytes over its life; None if unknown.
        may_have_run: "no", "maybe" or "yes".
        crash_traceback: The Python stack at the fault, as faulthandler wrote it; None without one.
        oom_hint: What points to the kernel's out-of-memory killer; None if nothing does.
        pool_usable: True while the pool accepts new work: there is no need to build another.

    .. versionadded:: 0.1
    """

    task_name: str = ""
    pid: int = 0
    slot: int = -1
    exitcode: int | None = None
    signal: str | None = None
    seconds: float = 0.0
    peak_rss: int | None = None
    may_have_run: str = "maybe"
    crash_traceback: str | None = None
    oom_hint: str | None = None
    pool_usable: bool = True


class WorkerCrashedError(TaskError, BrokenProcessPool):
    """The worker that ran this task ended without an answer.

    Only this task's future gets it: the pool refills the slot and goes on. A `BrokenProcessPool`, so that code
    that catches it and resubmits stays correct; `pool_usable` tells such code that the pool still works.
    Row "segfault, abort, SIGKILL ..." of the failure table.

    .. versionadded:: 0.1
    """


class TaskTimeoutError(TaskError, TimeoutError):
    """The task ran longer than its `timeout`; its worker was killed.

    Row "task exceeds `timeout`" of the failure table.

    .. versionadded:: 0.1
    """


class TaskMemoryError(TaskError, MemoryError):
    """While the task ran, its worker's private memory grew beyond the `memory_limit`; the worker was killed.

    Or the control group's memory was nearly full, of the busy workers this one held most, and the kernel would have killed all
    of the group (`memory.oom.group`), this program too. The message tells which.
    Rows "task exceeds its `memory_limit`" and "the control group's memory is nearly full" of the failure table.

    Attributes:
        limit: Bytes by which it might grow; or that the control group may have.
        grown: Bytes by which it had grown when it was looked at, which is more than `limit`; or that it held of the group's.

    .. versionadded:: 0.1
    """

    limit: int = 0
    grown: int = 0


class SerializationError(ForkPoolError, pickle.PicklingError):
    """A callable, an argument or a result cannot cross to the other process.

    The user's object is at fault; the message names the part. It is set on the future: of a call that cannot be pickled, which
    never ran (`may_have_run` is "no"), or whose result cannot ("yes"). Of an initializer that cannot, the first `submit`
    raises it. In a task it is raised ("yes") by the use of a global, or an attribute of a class, that could not be sent, and
    that the submitted code itself does not name.

    .. versionadded:: 0.1
    """

    part: str = ""
    may_have_run: str = "no"


class RemoteError(ForkPoolError):
    """Stands in for an exception of a task that could not be rebuilt in the host.

    Attributes:
        type_name: Qualified name of the exception's class in the worker.
        remote_traceback: The traceback's text.

    .. versionadded:: 0.1
    """

    type_name: str = ""
    remote_traceback: str = ""


class RemoteTraceback(Exception):
    """The `__cause__` of a task's exception: its traceback in the worker, as text."""

    def __init__(self, tb: str = "") -> None:
        super().__init__(tb)
        self.tb = tb

    def __str__(self) -> str:
        return f'\n"""\n{self.tb}"""'


class PoolBrokenError(ForkPoolError, BrokenProcessPool):
    """The pool cannot work any more, and says why.

    Attributes:
        may_have_run: "no", as a rule: the task was waiting. "maybe" when it was forkpool itself that could not go on, because
            the program had no memory left or by an `InternalError`: tasks that ran at that moment were stopped.
        pool_usable: False.

    .. versionadded:: 0.1
    """

    pool_usable: bool = False
    may_have_run: str = "no"


class InitializerError(PoolBrokenError):
    """The initializer raised in a worker; `__cause__` is what it raised. The pool is broken, as in the standard library.

    .. versionadded:: 0.1
    """


class InternalError(PoolBrokenError):
    """A bug in forkpool ended the pool. Please report it with the traceback in `__cause__`."""

    may_have_run: str = "maybe"


class PayloadWarning(UserWarning):
    """A large value is shipped again and again with the same call."""
