"""The pool's decisions, one race per test: the same facts in another order.

Runs in: pytest. Facts go in by hand, the clock is a number; what comes out is the list of actions.
tests/unit/test_machine_stateful.py plays the orders that nobody thought of.
"""

from collections.abc import Callable

import pytest

from forkpool._core.ahead import MAX_AHEAD, RECALL_AFTER_S
from forkpool._core.machine import UNTAKEN_PATIENCE_S
from forkpool._core.staffing import FIRST_BACKOFF_S, MAX_BACKOFF_S, START_FAILURES_IN_A_ROW
from forkpool._core.states import Expiry, Verb, Verdict
from forkpool._core.wire import INLINE_BYTES
from tests.support.machine_host import GRACE_S, SHORT_S, Host, die_at_start, fail_to_spawn

# --- spawning and dispatch -----------------------------------------------------------------------------


def test_nothing_is_done_before_there_is_work() -> None:
    host = Host(4)
    assert host.step() == []
    assert host.next_time() is None


def test_workers_are_forked_as_tasks_come_never_more_than_tasks_or_slots() -> None:
    host = Host(3)
    host.submit("a")
    assert host.step() == [("SPAWN", 1)]
    assert host.step() == []
    host.submit("b", "c", "d", "e")
    assert host.step() == [("SPAWN", 2), ("SPAWN", 3)]
    assert host.step() == []


def test_an_idle_worker_is_used_before_one_is_forked() -> None:
    host = Host(2).busy("a")
    assert host.answer(1) == []
    host.submit("b")
    assert host.step() == [("SEND", 1, "b")]


def test_the_worker_that_worked_last_is_used_first() -> None:
    host = Host(2).busy("a", "b")
    first, second = host.worker(1).tasks[0].name, host.worker(2).tasks[0].name
    assert {first, second} == {"a", "b"}
    host.answer(2)
    host.answer(1)
    host.submit("c", "d")
    assert host.step() == [("SEND", 1, "c"), ("SEND", 2, "d")]


def test_tasks_are_sent_in_the_order_in_which_they_came() -> None:
    host = Host(1).busy("a")
    host.submit("b", "c")
    assert host.step() == []
    assert host.answer(1) == [("SEND", 1, "b")]
    assert host.answer(1) == [("SEND", 1, "c")]


def test_a_task_that_was_cancelled_while_it_waited_is_not_sent() -> None:
    # It is ended once more: its user may have been interrupted in the middle of `cancel`.
    host = Host(1).busy("a")
    host.submit("b", "c")
    host.cancelled.add("b")
    assert host.answer(1) == [("END", None, "b", "CANCELLED"), ("SEND", 1, "c")]


def test_what_is_cancelled_while_it_waits_gives_its_payload_back_at_once() -> None:
    host = Host(1).busy("a")
    host.submit("b", payload=b"large")
    host.submit("c")
    assert host.cancel("b") == [("END", None, "b", "CANCELLED")]
    assert host.tasks["b"].payload == b""
    assert host.answer(1) == [("SEND", 1, "c")]


def test_news_of_a_cancel_that_come_late() -> None:
    # 1. cancelled by the user; 2. its turn comes, and it is refused; 3. the news are taken from the intake.
    host = Host(1).busy("a")
    host.submit("b")
    host.cancelled.add("b")
    assert host.answer(1) == [("END", None, "b", "CANCELLED")]
    assert host.cancel("b") == []


def test_no_worker_is_forked_for_what_is_cancelled() -> None:
    host = Host(4)
    host.submit("a", "b", "c", "d")
    assert host.cancel("a", "c", "d") == [*(("END", None, name, "CANCELLED") for name in "acd"), ("SPAWN", 1)]


def test_what_is_cancelled_does_not_stand_in_the_way_of_what_is_sent_ahead() -> None:
    host = Host(1).idle()
    host.submit("x")
    host.step()
    host.submit("long", "x")
    assert host.cancel("long") == [("END", None, "long", "CANCELLED"), ("SEND", 1, "x")]


def test_slots_are_numbered_from_zero_and_used_again() -> None:
    host = Host(2).busy("a", "b")
    assert (host.worker(1).slot, host.worker(2).slot) == (0, 1)
    host.submit("c")
    host.step()
    host.gone(1)
    assert host.worker(3).slot == 0


# --- answers and deaths --------------------------------------------------------------------------------


def test_an_answer_then_a_death_costs_nobody_anything() -> None:
    host = Host(1).busy("a")
    host.answer(1)
    assert host.gone(1) == []
    host.submit("b")
    assert host.step() == [("SPAWN", 2)]


def test_a_death_with_the_task_taken_is_that_tasks_crash_alone() -> None:
    host = Host(2).busy("a", "b")
    host.submit("c")
    victim = host.worker(1).tasks[0].name
    assert host.gone(1) == [("END", 1, victim, "CRASHED"), ("SPAWN", 3)]


