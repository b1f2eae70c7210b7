"""Calls that run inline: in submit, in the calling thread, and else as with workers.

Runs in: the pytest process, where the tasks run too; programs of their own where a signal or the environment matters.
"""

import copy
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from types import CodeType
from typing import Any

import pytest

from forkpool import (
    ForkPoolExecutor,
    InitializerError,
    InlineExecutor,
    PoolStatistics,
    SerializationError,
    TaskInfo,
    current_task,
    diagnostics,
)
from tests.process.test_interruptions import interrupt
from tests.support import tasks
from tests.support.gate import Gate, Marks
from tests.support.script import Script

Start = Callable[..., Script]
seen: list[Any] = []


@pytest.fixture(autouse=True)
def nothing_seen() -> None:
    seen.clear()


def note(value: Any) -> Any:
    seen.append(value)
    return value


def where_am_i() -> tuple[TaskInfo | None, str | None, int]:
    return current_task(), os.environ.get("FORKPOOL_SLOT"), threading.get_ident()


def my_code() -> CodeType:
    return sys._getframe(1).f_code


# --- what runs -------------------------------------------------------------------------------------------------------------


def test_it_runs_here_at_once_in_this_thread() -> None:
    with InlineExecutor(3) as ex:
        future = ex.submit(where_am_i)
        assert future.done()
        task, slot, thread = future.result()
        assert task == TaskInfo(slot=0, name="where_am_i", attempt=1, max_workers=3)
        assert slot == "0"
        assert thread == threading.get_ident()
        assert ex.options(name="mine").submit(lambda: current_task().name).result() == "mine"  # type: ignore[union-attr]
        assert ex.map(note, [1, 2]) is not None
        assert seen == [1, 2]
    assert current_task() is None
    assert "FORKPOOL_SLOT" not in os.environ


def test_your_own_function_runs_on_your_own_globals() -> None:
    bound = 1

    def closure() -> tuple[Any, int]:
        return note(sys._getframe().f_code), bound

    def wrapper() -> Any:
        return closure()

    with InlineExecutor(1) as ex:
        ex.submit(note, [0]).result()
        assert seen == [[0]]
        ex.submit(lambda: note(0)).result()
        for fn in (closure, wrapper):
            seen.clear()
            assert ex.submit(lambda inner: inner() is not None, fn).result()
            assert seen == [closure.__code__]
            assert seen[0] is closure.__code__


def test_globals_of_the_program_stay_the_objects_that_they_are(start: Start) -> None:
    script = start("""
        import forkpool
        from forkpool._shared import tracking
        table = {}
        mine, module = table, sys.modules["__main__"]
        def grow():
            table[len(table)] = 1
        with forkpool.InlineExecutor(1) as ex:
            for _ in range(3):
                ex.submit(grow).result()
        mark("table", table is mine and mine)
        mark("module", sys.modules["__main__"] is module)
        mark("received", tracking.received)  # what a worker notes of its host
    """).finish()
    assert script.value("table") == "{0: 1, 1: 1, 2: 1}"
    assert script.value("module") == "True"
    assert script.value("received") == "{}"


def test_arguments_closures_and_defaults_are_copies() -> None:
    argument, cell = [1], [2]

    def change(given: list[int], default: list[int] = [3]) -> list[list[int]]:  # noqa: B006
        for one in (given, cell, default):
            one.append(0)
        return [given, cell, default]

    with InlineExecutor(1) as ex:
        for _ in range(2):
            assert ex.submit(change, argument).result() == [[1, 0], [2, 0], [3, 0]]
    assert (argument, cell, change.__defaults__) == ([1], [2], ([3],))


def test_results_are_copies_unpickled_by_who_asks_first(marks: Marks) -> None:
    with InlineExecutor(1) as ex:
        future = ex.submit(tasks.does_while_unpickled, tasks.leave_mark, marks, "unpickled")
        assert marks.words() == []
        assert future.result() == "unpickled"
        assert future.result() == "unpickled"
        kept: list[list[int]] = []
        result = ex.submit(lambda: (kept, copy.copy(kept))).result()
        assert result[0] is not kept
    assert marks.words() == ["unpickled"]


def test_a_class_and_a_function_come_back_as_they_are() -> None:
    class Local: ...

    with InlineExecutor(1) as ex:
        assert type(ex.submit(Local).result()) is Local
        assert ex.submit(lambda: where_am_i).result() is where_am_i
        assert ex.submit(lambda: lambda: seen).result()() is seen


