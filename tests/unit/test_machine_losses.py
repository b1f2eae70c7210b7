"""The pool's decisions about tasks that somebody in a worker has read out of its pipe.

Runs in: pytest. `Host.ahead` has sent the tasks 2, 3 ... to worker 1.
"""

from forkpool._core.ahead import RECALL_AFTER_S
from forkpool._core.states import Verdict
from tests.support.machine_host import GRACE_S, SHORT_S, Host


def test_what_was_lost_runs_elsewhere_and_the_worker_is_replaced_when_it_has_nothing_to_do() -> None:
    host = Host(2).ahead(3)
    assert host.lost(1, 3) == [("SPAWN", 2), ("SPAWN", 3)], "another worker, and an heir"
    assert host.ready(2) == [("SEND", 2, "x")]
    assert host.answer(1, SHORT_S) == []
    assert host.answer(1, SHORT_S) == [("STOP", 1)]
    assert host.machine.replaced == {"lost_task": 1}


def test_a_worker_that_lost_all_that_it_had_gets_nothing_more() -> None:
    host = Host(1).ahead(2)
    assert host.lost(1, 2, 3) == [("STOP", 1), ("SPAWN", 2)]
    assert host.ready(2) == [("SEND", 2, "x"), ("SEND", 2, "x")]


def test_a_worker_that_may_have_lost_something_and_has_not() -> None:
    host = Host(1).busy("a")
    host.machine.on_unreliable(host.worker(1))
    host.submit("b")
    assert host.step() == [("SPAWN", 2)]
    assert host.answer(1) == [("STOP", 1)]
    assert host.ready(2) == [("SEND", 2, "b")]
    assert host.put_back == []


def test_a_worker_that_left_because_it_got_nothing() -> None:
    host = Host(1).busy("a")
    host.machine.on_unreliable(host.worker(1))
    host.step()
    assert host.ready(2) == []
    host.machine.on_lost(host.worker(1), [1], host.now, alive=False)
    host.machine.on_gone(host.worker(1), host.now)
    assert host.step() == [("SEND", 2, "a")]
    assert host.machine.replaced == {"lost_task": 1}


def test_what_is_lost_twice_ends_as_if_the_worker_had_crashed() -> None:
    host = Host(1).busy("a")
    host.lost(1, 1)
    assert host.ready(2) == [("SEND", 2, "a")]
    assert host.lost(2, 2) == [("KILL", 2), ("SPAWN", 3)]
    host.machine.on_lost(host.worker(2), [2], host.now, alive=False)
    host.machine.on_gone(host.worker(2), host.now)
    assert host.step() == [("END", 2, "a", "CRASHED")]
    assert not host.machine._lost_before


def test_it_does_not_wait_for_a_neighbour_to_end_so() -> None:
    host = Host(1).ahead(2)
    host.lost(1, 3)
    host.answer(1, SHORT_S)
    host.submit("x")
    assert host.ready(2) == [("SEND", 2, "x"), ("SEND", 2, "x")]
    assert host.lost(2, 4) == [("SPAWN", 3)], "the other one runs"


def test_what_is_lost_and_then_answered_is_not_remembered() -> None:
    host = Host(1).busy("a")
    host.lost(1, 1)
    host.ready(2)
    host.answer(2)
    assert not host.machine._lost_before


def test_a_kill_need_not_wait_for_the_answer_of_a_thief() -> None:
    # 1. the first task reads the second out of the pipe, and goes on; 2. its user kills it: nothing comes back from the pipe.
    host = Host(1).ahead(2)
    thief = host.worker(1).tasks[0]
    assert host.kill_task(thief) == [("RECALL", 1)]
    assert host.recalled(1) == []
    assert host.lost(1, 3) == [("KILL", 1), ("SPAWN", 2)]
    assert thief.verdict is Verdict.KILLED


def test_a_lost_task_that_its_user_killed_ends() -> None:
    host = Host(1).ahead(2)
    second = host.worker(1).tasks[1]
    assert host.kill_task(second) == [("RECALL", 1)]
    assert host.recalled(1) == []
    assert host.lost(1, 3)[0] == ("END", 1, "x", "CANCELLED")


def test_nobody_looks_for_tasks_again_that_are_not_in_the_pipe() -> None:
    """The supervisor went round and round."""
    host = Host(1).ahead(3)
    assert host.later(RECALL_AFTER_S) == [("RECALL", 1)]
    assert host.recalled(1) == []
    assert host.next_time() is None


def test_what_is_lost_while_everything_is_stopped_ends() -> None:
    host = Host(1).ahead(2)
    host.abort()
    assert host.lost(1, 3) == [("END", 1, "x", "CANCELLED")]
    assert host.next_time() == GRACE_S


def test_a_task_that_waits_behind_one_that_takes_long_is_not_sent_ahead() -> None:
    """It would be taken back at once."""
    host = Host(1).ahead(1)
    host.now += RECALL_AFTER_S
    host.submit("x")
    assert host.step() == []