def test_a_death_with_the_task_untaken_sends_it_elsewhere_before_the_others() -> None:
    host = Host(1).busy("a")
    host.submit("b")
    assert host.gone(1, "a") == [("SPAWN", 2)]
    assert host.put_back == ["a"]
    assert host.ready(2) == [("SEND", 2, "a")]


def test_an_idle_worker_that_dies_is_replaced_when_there_is_work() -> None:
    host = Host(1).busy("a")
    host.answer(1)
    assert host.gone(1) == []
    host.submit("b")
    assert host.step() == [("SPAWN", 2)]


def test_all_workers_die_at_once() -> None:
    host = Host(2).busy("a", "b")
    first, second = host.worker(1).tasks[0].name, host.worker(2).tasks[0].name
    assert host.gone(1) == [("END", 1, first, "CRASHED")]
    assert host.gone(2) == [("END", 2, second, "CRASHED")]


# --- kill and timeout ----------------------------------------------------------------------------------


def test_kill_then_death() -> None:
    host = Host(1).busy("a")
    assert host.kill("a") == [("KILL", 1)]
    assert host.kill("a") == []
    assert host.gone(1) == [("END", 1, "a", "KILLED")]


def test_kill_then_the_answer_that_was_quicker() -> None:
    host = Host(1).busy("a")
    host.kill("a")
    assert host.answer(1) == []
    host.submit("b")
    assert host.step() == [], "a worker that is being killed gets no task, and its slot is taken until it is gone"
    assert host.gone(1) == [("SPAWN", 2)]


def test_the_answer_then_kill_finds_nothing() -> None:
    host = Host(1).busy("a")
    host.answer(1)
    assert host.kill("a") == []


def test_kills_do_not_search_the_queue() -> None:
    """Each looked at all that waited, for a task that had been answered meanwhile: the alarm would ring."""
    host = Host(1).busy("a")
    host.submit(*map(str, range(100_000)))
    host.answer(1)
    for _ in range(100_000):
        host.machine.on_kill(host.tasks["a"])
    assert host.acted() == []


def test_kill_of_a_task_that_the_worker_never_took_ends_it_cancelled() -> None:
    host = Host(1).busy("a")
    host.kill("a")
    assert host.gone(1, "a") == [("END", 1, "a", "CANCELLED")]


def test_kill_of_a_task_that_was_put_back_meanwhile() -> None:
    host = Host(1).busy("a")
    host.gone(1, "a")
    assert host.kill("a") == [("END", None, "a", "KILLED")]


def test_kill_after_the_timeout_of_a_task_that_was_never_taken_is_not_lost() -> None:
    # 1. the worker is stopped before it takes the task; 2. the timeout passes: the worker is to be killed;
    # 3. the user kills the task; 4. the worker is dead, the task still in its pipe: it must not run again.
    host = Host(1).busy("a", timeout=1.0)
    assert host.later(1.0 + UNTAKEN_PATIENCE_S) == [("KILL", 1)]
    host.kill("a")
    assert host.gone(1, "a") == [("END", 1, "a", "CANCELLED")]


def test_a_timeout_counts_from_when_the_worker_took_the_task() -> None:
    host = Host(1).busy("a", timeout=2.0)
    host.started["a"] = host.now + 1.5
    assert host.next_time() == 2.0
    assert host.later(2.0) == []
    assert host.next_time() == 1.5
    assert host.later(1.5) == [("KILL", 1)]
    assert host.next_time() is None
    assert host.gone(1) == [("END", 1, "a", "TIMED_OUT")]


def test_a_task_that_a_stopped_worker_never_takes_runs_elsewhere_after_its_timeout() -> None:
    host = Host(1).busy("a", timeout=2.0)
    assert host.later(2.0) == [], "a loaded machine may be slow to wake a worker"
    assert host.next_time() == UNTAKEN_PATIENCE_S
    assert host.later(UNTAKEN_PATIENCE_S) == [("KILL", 1)]
    assert host.gone(1, "a") == [("SPAWN", 2)]
    assert host.ready(2) == [("SEND", 2, "a")]


def test_a_worker_that_reads_no_more_of_a_large_task_is_killed_as_if_it_had_not_taken_it() -> None:
    host = Host(1).busy("a", timeout=2.0)
    host.now += 1.5
    host.sent(1)  # another part, for which the worker made room
    assert host.next_time() == 0.5
    assert host.later(0.5) == [], "it read something half a second ago"
    assert host.next_time() == 1.5 + UNTAKEN_PATIENCE_S
    assert host.later(1.5 + UNTAKEN_PATIENCE_S) == [("KILL", 1)]
    assert host.gone(1, "a") == [("SPAWN", 2)]
    assert host.ready(2) == [("SEND", 2, "a")]


