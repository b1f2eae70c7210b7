"""The crash matrix: where something goes wrong x how, with the outcome that the failure table promises.

`where` is a point in the life of a call; `how` is done there. OUTCOMES is the failure table in short.
"""

import os
import pickle
import re
import signal
from collections.abc import Callable
from concurrent.futures import wait
from typing import Any

import pytest

from forkpool import ForkPoolExecutor, InitializerError, PoolBrokenError, SerializationError, WorkerCrashedError
from tests.support import processes, tasks
from tests.support.gate import Gate

HOWS: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "raise": (tasks.raise_new, (ValueError, "on purpose")),
    "sys.exit": (tasks.raise_new, (SystemExit, 3)),
    "KeyboardInterrupt": (tasks.raise_new, (KeyboardInterrupt,)),
    "GeneratorExit": (tasks.raise_new, (GeneratorExit,)),
    "os._exit(0)": (tasks.leave, (0,)),
    "os._exit(3)": (tasks.leave, (3,)),
    "SIGSEGV": (tasks.segfault, ()),
    "SIGABRT": (tasks.abort, ()),
    "SIGKILL": (tasks.kill_myself, (signal.SIGKILL,)),
}
RAISED = {"raise": ValueError, "sys.exit": SystemExit, "KeyboardInterrupt": KeyboardInterrupt, "GeneratorExit": GeneratorExit}
EXITS = {"os._exit(0)": 0, "os._exit(3)": 3, "SIGSEGV": -11, "SIGABRT": -6, "SIGKILL": -9}

# where: (how to submit it, may_have_run of a crash there)
WHERES: dict[str, tuple[Callable[..., Any], str]] = {
    "unpickle call": (lambda ex, do, args: ex.submit(tasks.identity, tasks.DoesWhileUnpickled(do, *args)), "no"),
    "in task": (lambda ex, do, args: ex.submit(do, *args), "maybe"),
    "pickle result": (lambda ex, do, args: ex.submit(tasks.does_while_pickled, do, *args), "yes"),
}


@pytest.mark.parametrize("where", WHERES)
@pytest.mark.parametrize("how", EXITS)
def test_worker_ends(where: str, how: str) -> None:
    submit, may_have_run = WHERES[where]
    do, args = HOWS[how]
    with ForkPoolExecutor(1) as ex:
        pid = ex.submit(tasks.pid).result()
        error = submit(ex, do, args).exception()
        assert type(error) is WorkerCrashedError, repr(error)
        assert (error.pid, error.slot, error.exitcode) == (pid, 0, EXITS[how])
        assert error.may_have_run in (may_have_run, "maybe" if may_have_run == "yes" else may_have_run)
        assert error.pool_usable is True
        assert ex.submit(tasks.pid).result() != pid


@pytest.mark.parametrize("where", ["unpickle call", "in task"])
@pytest.mark.parametrize("how", RAISED)
def test_exception_in_the_worker(where: str, how: str) -> None:
    submit, _ = WHERES[where]
    do, args = HOWS[how]
    with ForkPoolExecutor(1) as ex:
        pid = ex.submit(tasks.pid).result()
        error = submit(ex, do, args).exception()
        assert type(error) is RAISED[how]
        assert error.args == args[1:]
        assert "in raise_new" in str(error.__cause__)
        assert ex.submit(tasks.pid).result() == pid


@pytest.mark.parametrize("how", RAISED)
def test_result_cannot_be_pickled(how: str) -> None:
    do, args = HOWS[how]
    with ForkPoolExecutor(1) as ex:
        pid = ex.submit(tasks.pid).result()
        error = ex.submit(tasks.does_while_pickled, do, *args).exception()
        if how == "raise":
            assert type(error) is SerializationError, repr(error)
            assert isinstance(error, pickle.PicklingError)
            assert error.may_have_run == "yes"
        else:  # sys.exit() and the like are the task's own, wherever they come from, as in the standard library
            assert type(error) is RAISED[how]
        assert ex.submit(tasks.pid).result() == pid


@pytest.mark.parametrize("how", RAISED)
def test_result_cannot_be_unpickled(how: str) -> None:
    do, args = HOWS[how]
    with ForkPoolExecutor(1) as ex:
        pid = ex.submit(tasks.pid).result()
        future = ex.submit(tasks.does_while_unpickled, do, *args)
        assert wait([future]).done == {future}
        for _ in range(2):
            if how == "KeyboardInterrupt":  # it may be the user's Ctrl-C: raised to who asked, and tried again next time
                with pytest.raises(KeyboardInterrupt):
                    future.exception()
            else:
                error = future.exception()
                assert type(error) is RAISED[how], repr(error)
            with pytest.raises(RAISED[how]):
                future.result()
        assert ex.submit(tasks.pid).result() == pid


