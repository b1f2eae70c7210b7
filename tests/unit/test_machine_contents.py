"""Which calls are sent with the large contents that they need, and what happens if the worker lacks one all the same."""

from dataclasses import dataclass

from forkpool._core import states
from forkpool._core.states import Worker
from tests.support.machine_host import SHORT_S, Host


@dataclass(frozen=True)
class Content:
    digest: bytes


class Payload(bytes):
    """Needs these contents: by global."""

    def __init__(self, **digests: bytes) -> None:
        self.contents = {key: Content(digest) for key, digest in digests.items()}

    def __new__(cls, **_: bytes) -> "Payload":
        return super().__new__(cls)


A, B = Payload(table=b"A"), Payload(table=b"B")


def host_with(workers: int = 1) -> Host:
    """All workers are idle, and short tasks are known to be short."""
    host = Host(workers).busy(*(f"first{number}" for number in range(workers)))
    for generation in range(1, workers + 1):
        host.answer(generation, SHORT_S)
    for name in ("a", "b", "c", "d"):
        host.machine._ahead.durations.learn(name, SHORT_S)
    return host


def test_each_worker_gets_it_once() -> None:
    host = host_with(2)
    host.submit("a", "b", payload=A)
    assert {action[0] for action in host.step()} == {"SEND_WHOLE"}
    host.answer(1)
    host.answer(2)
    host.submit("c", "d", payload=A)
    assert {action[0] for action in host.step()} == {"SEND"}


def test_nothing_is_sent_behind_a_whole_one_and_short_ones_are_sent_ahead_after_it() -> None:
    host = host_with()
    host.submit("a", "b", "c", payload=A)
    assert host.step() == [("SEND_WHOLE", 1, "a")]
    assert host.answer(1, SHORT_S) == [("SEND", 1, "b"), ("SEND", 1, "c")]


def test_one_that_would_have_to_be_whole_is_not_sent_ahead() -> None:
    host = host_with()
    host.submit("a", payload=A)
    host.step()
    host.answer(1, SHORT_S)
    host.submit("b", payload=A)
    host.submit("c", payload=B)
    assert host.step() == [("SEND", 1, "b")]
    assert host.answer(1, SHORT_S) == [("SEND_WHOLE", 1, "c")]


def test_a_changed_one_is_sent_again_and_so_is_the_first_when_it_comes_back() -> None:
    host = host_with()
    for payload in (A, B, A):
        host.submit("a", payload=payload)
        assert host.step() == [("SEND_WHOLE", 1, "a")]
        host.answer(1)


def test_another_global_changes_nothing() -> None:
    host = host_with()
    for payload, verb in ((A, "SEND_WHOLE"), (Payload(other=b"O"), "SEND_WHOLE"), (A, "SEND")):
        host.submit("a", payload=payload)
        assert host.step() == [(verb, 1, "a")]
        host.answer(1)


def test_a_worker_that_lacks_it_all_the_same_is_sent_the_whole_call() -> None:
    host = host_with()
    host.submit("a", payload=A)
    host.step()
    host.answer(1, SHORT_S)
    host.submit("a", "b", payload=A)
    assert host.step() == [("SEND", 1, "a"), ("SEND", 1, "b")]
    assert host.lacking(1) == []
    assert host.put_back == ["a"]
    assert host.lacking(1) == [("SEND_WHOLE", 1, "b")]
    assert host.answer(1, SHORT_S) == [("SEND", 1, "a")]


def test_one_that_was_killed_meanwhile_ends() -> None:
    host = host_with()
    host.submit("a", payload=A)
    host.step()
    host.answer(1)
    host.submit("a", payload=A)
    host.step()
    host.machine.on_kill(host.tasks["a"])
    assert host.acted() == [("KILL", 1)]
    assert host.lacking(1) == [("END", 1, "a", "CANCELLED")]


def test_what_is_noted_of_a_worker_has_an_end() -> None:
    worker = Worker(1, 0)
    for number in range(states.MOST_NOTED + 100):
        payload = Payload(**{f"table{number}": b"A"})
        worker.note_contents(payload)
        assert not worker.lacks(payload)
    assert len(worker.has) <= states.MOST_NOTED + 1