def test_a_worker_that_reads_a_large_task_slowly_is_left_alone() -> None:
    host = Host(1).busy("a", timeout=2.0)
    for _ in range(10):
        assert host.later(2.0 + UNTAKEN_PATIENCE_S / 2) == []
        host.sent(1)
    host.started["a"] = host.now
    assert host.later(2.0) == [("KILL", 1)], "it took it at last, and the timeout counts from then"


def test_the_answer_that_comes_after_the_timeout_wins() -> None:
    host = Host(1).busy("a", timeout=2.0)
    host.started["a"] = host.now
    assert host.later(2.0) == [("KILL", 1)]
    assert host.answer(1) == []
    assert host.gone(1) == []


def test_a_timeout_that_passed_while_the_answer_came_is_forgotten() -> None:
    host = Host(1).busy("a", timeout=2.0)
    host.answer(1)
    assert host.next_time() is None
    assert host.later(10.0) == []


def test_the_first_verdict_stays() -> None:
    host = Host(1).busy("a", timeout=2.0)
    host.started["a"] = host.now
    host.later(2.0)
    assert host.abort() == []
    assert host.gone(1) == [("END", 1, "a", "TIMED_OUT"), ("FINISHED",)]


def test_no_clock_runs_before_the_whole_frame_is_in_the_pipe() -> None:
    host = Host(1)
    host.submit("a", timeout=2.0)
    host.step()
    host.ready(1)
    assert host.next_time() is None
    host.now += 50.0
    host.sent(1)
    assert host.next_time() == 2.0


# --- sending ahead -------------------------------------------------------------------------------------


def test_tasks_of_unknown_length_are_never_sent_ahead() -> None:
    host = Host(1).busy("a")
    host.submit("b")
    assert host.step() == []


def test_short_tasks_are_sent_ahead_as_far_as_the_pipe_goes() -> None:
    host = Host(1).idle()
    host.submit(*["x"] * 40)
    assert host.step() == [("SEND", 1, "x")] * (1 + MAX_AHEAD)


@pytest.mark.parametrize("more", [{"timeout": 5.0}, {"payload": bytes(INLINE_BYTES + 1)}])
def test_a_task_with_a_timeout_or_a_large_payload_stands_alone_in_a_pipe(more: dict[str, object]) -> None:
    host = Host(1).idle()
    host.submit("x")
    host.submit("x", **more)  # type: ignore[arg-type]
    assert host.step() == [("SEND", 1, "x")]
    assert host.answer(1, SHORT_S) == [("SEND", 1, "x")]
    host.submit("x")
    assert host.step() == []


def test_short_tasks_spread_over_idle_workers_first() -> None:
    host = Host(2).busy("x", "y")
    host.answer(1, SHORT_S)
    host.answer(2, SHORT_S)
    host.submit("x", "x")
    assert {action[1] for action in host.step()} == {1, 2}


def test_a_first_task_that_takes_long_gives_back_what_lies_behind_it() -> None:
    host = Host(2).ahead(3)
    first, *behind = list(host.worker(1).tasks)
    assert host.next_time() == RECALL_AFTER_S
    assert host.later(RECALL_AFTER_S) == [("RECALL", 1)]
    host.machine.on_recalled(host.worker(1), [task.seq for task in behind], host.now, alive=True)
    assert host.step() == [("SPAWN", 2)]
    assert list(host.worker(1).tasks) == [first]
    assert host.next_time() is None
    assert host.ready(2) == [("SEND", 2, "x")], "not two: it is not short after all"


def test_a_worker_that_took_nothing_gets_its_first_task_back() -> None:
    host = Host(1).ahead(2)
    first, second = host.worker(1).tasks
    host.later(RECALL_AFTER_S)
    host.machine.on_recalled(host.worker(1), [first.seq, second.seq], host.now, alive=True)
    assert host.step() == [("SEND", 1, "x")]
    assert list(host.worker(1).tasks) == [first]


def test_a_death_is_charged_to_the_first_task_those_behind_it_run_elsewhere() -> None:
    host = Host(1).ahead(3)
    first, second, third = host.worker(1).tasks
    host.machine.on_recalled(host.worker(1), [second.seq, third.seq], host.now, alive=False)
    host.machine.on_gone(host.worker(1), host.now)
    ends = [task for verb, _, task in host.machine.actions if verb is Verb.END]
    assert ends == [first]
    assert host.step() == [("END", 1, "x", "CRASHED"), ("SPAWN", 2)]
    host.ready(2)
    assert host.worker(2).tasks[0] is second


def test_killing_the_first_takes_back_the_others_before_the_signal() -> None:
    host = Host(1).ahead(2)
    first, second = host.worker(1).tasks
    assert host.kill_task(first) == [("RECALL", 1)]
    host.machine.on_recalled(host.worker(1), [second.seq], host.now, alive=True)
    assert host.step() == [("KILL", 1)]
    assert host.gone(1) == [("END", 1, "x", "KILLED"), ("SPAWN", 2)]


