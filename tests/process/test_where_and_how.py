"""The crash matrix: where something goes wrong x how. What must come of it is read from the failure table.

`where` is a point in the life of a call, or another process of the pool; `how` is done there. ROWS says which row of
docs/reference/failure-semantics.md is about it; what this row promises is checked, cell by cell.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import pickle
import re
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import wait
from typing import Any

import pytest

import forkpool
from forkpool import (
    ForkFuture,
    ForkPoolExecutor,
    InitializerError,
    PoolBrokenError,
    RemoteError,
    SerializationError,
    WorkerCrashedError,
)
from tests.support import processes, tasks
from tests.support.failure_table import Row, row
from tests.support.gate import Gate, Marks

RAISED: dict[str, type[BaseException]] = {
    "raise": ValueError,
    "sys.exit": SystemExit,
    "KeyboardInterrupt": KeyboardInterrupt,
    "GeneratorExit": GeneratorExit,
}
EXITS = {"os._exit(0)": 0, "os._exit(3)": 3, "SIGSEGV": -11, "SIGABRT": -6, "SIGKILL": -9}
SIGNALS = {how: -code for how, code in EXITS.items() if code < 0}
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
    "SIGSTOP": (tasks.stop_myself, ()),
}
# Where: how the row begins, for an exception, for the likes of sys.exit(), for the worker's end.
ROWS = {
    "unpickle call": ("an argument raises, exits or crashes",) * 3,
    "in task": ("task raises", "`sys.exit(n)`", "segfault"),
    "pickle result": ("the result cannot be pickled", "`sys.exit(n)`", "segfault"),
    "unpickle result": ("the result's unpickling raises",) * 2,
    "after the result": ("a task leaves threads", "a task leaves threads", "an idle worker is killed"),
    "idle": ("", "", "an idle worker is killed"),
    "initializer": ("the initializer raises", "the initializer raises", "the initializer ends the worker"),
    "fork server": ("", "", "the fork server is killed"),
}
STOPPED = {"initializer": "the initializer blocks", "fork server": "the fork server is stopped"}
SUBMITS: dict[str, Callable[..., Any]] = {
    "unpickle call": lambda ex, do, args: ex.submit(tasks.identity, tasks.DoesWhileUnpickled(do, *args)),
    "in task": lambda ex, do, args: ex.submit(do, *args),
    "pickle result": lambda ex, do, args: ex.submit(tasks.does_while_pickled, do, *args),
}


def row_of(where: str, how: str) -> Row:
    if how == "SIGSTOP":
        return row(STOPPED.get(where, "a worker is stopped"))
    return row(ROWS[where][0 if how == "raise" else 1 if how in RAISED else 2])


def check_error(error: BaseException | None, where: str, how: str) -> None:
    """What the future gets, and whether the call may have run."""
    promised = row_of(where, how)
    if how in RAISED and promised.gets.startswith("that exception"):
        assert type(error) is RAISED[how], repr(error)
    elif promised.error_name is not None:
        assert type(error) is getattr(forkpool, promised.error_name), repr(error)
    else:
        assert promised.gets.startswith(("its result", "none held it", "nothing is noticed")), promised
        assert error is None, repr(error)
    if isinstance(error, forkpool.ForkPoolError):
        allowed = {promised.may_have_run, "yes"} if where == "pickle result" else {promised.may_have_run}
        assert getattr(error, "may_have_run", None) in allowed
        assert getattr(error, "pool_usable", None) is not promised.pool.startswith("broken")


def check_pool(ex: ForkPoolExecutor, pid: int, where: str, how: str) -> None:
    """The pool afterwards; `pid` is of its only worker before."""
    promised = row_of(where, how).pool
    if "same worker" in promised and how in RAISED:
        assert ex.submit(tasks.pid).result() == pid
    elif "slot refilled" in promised:
        assert ex.submit(tasks.pid).result() != pid
    elif promised.startswith("broken"):
        with pytest.raises(PoolBrokenError):
            ex.submit(tasks.add, 1, 1)
    else:
        assert promised.startswith(("usable", "new server")), promised
        assert ex.submit(tasks.add, 1, 1).result() == 2


def check_stopped(future: ForkFuture[Any], pid: int, where: str) -> None:
    """The row says: waits; its timeout or kill() ends it."""
    assert row_of(where, "SIGSTOP").gets.startswith("waits; its timeout or `kill()`")
    processes.wait_state(pid, "T")
    assert not future.done()
    assert future.kill()
    assert wait([future]).done == {future}
    assert future.cancelled()


@pytest.mark.parametrize("where", SUBMITS)
@pytest.mark.parametrize("how", HOWS)
def test_in_the_worker(where: str, how: str, gate: Gate) -> None:
    """Beside a call that runs on the other worker, and before others that wait: those are untouched in every row."""
    do, args = HOWS[how]
    with ForkPoolExecutor(2) as ex:
        try:
            beside = ex.submit(tasks.enter, gate, "untouched")
            gate.wait_inside()
            pid = ex.submit(tasks.pid).result()
            future = SUBMITS[where](ex, do, args)
            behind = [ex.submit(tasks.add, number, number) for number in range(3)]
            if how == "SIGSTOP":
                check_stopped(future, pid, where)
            else:
                error = future.exception()
                check_error(error, where, how)
                check_facts(error, pid, how)
            check_pool(ex, pid, where, how)
            assert row_of(where, how).others.startswith("untouched")
            assert [future.result() for future in behind] == [0, 2, 4]
            assert not beside.done()
        finally:
            gate.open_for_all()
        assert beside.result() == "untouched"


@pytest.mark.parametrize("how", [*RAISED, *EXITS])
def test_a_call_whose_argument_fails_in_the_worker_never_begins(how: str, marks: Marks) -> None:
    do, args = HOWS[how]
    with ForkPoolExecutor(1) as ex:
        future = ex.submit(tasks.mark_then, marks, "began", tasks.identity, tasks.DoesWhileUnpickled(do, *args))
        check_error(future.exception(), "unpickle call", how)
        assert ex.submit(tasks.leave_mark, marks, "next").result() == "next"
    assert row_of("unpickle call", how).may_have_run == "no"
    assert marks.words() == ["next"]


def check_facts(error: BaseException, pid: int, how: str) -> None:
    if isinstance(error, WorkerCrashedError):
        assert (error.pid, error.slot, error.exitcode) == (pid, 1, EXITS[how])
    elif not isinstance(error, SerializationError):
        assert error.args == HOWS[how][1][1:]
        assert "in raise_new" in str(error.__cause__)
    else:
        assert isinstance(error, pickle.PicklingError)


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
                check_error(future.exception(), "unpickle result", how)
            with pytest.raises(RAISED[how]):
                future.result()
        check_pool(ex, pid, "unpickle result", how)


def do_then_tell(gate: Any, do: Any, *args: Any) -> None:
    try:
        do(*args)
    finally:
        gate.tell()


def sent_to_the_stopped(ex: ForkPoolExecutor) -> ForkFuture[int]:
    """A call that the only worker, which is stopped, will not take: it has been sent when this returns."""
    future = ex.submit(tasks.pid)
    while not ex.statistics().running:  # each look waits for the supervisor
        pass
    return future


@pytest.mark.parametrize("how", HOWS)
def test_after_the_result(how: str, gate: Gate, second_gate: Gate) -> None:
    """By a thread that the task left: no future is blamed."""
    do, args = HOWS[how]
    with ForkPoolExecutor(1) as ex:
        left = ex.submit(tasks.leave_a_thread, gate, do_then_tell, second_gate, do, *args)
        pid = left.result()
        gate.open_for_all()
        if how == "SIGSTOP":
            processes.wait_state(pid, "T")
            check_stopped(sent_to_the_stopped(ex), pid, "after the result")
        else:
            if how in RAISED:
                assert second_gate.wait_inside() == pid
            else:
                processes.wait_exit(pid)
            check_error(left.exception(), "after the result", how)
        check_pool(ex, pid, "after the result", how)


@pytest.mark.parametrize("how", [*SIGNALS, "SIGSTOP"])
def test_idle(how: str) -> None:
    """A signal from outside, to a worker that holds nothing."""
    with ForkPoolExecutor(1) as ex:
        done = ex.submit(tasks.pid)
        pid = done.result()
        os.kill(pid, signal.Signals[how])
        if how == "SIGSTOP":
            processes.wait_state(pid, "T")
            check_stopped(sent_to_the_stopped(ex), pid, "idle")
        else:
            processes.wait_exit(pid)
            check_error(done.exception(), "idle", how)
        check_pool(ex, pid, "idle", how)


@pytest.mark.parametrize("how", [*SIGNALS, "SIGSTOP"])
def test_fork_server(how: str, gate: Gate) -> None:
    with ForkPoolExecutor(1) as ex:
        running = ex.submit(tasks.enter_then, gate, os.getppid)
        pid = gate.wait_inside()
        stat = processes.read_stat(pid)
        assert stat is not None
        os.kill(stat.parent, signal.Signals[how])
        processes.wait_state(stat.parent, "T") if how == "SIGSTOP" else processes.wait_exit(stat.parent)
        gate.open_for_all()
        check_error(running.exception(), "fork server", how)
        assert type(ex.submit(tasks.leave, 3).exception()) is WorkerCrashedError
        check_pool(ex, pid, "fork server", how)
        assert ex.submit(os.getppid).result() != stat.parent


@pytest.mark.parametrize("how", [*RAISED, *EXITS])
def test_initializer(how: str, gate: Gate) -> None:
    """All calls that wait when it fails get the same."""
    do, args = HOWS[how]
    with ForkPoolExecutor(1, initializer=tasks.enter_then, initargs=(gate, do, *args)) as ex:
        futures = [ex.submit(tasks.add, 1, 1)]
        gate.wait_inside()
        futures += [ex.submit(tasks.add, 1, 1) for _ in range(3)]
        gate.open_for_all()
        assert row_of("initializer", how).others.startswith("the same")
        for future in futures:
            error = future.exception()
            check_error(error, "initializer", how)
            if how in RAISED:
                assert type(error.__cause__) is RAISED[how]  # type: ignore[union-attr]
        check_pool(ex, 0, "initializer", how)


def fork_and_come_back(marks: Marks, how: str) -> None:
    """Both processes come back from here, the child first."""
    child = os.fork()
    if child:
        os.waitpid(child, 0)
    else:
        marks.add("child")
        if how == "sys.exit":
            sys.exit()
        if how == "raise":
            raise ValueError("only the child")


@pytest.mark.parametrize("how", ["return", "sys.exit", "raise"])
def test_a_child_that_the_initializer_forks_does_not_speak_for_the_worker(how: str, marks: Marks) -> None:
    """It said that the initializer had failed, and the pool was broken."""
    assert row("the initializer or a preloaded module forks").gets == "its result"
    with ForkPoolExecutor(2, initializer=fork_and_come_back, initargs=(marks, how)) as ex:
        assert [ex.submit(tasks.add, n, n).result() for n in range(10)] == [2 * n for n in range(10)]
    assert set(marks.words()) == {"child"}


def stop_after_telling(gate: Any) -> None:
    gate.tell()
    tasks.stop_myself()


@pytest.mark.parametrize("initializer", [tasks.enter, stop_after_telling])
def test_initializer_that_blocks(initializer: Callable[..., Any], gate: Gate) -> None:
    """The call waits and can be cancelled; the pool can be shut down. The gate is never opened."""
    promised = row("the initializer blocks")
    with ForkPoolExecutor(1, initializer=initializer, initargs=(gate,), grace_period=0.1) as ex:
        future = ex.submit(tasks.add, 1, 1)
        pid = gate.wait_inside()
        if initializer is stop_after_telling:
            processes.wait_state(pid, "T")
        assert (promised.gets, promised.may_have_run) == ("waits; `cancel()` ends it", "no")
        assert not future.running()
        assert future.cancel()
    processes.wait_exit(pid)


@pytest.mark.parametrize("initializer", [tasks.enter, stop_after_telling])
def test_shutdown_while_an_initializer_blocks(initializer: Callable[..., Any], gate: Gate) -> None:
    """What was accepted is waited for, as ever; what is cancelled is not, and then the worker has the grace period."""
    promised = row("the initializer blocks")
    assert "a shutdown waits for calls that wait for them" in promised.pool
    ex = ForkPoolExecutor(1, initializer=initializer, initargs=(gate,), grace_period=0.1)
    future = ex.submit(tasks.add, 1, 1)
    pid = gate.wait_inside()
    ex.shutdown(wait=False)
    assert not wait([future], timeout=0.5).done
    ex.shutdown(cancel_futures=True)
    assert future.cancelled()
    processes.wait_exit(pid)


def test_shutdown_waits_for_an_initializer_and_the_call_behind_it(gate: Gate) -> None:
    ex = ForkPoolExecutor(1, initializer=tasks.enter, initargs=(gate,), grace_period=0.1)
    future = ex.submit(tasks.add, 1, 1)
    gate.wait_inside()
    ex.shutdown(wait=False)
    gate.open_for_all()
    ex.shutdown()
    assert future.result() == 2


@pytest.mark.parametrize("how", RAISED)
def test_call_cannot_be_pickled(how: str) -> None:
    """SerializationError for an error of pickling; what is no Exception (Ctrl-C ...) is the caller's own."""
    do, args = HOWS[how]
    with ForkPoolExecutor(1) as ex:
        with pytest.raises((SerializationError, SystemExit, KeyboardInterrupt, GeneratorExit)) as found:
            ex.submit(tasks.identity, tasks.DoesWhilePickled(do, *args)).result()
        assert (found.type is SerializationError) == (how == "raise")
        assert ex.submit(tasks.add, 1, 1).result() == 2


