"""When the pool's decisions replace a worker, and when its heir takes over: one race per test.

Runs in: pytest. See tests/unit/test_machine.py.
"""

from forkpool._core.ahead import RECALL_AFTER_S
from forkpool._core.staffing import MAX_BACKOFF_S, START_FAILURES_IN_A_ROW
from forkpool._core.states import Expiry, WorkerState
from tests.support.machine_host import GRACE_S, SHORT_S, Host, fail_to_spawn


def test_a_worker_leaves_after_its_last_task_and_its_slot_is_free_at_once() -> None:
    host = Host(1, max_tasks_per_child=1).busy("a")
    assert host.answer(1) == [("STOP", 1)]
    host.submit("b")
    assert host.worker(1).slot == host.worker(2).slot
    assert host.ready(2) == [("SEND", 2, "b"), ("SPAWN", 3)]
    assert host.gone(1) == []
    assert host.answer(2) == [("STOP", 2)]
    host.submit("c", "d")
    assert host.step() == [], "the slot was given up once"


def test_an_heir_is_forked_while_the_last_task_runs_and_takes_over_when_it_is_answered() -> None:
    host = Host(1, max_tasks_per_child=1).busy("a")
    assert host.worker(2).heir_of is host.worker(1)
    host.submit("b", "c")
    assert host.step() == [], "one slot, one heir"
    assert host.ready(2) == [], "the slot is busy"
    assert host.answer(1) == [("STOP", 1), ("SEND", 2, "b"), ("SPAWN", 3)]
    assert host.worker(2).slot == 0
    assert host.machine.replaced == {"max_tasks_per_child": 1}


def test_an_heir_that_finds_no_work_is_idle() -> None:
    host = Host(1, max_tasks_per_child=1).busy("a")
    host.ready(2)
    assert host.answer(1) == [("STOP", 1)]
    host.gone(1)
    host.submit("b")
    assert host.step() == [("SEND", 2, "b"), ("SPAWN", 3)]


def test_no_heir_is_forked_for_a_pool_that_closes_unless_work_waits() -> None:
    host = Host(2, max_tasks_per_child=1)
    host.submit("a", "b")
    host.close()
    assert host.ready(1) == [("SEND", 1, "a")]
    assert host.ready(2) == [("SEND", 2, "b")]
    host.submit("c")
    assert host.step() == [("SPAWN", 3)]


def test_free_slots_are_filled_whatever_heirs_wait() -> None:
    # Else a task would wait for the heir of a worker that runs for hours, and a slot would be empty.
    host = Host(2, max_tasks_per_child=1).busy("a")
    host.ready(2)
    host.submit("b")
    assert host.step() == [("SPAWN", 3)]
    assert host.worker(3).owns_slot
    assert host.ready(3) == [("SEND", 3, "b"), ("SPAWN", 4)]


def test_an_heir_takes_over_when_the_last_task_crashes() -> None:
    host = Host(1, max_tasks_per_child=1).busy("a")
    host.submit("b")
    host.ready(2)
    assert host.gone(1) == [("END", 1, "a", "CRASHED"), ("SEND", 2, "b"), ("SPAWN", 3)]
    assert host.machine.replaced == {"crashed": 1}


def test_an_heir_that_is_born_after_its_time_has_come_is_like_any_other() -> None:
    host = Host(1, max_tasks_per_child=1).busy("a")
    host.submit("b")
    assert host.answer(1) == [("STOP", 1)]
    assert host.ready(2) == [("SEND", 2, "b"), ("SPAWN", 3)]


def test_an_heir_that_dies_while_it_waits_is_replaced() -> None:
    host = Host(1, max_tasks_per_child=1).busy("a")
    host.submit("b")
    host.step()
    host.ready(2)
    assert host.gone(2) == [("SPAWN", 3)]
    host.ready(3)
    assert host.answer(1) == [("STOP", 1), ("SEND", 3, "b"), ("SPAWN", 4)]


