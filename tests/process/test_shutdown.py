"""The end of a pool: shutdown in all its forms, the end of the interpreter, garbage collection, and nothing left.

Rows "interpreter exits with work pending", "executor garbage-collected", "shutdown(cancel_futures=True) while others
wait()", "shutdown(wait=False) ... twice, from a callback, from two threads, in a storm of submits".
"""

import copy
import gc
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import CancelledError, as_completed, wait
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from forkpool import ForkPoolExecutor, SerializationError, WorkerCrashedError
from forkpool._core import ahead, machine
from forkpool._core.states import Task
from forkpool._host import any_pool
from forkpool._host.intake import Intake
from forkpool.future import ForkFuture
from tests.support import processes, tasks
from tests.support.gate import Gate, Marks
from tests.support.leaks import open_fds
from tests.support.script import Script, environment

Start = Callable[..., Script]


def test_a_call_that_comes_as_the_pool_ends_runs_or_is_refused(marks: Marks, monkeypatch: pytest.MonkeyPatch) -> None:
    """The supervisor has closed the intake, and the last look finds the call: it ran, though `submit` had raised."""
    put = Intake.put

    def close_and_put(intake: Intake, item: Any) -> None:
        intake.closed = isinstance(item, Task)
        put(intake, item)

    with ForkPoolExecutor(1) as ex:
        ex.submit(marks.add, "first").result()
        monkeypatch.setattr(Intake, "put", close_and_put)
        accepted = ["first"]
        for number in range(20):
            try:
                future = ex.submit(marks.add, str(number))
            except RuntimeError:
                continue
            accepted.append(str(number))
            future.result()
        monkeypatch.undo()
        ex._pool.intake.closed = False
        assert ex.submit(tasks.add, 1, 1).result() == 2
        counts = ex.statistics()
    assert marks.words() == accepted
    assert (counts.done, counts.submitted) == (len(accepted) + 1,) * 2


def test_nothing_is_left_when_shutdown_returns() -> None:
    """At once, not a moment later, and while the executor and its futures are still referenced."""
    before = (open_fds(), set(threading.enumerate()), processes.children())
    ex = ForkPoolExecutor(3)
    futures = [ex.submit(tasks.add, n, n) for n in range(30)]
    futures.append(ex.submit(tasks.leave, 3))
    server = ex.submit(os.getppid).result()
    ex.shutdown()
    assert (open_fds(), set(threading.enumerate()), processes.children()) == before
    assert processes.marked() == set()
    assert processes.has_ended(server)
    assert len(futures) == 31


@pytest.mark.parametrize("count", [50, pytest.param(500, marks=[pytest.mark.slow, pytest.mark.alarm(180)])], ids=["50", "500"])
def test_crash_and_recover_again_and_again(count: int) -> None:
    """Fds and threads stay flat."""
    with ForkPoolExecutor(1) as ex:
        assert type(ex.submit(tasks.leave, 3).exception()) is WorkerCrashedError
        assert ex.submit(tasks.add, 1, 1).result() == 2
        fds, threads = len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))
        server = ex.submit(os.getppid).result()
        server_fds = len(os.listdir(f"/proc/{server}/fd"))
        for number in range(count):
            assert type(ex.submit(tasks.leave, 3).exception()) is WorkerCrashedError
            assert ex.submit(tasks.add, number, 1).result() == number + 1
        assert len(os.listdir("/proc/self/task")) == threads
        processes.wait_fds(os.getpid(), fds)
        processes.wait_fds(server, server_fds)
        assert len(processes.children(server)) == 1


def test_many_pools_one_after_the_other() -> None:
    before = open_fds()
    for number in range(15):
        with ForkPoolExecutor(2) as ex:
            assert ex.submit(tasks.add, number, 1).result() == number + 1
    del ex
    gc.collect()
    assert open_fds() == before


