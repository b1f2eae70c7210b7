"""The words of every error that tells of a task without an answer.

Runs in: pytest; pure. Each message is written out, so that a change of one word is seen.
"""

import dataclasses
import pickle
import signal
from typing import Any

import pytest

from forkpool import errors
from forkpool._core.states import Verdict
from forkpool._host import verdicts
from forkpool._host.verdicts import CrashFacts, broken_error, initializer_error, internal_error, result_error, task_error
from forkpool._shared.payload import ResultEncoder

CRASH = CrashFacts(
    verdict=Verdict.CRASHED,
    task_name="resize",
    timeout=None,
    memory_limit=None,
    memory_file=None,
    grown=0,
    pid=4711,
    slot=3,
    status=signal.SIGSEGV,
    peak_rss=50 << 20,
    seconds=1.23456,
    may_have_run="maybe",
    traceback=None,
    oom_hint=None,
    note=None,
    pool_usable=True,
)
PARTLY = "The task may have run partly. No other task was touched."
USABLE = "The pool is usable: the slot has been refilled"
NO_STACK = (
    "No Python stack was written: something in the worker called faulthandler.enable() or .disable(), "
    "or the signal came from outside."
)


def message(**changes: Any) -> list[str]:
    return str(task_error(dataclasses.replace(CRASH, **changes))).split("\n")


def test_a_segfault_without_a_stack() -> None:
    assert message() == [
        "worker 3 (pid 4711) was killed by SIGSEGV while running 'resize' (1.23 s, peak memory 50 MiB)",
        PARTLY,
        f"{USABLE}. Submit the task again only if running it twice does no harm.",
        NO_STACK,
    ]


def test_a_segfault_with_its_stack_but_for_our_own_frames() -> None:
    text = (
        "Fatal Python error: Segmentation fault\n\nCurrent thread 0x1 (most recent call first):\n"
        '  File "/home/me/resize.py", line 7 in resize\n'
        f'  File "{verdicts._OUR_CHILD}/worker.py", line 1 in _call\n'
        '  File "<string>", line 1 in <module>\n\n'
        "Extension modules: numpy._core._multiarray_umath (total: 1)\n"
    )
    said = message(traceback=text)
    assert said[3:] == [
        "Python stack of the worker at the fault:",
        "Fatal Python error: Segmentation fault",
        "",
        "Current thread 0x1 (most recent call first):",
        '  File "/home/me/resize.py", line 7 in resize',
    ]


def test_a_kill_from_outside() -> None:
    assert message(status=signal.SIGKILL) == [
        "worker 3 (pid 4711) was killed by SIGKILL while running 'resize' (1.23 s, peak memory 50 MiB)",
        PARTLY,
        f"{USABLE}. SIGKILL comes from outside: from a person, a service manager, or the kernel when memory is short; "
        "then lower max_workers or what one task holds; options(memory_limit=) ends a task that holds too much.",
    ]


@pytest.mark.parametrize(
    ("number", "hint"), [(signal.SIGBUS, "/dev/shm"), (signal.SIGSYS, "seccomp"), (signal.SIGXCPU, "ulimit -t")]
)
def test_what_a_signal_points_to(number: int, hint: str) -> None:
    last = message(status=number)[2]
    assert hint in last
    assert last.endswith("Submit the task again only if running it twice does no harm.")


def test_the_oom_killer() -> None:
    said = message(status=signal.SIGKILL, oom_hint="The kernel's OOM killer ended it.")
    assert said[1:3] == [PARTLY, "The kernel's OOM killer ended it."]


@pytest.mark.parametrize("code", [0, 3])
def test_an_exit(code: int) -> None:
    assert message(status=code << 8) == [
        f"worker 3 (pid 4711) exited with status {code} while running 'resize' (1.23 s, peak memory 50 MiB)",
        PARTLY,
        f"{USABLE}. Something in the task called os._exit(), exit() in C or exec; raise an exception instead. Or it closed or "
        "replaced file descriptors that are not its own: then the worker left, and said so on stderr.",
    ]


def test_an_end_that_nobody_saw() -> None:
    assert message(status=None, peak_rss=None) == [
        "worker 3 (pid 4711) ended while running 'resize' (1.23 s); its exit code is unknown, because the fork server was gone",
        PARTLY,
        f"{USABLE}. Submit the task again only if running it twice does no harm.",
    ]


def test_a_worker_that_we_killed_and_why() -> None:
    assert message(status=signal.SIGKILL, note="it wrote a malformed frame") == [
        "worker 3 (pid 4711) was killed by forkpool while running 'resize' (1.23 s, peak memory 50 MiB): "
        "it wrote a malformed frame",
        PARTLY,
        f"{USABLE}. Submit the task again only if running it twice does no harm.",
    ]


def test_a_timeout() -> None:
    assert message(verdict=Verdict.TIMED_OUT, timeout=2.5, status=signal.SIGKILL) == [
        "worker 3 (pid 4711) was killed while running 'resize' (1.23 s, peak memory 50 MiB): the timeout of 2.5 s has passed",
        PARTLY,
        f"{USABLE}. Raise the timeout if the task is merely slow.",
    ]