def test_killing_one_that_lies_in_the_pipe_ends_that_one_alone() -> None:
    host = Host(1).ahead(3)
    first, second, third = host.worker(1).tasks
    assert host.kill_task(second) == [("RECALL", 1)]
    host.machine.on_recalled(host.worker(1), [second.seq, third.seq], host.now, alive=True)
    assert host.step() == [("END", 1, "x", "CANCELLED")]
    assert list(host.worker(1).tasks) == [first]
    assert host.answer(1, SHORT_S) == [("SEND", 1, "x")]
    assert list(host.worker(1).tasks) == [third]


def test_killing_one_that_was_taken_while_the_kill_was_on_its_way() -> None:
    # The worker answered the first (not yet read) and took the second: the signal must wait for that answer.
    host = Host(1).ahead(2)
    _, second = host.worker(1).tasks
    assert host.kill_task(second) == [("RECALL", 1)]
    assert host.recalled(1) == []
    assert host.answer(1, SHORT_S) == [("KILL", 1)]
    assert host.gone(1) == [("END", 1, "x", "KILLED")]


def test_a_worker_recycles_after_what_it_was_sent_ahead() -> None:
    host = Host(1, max_tasks_per_child=3).ahead(5)
    assert len(host.worker(1).tasks) == 2, "one is done, two may follow"
    host.answer(1, SHORT_S)
    assert host.answer(1, SHORT_S)[0] == ("STOP", 1)


def test_what_lay_ahead_keeps_the_limit_of_an_abort() -> None:
    # 1. Ctrl-C with two tasks in the pipe; 2. the first answers; 3. the second hangs: the grace period ends it.
    host = Host(1).ahead(2)
    host.abort()
    host.answer(1, SHORT_S)
    host.later(GRACE_S)
    assert host.gone(1) == [("END", 1, "x", "KILLED"), ("FINISHED",)]


def test_what_lay_ahead_keeps_the_limit_of_a_termination() -> None:
    host = Host(1).ahead(2)
    host.terminate()
    host.answer(1, SHORT_S)
    assert ("KILL", 1) in host.later(GRACE_S)


def test_a_killed_worker_that_gives_back_all_its_tasks_is_not_busy() -> None:
    host = Host(1).ahead(2)
    first, second = host.worker(1).tasks
    host.later(RECALL_AFTER_S)
    host.kill_all()
    host.machine.on_recalled(host.worker(1), [first.seq, second.seq], host.now, alive=True)
    assert host.step() == [("END", 1, "x", "CANCELLED")] * 2
    assert host.gone(1) == [("FINISHED",)]


def test_a_pool_that_is_never_out_of_idle_workers_remembers_nothing_of_them() -> None:
    host = Host(1).idle()
    sizes = set()
    for _ in range(50):
        host.submit("x")
        host.step()
        host.answer(1, SHORT_S)
        sizes.add(len(host.machine._ahead.hungry))
    assert max(sizes) <= 1


# --- start failures ------------------------------------------------------------------------------------


@pytest.mark.parametrize("fail", [fail_to_spawn, die_at_start])
def test_failed_starts_are_tried_again_with_growing_pauses_and_then_break_the_pool(
    fail: Callable[[Host], list[tuple[object, ...]]],
) -> None:
    host = Host(1)
    host.submit("a")
    host.step()
    pause = FIRST_BACKOFF_S
    for _ in range(START_FAILURES_IN_A_ROW - 1):
        assert fail(host) == []
        assert host.next_time() == round(min(pause, MAX_BACKOFF_S), 6)
        [(verb, _)] = host.later(pause)
        assert verb == "SPAWN"
        pause *= 2
    assert fail(host) == [("END", None, "a", "POOL_BROKEN")]
    assert host.machine.broken
    host.submit("b")
    assert host.step() == [("END", None, "b", "POOL_BROKEN")]
    assert host.close() == [("FINISHED",)]


def test_a_row_of_failures_at_one_moment_is_one_failed_attempt() -> None:
    # One moment without memory, or one fork server that was killed, fails all starts that were in progress.
    host = Host(20)
    host.submit(*[f"t{number}" for number in range(20)])
    assert len(host.step()) == 20
    for worker in list(host.machine.workers.values()):
        host.machine.on_spawn_failed(worker, host.now)
    assert host.step() == []
    assert not host.machine.broken
    assert host.next_time() == FIRST_BACKOFF_S
    assert len(host.later(FIRST_BACKOFF_S)) == 1, "one attempt, before a whole row fails again"
    assert host.step() == []


def test_nobody_wakes_for_a_start_that_is_in_progress() -> None:
    # Else the host would spin from the end of the pause until the worker is ready.
    host = Host(4)
    host.submit("a")
    host.step()
    fail_to_spawn(host)
    host.later(FIRST_BACKOFF_S)
    assert host.next_time() is None
    host.submit("b")
    assert host.step() == []
    assert host.next_time() is None


