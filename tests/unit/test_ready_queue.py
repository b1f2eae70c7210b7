"""The queue of waiting tasks: order, and leaving from anywhere. Runs in: pytest."""

from hypothesis import given
from hypothesis import strategies as st

from forkpool._core.ready_queue import ReadyQueue
from forkpool._core.states import Task, Verdict


def task(name: str, payload: bytes = b"") -> Task:
    return Task(None, payload, name)


@given(st.lists(st.tuples(st.sampled_from(["append", "appendleft", "popleft", "remove"]), st.integers(0, 100))))
def test_it_is_a_list_from_which_anything_may_go(steps: list[tuple[str, int]]) -> None:
    queue = ReadyQueue()
    model: list[Task] = []
    for number, (what, which) in enumerate(steps):
        one = task(str(number))
        if what == "append":
            queue.append(one)
            model.append(one)
        elif what == "appendleft":
            queue.appendleft(one)
            model.insert(0, one)
        elif what == "popleft" and model:
            assert queue.popleft() is model.pop(0)
        elif what == "remove" and model:
            queue.remove(model.pop(which % len(model)), Verdict.CANCELLED)
        queue.check_invariants()
        assert list(queue) == model
        assert len(queue) == len(model)
        assert not model or queue.first is model[0]


def test_what_leaves_gives_its_payload_back() -> None:
    queue, one = ReadyQueue(), task("one", bytes(1000))
    queue.append(task("before"))
    queue.append(one)
    queue.remove(one, Verdict.KILLED)
    assert one.payload == b""
    assert one.verdict is Verdict.KILLED


def test_removing_many_is_linear() -> None:
    """Searching the queue for each of them would take hours; the alarm would ring."""
    queue, many = ReadyQueue(), [task(str(number)) for number in range(200_000)]
    for one in many:
        queue.append(one)
    for one in many[100_000:] + many[1:100_000:2] + many[0:100_000:2]:
        queue.remove(one, Verdict.CANCELLED)
    assert len(queue) == 0