def test_a_task_that_holds_too_much() -> None:
    facts = {"verdict": Verdict.OVER_MEMORY, "memory_limit": 100 << 20, "grown": 131 << 20, "status": signal.SIGKILL}
    assert message(**facts) == [
        "worker 3 (pid 4711) was killed while running 'resize' (1.23 s, peak memory 50 MiB): "
        "its private memory had grown by 131.0 MiB, memory_limit is 100.0 MiB",
        PARTLY,
        f"{USABLE}. Raise memory_limit if the task rightly needs more; else let it hold less at a time.",
    ]
    error = task_error(dataclasses.replace(CRASH, **facts))
    assert isinstance(error, errors.TaskMemoryError)
    assert (error.limit, error.grown) == (100 << 20, 131 << 20)
    assert vars(pickle.loads(pickle.dumps(error))) == vars(error)


def test_a_control_group_that_is_nearly_full() -> None:
    facts = {
        "verdict": Verdict.GROUP_FULL,
        "memory_limit": 1 << 30,
        "memory_file": "/sys/fs/cgroup/memory.max",
        "grown": 700 << 20,
    }
    assert message(**facts, status=signal.SIGKILL) == [
        "worker 3 (pid 4711) was killed while running 'resize' (1.23 s, peak memory 50 MiB): "
        "the memory of the control group was nearly full (1024.0 MiB, /sys/fs/cgroup/memory.max), "
        "and of the workers that were busy it held most, 700.0 MiB",
        PARTLY,
        f"{USABLE}. memory.oom.group is set, so the kernel would have killed this program too. "
        "Lower max_workers or what one task holds, or raise the limit.",
    ]


def test_a_pool_that_was_stopped() -> None:
    assert message(verdict=Verdict.POOL_KILLED, status=signal.SIGTERM, pool_usable=False) == [
        "worker 3 (pid 4711) was stopped while running 'resize' (1.23 s, peak memory 50 MiB): "
        "terminate_workers() or kill_workers() was called",
        PARTLY,
        "The pool was told to stop.",
    ]


@pytest.mark.parametrize(
    ("may_have_run", "text"),
    [
        ("no", "The task itself had not begun: its arguments were being unpickled."),
        ("yes", "The task had returned; its result was lost."),
        ("maybe", PARTLY),
    ],
)
def test_how_far_it_came(may_have_run: str, text: str) -> None:
    assert message(may_have_run=may_have_run)[1] == text


def test_the_facts_are_attributes() -> None:
    error = task_error(CRASH)
    assert type(error) is errors.WorkerCrashedError
    assert vars(error) == {
        "task_name": "resize",
        "pid": 4711,
        "slot": 3,
        "exitcode": -11,
        "signal": "SIGSEGV",
        "seconds": 1.23456,
        "peak_rss": 50 << 20,
        "may_have_run": "maybe",
        "crash_traceback": None,
        "oom_hint": None,
        "pool_usable": True,
    }
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


@pytest.mark.parametrize(
    ("verdict", "kind"),
    [
        (Verdict.CRASHED, errors.WorkerCrashedError),
        (Verdict.POOL_KILLED, errors.WorkerCrashedError),
        (Verdict.TIMED_OUT, errors.TaskTimeoutError),
        (Verdict.OVER_MEMORY, errors.TaskMemoryError),
        (Verdict.GROUP_FULL, errors.TaskMemoryError),
    ],
)
def test_the_class_follows_the_verdict(verdict: Verdict, kind: type[Exception]) -> None:
    assert type(task_error(dataclasses.replace(CRASH, verdict=verdict, timeout=1.0))) is kind


@pytest.mark.parametrize(
    ("status", "exitcode", "name"),
    [
        (0, 0, None),
        (3 << 8, 3, None),
        (signal.SIGTERM, -15, "SIGTERM"),
        (signal.SIGABRT | 0x80, -6, "SIGABRT"),  # with a core dump
        (40, -40, "signal 40"),  # a real-time signal has no name of its own
        (None, None, None),
    ],
)
def test_a_wait_status_is_read(status: int | None, exitcode: int | None, name: str | None) -> None:
    facts = dataclasses.replace(CRASH, status=status)
    assert (facts.exitcode, facts.signal) == (exitcode, name)


def test_a_broken_pool() -> None:
    error = broken_error("fork failed: no memory")
    assert type(error) is errors.PoolBrokenError
    assert str(error) == "workers cannot be started: fork failed: no memory. The pool is broken; the task did not run."


def test_an_initializer_that_raised() -> None:
    error = initializer_error(ResultEncoder().encode_exception(ZeroDivisionError("division by zero")))
    assert type(error) is errors.InitializerError
    assert str(error) == (
        "the initializer raised ZeroDivisionError: division by zero. The pool is broken, as in the standard library; "
        "the task did not run. Mend the initializer and make a new pool."
    )
    assert isinstance(error.__cause__, ZeroDivisionError)


def test_a_bug_of_ours() -> None:
    cause = KeyError("x")
    error = internal_error(cause)
    assert type(error) is errors.InternalError
    assert error.may_have_run == "maybe"
    assert error.__cause__ is cause
    assert str(error) == (
        "forkpool itself failed: KeyError: 'x'. This is a bug in forkpool: please report it with the "
        "traceback above. Tasks that ran at that moment were stopped."
    )


def test_a_result_that_could_not_be_pickled() -> None:
    cause = ResultEncoder().encode_exception(TypeError("cannot pickle"))
    error = result_error(pickle.dumps(("the result holds a lock", "result.lock", cause)))
    assert type(error) is errors.SerializationError
    assert (str(error), error.part, error.may_have_run) == ("the result holds a lock", "result.lock", "yes")
    assert isinstance(error.__cause__, TypeError)