class CannotBeLookedAt:
    """Whatever one asks of it but to be called. `cannot_travel`: it cannot be pickled either."""

    def __init__(self, *, cannot_travel: bool) -> None:
        if cannot_travel:
            vars(self)["lock"] = threading.Lock()

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(f"no {name}")

    def __call__(self, number: int) -> int:
        return number + 1


class HidesItsParts(CannotBeLookedAt):
    def __init__(self) -> None: ...

    @property
    def __dict__(self) -> Any:  # type: ignore[override]
        raise RuntimeError("no dict")

    @property
    def __class__(self) -> Any:
        raise RuntimeError("no class")

    def __reduce__(self) -> Any:
        raise ValueError("no way")


def test_calls_of_objects_that_cannot_be_looked_at() -> None:
    """What their attributes raise is no error of `submit`: they are run, or say why they cannot be pickled."""
    with ForkPoolExecutor(1) as ex:
        good = CannotBeLookedAt(cannot_travel=False)
        assert ex.submit(good, 1).result() == 2
        assert ex.submit(functools.partial(good, 2)).result() == 3
        assert list(ex.map(good, [1, 2], chunksize=2)) == [2, 3]
        for bad in (CannotBeLookedAt(cannot_travel=True), HidesItsParts()):
            for future in (ex.submit(bad, 1), ex.submit(functools.partial(bad, 1)), ex.submit(tasks.identity, bad)):
                assert type(future.exception()) is SerializationError, repr(future.exception())
            with pytest.raises(SerializationError):
                list(ex.map(tasks.identity, [1, bad], chunksize=2))


