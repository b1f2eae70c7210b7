"""Whose task ends when the control group is nearly full. Runs in: pytest; pure."""

from forkpool._core.group_guard import SELDOM_S
from forkpool._core.memory_watch import LATEST_S, SOONEST_S
from forkpool._core.states import GroupMemory
from tests.support.machine_host import Host

GIB = 1 << 30
LIMIT = 12 * GIB
FULL = int(LIMIT * 0.97)


def holds(used: int | None, limit: int = LIMIT, tightest: int = LIMIT) -> GroupMemory:
    return GroupMemory(limit, used, "memory.max", tightest)


def guarded(*names: str, **options: object) -> Host:
    """Each of these tasks is on a worker of its own, the last one on worker 1, and the group was looked at once."""
    host = Host(len(names))
    host.machine.guard_group()
    host.busy(*names, **options)
    assert host.step() == [], "the same look is asked for once"
    assert host.group_memory(holds(GIB)) == []
    return host


def test_nobody_looks_while_nobody_works() -> None:
    host = Host()
    host.machine.guard_group()
    assert host.next_time() is None
    host = guarded("a")
    assert host.next_time() == LATEST_S
    host.answer(1)
    assert host.next_time() is None
    assert host.later(3600) == []
    host.submit("b")
    assert host.step() == [("SEND", 1, "b"), ("LOOK_AT_GROUP", None)]


def test_short_tasks_do_not_cost_a_look_each() -> None:
    host = guarded("x")
    host.answer(1, 0.00001)
    for _ in range(100):
        host.submit("x")
        assert host.step() == [("SEND", 1, "x")]
        assert host.later(0.001) == []
        assert host.answer(1, 0.00001) == []


