"""Turn the facts of a task's end into the error that its user reads.

Runs in: host. The facts are gathered by the supervisor, at the death; the error is built later, by the caller who asks for it
(the classes are heavy imports, and a message takes time).
Tests: tests/unit/test_verdicts.py
"""

from __future__ import annotations

import os
import pickle
import signal as signals
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._core.states import Verdict
from .._shared.decoding import load_value
from .._shared.importing import importing
from .._shared.parts import Buffer
from .answers import decode_exception

if TYPE_CHECKING:
    from ..errors import InitializerError, PoolBrokenError, SerializationError, TaskError

_OUR_CHILD = str(Path(__file__).parents[1] / "_child")
_NO_FRAME = "  (no Python frame: the task is a C function)"
_FAULTS = {"SIGSEGV", "SIGABRT", "SIGBUS", "SIGFPE", "SIGILL"}
_HINTS = {  # docs/how-to/why-did-my-worker-die.md says more, and of more signals
    "SIGBUS": "Often a memory-mapped file was truncated, or there is no room left for shared memory (df /dev/shm). ",
    "SIGSYS": "A seccomp filter forbids a system call that it made. ",
    "SIGXCPU": "It had used up its CPU time (ulimit -t). ",
}


@dataclass(frozen=True, slots=True)
class CrashFacts:
    """What is known of a task and of the worker that did not live to answer it."""

    verdict: Verdict
    task_name: str
    timeout: float | None
    memory_limit: int | None  # bytes
    memory_file: str | None  # set: it is the limit of the control group, by this file
    grown: int  # bytes: what `memory_limit` limits, when it was looked at last; of the group's: what the worker held
    pid: int
    slot: int
    status: int | None  # wait status; None: unknown
    peak_rss: int | None  # bytes
    seconds: float
    may_have_run: str
    traceback: str | None
    oom_hint: str | None
    note: str | None  # why forkpool killed the worker, when the task's verdict does not say it
    pool_usable: bool

    @property
    def exitcode(self) -> int | None:
        return None if self.status is None else os.waitstatus_to_exitcode(self.status)

    @property
    def stack(self) -> str | None:
        """faulthandler's text but for what says nothing of the fault."""
        if self.traceback is None:
            return None
        text = "\n".join(line for line in self.traceback.splitlines() if not _is_noise(line)).rstrip()
        return text.replace("(most recent call first):\n\n", f"(most recent call first):\n{_NO_FRAME}\n\n") + (
            f"\n{_NO_FRAME}" if text.endswith("(most recent call first):") else ""
        )

    @property
    def signal(self) -> str | None:
        code = self.exitcode
        if code is None or code >= 0:
            return None
        try:
            return signals.Signals(-code).name
        except ValueError:  # a real-time signal
            return f"signal {-code}"


def task_error(facts: CrashFacts) -> TaskError:
    """The error for a task whose worker ended without an answer."""
    with importing:
        from .. import errors

    kind: type[TaskError] = errors.WorkerCrashedError
    more: dict[str, Any] = {}
    if facts.verdict is Verdict.TIMED_OUT:
        kind = errors.TaskTimeoutError
    elif facts.verdict in (Verdict.OVER_MEMORY, Verdict.GROUP_FULL):
        kind, more = errors.TaskMemoryError, {"limit": facts.memory_limit, "grown": facts.grown}
    return kind(
        _message(facts),
        task_name=facts.task_name,
        pid=facts.pid,
        slot=facts.slot,
        exitcode=facts.exitcode,
        signal=facts.signal,
        seconds=facts.seconds,
        peak_rss=facts.peak_rss,
        may_have_run=facts.may_have_run,
        crash_traceback=facts.stack,
        oom_hint=facts.oom_hint,
        pool_usable=facts.pool_usable,
        **more,
    )


def result_error(data: Buffer, load: Callable[[Buffer], Any] = load_value) -> SerializationError:
    """The error for a result that the worker could not pickle. `load` unpickles the parts of its cause."""
    with importing:
        from ..errors import SerializationError

    message, part, cause = pickle.loads(data)
    error = SerializationError(message, part=part, may_have_run="yes")
    error.__cause__ = decode_exception(cause, load)
    return error


def initializer_error(data: Buffer, load: Callable[[Buffer], Any] = load_value) -> InitializerError:
    """The error of a pool whose initializer raised. `load` unpickles the parts of its cause."""
    with importing:
        from ..errors import InitializerError

    cause = decode_exception(data, load)
    error = InitializerError(
        f"the initializer raised {type(cause).__name__}: {cause}. The pool is broken, as in the standard library; "
        "the task did not run. Mend the initializer and make a new pool."
    )
    error.__cause__ = cause
    return error


def preload_error(data: bytes, text: str) -> BaseException:
    """What a preloaded module raised; its remote traceback is the cause."""
    return decode_exception(data) if data else ImportError(f"preloading failed in the fork server: {text}")


def restart_error(reason: str) -> BaseException:
    """Why workers were not restarted, of a pool that lives."""
    return RuntimeError(f"the workers were not restarted: {reason}. The pool goes on as it was.")


def shut_down_error() -> BaseException:
    """Why workers were not restarted, of a pool that has ended."""
    return RuntimeError("the workers were not restarted: the pool was shut down meanwhile.")