def test_a_worker_that_starts_makes_good_for_those_that_did_not() -> None:
    host = Host(2)
    host.submit("a", "b", "c")
    host.step()
    for _ in range(START_FAILURES_IN_A_ROW - 1):
        fail_to_spawn(host)
        host.later(MAX_BACKOFF_S)
    host.ready(min(host.machine.workers))
    assert not host.machine.broken
    for _ in range(START_FAILURES_IN_A_ROW + 2):
        newest = max(host.machine.workers)
        if host.worker(newest).tasks:
            host.later(MAX_BACKOFF_S)
        else:
            fail_to_spawn(host)
    assert not host.machine.broken, "a pool whose workers work is not broken"


def test_starts_may_fail_for_hours_while_a_worker_works() -> None:
    # The pause was computed as 2 to the number of failures: the 1025th of them ended the supervisor with an OverflowError.
    host = Host(2).busy("a")
    host.submit("b")
    host.step()
    for _ in range(1100):
        assert fail_to_spawn(host) == []
        host.later(MAX_BACKOFF_S)
    assert host.ready(max(host.machine.workers)) == [("SEND", max(host.machine.workers), "b")]


def test_the_end_of_a_worker_makes_room_for_another_at_once() -> None:
    host = Host(3).busy("a")
    host.submit("b", "c")
    assert host.step() == [("SPAWN", 2), ("SPAWN", 3)]
    fail_to_spawn(host)
    while fail_to_spawn(host) == [] and host.next_time() != MAX_BACKOFF_S:
        host.later(MAX_BACKOFF_S)
    assert host.gone(1) == [("END", 1, "a", "CRASHED"), ("SPAWN", max(host.machine.workers))], "of two, try with one"
    for _ in range(START_FAILURES_IN_A_ROW - 2):
        assert fail_to_spawn(host) == []
        host.later(MAX_BACKOFF_S)
    assert fail_to_spawn(host) == [("END", None, "b", "POOL_BROKEN"), ("END", None, "c", "POOL_BROKEN")]


# --- workers that are ready, and then end before they have taken a task


def start_in_vain(host: Host) -> list[tuple[object, ...]]:
    """The newest worker is ready, is sent what waits, and ends before it has taken it."""
    generation = max(host.machine.workers)
    host.ready(generation)
    return host.gone(generation, *[task.name for task in host.worker(generation).tasks])


def test_workers_that_always_end_before_their_first_task_break_the_pool() -> None:
    # Each start made good for the one before: they were forked without a pause, and the call waited without end.
    host = Host(1)
    host.submit("a")
    host.step()
    assert start_in_vain(host) == [("SPAWN", 2)], "somebody may have killed it"
    pause = 2 * FIRST_BACKOFF_S
    for _ in range(START_FAILURES_IN_A_ROW - 2):
        assert start_in_vain(host) == []
        assert host.next_time() == round(pause, 6)
        assert len(host.later(pause)) == 1
        pause *= 2
    assert start_in_vain(host) == [("END", None, "a", "POOL_BROKEN")]
    assert host.put_back == ["a"] * START_FAILURES_IN_A_ROW


def test_a_row_of_ends_before_the_first_task_is_one_failure() -> None:
    host = Host(8)
    host.submit(*"abcdefgh")
    host.step()
    host.ready(*range(1, 9))
    for generation in range(1, 9):
        worker = host.worker(generation)
        host.machine.on_recalled(worker, [task.seq for task in worker.tasks], host.now, alive=False)
        host.machine.on_gone(worker, host.now)
    assert len(host.step()) == 8
    assert not host.machine.broken


def test_fresh_workers_may_be_killed_again_and_again_while_tasks_are_answered() -> None:
    host = Host(1)
    for number in range(10 * START_FAILURES_IN_A_ROW):
        host.submit(f"t{number}")
        host.step()
        for _ in range(2):
            start_in_vain(host)
            host.later(MAX_BACKOFF_S)
        newest = max(host.machine.workers)
        assert host.ready(newest) == [("SEND", newest, f"t{number}")]
        host.answer(newest)
        host.machine.on_recycle(Expiry.RESTART, host.now)  # the next one is fresh again
        host.step()
        host.gone(newest)
    assert not host.machine.broken


def test_a_fresh_worker_that_nobody_waits_for_may_be_killed_as_often_as_anybody_likes() -> None:
    host = Host(1)
    for number in range(10 * START_FAILURES_IN_A_ROW):
        host.submit(f"t{number}")
        [(verb, generation)] = host.step()
        assert verb == "SPAWN"
        assert isinstance(generation, int)
        host.cancel(f"t{number}")
        assert host.ready(generation) == []
        assert host.gone(generation) == []
    assert not host.machine.broken