@pytest.mark.parametrize("how", RAISED)
def test_call_cannot_be_pickled(how: str) -> None:
    """SerializationError for an error of pickling; what is no Exception (Ctrl-C ...) is the caller's own."""
    do, args = HOWS[how]
    with ForkPoolExecutor(1) as ex:
        with pytest.raises((SerializationError, SystemExit, KeyboardInterrupt, GeneratorExit)) as found:
            ex.submit(tasks.identity, tasks.DoesWhilePickled(do, *args))
        assert (found.type is SerializationError) == (how == "raise")
        assert ex.submit(tasks.add, 1, 1).result() == 2


@pytest.mark.parametrize("how", ["raise", "sys.exit"])
def test_initializer_raises(how: str) -> None:
    do, args = HOWS[how]
    with ForkPoolExecutor(1, initializer=do, initargs=args) as ex:
        error = ex.submit(tasks.add, 1, 1).exception()
        assert type(error) is InitializerError, repr(error)
        assert type(error.__cause__) is RAISED[how]
        assert error.may_have_run == "no"
        assert error.pool_usable is False
        with pytest.raises(PoolBrokenError):
            ex.submit(tasks.add, 1, 1)


@pytest.mark.parametrize("how", EXITS)
def test_worker_ends_in_the_initializer(how: str) -> None:
    """Workers cannot be started n times in a row: broken, with the reason."""
    do, args = HOWS[how]
    with ForkPoolExecutor(1, initializer=do, initargs=args) as ex:
        error = ex.submit(tasks.add, 1, 1).exception()
        assert isinstance(error, PoolBrokenError), repr(error)
        assert error.may_have_run == "no"
        assert error.pool_usable is False
        with pytest.raises(PoolBrokenError):
            ex.submit(tasks.add, 1, 1)


def fail_second_time(path: str) -> None:
    with open(path, "a") as file:
        file.write(".")
    if os.path.getsize(path) == 2:
        raise ValueError("the second worker")


def test_initializer_that_fails_in_a_later_worker(tmp_path: Any) -> None:
    with ForkPoolExecutor(1, initializer=fail_second_time, initargs=(str(tmp_path / "count"),)) as ex:
        assert ex.submit(tasks.add, 1, 1).result() == 2
        assert type(ex.submit(tasks.leave, 3).exception()) is WorkerCrashedError
        error = ex.submit(tasks.add, 1, 1).exception()
        assert type(error) is InitializerError, repr(error)


@pytest.mark.parametrize("how", EXITS)
def test_idle_worker_ends_by_a_thread_that_a_task_left(how: str, gate: Gate) -> None:
    """After the answer: no future is blamed."""
    do, args = HOWS[how]
    with ForkPoolExecutor(1) as ex:
        futures = [ex.submit(tasks.add, n, n) for n in range(5)]
        pid = ex.submit(tasks.leave_a_thread, gate, do, *args).result()
        assert [future.result() for future in futures] == [0, 2, 4, 6, 8]
        gate.open_for_all()
        processes.wait_exit(pid)
        assert ex.submit(tasks.pid).result() != pid


def test_exceptions_that_do_not_pickle_well() -> None:
    with ForkPoolExecutor(1) as ex:
        pid = ex.submit(tasks.pid).result()
        two = ex.submit(tasks.raise_two_arguments).exception()
        assert type(two) is tasks.TwoArguments, repr(two)
        assert (two.code, two.text, str(two)) == (7, "seven", "7: seven")
        holder = ex.submit(tasks.raise_holder).exception()
        assert "held" in str(holder)
        assert "HoldsALock" in repr(holder)
        assert ex.submit(tasks.pid).result() == pid


def unpicklable_result() -> Any:
    import threading

    return {"a": [threading.Lock()]}


def generator_result() -> Any:
    return (number for number in range(3))


@pytest.mark.parametrize(
    ("task", "words"), [(unpicklable_result, r"\['a'\]\[0\] is a lock"), (generator_result, r"generator.*return list\(")]
)
def test_unpicklable_results(task: Callable[[], Any], words: str) -> None:
    with ForkPoolExecutor(1) as ex:
        pid = ex.submit(tasks.pid).result()
        error = ex.submit(task).exception()
        assert type(error) is SerializationError, repr(error)
        assert re.search(words, str(error)), str(error)
        assert error.may_have_run == "yes"
        assert ex.submit(tasks.pid).result() == pid


def test_unpicklable_arguments() -> None:
    import threading

    with ForkPoolExecutor(1) as ex:
        with pytest.raises(SerializationError, match="lock"):
            ex.submit(tasks.identity, threading.Lock())
        with pytest.raises(SerializationError, match="lock"):
            ex.submit(threading.Lock().acquire)
        assert ex.submit(tasks.add, 1, 1).result() == 2