def test_what_cannot_be_sent_fails_as_with_workers() -> None:
    lock = threading.Lock()
    calls = [(note, lock), (lambda: lock,), (lambda: lock.acquire,)]
    with InlineExecutor(1) as ex, ForkPoolExecutor(1) as workers:
        for fn, *args in calls:
            here, there = ex.submit(fn, *args).exception(), workers.submit(fn, *args).exception()
            assert type(here) is type(there) is SerializationError
            assert str(here) == str(there)
        for fn in (threading.Lock, tasks.raise_holder):
            errors = [pool.submit(fn).exception() for pool in (ex, workers)]
            assert len({str(error) for error in errors}) == 1
            assert len({type(error) for error in errors}) == 1
    assert seen == []


def test_a_class_that_the_task_made_must_be_able_to_travel() -> None:
    def make() -> Any:
        class Holder:
            lock = threading.Lock()

        return Holder()

    with InlineExecutor(1) as ex:
        assert type(ex.submit(make).exception()) is SerializationError


def test_the_remote_traceback_begins_with_the_task() -> None:
    with InlineExecutor(1) as ex:
        error = ex.submit(tasks.raise_new, KeyError, "k").exception()
    assert type(error) is KeyError
    assert error.__traceback__ is None
    lines = str(error.__cause__).strip().splitlines()
    assert lines[1].startswith("Traceback")
    assert "in raise_new" in lines[2]


def test_exit_goes_into_the_future() -> None:
    with InlineExecutor(1) as ex:
        assert type(ex.submit(sys.exit, 3).exception()) is SystemExit
        assert type(ex.submit(tasks.raise_new, GeneratorExit).exception()) is GeneratorExit


def test_an_argument_that_raises_while_it_is_unpickled() -> None:
    with InlineExecutor(1) as ex:
        future = ex.submit(note, tasks.DoesWhileUnpickled(tasks.raise_new, KeyError, "k"))
        assert type(future.exception()) is KeyError
    assert seen == []


# --- the pool --------------------------------------------------------------------------------------------------------------


def test_the_environment_is_there_for_the_call_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("B_OF_TEST", "before")
    env = {"A_OF_TEST": "1", "B_OF_TEST": "2"}
    get = {"A_OF_TEST": "1", "B_OF_TEST": "2", "FORKPOOL_SLOT": "0"}

    def look() -> dict[str, str | None]:
        with InlineExecutor(1, env={"A_OF_TEST": "inner"}) as inner:
            note(inner.submit(os.getenv, "A_OF_TEST").result())
        return {name: os.environ.get(name) for name in get}

    with InlineExecutor(1, env=env, initializer=lambda: note(os.environ["A_OF_TEST"] + os.environ["FORKPOOL_SLOT"])) as ex:
        assert ex.submit(look).result() == get
    assert seen == ["10", "inner"]
    assert os.environ["B_OF_TEST"] == "before"
    assert "A_OF_TEST" not in os.environ