def test_an_attribute_of_a_class_cannot_be_pickled() -> None:
    class Holds:
        lock = threading.Lock()

        def work(self) -> object:
            return self.lock

        def call_work(self) -> object:
            return self.work().locked()

    with ForkPoolExecutor(1) as ex:
        error, late = ex.submit(Holds().work).exception(), ex.submit(Holds().call_work).exception()
        for each, may_have_run in (error, "no"), (late, "yes"):
            assert isinstance(each, SerializationError)
            assert (each.part, each.may_have_run) == (f"{Holds.__qualname__}.lock", may_have_run)
        assert type(ex.submit(tasks.identity, [Holds()]).result()[0]) is Holds


def test_an_item_of_a_chunk_cannot_be_pickled() -> None:
    with ForkPoolExecutor(1) as ex:
        results = ex.map(tasks.identity, [1, 2, 3, threading.Lock()], chunksize=2)
        assert [next(results), next(results)] == [1, 2]
        with pytest.raises(SerializationError, match=r"argument 1 of `identity` \(item 2 of 2 in its chunk\).*: it is a lock"):
            next(results)


def test_what_the_strict_serializer_is_strict_about() -> None:
    """`serializer="pickle"` holds for calls; a result may be what no name stands for."""
    with ForkPoolExecutor(1, serializer="pickle") as ex:
        with pytest.raises(SerializationError, match="serializer='pickle' ships nothing by value"):
            ex.submit(lambda: 1).result()
        assert ex.submit(make_adder, 2).result()(3) == 5