def broken_error(reason: str) -> PoolBrokenError:
    """The error of a pool whose workers cannot be started."""
    with importing:
        from ..errors import PoolBrokenError

    return PoolBrokenError(f"workers cannot be started: {reason}. The pool is broken; the task did not run.")


def internal_error(cause: BaseException) -> PoolBrokenError:
    """The error of a pool that met a bug of ours, or whose work found no memory."""
    with importing:
        from ..errors import InternalError, PoolBrokenError

    error: PoolBrokenError
    if isinstance(cause, MemoryError):
        error = PoolBrokenError(
            "this process had no memory left for forkpool's own work. The pool is broken; tasks that ran at that moment were "
            "stopped. Limit what it holds at once (`map(buffersize=)`), or raise its limit (`ulimit -v`).",
            may_have_run="maybe",
        )
        error.__cause__ = cause
        return error
    error = InternalError(
        f"forkpool itself failed: {type(cause).__name__}: {cause}. This is a bug in forkpool: please report it with the "
        "traceback above. Tasks that ran at that moment were stopped.",
        may_have_run="maybe",
    )
    error.__cause__ = cause
    return error


def _is_noise(line: str) -> bool:
    """Frames that are forkpool's own, and the list of all extension modules that are loaded, a hundred with scipy."""
    return _OUR_CHILD in line or line.startswith(('  File "<string>", line 1 in <module>', "Extension modules: "))


def headline(facts: CrashFacts) -> str:
    """What happened, in one line."""
    return f"worker {facts.slot} (pid {facts.pid}) {_what_happened(facts)}"


def _message(facts: CrashFacts) -> str:
    lines = [headline(facts)]
    lines.append(_blame(facts))
    if facts.oom_hint:
        lines.append(facts.oom_hint)
    lines.append(_next_step(facts))
    if facts.stack:
        lines.append(f"Python stack of the worker at the fault:\n{facts.stack}")
    elif facts.signal in _FAULTS and facts.verdict is Verdict.CRASHED:
        lines.append(
            "No Python stack was written: something in the worker called faulthandler.enable() or .disable(), "
            "or the signal came from outside."
        )
    return "\n".join(lines)


def _what_happened(facts: CrashFacts) -> str:
    during = f"while running {facts.task_name!r} ({facts.seconds:.3g} s"
    if facts.peak_rss:
        during += f", peak memory {facts.peak_rss / 2**20:.0f} MiB"
    during += ")"
    if facts.verdict is Verdict.TIMED_OUT:
        return f"was killed {during}: the timeout of {facts.timeout:g} s has passed"
    grown, limit = facts.grown / 2**20, (facts.memory_limit or 0) / 2**20
    if facts.verdict is Verdict.OVER_MEMORY:
        return f"was killed {during}: its private memory had grown by {grown:.1f} MiB, memory_limit is {limit:.1f} MiB"
    if facts.verdict is Verdict.GROUP_FULL:
        full = f"the memory of the control group was nearly full ({limit:.1f} MiB, {facts.memory_file})"
        return f"was killed {during}: {full}, and of the workers that were busy it held most, {grown:.1f} MiB"
    if facts.verdict is Verdict.POOL_KILLED:
        return f"was stopped {during}: terminate_workers() or kill_workers() was called"
    if facts.note:
        return f"was killed by forkpool {during}: {facts.note}"
    if facts.exitcode is None:
        return f"ended {during}; its exit code is unknown, because the fork server was gone"
    if facts.signal:
        return f"was killed by {facts.signal} {during}"
    return f"exited with status {facts.exitcode} {during}"


def _blame(facts: CrashFacts) -> str:
    if facts.may_have_run == "no":
        return (
            "The task itself had not begun."
            if facts.note
            else "The task itself had not begun: its arguments were being unpickled."
        )
    if facts.may_have_run == "yes":
        return "The task had returned; its result was lost."
    return "The task may have run partly. No other task was touched."


def _next_step(facts: CrashFacts) -> str:
    if not facts.pool_usable:
        return "The pool was told to stop."
    go_on = "The pool is usable: the slot has been refilled"
    if facts.verdict is Verdict.TIMED_OUT:
        return f"{go_on}. Raise the timeout if the task is merely slow."
    if facts.verdict is Verdict.OVER_MEMORY:
        return f"{go_on}. Raise memory_limit if the task rightly needs more; else let it hold less at a time."
    if facts.verdict is Verdict.GROUP_FULL:
        return (
            f"{go_on}. memory.oom.group is set, so the kernel would have killed this program too. Lower max_workers or what "
            "one task holds, or raise the limit."
        )
    if facts.signal == "SIGKILL" and not facts.note:
        return (
            f"{go_on}. SIGKILL comes from outside: from a person, a service manager, or the kernel when memory is short; "
            "then lower max_workers or what one task holds; options(memory_limit=) ends a task that holds too much."
        )
    if facts.signal is None and facts.exitcode is not None and not facts.note:
        return (
            f"{go_on}. Something in the task called os._exit(), exit() in C or exec; raise an exception instead. Or it closed "
            "or replaced file descriptors that are not its own: then the worker left, and said so on stderr."
        )
    return f"{go_on}. {_HINTS.get(facts.signal or '', '')}Submit the task again only if running it twice does no harm."