def test_calls_of_several_threads_run_beside_each_other() -> None:
    def meet() -> tuple[Any, ...]:
        barrier.wait()
        mine = current_task()
        barrier.wait()
        return mine, current_task()

    def submit() -> None:
        futures.append(ex.submit(call))

    barrier = threading.Barrier(3)
    futures: list[Future[Any]] = []
    globals()["call_of_test"] = meet
    with InlineExecutor(3) as ex:
        call = eval("lambda: call_of_test()", globals())
        threads = [threading.Thread(target=submit) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        told = [future.result() for future in futures]
        assert sorted(first.slot for first, _ in told) == [0, 1, 2]
        assert all(first == second for first, second in told)
        assert current_task() is None
        assert ex.statistics().done == 3
    assert "FORKPOOL_SLOT" not in os.environ
    del globals()["call_of_test"]


def test_a_call_inside_a_call() -> None:
    def outer() -> tuple[Any, ...]:
        with InlineExecutor(7) as inner:
            slot = inner.submit(current_task).result()
        return current_task(), slot, os.environ["FORKPOOL_SLOT"]

    with InlineExecutor(1) as ex:
        mine, inner, slot = ex.submit(outer).result()
    assert (mine.max_workers, inner.max_workers, slot) == (1, 7, "0")


def test_inline_in_a_worker_and_workers_in_an_inline_call() -> None:
    def inside(kind: str) -> Any:
        import forkpool

        with getattr(forkpool, kind)(2) as inner:
            return inner.submit(lambda: (os.getpid(), forkpool.current_task())).result(), os.getpid(), forkpool.current_task()

    with ForkPoolExecutor(1) as workers, InlineExecutor(1) as ex:
        (pid, task), worker, own = workers.submit(inside, "InlineExecutor").result()
        assert pid == worker != os.getpid()
        assert (task.max_workers, own.max_workers) == (2, 1)
        (pid, task), host, own = ex.submit(inside, "ForkPoolExecutor").result()
        assert pid != host == os.getpid()
        assert (task.max_workers, own.max_workers) == (2, 1)


def test_the_initializer_runs_once_before_the_first_call() -> None:
    given = [1]
    with InlineExecutor(2, initializer=note, initargs=(given,)) as ex:
        assert seen == []
        ex.submit(note, 2)
        ex.submit(note, 3)
        assert seen == [[1], 2, 3]
        assert seen[0] is not given


def test_other_threads_wait_for_the_initializer(gate: Gate) -> None:
    with InlineExecutor(2, initializer=tasks.enter_then, initargs=(gate, note, "ready")) as ex:
        threads = [threading.Thread(target=ex.submit, args=(note, "call")) for _ in range(2)]
        threads[0].start()
        gate.wait_inside()
        threads[1].start()
        gate.open_for_all()
        for thread in threads:
            thread.join()
    assert seen == ["ready", "call", "call"]


def test_a_failing_initializer_breaks_the_pool() -> None:
    with InlineExecutor(1, initializer=tasks.raise_new, initargs=(KeyError, "db")) as ex:
        future = ex.submit(note, 1)
        error = future.exception()
        assert type(error) is InitializerError
        assert type(error.__cause__) is KeyError
        with pytest.raises(InitializerError):
            ex.submit(note, 1)
        assert ex.statistics().failed == 1
    assert seen == []


def test_an_initializer_that_cannot_be_pickled_is_told_by_submit() -> None:
    with InlineExecutor(1, initializer=note, initargs=(threading.Lock(),)) as ex, pytest.raises(SerializationError):
        ex.submit(note, 1)
    assert seen == []


def test_preloaded_modules_are_imported_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "inline_preloads.py").write_text("")
    (tmp_path / "inline_fails.py").write_text("raise KeyError('config')")
    with InlineExecutor(1, preload=("inline_preloads",)) as ex:
        assert "inline_preloads" not in sys.modules
        ex.submit(note, 1)
        assert sys.modules.pop("inline_preloads")
    with InlineExecutor(1, preload=("inline_fails",)) as ex:
        for _ in range(2):
            with pytest.raises(KeyError, match="config"):
                ex.submit(note, 1)
    assert seen == [1]


def test_a_timeout_is_said_to_be_impossible_once() -> None:
    with InlineExecutor(1) as ex:
        limited = ex.options(timeout=0.000001)
        with pytest.warns(RuntimeWarning, match="timeout= cannot be enforced") as warned:
            assert [limited.submit(note, 1).result(), limited.submit(note, 2).result()] == [1, 2]
        assert [one.filename for one in warned] == [__file__]


def test_a_memory_limit_is_said_to_be_impossible_once() -> None:
    with InlineExecutor(1) as ex:
        limited = ex.options(memory_limit=1)
        with pytest.warns(RuntimeWarning, match="memory_limit= cannot be enforced") as warned:
            assert [limited.submit(note, 1).result(), limited.submit(note, 2).result()] == [1, 2]
        assert [one.filename for one in warned] == [__file__]


def test_nothing_is_left_to_cancel_or_kill() -> None:
    with InlineExecutor(1) as ex:
        future = ex.submit(note, 1)
        assert not future.cancel()
        assert not future.kill()
        assert future.result() == 1
        ex.recycle_workers()
        ex.restart_workers()
        assert dict(ex._processes) == {}
        ex.kill_workers()
        with pytest.raises(RuntimeError, match="after shutdown"):
            ex.submit(note, 1)
        with pytest.raises(RuntimeError, match="after shutdown"):
            ex.restart_workers()


def test_workers_are_not_bound() -> None:
    with InlineExecutor(pin=[min(os.sched_getaffinity(0))]) as ex:
        ex.submit(note, 1)
        assert not ex.placement().pinned
        assert "inline" in str(ex.placement())