def make_adder(number: int) -> Callable[[int], int]:
    return lambda other: number + other


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


def fail_if_marked(marks: Marks) -> None:
    if marks.words():
        raise LookupError("the second worker")
    marks.add("first")


def test_initializer_that_fails_beside_a_call_that_runs(gate: Gate, marks: Marks) -> None:
    promised = row("the initializer raises").others
    with ForkPoolExecutor(2, initializer=fail_if_marked, initargs=(marks,)) as ex:
        running = ex.submit(tasks.enter, gate, "ran")
        gate.wait_inside()
        waiting = [ex.submit(tasks.leave_mark, marks, "waited") for _ in range(5)]
        assert promised.startswith("the same")
        assert {type(future.exception()) for future in waiting} == {InitializerError}
        assert "what runs goes on" in promised
        assert not running.done()
        gate.open_for_all()
        assert running.result() == "ran"
    assert marks.words() == ["first"]


class CannotBeMade(Exception):
    """Neither unpickled nor made without `__init__`."""

    def __new__(cls, *args: Any, key: int) -> CannotBeMade:
        return super().__new__(cls, *args)

    def __init__(self, *, key: int) -> None:
        super().__init__(key)


def raise_one_that_cannot_be_made() -> None:
    raise CannotBeMade(key=1)


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    code: int


