"""Where am I: what `current_task()` and FORKPOOL_SLOT tell, and to whom.

Runs in: pytest and workers.
"""

import dataclasses
import functools
import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

import forkpool
from forkpool import ForkPoolExecutor, TaskInfo, TaskTimeoutError, WorkerCrashedError, current_task
from tests.support import tasks
from tests.support.gate import Gate, GateInTask

seen_by_initializer: list[tuple[TaskInfo | None, str | None]] = []


def who() -> TaskInfo | None:
    return current_task()


def who_each(_item: int) -> TaskInfo | None:
    return current_task()


def my_slot() -> int:
    task = current_task()
    assert task is not None
    assert os.environ["FORKPOOL_SLOT"] == str(task.slot)
    return task.slot


def enter_and_tell_slot(gate: GateInTask) -> tuple[int, int]:
    gate.enter()
    return my_slot(), os.getpid()


class Asks:
    """A callable object; bound methods, class methods and static methods of a class."""

    def __call__(self) -> TaskInfo | None:
        return current_task()

    def method(self) -> TaskInfo | None:
        return current_task()

    @staticmethod
    def static() -> TaskInfo | None:
        return current_task()


def test_outside_a_task_there_is_none() -> None:
    assert current_task() is None
    with ForkPoolExecutor(1) as ex:
        ex.submit(tasks.pid).result()
        assert current_task() is None


def test_a_task_is_told_slot_name_attempt_and_number_of_slots() -> None:
    with ForkPoolExecutor(3) as ex:
        assert ex.submit(who).result() == TaskInfo(slot=0, name="who", attempt=1, max_workers=3)
        assert ex.options(name="find out").submit(who).result() == TaskInfo(0, "find out", 1, 3)
        assert ex.submit(who).result() == TaskInfo(0, "who", 1, 3), "a name is for its own task"


def test_the_record_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        TaskInfo(0, "a", 1, 1).slot = 1  # type: ignore[misc]


@contextmanager
def all_inside(ex: ForkPoolExecutor, gate: Gate, count: int) -> Iterator[list[Future[tuple[int, int]]]]:
    """As many tasks as there are slots, all running; they end with the block."""
    futures: list[Future[tuple[int, int]]] = [ex.submit(enter_and_tell_slot, gate) for _ in range(count)]
    for _ in futures:
        gate.wait_inside()
    yield futures
    gate.release(count)


def test_tasks_that_run_at_the_same_time_have_slots_of_their_own_also_after_a_crash(gate: Gate) -> None:
    with ForkPoolExecutor(3) as ex:
        with all_inside(ex, gate, 3) as futures:
            pass
        before = dict(future.result() for future in futures)
        assert set(before) == {0, 1, 2}
        assert type(ex.submit(tasks.kill_myself).exception()) is WorkerCrashedError
        with all_inside(ex, gate, 3) as futures:
            pass
        after = dict(future.result() for future in futures)
        assert set(after) == {0, 1, 2}
        assert sum(before[slot] != after[slot] for slot in after) == 1, "the new worker took over the slot of the old one"


NAMED: list[Callable[..., Any]] = [
    who,
    Asks(),
    Asks().method,
    Asks.static,
    functools.partial(functools.partial(who_each), 1),
    lambda: current_task(),
]


@pytest.mark.parametrize("name", [None, "", "named", "näme \udc80\0", "n" * 5000])
def test_the_name_is_the_one_that_errors_show(name: str | None) -> None:
    """The worker tells it of a task that asks; the host, of one whose worker was killed."""
    with ForkPoolExecutor(1) as ex:
        view = ex.options(name=name)
        for fn in NAMED:
            task = view.submit(fn).result()
            error = view.submit(DiesLike(fn)).exception()
            assert isinstance(error, WorkerCrashedError)
            assert task.name == error.task_name


class DiesLike:
    """A callable that crashes, called as another one is."""

    def __init__(self, fn: Callable[..., Any]) -> None:
        self.func = fn  # as functools.partial's

    def __call__(self) -> None:
        tasks.kill_myself()