def test_cancelling_shutdown_tells_those_who_wait(gate: Gate, marks: Marks) -> None:
    ex = ForkPoolExecutor(1)
    running = ex.submit(tasks.enter, gate, "ran")
    gate.wait_inside()
    queued = [ex.submit(tasks.leave_mark, marks, str(n)) for n in range(20)]
    found: dict[str, Any] = {}
    waiters = [
        threading.Thread(target=lambda: found.update(wait=wait(queued))),
        threading.Thread(target=lambda: found.update(completed=list(as_completed(queued)))),
        threading.Thread(target=lambda: found.update(error=_error_of(queued[7]))),
    ]
    for waiter in waiters:
        waiter.start()
    while not all(is_waiting(waiter) for waiter in waiters):
        os.sched_yield()
    ex.shutdown(wait=False, cancel_futures=True)
    for waiter in waiters:
        waiter.join()
    assert not running.done()
    assert found["wait"].not_done == set()
    assert set(found["completed"]) == set(queued)
    assert found["error"] is CancelledError
    assert all(future.cancelled() for future in queued)
    gate.open_for_all()
    assert running.result() == "ran"
    ex.shutdown()
    assert marks.words() == []


def is_waiting(thread: threading.Thread) -> bool:
    """Whether it stands in a wait for something of `threading`."""
    frame = sys._current_frames().get(thread.ident or 0)
    return frame is not None and frame.f_code.co_filename == threading.__file__ and frame.f_code.co_name == "wait"


def test_cancelling_shutdown_cancels_what_was_sent_ahead(gate: Gate, marks: Marks, monkeypatch: pytest.MonkeyPatch) -> None:
    """It came back from the worker's pipe, was queued again, and ran."""
    for module in (ahead, machine):
        monkeypatch.setattr(module, "RECALL_AFTER_S", 3600.0)  # else it may have come back before the shutdown
    ex = ForkPoolExecutor(1)
    wait([ex.submit(tasks.mark_then, marks, "known") for _ in range(50)])  # as short: such calls are sent ahead
    running = ex.submit(tasks.mark_then, marks, "running", tasks.enter, gate, "ran")
    behind = [ex.submit(tasks.mark_then, marks, "behind") for _ in range(20)]
    gate.wait_inside()
    ex.shutdown(wait=False, cancel_futures=True)
    ex.statistics()  # answered when the pool has done as it was told
    assert all(future.cancelled() for future in behind)
    assert not running.done()
    gate.open_for_all()
    assert running.result() == "ran"
    ex.shutdown()
    assert "behind" not in marks.words()
    assert ex.statistics().cancelled == len(behind)


def _error_of(future: Any) -> Any:
    try:
        return future.result()
    except BaseException as error:
        return type(error)


@pytest.mark.parametrize("arguments", [{}, {"wait": False}, {"cancel_futures": True}, {"wait": False, "cancel_futures": True}])
def test_shutdown_in_a_storm_of_submits(arguments: dict[str, bool]) -> None:
    """Every future that was handed out ends; every submit afterwards is refused."""
    ex = ForkPoolExecutor(2)
    assert ex.submit(tasks.add, 1, 1).result() == 2
    futures: list[Any] = []
    refused: list[int] = []
    started = threading.Barrier(5)

    def storm() -> None:
        started.wait()
        try:
            while True:
                futures.append(ex.submit(tasks.add, 1, 1))
        except RuntimeError:
            refused.append(1)

    threads = [threading.Thread(target=storm) for _ in range(4)]
    for thread in threads:
        thread.start()
    started.wait()
    while not futures:
        os.sched_yield()
    ex.shutdown(**arguments)
    for thread in threads:
        thread.join()
    assert wait(futures).not_done == set()
    assert len(refused) == 4
    assert all(future.cancelled() or future.result() == 2 for future in futures)
    ex.shutdown()