class RefusesFrozen:
    def __reduce__(self) -> Any:
        raise Frozen(4)


def raise_frozen() -> None:
    raise Frozen(3)


class WithSlots(Exception):
    __slots__ = ("code",)

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


def raise_with_slots() -> None:
    raise WithSlots(7, "seven")


def test_frozen_exceptions_and_those_with_slots() -> None:
    with ForkPoolExecutor(1) as ex:
        pid = ex.submit(tasks.pid).result()
        with pytest.raises(Frozen) as info:
            ex.submit(raise_frozen).result()
        assert info.value == Frozen(3)
        assert "in raise_frozen" in str(info.value.__cause__)
        slots = ex.submit(raise_with_slots).exception()
        assert (type(slots), str(slots), getattr(slots, "code", None)) == (WithSlots, "seven", 7)
        refused = ex.submit(tasks.identity, RefusesFrozen()).exception()
        assert (type(refused), refused.__cause__) == (SerializationError, Frozen(4)), repr(refused)
        assert ex.submit(tasks.pid).result() == pid


def test_exceptions_that_do_not_pickle_well() -> None:
    with ForkPoolExecutor(1) as ex:
        pid = ex.submit(tasks.pid).result()
        two = ex.submit(tasks.raise_two_arguments).exception()
        assert type(two) is tasks.TwoArguments, repr(two)
        assert (two.code, two.text, str(two)) == (7, "seven", "7: seven")
        holder = ex.submit(tasks.raise_holder).exception()
        assert (type(holder), str(holder)) == (tasks.HoldsALock, "held")
        described = ex.submit(raise_one_that_cannot_be_made).exception()
        assert type(described) is RemoteError, repr(described)
        assert described.type_name.endswith("CannotBeMade")
        assert f"{described.type_name}: 1" in str(described), "its name and its message"
        assert "in raise_one_that_cannot_be_made" in str(described.__cause__)
        assert ex.submit(tasks.pid).result() == pid