def test_the_name_of_a_chunk_is_that_of_the_function() -> None:
    with ForkPoolExecutor(1) as ex:
        assert {task.name for task in ex.map(who_each, range(4), chunksize=2) if task} == {"who_each"}
        with pytest.raises(WorkerCrashedError, match="'leave'") as found:
            list(ex.map(tasks.leave, [3, 3], chunksize=2))
        assert found.value.task_name == "leave"


def test_the_name_of_a_large_call_and_of_one_with_another_path(monkeypatch: pytest.MonkeyPatch) -> None:
    with ForkPoolExecutor(1) as ex:
        view = ex.options(name="large")
        assert view.submit(len_and_name, b"." * 300_000).result() == (300_000, "large")
        monkeypatch.setattr(sys, "path", [*sys.path, "/added/later"])
        assert view.submit(len_and_name, b".").result() == (1, "large")


def len_and_name(data: bytes) -> tuple[int, str]:
    task = current_task()
    assert task is not None
    return len(data), task.name


def note_what_the_initializer_sees() -> None:
    seen_by_initializer.append((current_task(), os.environ.get("FORKPOOL_SLOT")))


def what_the_initializer_saw() -> list[tuple[TaskInfo | None, str | None]]:
    return seen_by_initializer


def test_the_initializer_is_no_task_but_finds_the_slot() -> None:
    with ForkPoolExecutor(1, initializer=note_what_the_initializer_sees) as ex:
        assert ex.submit(what_the_initializer_saw).result() == [(None, "0")]


def slot_at_import(folder: str) -> tuple[str, int]:
    sys.path.insert(0, folder)
    import asks_for_its_slot  # type: ignore[import-not-found]

    return asks_for_its_slot.SLOT, my_slot()


def test_the_variable_is_there_when_the_task_imports_something(tmp_path: Path) -> None:
    (tmp_path / "asks_for_its_slot.py").write_text("import os\nSLOT = os.environ['FORKPOOL_SLOT']\n")
    with ForkPoolExecutor(1, env={"FORKPOOL_SLOT": "the user's"}) as ex:
        assert ex.submit(slot_at_import, str(tmp_path)).result() == ("0", 0)


def what_the_preload_saw() -> tuple[str | None, TaskInfo | None]:
    import asks_early  # type: ignore[import-not-found]

    return asks_early.SLOT, asks_early.TASK


def preload_in_a_nested_pool() -> tuple[str | None, TaskInfo | None]:
    with ForkPoolExecutor(1, preload=("asks_early",)) as ex:
        return ex.submit(what_the_preload_saw).result()


def test_the_fork_server_has_no_slot_also_that_of_a_nested_pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A preloaded module is shared by all workers: it must not take the slot of one, or of the task that made the pool."""
    early = "import os, forkpool\nSLOT, TASK = os.environ.get('FORKPOOL_SLOT'), forkpool.current_task()\n"
    (tmp_path / "asks_early.py").write_text(early)
    monkeypatch.syspath_prepend(tmp_path)
    with ForkPoolExecutor(1, preload=("asks_early",)) as ex:
        assert ex.submit(what_the_preload_saw).result() == (None, None)
    with ForkPoolExecutor(1) as ex:
        assert ex.submit(preload_in_a_nested_pool).result() == (None, None)


def in_a_subprocess() -> str:
    import subprocess

    return subprocess.run(["sh", "-c", "echo $FORKPOOL_SLOT"], stdout=subprocess.PIPE, text=True).stdout.strip()


def test_the_variable_reaches_programs_that_a_task_starts_and_not_the_host() -> None:
    with ForkPoolExecutor(1) as ex:
        assert ex.submit(in_a_subprocess).result() == "0"
    assert "FORKPOOL_SLOT" not in os.environ


def run_nested(gate: GateInTask, inner_workers: int) -> tuple[TaskInfo | None, list[int], TaskInfo | None]:
    """The outer task, the slots of the inner pool's tasks, and the outer task again."""
    before = current_task()
    with ForkPoolExecutor(inner_workers) as ex:
        futures = [ex.submit(enter_and_tell_slot, gate) for _ in range(inner_workers)]
        slots = [future.result()[0] for future in futures]
        assert ex.submit(who).result() is not None
    return before, slots, current_task()