def test_statistics_and_snapshot(gate: Gate) -> None:
    with InlineExecutor(2) as ex:
        assert ex.statistics() == PoolStatistics(*[0] * 10, {}, (0.0, 0.0))
        ex.submit(note, 1)
        ex.submit(tasks.raise_new, KeyError)
        thread = threading.Thread(target=ex.options(name="stays").submit, args=(tasks.enter, gate))
        thread.start()
        gate.wait_inside()
        found = ex.statistics()
        assert (found.running, found.done, found.failed, found.submitted) == (1, 1, 1, 3)
        (task,) = diagnostics.snapshot(ex).tasks
        assert (task.name, task.state, task.slot, task.pid) == ("stays", "running", 0, os.getpid())
        gate.open_for_all()
        thread.join()
        found = ex.statistics()
        assert (found.running, found.done, found.failed) == (0, 2, 1)
        assert found.busy_time[0] > 0.0
    assert diagnostics.snapshot(ex) == diagnostics.PoolSnapshot()


def test_shutdown_waits_for_the_calls_of_other_threads(gate: Gate) -> None:
    ex = InlineExecutor(1)
    thread = threading.Thread(target=lambda: note(ex.submit(tasks.enter, gate, "ran").result()))
    thread.start()
    gate.wait_inside()
    ex.shutdown(wait=False)
    closer = threading.Thread(target=ex.shutdown)
    closer.start()
    assert seen == []
    gate.open_for_all()
    closer.join()
    thread.join()
    assert seen == ["ran"]


def shut_down_from_inside() -> None:
    seen[0].shutdown()


def test_shutdown_from_inside_a_call() -> None:
    ex = InlineExecutor(1)
    seen.append(ex)
    assert ex.submit(shut_down_from_inside).result() is None
    with pytest.raises(RuntimeError, match="after shutdown"):
        ex.submit(note, 1)


def test_an_interruption_at_every_line_leaves_the_pool_usable() -> None:
    """KeyboardInterrupt goes through submit, wherever it hits; nothing is counted twice, and nothing stays set."""
    ex = InlineExecutor(1, env={"A_OF_TEST": "1"})
    ex.submit(note, 0)
    line, where = 1, "begin"
    while where:
        before = ex.statistics()
        try:
            _, where = interrupt(lambda: ex.submit(note, 0), line, KeyboardInterrupt)
        except KeyboardInterrupt as error:
            where = str(error)
        assert ex.submit(note, 1).result() == 1, where
        after = ex.statistics()
        assert (after.running, after.queued) == (0, 0), where
        assert 1 <= after.submitted - before.submitted <= 2, where
        assert {"A_OF_TEST", "FORKPOOL_SLOT"} & set(os.environ) == set(), where
        assert current_task() is None, where
        line += 1
    assert line > 50
    ex.shutdown()


def test_ctrl_c_goes_through_submit_and_map() -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # it is ignored where pytest runs in the background
    try:
        press_ctrl_c_in_calls()
    finally:
        signal.signal(signal.SIGINT, before)


def press_ctrl_c_in_calls() -> None:
    with InlineExecutor(1) as ex:
        for call in (
            lambda: ex.submit(signal.raise_signal, signal.SIGINT),
            lambda: ex.map(signal.raise_signal, [signal.SIGINT]),
        ):
            with pytest.raises(KeyboardInterrupt):
                call()
        assert ex.submit(note, 1).result() == 1
        assert ex.statistics().failed == 2


def test_a_fork_of_the_process_may_use_it(gate: Gate) -> None:
    with InlineExecutor(1, initializer=note, initargs=("ready",)) as ex:
        ex.submit(note, 1)
        pid = os.fork()
        if not pid:
            try:
                os._exit(ex.submit(tasks.add, 3, 4).result())
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
        assert ex.submit(tasks.add, 3, 4).result() == 7


# --- how it is asked for ---------------------------------------------------------------------------------------------------


def test_the_environment_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    for value, inline in (("1", True), ("0", False), ("", False)):
        monkeypatch.setenv("FORKPOOL_INLINE", value)
        with ForkPoolExecutor(1) as ex:
            assert (ex.submit(tasks.pid).result() == os.getpid()) is inline
    monkeypatch.setenv("FORKPOOL_INLINE", "yes")
    with pytest.raises(ValueError, match="FORKPOOL_INLINE must be 1 or 0, not 'yes'"):
        ForkPoolExecutor(1)
    with InlineExecutor(1) as ex:
        assert isinstance(ex, ForkPoolExecutor)


