"""What `options()` asks of the machine. Runs in: pytest."""

from tests.support.machine_host import GRACE_S, Host

CRASH_ONLY = frozenset(("forkpool.errors.WorkerCrashedError",))
REFUSED = ("builtins.ConnectionRefusedError", "builtins.ConnectionError", "builtins.OSError", "builtins.Exception")


def test_higher_priorities_are_given_to_workers_first() -> None:
    host = Host().busy("runs")
    host.submit("low", priority=-1)
    host.submit("a", "b")
    host.submit("high", priority=7)
    host.step()
    order = []
    for _ in range(4):
        ((verb, _, name),) = host.answer(1)
        assert verb == "SEND"
        order.append(name)
    assert order == ["high", "a", "b", "low"]


def test_what_is_taken_back_is_first_of_its_priority_and_no_more() -> None:
    host = Host().ahead(3)
    host.submit("high", priority=1)
    host.submit("x", "y")
    host.later(0.006)
    host.machine.on_recalled(host.worker(1), [task.seq for task in list(host.worker(1).tasks)[1:]], host.now, alive=True)
    assert [task.name for task in host.machine.queue] == ["high", "x", "x", "x", "y"]
    assert host.put_back == ["x", "x"]


def test_a_higher_priority_is_not_sent_ahead_behind_a_task_that_may_last() -> None:
    host = Host().idle()
    host.submit("x")
    host.submit("x")
    host.submit("unknown", priority=1)
    assert host.step() == [("SEND", 1, "unknown")]


def test_a_crash_is_tried_again_on_the_next_worker_as_often_as_asked_for() -> None:
    host = Host(2).busy("poison", retries=2)
    assert host.gone(1) == [("SPAWN", 2)]
    assert host.repeated == [("poison", 1)]
    assert host.tasks["poison"].attempt == 2
    assert host.ready(2) == [("SEND", 2, "poison")]
    assert host.gone(2) == [("SPAWN", 3)]
    assert host.ready(3) == [("SEND", 3, "poison")]
    assert host.gone(3) == [("END", 3, "poison", "CRASHED")]


def test_without_retries_a_crash_is_the_end() -> None:
    assert Host().busy("a").gone(1) == [("END", 1, "a", "CRASHED")]


def test_an_error_is_tried_again_if_it_is_of_a_named_class() -> None:
    host = Host().busy("a", retries=1, retry_on=frozenset(("builtins.ConnectionError",)))
    assert host.fail(1, *REFUSED) == [("SEND", 1, "a")]
    assert host.fail(1, *REFUSED) == [("FAILED", "a")], "that was the last attempt"
    host = Host().busy("a", retries=1, retry_on=frozenset(("builtins.KeyError",)))
    assert host.fail(1, *REFUSED) == [("FAILED", "a")]
    host = Host().busy("a", retries=1, retry_on=CRASH_ONLY)
    assert host.fail(1, *REFUSED) == [("FAILED", "a")]


def test_the_next_attempt_prefers_another_idle_worker() -> None:
    host = Host(2).busy("a", "b", retries=5, retry_on=frozenset(("builtins.Exception",)))
    host.answer(1)
    assert host.fail(2, *REFUSED) == [("SEND", 1, "a")]
    assert host.fail(1, *REFUSED) == [("SEND", 2, "a")]


def test_the_next_attempt_is_first_of_its_priority() -> None:
    host = Host().busy("a", retries=1)
    host.submit("b")
    host.submit("high", priority=1)
    host.gone(1)
    assert [task.name for task in host.machine.queue] == ["high", "a", "b"]


def test_a_timeout_is_tried_again_only_if_named() -> None:
    late = {"timeout": 1.0, "retries": 1}
    host = Host().busy("a", **late, retry_on=frozenset(("builtins.TimeoutError",)))
    host.started["a"] = host.now
    host.later(1.0)
    assert host.gone(1) == [("SPAWN", 2)]
    assert host.ready(2) == [("SEND", 2, "a")]
    host.started["a"] = host.now
    host.sent(2)
    assert host.next_time() == 1.0, "the whole timeout again"
    host.later(1.0)
    assert host.gone(2) == [("END", 2, "a", "TIMED_OUT")]
    host = Host().busy("a", **late, retry_on=CRASH_ONLY)
    host.started["a"] = host.now
    host.later(1.0)
    assert host.gone(1) == [("END", 1, "a", "TIMED_OUT")]


def test_what_was_killed_is_not_tried_again() -> None:
    host = Host().busy("a", retries=9)
    assert host.kill("a") == [("KILL", 1)]
    assert host.gone(1) == [("END", 1, "a", "KILLED")]


def test_a_kill_that_the_machine_has_not_heard_of_when_the_worker_crashes() -> None:
    host = Host().busy("a", retries=9)
    host.killed.add("a")
    assert host.gone(1) == [("END", 1, "a", "CRASHED")]
    assert host.kill("a") == []


def test_a_kill_between_two_attempts() -> None:
    host = Host().busy("a", retries=9)
    host.gone(1)
    assert host.kill("a") == [("END", None, "a", "KILLED")]


def test_a_pool_that_closes_still_tries_again_unless_the_queue_was_cancelled() -> None:
    host = Host().busy("a", retries=9)
    host.close()
    assert host.gone(1) == [("SPAWN", 2)]
    host.ready(2)
    host.close(cancel_queued=True)
    assert host.gone(2) == [("END", 2, "a", "CRASHED"), ("FINISHED",)]


def test_nothing_is_tried_again_in_a_pool_that_is_stopped_or_broken() -> None:
    host = Host().busy("a", retries=9)
    host.abort()
    host.later(GRACE_S)
    assert host.gone(1) == [("END", 1, "a", "KILLED"), ("FINISHED",)]
    host = Host().busy("a", retries=9)
    host.kill_all()
    assert host.gone(1)[0] == ("END", 1, "a", "POOL_KILLED")
    host = Host().busy("a", retries=9)
    host.terminate()
    assert host.gone(1)[0] == ("END", 1, "a", "POOL_KILLED")
    host = Host().busy("a", retries=9)
    host.machine.on_break()
    assert host.gone(1)[0] == ("END", 1, "a", "CRASHED")


def test_a_break_between_two_attempts() -> None:
    host = Host().busy("a", retries=9)
    host.gone(1)
    host.machine.on_break()
    assert ("END", None, "a", "POOL_BROKEN") in host.step()