def raise_group() -> None:
    raise ExceptionGroup("g", [tasks.TwoArguments(1, "one"), ValueError(3)])


def raise_with_attribute() -> None:
    error = ValueError("x")
    error.inner = tasks.TwoArguments(2, "two")  # type: ignore[attr-defined]
    raise error


class CannotBeUnpickled:
    def __reduce__(self) -> Any:
        return tasks.raise_new, (LookupError,)


def raise_with_parts() -> None:
    """Each of its parts but one stays behind, as an argument and as an attribute."""
    error: Any = ValueError(threading.Lock(), CannotBeUnpickled(), "fine")
    error.lock, error.thing, error.fine = threading.Lock(), CannotBeUnpickled(), "fine"
    raise error


def test_exceptions_that_hold_some_that_do_not_pickle_well() -> None:
    caught: list[BaseException] = []
    with ForkPoolExecutor(1) as ex:
        pid = ex.submit(tasks.pid).result()
        try:
            ex.submit(raise_group).result()
        except* tasks.TwoArguments as group:
            caught += group.exceptions
        except* ValueError as group:
            caught += group.exceptions
        two, value = caught
        assert (type(two), str(two), type(value), value.args) == (tasks.TwoArguments, "1: one", ValueError, (3,))
        error: Any = ex.submit(raise_with_attribute).exception()
        assert (type(error), type(error.inner), error.inner.code) == (ValueError, tasks.TwoArguments, 2)
        parts: Any = ex.submit(raise_with_parts).exception()
        lock, thing, fine = parts.args
        assert (type(parts), fine, parts.fine, hasattr(parts, "lock")) == (ValueError, "fine", "fine", False)
        assert lock.startswith("<unlocked _thread.lock")
        assert thing == parts.thing == f"<{__name__}.CannotBeUnpickled, which cannot be unpickled>"
        assert ex.submit(tasks.pid).result() == pid


class Falsy(Exception):
    def __len__(self) -> int:
        return 0


def raise_one_that_is_false(_: object = None) -> None:
    raise Falsy("no members")


def test_an_exception_whose_truth_value_is_false() -> None:
    with ForkPoolExecutor(1) as ex:
        future = ex.submit(raise_one_that_is_false)
        for ask in (future.result, lambda: list(ex.map(raise_one_that_is_false, range(3)))):
            with pytest.raises(Falsy, match="no members"):
                ask()


def unpicklable_result() -> Any:
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
    with ForkPoolExecutor(1) as ex:
        futures = [
            ex.submit(tasks.add, 1, 1),
            ex.submit(tasks.identity, threading.Lock()),
            ex.submit(threading.Lock().acquire),
            ex.submit(tasks.add, 2, 2),
        ]
        called: list[object] = []
        futures[1].add_done_callback(called.append)
        assert called == [futures[1]], "it has ended"
        for future in futures[1:3]:
            error = future.exception(timeout=0)
            assert isinstance(error, SerializationError)
            assert "lock" in str(error)
            assert error.may_have_run == "no"
            assert (future.cancel(), future.kill(), future.pid) == (False, False, None)
        assert [futures[0].result(), futures[3].result()] == [2, 4]
        assert (ex.statistics().done, ex.statistics().failed) == (2, 2)


def test_one_item_of_a_map_cannot_be_pickled() -> None:
    with ForkPoolExecutor(1) as ex:
        results = ex.map(tasks.identity, [1, threading.Lock(), 3])
        assert next(results) == 1
        with pytest.raises(SerializationError, match="lock"):
            next(results)