def test_a_nested_pools_worker_sees_its_own_slot(gate: Gate, tmp_path: Path) -> None:
    with ForkPoolExecutor(2) as ex, closing(Gate(tmp_path, "outer")) as outer:
        holder = ex.submit(enter_and_tell_slot, outer)  # the nested pool is a matter of slot 1
        outer.wait_inside()
        nested = ex.submit(run_nested, gate, 2)
        for _ in range(2):
            gate.wait_inside()
        gate.release(2)
        before, slots, after = nested.result()
        outer.release()
        assert holder.result()[0] == 0
    assert before == after == TaskInfo(1, "run_nested", 1, 2)
    assert sorted(slots) == [0, 1]


def ask_in_a_thread() -> TaskInfo | None:
    found: list[TaskInfo | None] = []
    thread = threading.Thread(target=lambda: found.append(current_task()))
    thread.start()
    thread.join()
    return found[0]


def ask_in_a_forked_process() -> str:
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        os.write(write, repr(current_task()).encode())
        os._exit(0)
    os.waitpid(pid, 0)
    os.close(write)
    with open(read) as answer:
        return answer.read()


def test_threads_and_forks_of_a_task_are_told_the_same() -> None:
    with ForkPoolExecutor(1) as ex:
        assert ex.submit(ask_in_a_thread).result() == TaskInfo(0, "ask_in_a_thread", 1, 1)
        assert ex.submit(ask_in_a_forked_process).result() == repr(TaskInfo(0, "ask_in_a_forked_process", 1, 1))


def leave_a_thread_that_asks(gate: GateInTask, answers: str) -> None:
    def ask() -> None:
        for _ in range(2):
            gate.enter()
            with open(answers, "a") as file:
                file.write(f"{current_task()}\n")
        gate.tell()

    threading.Thread(target=ask, daemon=True).start()


def test_a_thread_that_outlives_its_task_is_told_of_the_present_one(gate: Gate, tmp_path: Path) -> None:
    answers = tmp_path / "answers"
    with ForkPoolExecutor(1) as ex, closing(Gate(tmp_path, "later")) as later:
        ex.submit(leave_a_thread_that_asks, gate, str(answers)).result()
        gate.wait_inside()
        running = ex.submit(enter_and_tell_slot, later)
        later.wait_inside()
        gate.release()
        gate.wait_inside()  # it has asked while `running` ran, and is to ask again when nothing does
        later.release()
        running.result()
        gate.release()
        gate.wait_inside()
    assert answers.read_text().splitlines() == [str(TaskInfo(0, "enter_and_tell_slot", 1, 1)), "None"]


class AsksWhilePickled:
    """An argument or a result that asks as it is pickled, and as it is unpickled."""

    def __init__(self, told: str = "") -> None:
        self.told = told

    def __getstate__(self) -> str:
        return repr(current_task())

    def __setstate__(self, pickled: str) -> None:
        self.told = f"{pickled} {current_task()}"


def what_the_argument_was_told(argument: AsksWhilePickled) -> str:
    return argument.told


def test_a_task_begins_with_its_call_and_ends_when_its_result_is_pickled() -> None:
    with ForkPoolExecutor(1) as ex:
        assert ex.submit(what_the_argument_was_told, AsksWhilePickled()).result() == "None None"
        assert ex.submit(AsksWhilePickled).result().told == f"{TaskInfo(0, 'AsksWhilePickled', 1, 1)} None"


def raise_what_was_told() -> None:
    raise ValueError(repr(current_task()))


def test_the_task_after_one_that_failed() -> None:
    with ForkPoolExecutor(1) as ex:
        named = ex.options(name="fails", timeout=30)
        assert str(named.submit(raise_what_was_told).exception()) == repr(TaskInfo(0, "fails", 1, 1))
        assert isinstance(ex.options(timeout=0.05).submit(tasks.busy_in_python).exception(), TaskTimeoutError)
        assert ex.submit(who).result() == TaskInfo(0, "who", 1, 1)


def modules_that_asking_imports() -> list[str]:
    before = set(sys.modules)
    import forkpool as package

    assert package.current_task() is not None
    return sorted(set(sys.modules) - before)


def test_asking_is_light() -> None:
    with ForkPoolExecutor(1) as ex:
        assert ex.submit(modules_that_asking_imports).result() == []


def test_the_names_are_public() -> None:
    assert {"TaskInfo", "current_task"} <= set(forkpool.__all__)