def test_an_heir_that_cannot_be_started_leaves_the_last_task_alone() -> None:
    host = Host(1, max_tasks_per_child=1).busy("a")
    host.submit("b")
    for _ in range(START_FAILURES_IN_A_ROW + 1):
        host.later(MAX_BACKOFF_S)
        assert fail_to_spawn(host) == []
    assert not host.machine.broken
    assert host.answer(1) == [("STOP", 1)]


def test_an_heir_that_cannot_be_started_while_the_old_worker_leaves_is_waited_for() -> None:
    # A worker that flushes and says goodbye takes up what the heir would need: the pool was broken meanwhile.
    host = Host(1, max_tasks_per_child=1).busy("a")
    host.submit("b")
    for _ in range(START_FAILURES_IN_A_ROW):
        host.later(MAX_BACKOFF_S)
        assert fail_to_spawn(host) == []
    host.now += MAX_BACKOFF_S
    assert host.answer(1) == [("STOP", 1), ("SPAWN", 7)]
    assert fail_to_spawn(host) == []
    assert not host.machine.broken
    assert host.gone(1) == [("SPAWN", 8)]
    assert host.ready(8) == [("SEND", 8, "b"), ("SPAWN", 9)]


def test_heirs_that_end_while_they_wait_are_forked_with_growing_pauses() -> None:
    # They were forked one after the other, as long as the last task of the slot's worker ran.
    host = Host(1, max_tasks_per_child=1).busy("a")
    pauses = []
    for _ in range(START_FAILURES_IN_A_ROW + 2):
        heir = max(host.machine.workers)
        host.ready(heir)
        host.gone(heir)
        pauses.append(host.next_time())
        host.later(MAX_BACKOFF_S)
    assert pauses == [None, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2]
    assert not host.machine.broken


def test_heirs_of_those_that_end_before_they_take_anything_are_forked_with_pauses() -> None:
    # Each was asked for when the one before was sent the task, so it belonged to an attempt that had been counted.
    host = Host(2, max_tasks_per_child=1).busy("long")
    host.submit("a")
    host.step()
    rounds = 0
    while host.next_time() is None:
        rounds += 1
        for generation in sorted(host.machine.workers):
            if host.worker(generation).state is WorkerState.SPAWNED:
                host.ready(generation)
                host.gone(generation, *[task.name for task in host.worker(generation).tasks])
    assert rounds <= 4
    assert not host.machine.broken


def test_heirs_that_wait_leave_when_the_pool_closes_without_work_for_them() -> None:
    host = Host(1, max_tasks_per_child=1).busy("a")
    host.submit("b")
    host.step()
    host.ready(2)
    assert host.close(cancel_queued=True) == [("END", None, "b", "CANCELLED"), ("STOP", 2)]
    assert host.answer(1) == [("STOP", 1)]
    host.gone(1)
    assert host.gone(2) == [("FINISHED",)]


def test_each_worker_has_a_limit_of_its_own() -> None:
    host = Host(2)
    limits = iter([1, 2, 3])
    host.machine._task_limit = lambda: next(limits)
    host.submit("a", "b")
    host.step()
    host.ready(1, 2)
    assert host.answer(1) == [("STOP", 1)]
    assert host.answer(2) == []


def test_recycling_by_hand_is_rolling_each_goes_on_until_its_heir_is_ready() -> None:
    host = Host(2).busy("a")
    host.submit("idle")
    host.step()
    host.ready(2)
    host.answer(2)
    host.machine.on_recycle(Expiry.RECYCLE, host.now)
    assert host.step() == [("SPAWN", 3), ("SPAWN", 4)]
    host.submit("b")
    assert host.step() == [("SEND", 2, "b")]
    assert host.answer(2) == []
    heir_of_1, heir_of_2 = host.worker(1).heir, host.worker(2).heir
    assert heir_of_1 is not None
    assert heir_of_2 is not None
    assert host.ready(heir_of_2.generation) == [("STOP", 2)]
    assert host.ready(heir_of_1.generation) == []
    assert host.answer(1) == [("STOP", 1)]
    assert host.machine.replaced == {"recycle_workers": 2}