def test_what_ends_before_its_first_task_does_not_break_a_pool_in_which_another_works() -> None:
    host = Host(2).busy("a")
    host.submit("b")
    host.step()
    for _ in range(10 * START_FAILURES_IN_A_ROW):
        start_in_vain(host)
        assert host.later(MAX_BACKOFF_S) in ([], [("SPAWN", max(host.machine.workers))])
    assert not host.machine.broken
    assert host.next_time() is None, "an attempt is made"
    assert start_in_vain(host) == []
    assert host.next_time() == MAX_BACKOFF_S


def test_a_worker_whose_task_was_stolen_was_none_in_vain() -> None:
    # A thread of its initializer reads our pipe: what is lost ends by rules of its own.
    host = Host(1)
    for number in range(START_FAILURES_IN_A_ROW):
        host.submit(f"t{number}")
        host.step()
        for _ in range(2):
            generation = max(host.machine.workers)
            host.ready(generation)
            worker = host.worker(generation)
            host.machine.on_lost(worker, [task.seq for task in worker.tasks], host.now, alive=False)
            host.machine.on_gone(worker, host.now)
            host.step()
        assert host.tasks[f"t{number}"].verdict is Verdict.CRASHED
    assert not host.machine.broken


def test_a_start_failure_that_breaks_the_pool_kills_nobody_who_is_dead() -> None:
    host = Host(1)
    host.submit("a")
    host.step()
    for _ in range(START_FAILURES_IN_A_ROW - 1):
        die_at_start(host)
        host.later(MAX_BACKOFF_S)
    assert die_at_start(host) == [("END", None, "a", "POOL_BROKEN")]


# --- a broken pool -------------------------------------------------------------------------------------


def test_break_ends_the_queue_and_kills_who_is_starting_running_ones_finish() -> None:
    host = Host(2).busy("a")
    host.submit("b")
    assert host.step() == [("SPAWN", 2)]
    host.machine.on_break()
    assert host.step() == [("END", None, "b", "POOL_BROKEN"), ("KILL", 2)]
    assert host.gone(2) == []
    assert host.answer(1) == [("STOP", 1)]
    assert host.gone(1) == []
    assert host.close() == [("FINISHED",)]


def test_what_comes_back_into_a_broken_pool_ends_too() -> None:
    host = Host(2).busy("a")
    host.machine.on_break()
    assert host.gone(1, "a") == [("END", 1, "a", "POOL_BROKEN")]


# --- close ---------------------------------------------------------------------------------------------


def test_close_of_a_pool_without_workers_is_finished_at_once_and_once() -> None:
    host = Host(1)
    assert host.close() == [("FINISHED",)]
    assert host.close() == []


def test_close_finishes_what_was_accepted() -> None:
    host = Host(1).busy("a")
    host.submit("b")
    assert host.close() == []
    assert host.answer(1) == [("SEND", 1, "b")]
    assert host.answer(1) == [("STOP", 1)]
    assert host.gone(1) == [("FINISHED",)]


def test_close_with_cancel_ends_the_queue_and_waits_for_what_runs() -> None:
    host = Host(1).busy("a")
    host.submit("b")
    assert host.close(cancel_queued=True) == [("END", None, "b", "CANCELLED")]
    assert host.answer(1) == [("STOP", 1)]
    assert host.gone(1) == [("FINISHED",)]


def test_close_with_cancel_takes_back_what_was_sent_ahead_and_ends_it() -> None:
    """What came back was queued, and run."""
    host = Host().ahead(4)
    first, second, third, fourth = [task.seq for task in host.worker(1).tasks]
    assert host.close(cancel_queued=True) == [("RECALL", 1)]
    host.machine.on_recalled(host.worker(1), [third, fourth], host.now, alive=True)  # the second one was quicker
    assert host.step() == [("END", 1, "x", "CANCELLED")] * 2
    assert [task.seq for task in host.worker(1).tasks] == [first, second]
    assert host.put_back == []
    assert host.answer(1) == []
    assert host.answer(1) == [("STOP", 1)]
    assert host.gone(1) == [("FINISHED",)]


def test_close_with_cancel_ends_what_the_worker_had_not_even_taken() -> None:
    host = Host().ahead(2)
    host.close(cancel_queued=True)
    host.machine.on_recalled(host.worker(1), [task.seq for task in host.worker(1).tasks], host.now, alive=True)
    assert host.step() == [("END", 1, "x", "CANCELLED")] * 2 + [("STOP", 1)]


def test_close_with_cancel_when_the_worker_dies_before_its_tasks_are_taken_back() -> None:
    host = Host().ahead(2)
    behind = host.worker(1).tasks[1].seq
    host.machine.on_close(cancel_queued=True)
    host.machine.on_recalled(host.worker(1), [behind], host.now, alive=False)
    host.machine.on_gone(host.worker(1), host.now)
    ended = [("END", 1, "x", "CANCELLED"), ("END", 1, "x", "CRASHED")]
    assert host.step() == [("RECALL", 1), *ended, ("FINISHED",)]


