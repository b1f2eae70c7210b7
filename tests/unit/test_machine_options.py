"""What `options()` asks of the machine. Runs in: pytest."""

from tests.support.machine_host import Host


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