def test_recycling_by_hand_does_not_lengthen_a_task_limit() -> None:
    host = Host(1, max_tasks_per_child=2).busy("a")
    host.machine.on_recycle(Expiry.RECYCLE, host.now)
    host.step()
    host.answer(1)
    host.submit("b")
    assert host.step() == [("SEND", 1, "b")]
    assert host.answer(1) == [("STOP", 1)]


def test_recycling_by_hand_what_cannot_be_replaced_goes_on() -> None:
    host = Host(1).idle()
    host.machine.on_recycle(Expiry.RECYCLE, host.now)
    host.step()
    for _ in range(START_FAILURES_IN_A_ROW + 1):
        host.later(MAX_BACKOFF_S)
        assert fail_to_spawn(host) == []
    host.submit("a")
    assert host.step() == [("SEND", 1, "a")]


def test_recycling_by_hand_takes_back_what_was_sent_ahead() -> None:
    host = Host(1).ahead(3)
    behind = list(host.worker(1).tasks)[1:]
    host.machine.on_recycle(Expiry.RESTART, host.now)
    assert host.acted() == [("RECALL", 1)]
    host.machine.on_recalled(host.worker(1), [task.seq for task in behind], host.now, alive=True)
    assert host.step() == [("SPAWN", 2)]
    assert host.answer(1, SHORT_S) == [("STOP", 1)]
    assert host.ready(2) == [("SEND", 2, "x"), ("SEND", 2, "x")]


def test_recycling_by_hand_a_worker_that_took_nothing() -> None:
    host = Host(1).ahead(3)
    tasks = list(host.worker(1).tasks)
    host.machine.on_recycle(Expiry.RESTART, host.now)
    host.acted()
    host.machine.on_recalled(host.worker(1), [task.seq for task in tasks], host.now, alive=True)
    assert host.step() == [("STOP", 1), ("SPAWN", 2)]
    assert host.ready(2) == [("SEND", 2, "x")] * 3


def test_recycling_by_hand_while_workers_start_and_wait() -> None:
    host = Host(1, max_tasks_per_child=1).busy("a")
    host.submit("b")
    host.machine.on_recycle(Expiry.RESTART, host.now)
    assert host.acted() == [("STOP", 2)], "it leaves when it is born"
    assert host.ready(2) == [("SPAWN", 3)]
    host.ready(3)
    host.machine.on_recycle(Expiry.RESTART, host.now)
    assert host.step() == [("STOP", 3), ("SPAWN", 4)]
    host.ready(4)
    assert host.answer(1) == [("STOP", 1), ("SEND", 4, "b"), ("SPAWN", 5)]


def test_a_task_limit_survives_that_nothing_was_taken() -> None:
    # On a machine under load that may happen to each worker: one that left then would make room for the next of its kind.
    host = Host(1, max_tasks_per_child=3).busy("x")
    host.submit("x", "x")
    host.answer(1, SHORT_S)
    first, second = list(host.worker(1).tasks)
    host.later(RECALL_AFTER_S)
    host.machine.on_recalled(host.worker(1), [first.seq, second.seq], host.now, alive=True)
    assert host.step() == [("SEND", 1, "x")]


def test_a_recycled_worker_that_does_not_leave_is_killed_after_the_grace_period() -> None:
    host = Host(1, max_tasks_per_child=1).busy("a")
    host.answer(1)
    assert host.next_time() == GRACE_S
    assert host.later(GRACE_S) == [("KILL", 1)]
    assert host.gone(1) == []


def test_recycling_counts_answers_not_replacements() -> None:
    host = Host(1, max_tasks_per_child=2).busy("a")
    assert host.answer(1) == []
    host.submit("b")
    host.step()
    assert host.answer(1) == [("STOP", 1)]