WITHOUT_FORK = """
import importlib.abc
class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name in ("fcntl", "termios", "resource", "grp", "pwd"):
            raise ModuleNotFoundError(f"no module named {name}")
import signal, threading, subprocess, cloudpickle, concurrent.futures.process  # what is Windows's own there
sys.meta_path.insert(0, Missing())
for name in ("fcntl", "termios", "resource", "grp", "pwd"):
    sys.modules.pop(name, None)
for name in ("fork", "forkpty", "register_at_fork", "sched_getaffinity", "pidfd_open", "memfd_create", "eventfd", "pipe2",
             "setsid", "killpg", "waitid", "wait4", "posix_fallocate"):
    delattr(os, name)
for name in ("SIGKILL", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGSTOP", "SIGCONT", "SIGCHLD",
             "pthread_sigmask", "pidfd_send_signal"):
    delattr(signal, name)
sys.platform = sys.argv[1]
import forkpool
try:
    forkpool.ForkPoolExecutor(1)
except RuntimeError as error:
    mark("refused", error)
os.environ["FORKPOOL_INLINE"] = "1"
class Local:
    def __init__(self, lines): self.lines = lines
for kind in (forkpool.ForkPoolExecutor, forkpool.InlineExecutor):
    with kind(2, initializer=print) as ex:
        mark("result", [ex.submit(Local, [1]).result().lines, *ex.map(lambda x: x + 1, [1, 2])])
        mark("error", ex.submit(lambda: 1 / 0).exception())
        mark("workers", ex.statistics().workers_started + len(ex._processes))
from forkpool import diagnostics
mark("snapshot", diagnostics.snapshot(ex))
mark("imported", sorted({"forkpool._host.pool", "forkpool._host.supervisor"} & set(sys.modules)))
"""


@pytest.mark.parametrize("platform", ["win32", "darwin"])
def test_where_there_is_no_fork(start: Start, platform: str) -> None:
    """As far as that can be seen here: what Windows or macOS have not is taken away before forkpool is imported."""
    script = start(WITHOUT_FORK, args=[platform]).finish()
    assert "use forkpool.InlineExecutor, or set FORKPOOL_INLINE=1" in script.value("refused")
    assert script.all("result") == ["[[1], 2, 3]"] * 2
    assert script.all("error") == ["division by zero"] * 2
    assert script.all("workers") == ["0", "0"]
    assert script.value("imported") == "[]"


PROGRAM = """
import forkpool
limit = 3
def work(n):
    total = 0
    for i in range(n):
        total += i
    return total
if __name__ == "__main__":
    with forkpool.ForkPoolExecutor(2) as ex:
        print([ex.submit(work, limit).result(), ex.submit(lambda: work(2)).result()])
"""


def run_inline(folder: Path, *command: str, commands: str = "") -> str:
    """Run the program under a tool; what it prints."""
    (folder / "program.py").write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=folder,
        input=commands,
        env={**os.environ, "FORKPOOL_INLINE": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
    )
    assert not done.stderr, done.stderr
    return done.stdout


def test_breakpoints_hit(tmp_path: Path) -> None:
    commands = "b 8\nc\np ('total', total, n)\nc\np ('total', total, n)\nc\nq\n"
    printed = run_inline(tmp_path, "pdb", "program.py", commands=commands)
    assert "('total', 3, 3)" in printed
    assert "('total', 1, 2)" in printed
    assert "[3, 1]" in printed


def test_profilers_and_coverage_see_tasks(tmp_path: Path) -> None:
    assert "program.py:4(work)" in run_inline(tmp_path, "cProfile", "program.py")
    run_inline(tmp_path, "coverage", "run", "--data-file=data", "--include=program.py", "program.py")
    report = run_inline(tmp_path, "coverage", "report", "--data-file=data")
    assert "100%" in report.splitlines()[-1], report


def test_the_interpreter_ends_after_calls(start: Start) -> None:
    script = start(
        """
        import forkpool, atexit
        ex = forkpool.InlineExecutor(1)
        ex.submit(mark, "ran")
        def late():
            try:
                ex.submit(mark, "never")
            except RuntimeError as error:
                mark("refused", error)
        atexit.register(late)
        """
    ).finish()
    assert script.all("ran") == [""]
    assert "shutdown" in script.value("refused")
    assert script.all("never") == []
