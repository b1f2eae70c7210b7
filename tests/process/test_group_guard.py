"""Rows on "the control group's memory is nearly full": real workers, in a group whose files the test writes.

A group that the kernel really kills would take the test along; what its files look like is in tests/unit/test_group_memory.py.
"""

from pathlib import Path
from queue import SimpleQueue

import pytest

from forkpool import ForkPoolExecutor, TaskMemoryError
from forkpool._core import group_guard
from forkpool._core.states import GroupMemory
from forkpool._host import group_memory, supervisor
from tests.support import processes, tasks
from tests.support.gate import Gate, GateInTask
from tests.support.machine import FakeMachine

MIB = 1 << 20
LIMIT = 384 * MIB  # two workers: one that holds less than a sixth of it is let be


class Group:
    """A group with `memory.oom.group`, as the pool sees it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.machine = machine = FakeMachine(folder)
        machine.write("/proc/self/cgroup", "0::/app\n")
        machine.write("/proc/self/mountinfo", "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n")
        self.mark("1")
        self.limit(LIMIT)
        self.current = str(folder / "sys/fs/cgroup/app/memory.current")
        self._looks: SimpleQueue[None] = SimpleQueue()
        self._count_looks(monkeypatch)
        self.set(100)
        monkeypatch.setattr(supervisor, "find_groups", lambda: group_memory.find_groups(machine.root))

    def mark(self, value: str) -> None:
        self.machine.write("/sys/fs/cgroup/app/memory.oom.group", f"{value}\n")

    def limit(self, limit: int) -> None:
        self.machine.write("/sys/fs/cgroup/app/memory.max", f"{limit}\n")

    def set(self, mib: int) -> None:
        _write(self.current, mib)
        while not self._looks.empty():
            self._looks.get()

    def wait_look(self) -> None:
        """Since the last `set`, or the last look that was waited for."""
        self._looks.get()

    def _count_looks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        read = group_memory.GroupWatch.look

        def look(groups: group_memory.GroupWatch) -> GroupMemory | None:
            found = read(groups)
            self._looks.put(None)
            return found

        monkeypatch.setattr(group_memory.GroupWatch, "look", look)


def _write(path: str, mib: int) -> None:
    Path(f"{path}.new").write_text(f"{mib * MIB}\n")
    Path(f"{path}.new").rename(path)


def fill(path: str, mib: int, gate: GateInTask) -> None:
    """Take so much, after which the group is nearly full."""
    tasks.grow(mib)
    _write(path, 380)
    gate.enter()


@pytest.fixture
def group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Group:
    return Group(tmp_path / "root", monkeypatch)


def test_the_task_that_holds_most_ends(group: Group, gate: Gate, second_gate: Gate) -> None:
    with ForkPoolExecutor(2) as ex:
        other = ex.submit(tasks.enter, second_gate, "untouched")
        second_gate.wait_inside()
        future = ex.options(name="hog").submit(fill, group.current, 128, gate)
        error = future.exception()
        assert isinstance(error, TaskMemoryError)
        assert processes.has_ended(error.pid)
        assert (error.task_name, error.pid, error.signal, error.limit) == ("hog", future.pid, "SIGKILL", LIMIT)
        assert error.grown >= 128 * MIB
        assert "memory.oom.group" in str(error)
        assert ex.submit(tasks.add, 1, 1).result() == 2, "the group is as full as before: who holds little is let be"
        assert not other.done()
        group.set(100)
        second_gate.open_for_all()
        assert other.result() == "untouched"
        counts = ex.statistics()
        assert (counts.over_memory, counts.workers_replaced) == (1, {"group_full": 1})


def test_no_call_ends_while_there_is_room(group: Group, gate: Gate) -> None:
    with ForkPoolExecutor(2) as ex:
        large = ex.submit(tasks.grow_then, 128, tasks.enter, gate, "large")
        gate.wait_inside()
        group.wait_look()
        assert list(ex.map(abs, range(-200, 0))) == list(range(200, 0, -1))
        group.wait_look()
        gate.open_for_all()
        assert large.result() == "large"


def test_no_call_ends_that_holds_little(group: Group, gate: Gate) -> None:
    with ForkPoolExecutor(2) as ex:
        futures = [ex.submit(tasks.enter, gate, number) for number in range(2)]
        for _ in futures:
            gate.wait_inside()
        group.set(383)
        for _ in range(3):
            group.wait_look()
        group.set(100)
        gate.open_for_all()
        assert [future.result() for future in futures] == [0, 1]


def test_another_attempt_if_asked_for(group: Group, gate: Gate) -> None:
    with ForkPoolExecutor(1) as ex:
        view = ex.options(retries=1, retry_on=(MemoryError,))
        error = view.submit(fill, group.current, 128, gate).exception()
        assert isinstance(error, TaskMemoryError)
        assert "the memory of the control group was nearly full" in error.__notes__[0]


def test_the_limit_may_change(group: Group, gate: Gate) -> None:
    # A container that is resized in place.
    with ForkPoolExecutor(1) as ex:
        assert ex.submit(tasks.add, 1, 1).result() == 2, "the group was looked at before"
        group.limit(2 * LIMIT)
        large = ex.submit(fill, group.current, 128, gate)
        gate.wait_inside()
        group.wait_look()
        group.wait_look()
        assert not large.done()
        group.limit(LIMIT)
        error = large.exception()
        assert isinstance(error, TaskMemoryError)
        assert error.limit == LIMIT


def test_it_may_be_marked_later(group: Group, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_guard, "SELDOM_S", 0.01)
    group.mark("0")
    with ForkPoolExecutor(1) as ex:
        large = ex.submit(fill, group.current, 128, gate)
        gate.wait_inside()
        group.wait_look()
        group.wait_look()
        assert not large.done()
        group.mark("1")
        assert isinstance(large.exception(), TaskMemoryError)


def test_an_idle_worker_that_holds_much_is_replaced_first(group: Group, gate: Gate) -> None:
    with ForkPoolExecutor(2) as ex:
        modest = ex.submit(tasks.grow_then, 30, tasks.enter, gate, "modest")
        gate.wait_inside()
        keeps = ex.submit(tasks.grow, 128)
        keeps.result()
        group.set(380)
        while not processes.has_ended(keeps.pid):
            group.wait_look()
        group.set(100)
        gate.open_for_all()
        assert modest.result() == "modest"
        counts = ex.statistics()
        assert (counts.over_memory, counts.workers_replaced) == (0, {"group_full_idle": 1})
        assert ex.submit(tasks.add, 1, 1).result() == 2


def test_the_message_claims_no_more_than_is_known(group: Group, gate: Gate) -> None:
    # Most of the group may be held by others: the call's worker held most of those that were busy.
    with ForkPoolExecutor(1) as ex:
        error = ex.submit(fill, group.current, 80, gate).exception()
        assert isinstance(error, TaskMemoryError)
        assert "of the workers that were busy it held most" in str(error)