def test_a_task_that_comes_in_after_close_with_cancel_is_cancelled() -> None:
    host = Host(1).busy("a")
    host.close(cancel_queued=True)
    host.submit("b")
    assert host.step() == [("END", None, "b", "CANCELLED")]


def test_close_while_a_worker_starts() -> None:
    host = Host(1)
    host.submit("a")
    host.step()
    assert host.close() == []
    assert host.ready(1) == [("SEND", 1, "a")]


def test_close_while_a_worker_starts_for_nobody() -> None:
    host = Host(1)
    host.submit("a")
    host.step()
    assert host.close(cancel_queued=True) == [("END", None, "a", "CANCELLED"), ("STOP", 1)]
    assert host.ready(1) == []
    assert host.gone(1) == [("FINISHED",)]


def test_a_worker_that_should_leave_before_it_was_ready_is_killed_after_the_grace_period() -> None:
    host = Host(1)
    host.submit("a")
    host.step()
    host.close(cancel_queued=True)
    assert host.later(GRACE_S) == [("KILL", 1)]
    assert host.gone(1) == [("FINISHED",)]


def test_a_crash_while_the_pool_closes_refills_the_slot_for_the_rest() -> None:
    host = Host(1).busy("a")
    host.submit("b")
    host.close()
    assert host.gone(1) == [("END", 1, "a", "CRASHED"), ("SPAWN", 2)]


def test_a_task_that_came_in_too_late_is_finished_too() -> None:
    host = Host(1)
    assert host.close() == [("FINISHED",)]
    host.machine.reopen()
    host.submit("a")
    assert host.step() == [("SPAWN", 1)]
    host.ready(1)
    assert host.answer(1) == [("STOP", 1)]
    assert host.gone(1) == [("FINISHED",)]


# --- abort, kill_workers, terminate_workers ------------------------------------------------------------


def test_abort_gives_running_tasks_the_grace_period() -> None:
    host = Host(1).busy("a")
    host.submit("b")
    assert host.abort() == [("END", None, "b", "CANCELLED")]
    assert host.next_time() == GRACE_S
    assert host.later(GRACE_S) == [("KILL", 1)]
    assert host.gone(1) == [("END", 1, "a", "KILLED"), ("FINISHED",)]


def test_a_second_abort_kills_at_once() -> None:
    host = Host(1).busy("a")
    host.abort()
    assert host.abort() == [("KILL", 1)]
    assert host.gone(1) == [("END", 1, "a", "KILLED"), ("FINISHED",)]


def test_an_answer_within_the_grace_period_is_kept() -> None:
    host = Host(1).busy("a")
    host.abort()
    assert host.answer(1) == [("STOP", 1)]
    assert host.gone(1) == [("FINISHED",)]


def test_a_timeout_within_the_grace_period_counts() -> None:
    host = Host(1).busy("a", timeout=1.0)
    host.started["a"] = host.now
    host.abort()
    assert host.later(1.0) == [("KILL", 1)]
    assert host.gone(1) == [("END", 1, "a", "TIMED_OUT"), ("FINISHED",)]


def test_a_frame_that_was_written_during_the_grace_period_does_not_lengthen_it() -> None:
    host = Host(1)
    host.submit("a", timeout=1000.0)
    host.step()
    host.ready(1)
    host.abort()
    host.now += 1.0
    host.sent(1)
    assert host.next_time() == GRACE_S - 1.0
    host.later(GRACE_S - 1.0)
    assert host.gone(1) == [("END", 1, "a", "KILLED"), ("FINISHED",)]


def test_a_late_start_does_not_lengthen_the_grace_period() -> None:
    host = Host(1).busy("a", timeout=4.0)
    host.now += 3.0
    host.abort()
    host.started["a"] = host.now
    host.later(1.0)
    assert host.next_time() == 3.0, "at the timeout, 4 s after the start, or at the end of the grace period: both are then"
    host = Host(1).busy("a", timeout=100.0)
    host.now += 99.0
    host.abort()
    host.started["a"] = host.now
    host.later(1.0)
    assert host.next_time() == GRACE_S - 1.0


@pytest.mark.parametrize("stop", ["abort", "kill_all", "terminate"])
def test_what_comes_in_after_everything_was_stopped_does_not_run(stop: str) -> None:
    host = Host(1).busy("a")
    getattr(host, stop)()
    host.submit("b")
    assert host.step() == [("END", None, "b", "CANCELLED")]


@pytest.mark.parametrize("stop", ["abort", "kill_all", "terminate"])
def test_what_was_never_taken_when_everything_was_stopped_does_not_run(stop: str) -> None:
    host = Host(1).busy("a")
    getattr(host, stop)()
    assert host.gone(1, "a") == [("END", 1, "a", "CANCELLED"), ("FINISHED",)]