def test_the_nearer_the_limit_the_sooner_the_next_look() -> None:
    host = guarded("a")
    host.group_memory(holds(FULL - GIB // 2))
    assert SOONEST_S < (host.next_time() or 0) < 0.1
    host.group_memory(holds(FULL - (GIB // 2) + GIB // 4))
    assert host.next_time() == SOONEST_S


def test_the_worker_that_holds_most_gives_up_its_task() -> None:
    host = guarded("a", "b", "c")
    assert host.group_memory(holds(FULL), a=4 * GIB, b=5 * GIB, c=2 * GIB) == [("KILL", 2)]
    assert host.worker(2).grown == 5 * GIB
    assert host.group_memory(holds(FULL), a=4 * GIB, c=2 * GIB) == [], "what it held comes back first"
    host.gone(2)
    assert host.machine.replaced == {"group_full": 1}
    assert host.group_memory(holds(FULL), a=4 * GIB, c=2 * GIB) == [("KILL", 3)], "that was not enough"


def test_its_end_is_an_error_that_can_be_tried_again() -> None:
    host = guarded("a")
    host.group_memory(holds(FULL), a=10 * GIB)
    assert host.gone(1) == [("END", 1, "a", "GROUP_FULL")]
    host = guarded("a", retries=1, retry_on=frozenset(("builtins.MemoryError",)))
    host.group_memory(holds(FULL), a=10 * GIB)
    assert host.gone(1) == [("SPAWN", 2)]


def test_a_large_worker_is_let_be_as_long_as_there_is_room() -> None:
    host = guarded("a", "b")
    assert host.group_memory(holds(10 * GIB), a=9 * GIB, b=0) == []


def test_who_holds_little_is_not_to_blame() -> None:
    host = guarded("a", "b")
    assert host.group_memory(holds(FULL), a=GIB, b=2 * GIB - 1) == [], "this program itself holds 9 GiB"
    assert host.group_memory(holds(FULL), a=GIB, b=2 * GIB) == [("KILL", 1)]


def test_what_cannot_be_read_ends_nobody() -> None:
    host = guarded("a", "b")
    assert host.group_memory(holds(None)) == []
    assert host.next_time() == LATEST_S
    assert host.group_memory(holds(FULL), a=None, b=None) == []


def test_tasks_behind_the_one_that_ends_are_taken_back() -> None:
    host = Host()
    host.machine.guard_group()
    host.submit("x")
    host.step()
    host.ready(1)
    host.answer(1, 0.00001)
    for _ in range(3):
        host.submit("x")
    host.step()
    assert host.group_memory(holds(FULL), x=10 * GIB) == [("RECALL", 1)]
    behind = [task.seq for task in list(host.worker(1).tasks)[1:]]
    host.machine.on_recalled(host.worker(1), behind, host.now, alive=True)
    assert host.step() == [("KILL", 1)]
    assert len(host.machine.queue) == 2


def test_the_limit_is_the_one_of_this_look() -> None:
    # A container that is resized in place: a task was ended for the limit of the pool's start.
    host = guarded("a")
    assert host.group_memory(holds(FULL, limit=2 * LIMIT, tightest=2 * LIMIT), a=10 * GIB) == []
    assert host.group_memory(holds(LIMIT // 2 - 1, limit=LIMIT // 2, tightest=LIMIT // 2), a=5 * GIB) == [("KILL", 1)]
    assert host.worker(1).group == holds(LIMIT // 2 - 1, limit=LIMIT // 2, tightest=LIMIT // 2)


def test_a_group_above_ours_is_full_when_as_little_room_is_left_as_in_ours() -> None:
    host = guarded("a", "b")
    above = 100 * LIMIT
    assert host.group_memory(holds(above - LIMIT, above), a=5 * GIB, b=0) == [], "room for all that we may have"
    assert host.group_memory(holds(above - LIMIT // 50, above), a=2 * GIB - 1, b=0) == [], "of our own group, it is little"
    assert host.group_memory(holds(above - LIMIT // 50, above), a=2 * GIB, b=0) == [("KILL", 2)]


def test_where_the_kernel_would_kill_one_process_only_somebody_may_change_that() -> None:
    host = guarded("a")
    assert host.group_memory(None) == []
    assert host.next_time() == SELDOM_S
    host.later(SELDOM_S)
    assert host.group_memory(holds(FULL), a=10 * GIB) == [("KILL", 1)]
    host = guarded("a")
    host.group_memory(None)
    host.answer(1)
    assert host.next_time() is None, "nobody works, nobody looks"


def two_idle_beside(name: str) -> Host:
    """Two of three workers are idle, and the third has this task."""
    host = Host(3)
    host.machine.guard_group()
    host.busy("x", "y", name)
    for worker in list(host.machine.workers.values()):
        if worker.tasks[0].name != name:
            host.answer(worker.generation)
    return host


def test_an_idle_worker_goes_before_any_task_ends() -> None:
    # What an idle one keeps, in a global, was never looked at: tasks ended for it, or all of the group.
    host = two_idle_beside("a")
    idle, other = [number for number, worker in host.machine.workers.items() if not worker.tasks]
    held = {f"idle{idle}": 3 * GIB, f"idle{other}": 2 * GIB}
    assert host.group_memory(holds(FULL), a=5 * GIB, **held) == [("KILL", idle)]
    assert host.machine.replaced == {"group_full_idle": 1}
    assert host.group_memory(holds(FULL), a=5 * GIB, **held) == [], "what it held comes back first"
    assert host.gone(idle) == [], "no other is forked before there is work for it"
    assert host.group_memory(holds(FULL), a=5 * GIB, **held) == [("KILL", other)]
    host.gone(other)
    assert host.group_memory(holds(FULL), a=5 * GIB) != [], "that was not enough"
    assert host.machine.replaced == {"group_full_idle": 2}


def test_an_idle_worker_that_holds_little_stays() -> None:
    host = two_idle_beside("a")
    idle, other = [number for number, worker in host.machine.workers.items() if not worker.tasks]
    held = {f"idle{idle}": 3 * GIB // 2 - 1, f"idle{other}": None}
    assert host.group_memory(holds(FULL), a=GIB, **held) == []
    assert host.group_memory(holds(FULL), a=3 * GIB // 2, **held) != []


def test_a_task_that_comes_then_gets_another_worker() -> None:
    host = two_idle_beside("a")
    idle, other = [number for number, worker in host.machine.workers.items() if not worker.tasks]
    host.group_memory(holds(FULL), a=GIB, **{f"idle{idle}": 3 * GIB, f"idle{other}": 0})
    host.submit("b", "c")
    assert host.step() == [("SEND", other, "b"), ("SPAWN", 4)]