def test_shutdown_waits_for_a_future_whose_condition_a_thread_holds(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `concurrent.futures.wait` does with all that it is given: such a future ended after `shutdown` had returned."""
    news: SimpleQueue[str] = SimpleQueue()
    finish = ForkFuture._finish

    def finish_and_tell(future: ForkFuture[Any], *args: Any, **more: Any) -> Any:
        found = finish(future, *args, **more)
        news.put("held" if found is None else "ended")
        return found

    monkeypatch.setattr(ForkFuture, "_finish", finish_and_tell)
    ex = ForkPoolExecutor(1)
    future = ex.submit(tasks.enter, gate, "result")
    gate.wait_inside()
    seen: list[bool] = []
    closer = threading.Thread(target=lambda: (ex.shutdown(), seen.append(future.done()), news.put("returned")))
    with future._condition:
        closer.start()
        gate.release()
        ex._pool.intake.done.wait()  # type: ignore[attr-defined]
        while not news.empty():
            news.get()
        assert news.get() == "held"  # once more, as there is nothing else to do
    closer.join()
    assert seen == [True]
    assert future.result() == "result"


def test_shutdown_by_who_holds_the_condition_of_a_future(gate: Gate) -> None:
    """A finalizer may, in the middle of `concurrent.futures.wait`: that cannot be waited for."""
    ex = ForkPoolExecutor(1)
    future = ex.submit(tasks.enter, gate, "result")
    gate.wait_inside()
    with future._condition:
        gate.release()
        ex.shutdown()
        assert not future.done()
    assert future.result() == "result"
    ex.shutdown()


def test_the_interpreter_exits_as_a_thread_starts_its_first_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    """The set of pools that are to be finished grew while it was read."""

    class Growing(weakref.WeakSet[Any]):
        late: Any = None

        def __iter__(self) -> Any:
            for pool in super().__iter__():
                if self.late is not None:
                    self.add(self.late._pool)
                    self.late = None
                yield pool

    first = ForkPoolExecutor(1)
    pools = Growing([first._pool])
    pools.late = late = ForkPoolExecutor(1)
    monkeypatch.setattr(any_pool, "_live_pools", pools)
    any_pool._close_in_fork()  # reads it as the exit does, and does nothing with pools that were not used
    assert set(pools) == {first._pool, late._pool}


def test_shutdown_in_the_middle_of_a_crash(gate: Gate) -> None:
    ex = ForkPoolExecutor(2)
    crashing = [ex.submit(tasks.enter_then, gate, tasks.leave, 3) for _ in range(2)]
    behind = [ex.submit(tasks.add, n, n) for n in range(10)]
    for _ in crashing:
        gate.wait_inside()
    ex.shutdown(wait=False)
    gate.open_for_all()
    assert [type(future.exception()) for future in crashing] == [WorkerCrashedError] * 2
    assert [future.result() for future in behind] == [2 * n for n in range(10)]


def test_shutdown_with_a_stopped_idle_worker() -> None:
    import signal

    ex = ForkPoolExecutor(1, grace_period=0.2)
    pid = ex.submit(tasks.pid).result()
    os.kill(pid, signal.SIGSTOP)
    processes.wait_state(pid, "T")
    ex.shutdown()
    assert processes.has_ended(pid)


def test_shutdown_right_after_the_first_submit() -> None:
    for _ in range(10):
        ex = ForkPoolExecutor(1)
        future = ex.submit(tasks.add, 1, 1)
        ex.shutdown()
        assert future.result() == 2


def test_cancelling_shutdown_right_after_the_first_submit() -> None:
    for _ in range(10):
        ex = ForkPoolExecutor(1)
        future = ex.submit(tasks.add, 1, 1)
        ex.shutdown(cancel_futures=True)
        assert future.cancelled() or future.result() == 2


@pytest.mark.parametrize("method", ["terminate_workers", "kill_workers"])
def test_stopping_all_workers(method: str, gate: Gate, marks: Marks) -> None:
    ex = ForkPoolExecutor(2)
    running = [ex.submit(tasks.enter, gate) for _ in range(2)]
    pids = [gate.wait_inside() for _ in running]
    queued = [ex.submit(tasks.leave_mark, marks, str(n)) for n in range(5)]
    getattr(ex, method)()
    for pid in pids:
        processes.wait_exit(pid)
    assert [type(future.exception()) for future in running] == [WorkerCrashedError] * 2
    assert {future.exception().pid for future in running} == set(pids)
    assert {(future.exception().may_have_run, future.exception().pool_usable) for future in running} == {("maybe", False)}
    assert wait(queued).not_done == set()
    assert [future.cancelled() for future in queued] == [True] * 5
    with pytest.raises(RuntimeError):
        ex.submit(tasks.add, 1, 1)
    ex.shutdown()
    assert marks.words() == []


def test_garbage_collected_pool_finishes_its_work_and_ends(gate: Gate, marks: Marks) -> None:
    ex = ForkPoolExecutor(1)
    futures = [ex.submit(tasks.enter, gate, "ran"), *(ex.submit(tasks.leave_mark, marks, str(n)) for n in range(5))]
    worker = gate.wait_inside()
    del ex
    gc.collect()
    gate.open_for_all()
    assert [future.result() for future in futures] == ["ran", "0", "1", "2", "3", "4"]
    processes.wait_exit(worker)


def raise_another() -> None:
    try:
        raise LookupError("first")
    except LookupError as error:
        raise ValueError("then") from error


def test_a_future_of_a_call_that_cannot_be_pickled_does_not_hold_the_executor() -> None:
    # The frames of its error's traceback did: a pool whose user had dropped it never ended.
    ex = ForkPoolExecutor(1)
    is_there = weakref.ref(ex)
    futures = [ex.submit(len, threading.Lock()), ex.submit(len, tasks.DoesWhilePickled(raise_another))]
    del ex
    gc.collect()
    assert is_there() is None
    error = futures[1].exception()
    assert isinstance(error, SerializationError)
    assert isinstance(error.__cause__, ValueError)
    assert "in raise_another" in "".join(error.__cause__.__notes__)
    assert isinstance(error.__cause__.__cause__, LookupError)


def test_executors_that_live_longer_than_our_modules(start: Start) -> None:
    """At the end the interpreter empties modules; what the program still holds is dropped after that, without a word."""
    program = start("""
        from forkpool import ForkPoolExecutor
        closed, unused, half = ForkPoolExecutor(1), ForkPoolExecutor(1), ForkPoolExecutor.__new__(ForkPoolExecutor)
        closed.submit(len, "a").result()
        closed.shutdown()
        complain = []
        sys.unraisablehook = lambda what: complain.append(repr(what.exc_value))
        for name, module in list(sys.modules.items()):
            if name.startswith("forkpool"):
                vars(module).update(dict.fromkeys(vars(module)))
        del closed, unused, half
        mark("complaints", complain)
        os._exit(0)
        """).finish()
    assert program.value("complaints") == "[]"


def test_an_executor_cannot_be_copied() -> None:
    """A copy would share the pool, and shut it down when it is dropped. As for pickling it: see test_payload_errors."""
    with ForkPoolExecutor(1) as ex:
        for one in (ex, ex.options(name="view")):
            for make in (copy.copy, copy.deepcopy):
                with pytest.raises(TypeError, match=f"^cannot copy a {type(one).__name__}: its workers belong to one executor"):
                    make(one)
            with pytest.raises(TypeError, match="cannot copy"):
                copy.deepcopy([one])
        gc.collect()
        assert ex.submit(len, "abc").result() == 3


def test_garbage_collected_pool_without_anybody_who_waits(gate: Gate, marks: Marks) -> None:
    ex = ForkPoolExecutor(1)
    ex.submit(tasks.enter, gate)
    worker = gate.wait_inside()
    for number in range(5):
        ex.submit(tasks.leave_mark, marks, str(number))
    del ex
    gc.collect()
    gate.open_for_all()
    processes.wait_exit(worker)
    assert marks.words() == ["0", "1", "2", "3", "4"]


EXIT_PROGRAM = """
import forkpool, threading
from tests.support import tasks
from tests.support.gate import Marks
marks = Marks(sys.argv[1])
ex = forkpool.ForkPoolExecutor(2)
"""


@pytest.mark.parametrize("how", ["file", "-c", "stdin"])
@pytest.mark.parametrize(
    ("end", "status"),
    [("", 0), ("sys.exit(3)", 3), ("raise SystemExit", 0), ("raise ValueError('mine')", 1), ("del ex", 0)],
)
def test_interpreter_exits_with_work_pending(start: Start, marks: Marks, how: str, end: str, status: int) -> None:
    script = start(
        f"""{EXIT_PROGRAM}
for number in range(30):
    ex.submit(tasks.leave_mark, marks, str(number))
{end}
""",
        how,
        args=[marks.path],
    ).finish(status=status)
    assert sorted(map(int, marks.words())) == list(range(30))
    assert ("ValueError" in script.errors) == ("ValueError" in end)
    assert script.errors.count("Traceback") == ("ValueError" in end)
    processes.wait_none_marked()


def test_interpreter_exits_with_a_crash_and_a_new_worker_needed(start: Start, marks: Marks) -> None:
    """The drain at exit can start a worker, and a fork server, without starting a thread (3.12 refuses)."""
    start(
        f"""{EXIT_PROGRAM}
server = ex.submit(os.getppid).result()
os.kill(server, 9)
for number in range(20):
    ex.submit(os._exit, 3) if number % 5 == 0 else ex.submit(tasks.leave_mark, marks, str(number))
""",
        args=[marks.path],
    ).finish()
    assert sorted(map(int, marks.words())) == [n for n in range(20) if n % 5]


FIRST_ERROR_AT_EXIT = """
import sys, threading
from concurrent.futures import BrokenExecutor
from forkpool import ForkPoolExecutor
from tests.support import tasks
def tell(future):
    exiting.wait()
    error = future.exception()
    mark("error", type(error).__qualname__)
    bases = (TimeoutError, BrokenExecutor, ValueError, Exception)
    mark("base", next(base.__name__ for base in bases if isinstance(error, base)))
def tell_when_the_main_thread_has_ended():
    threading.main_thread().join()
    tell(future)
ex, exiting = ForkPoolExecutor(1), threading.Event()
threading._register_atexit(exiting.set)  # later than the pool's, so earlier
future = ex.options(timeout=60 if sys.argv[1] != "timeout" else 0.01).submit({task})
{ask}
assert "concurrent.futures.process" not in sys.modules
"""


@pytest.mark.parametrize(
    "ask", ["future.add_done_callback(tell)", "threading.Thread(target=tell_when_the_main_thread_has_ended).start()"]
)
@pytest.mark.parametrize(
    ("how", "task", "error", "base"),
    [
        ("crash", "tasks.abort", "WorkerCrashedError", "BrokenExecutor"),
        ("timeout", "tasks.stop_myself", "TaskTimeoutError", "TimeoutError"),
        ("its own", "int, 'x'", "ValueError", "ValueError"),
        ("result", "threading.Lock", "SerializationError", "Exception"),
    ],
)
def test_the_first_error_that_anyone_asks_for_when_the_interpreter_exits(
    start: Start, how: str, task: str, error: str, base: str, ask: str
) -> None:
    """The standard library's base of our errors cannot be imported any more."""
    script = start(FIRST_ERROR_AT_EXIT.format(task=task, ask=ask), args=[how]).finish()
    assert (script.value("error"), script.value("base")) == (error, base)
    assert script.errors == ""


def test_callbacks_at_exit_may_submit_or_are_refused(start: Start, marks: Marks) -> None:
    script = start(
        f"""{EXIT_PROGRAM}
def again(future):
    try:
        ex.submit(tasks.leave_mark, marks, "again")
    except RuntimeError:
        mark("refused")
ex.submit(tasks.leave_mark, marks, "first").add_done_callback(again)
""",
        args=[marks.path],
    ).finish()
    assert marks.words()[0] == "first"
    assert ("again" in marks.words()) != bool(script.all("refused"))


def test_exit_of_a_thread_that_made_the_pool(start: Start) -> None:
    """PR_SET_PDEATHSIG would fire when the thread that forked ends; the pool must not care."""
    script = start("""
import forkpool, threading
pools = []
def make():
    ex = forkpool.ForkPoolExecutor(1)
    pools.append((ex, ex.submit(os.getpid).result()))
thread = threading.Thread(target=make)
thread.start()
thread.join()
ex, pid = pools[0]
mark("same", ex.submit(os.getpid).result() == pid)
ex.shutdown()
""").finish()
    assert script.value("same") == "True"


def test_daemon_thread_that_uses_the_pool_at_exit(start: Start) -> None:
    script = start("""
import forkpool, threading
ex = forkpool.ForkPoolExecutor(2)
started = threading.Event()
def use():
    try:
        while True:
            ex.submit(abs, -1).result()
            started.set()
    except BaseException:
        pass
threading.Thread(target=use, daemon=True).start()
started.wait()
mark("leaving")
""").finish()
    assert script.all("leaving") == [""]
    processes.wait_none_marked()


A_GLOBAL_THAT_TIDIES_UP = """
import forkpool
class Scratch:
    def __init__(self):
        self.path = sys.argv[1]
        open(self.path, "w").close()
    def __del__(self):
        os.unlink(self.path)
class Point:
    def is_there(self):
        return is_there()
def work(*args, **kwargs):
    return os.path.exists(scratch.path)
def is_there():
    return os.path.exists(sys.argv[1])
"""
USE_IT = 'if __name__ == "__main__":\n    scratch = Scratch()\n    '


@pytest.mark.parametrize(
    "use",
    [
        "with forkpool.ForkPoolExecutor(1) as ex: assert list(ex.map(work, range(3))) == [True] * 3",
        "ex = forkpool.ForkPoolExecutor(1); ex.submit(work)",
        "ex = forkpool.ForkPoolExecutor(1, initializer=work); found = ex.submit(lambda: work).result()",
        "ex = forkpool.ForkPoolExecutor(1); point = ex.submit(Point).result(); assert ex.submit(work, point, p=Point).result()",
        "ex = forkpool.ForkPoolExecutor(1); future = ex.submit(work, sys._getframe()); assert future.exception()",
        "ex = forkpool.ForkPoolExecutor(1); ex.submit(work).add_done_callback(lambda future: ex.submit)",
        "ex = forkpool.ForkPoolExecutor(1, serializer='cloudpickle'); assert ex.submit(work, Point()).result()",
        "ex = forkpool.ForkPoolExecutor(1, preload=('__main__',)); assert isinstance(ex.submit(Point).result(), Point);"
        " assert ex.submit(is_there).result()",
        "import atexit; ex = forkpool.ForkPoolExecutor(1); future = ex.submit(Point); atexit.register(lambda: future.result())",
        "ex = forkpool.InlineExecutor(1); assert ex.submit(work, Point()).result()",
        "ex = forkpool.InlineExecutor(1); made = {'__name__': 'x'}; exec('def f(): return work()', {'work': work}, made);"
        " assert ex.submit(made['f']).result()",
    ],
)
def test_globals_of_the_program_are_freed_whole_when_the_interpreter_ends(start: Start, tmp_path: Path, use: str) -> None:
    """The interpreter sets the globals of a module to None one by one, in front of their `__del__`, if somebody holds it."""
    file = tmp_path / "scratch"
    script = start(f"{A_GLOBAL_THAT_TIDIES_UP}{USE_IT}{use}\n", args=[str(file)]).finish()
    assert script.errors == ""
    assert not file.exists()


RUN_IN_ANOTHER_MODULE = """
import runpy, types
program, where = {program!r}, sys.argv[2]
with open("inner.py", "w") as file:
    file.write(program)
if where == "run_path":  # it makes another `__main__` for a while
    runpy.run_path("inner.py", run_name="__main__")
elif where == "inner":
    import inner
    inner.use()
else:
    module = sys.modules[where] = types.ModuleType(where)
    exec(program, vars(module))
    module.use()
"""

USE_IN_A_FUNCTION = f"""
import os, sys
{A_GLOBAL_THAT_TIDIES_UP}
MISSING = object()
def use():
    global scratch, ex
    scratch, ex = Scratch(), forkpool.ForkPoolExecutor(1)
    work.__defaults__ = (MISSING,)
    assert ex.submit(is_there).result()
    sys.path.append("elsewhere")
    ex.submit(work)
    ex.submit(is_there)
if __name__ == "__main__":
    use()
"""


@pytest.mark.parametrize("where", ["run_path", "inner", "plugin"])
def test_so_are_those_of_other_modules(start: Start, tmp_path: Path, where: str) -> None:
    file = tmp_path / "scratch"
    program = start(RUN_IN_ANOTHER_MODULE.format(program=USE_IN_A_FUNCTION), args=[str(file), where]).finish()
    assert program.errors == ""
    assert not file.exists()


def test_so_are_those_of_a_module_whose_sentinel_the_program_imports(start: Start, tmp_path: Path) -> None:
    file = tmp_path / "scratch"
    program = start(
        f"""
import importlib
with open("library.py", "w") as file:
    file.write({f"import os, sys{A_GLOBAL_THAT_TIDIES_UP}MISSING = object()"!r})
importlib.invalidate_caches()
import forkpool, library
from library import MISSING
library.scratch = library.Scratch()
ex = forkpool.ForkPoolExecutor(1)
assert ex.submit(lambda: MISSING is library.MISSING).result()
""",
        args=[str(file)],
    ).finish()
    assert program.errors == ""
    assert not file.exists()


def test_so_are_those_of_a_program_that_is_run_with_our_pool(tmp_path: Path) -> None:
    file = tmp_path / "scratch"
    use = "ex = forkpool.ForkPoolExecutor(1); ex.submit(work).result()"
    program = tmp_path / "program.py"
    program.write_text(f"import os, sys\n{A_GLOBAL_THAT_TIDIES_UP}{USE_IT}{use}\n")
    command = [sys.executable, "-m", "forkpool", "run", str(program), str(file)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment({}))
    assert (done.returncode, done.stderr) == (0, "")
    assert not file.exists()