def test_kill_all_kills_workers_in_every_state() -> None:
    host = Host(4, max_tasks_per_child=2).busy("a", "b", "c")
    host.answer(2)
    host.submit("d")
    host.step()
    host.answer(2)  # recycled: leaving
    host.answer(3)  # idle
    host.submit("e", "f")
    host.step()
    assert {verb for verb, *_ in host.acted()} <= {"SPAWN"}
    actions = host.kill_all()
    assert {action for action in actions if action[0] == "KILL"} == {("KILL", generation) for generation in (1, 2, 3, 4, 5)}
    ends = [host.gone(generation) for generation in (2, 3, 4, 5, 1)]
    assert ("FINISHED",) in ends[-1]


def test_terminate_gives_the_grace_period_then_kills() -> None:
    host = Host(1).busy("a")
    assert host.terminate() == []
    assert host.later(GRACE_S) == [("KILL", 1)]
    assert host.gone(1) == [("END", 1, "a", "POOL_KILLED"), ("FINISHED",)]


def test_a_worker_that_ends_by_the_signal_of_terminate_was_stopped_not_crashed() -> None:
    host = Host(1).busy("a")
    host.terminate()
    assert host.gone(1) == [("END", 1, "a", "POOL_KILLED"), ("FINISHED",)]


def test_terminate_does_not_wait_for_a_timeout_that_ends_later() -> None:
    host = Host(1)
    host.submit("a", timeout=1000.0)
    host.step()
    host.ready(1)
    host.terminate()
    host.sent(1)
    assert host.next_time() == GRACE_S


def test_a_worker_that_answers_after_terminate_is_asked_to_leave() -> None:
    host = Host(1).busy("a")
    host.terminate()
    assert host.answer(1) == [("STOP", 1)]
    assert host.gone(1) == [("FINISHED",)]


def test_close_abort_terminate_and_kill_all_in_any_order_finish_once() -> None:
    host = Host(2).busy("a", "b")
    host.close()
    host.abort()
    host.terminate()
    assert sorted(host.kill_all()) == [("KILL", 1), ("KILL", 2)]
    assert host.kill_all() == []
    assert host.abort() == []
    host.gone(1)
    assert host.gone(2)[-1] == ("FINISHED",)
    assert host.close() == []


# --- what is no answer -----------------------------------------------------------------------------------


def malformed(host: Host) -> list[tuple[object, ...]]:
    """What is done about it; the heir that a worker with more tasks gets is left out."""
    host.machine.on_malformed(host.worker(1))
    return [action for action in host.step() if action[0] != "SPAWN"]


def test_a_task_that_wrote_what_is_no_answer_is_killed() -> None:
    host = Host(1).busy("a")
    assert malformed(host) == [("KILL", 1)]
    assert malformed(host) == []
    assert host.gone(1) == [("END", 1, "a", "CRASHED")]


def test_what_lies_behind_it_runs_elsewhere() -> None:
    host = Host(1).idle()
    host.submit("x")
    host.step()
    host.submit("x1")
    host.machine._ahead.durations.learn("x1", SHORT_S)
    assert host.step() == [("SEND", 1, "x1")]
    assert malformed(host) == [("RECALL", 1)]
    assert host.recalled(1, "x1") == [("KILL", 1)]
    assert host.gone(1)[0] == ("END", 1, "x", "CRASHED")
    assert host.put_back == ["x1"]


def taken_behind_it() -> Host:
    """Worker 1 has a task that wrote what is no answer, and two that it took behind it."""
    host = Host(1).idle()
    for name in ("bad", "good", "better"):
        host.machine._ahead.durations.learn(name, SHORT_S)
    host.submit("bad", "good", "better")
    assert host.step() == [("SEND", 1, "bad"), ("SEND", 1, "good"), ("SEND", 1, "better")]
    assert malformed(host) == [("RECALL", 1)]
    return host


def test_what_was_taken_behind_it_is_answered_before_the_worker_is_killed() -> None:
    host = taken_behind_it()
    assert host.recalled(1) == []
    assert host.answer(1) == []
    assert malformed(host) == [("RECALL", 1)], "whoever goes on writing is the first again"
    host = taken_behind_it()
    host.recalled(1)
    host.submit("good")
    assert host.answer(1) == [], "nothing is sent to it any more"
    assert host.answer(1) == [("KILL", 1)]
    assert host.gone(1)[0] == ("END", 1, "bad", "CRASHED")


def test_their_answers_may_be_read_before_anything_is_taken_back() -> None:
    host = taken_behind_it()
    host.answer(1)
    assert host.answer(1) == [("KILL", 1)]
    assert host.recalled(1) == []
    assert host.gone(1) == [("END", 1, "bad", "CRASHED")]


def test_what_was_taken_behind_it_can_still_be_killed_and_has_its_own_end() -> None:
    host = taken_behind_it()
    host.recalled(1, "better")
    assert host.kill("good") == [("RECALL", 1)]
    assert host.recalled(1) == [("KILL", 1)]
    assert [one for one in host.gone(1) if one[0] == "END"] == [("END", 1, "good", "KILLED"), ("END", 1, "bad", "CRASHED")]
