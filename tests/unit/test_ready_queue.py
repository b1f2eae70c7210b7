"""The queue of waiting tasks: order, and leaving from anywhere. Runs in: pytest."""

from hypothesis import given
from hypothesis import strategies as st

from forkpool._core.ready_queue import ReadyQueue
from forkpool._core.states import Task, Verdict
from forkpool.config import TaskOptions


def task(name: str, payload: bytes = b"", priority: int = 0) -> Task:
    return Task(None, payload, name, TaskOptions(priority=priority))


STEPS = st.tuples(
    st.sampled_from(["append", "append", "appendleft", "popleft", "remove"]), st.integers(0, 100), st.integers(-2, 2)
)


@given(st.lists(STEPS))
def test_it_is_a_list_in_order_of_priority_from_which_anything_may_go(steps: list[tuple[str, int, int]]) -> None:
    queue = ReadyQueue()
    model: list[Task] = []
    for number, (what, which, priority) in enumerate(steps):
        one = task(str(number), priority=priority)
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
        model.sort(key=lambda task: -task.options.priority)  # a stable sort: the order within one priority stays
        queue.check_invariants()
        assert list(queue) == model
        assert len(queue) == len(model)
        assert not model or queue.first is model[0]


def test_many_priorities_are_quick_and_leave_nothing_behind() -> None:
    """Each task of a priority of its own, in an order that is the worst for a list; every other one is cancelled."""
    queue, many = ReadyQueue(), [task(str(number), priority=number * 7919 % 100_003) for number in range(100_000)]
    for one in many:
        queue.append(one)
    for one in many[::2]:
        queue.remove(one, Verdict.CANCELLED)
    left = [queue.popleft().options.priority for _ in range(50_000)]
    assert left == sorted((one.options.priority for one in many[1::2]), reverse=True)
    queue.append(task("last"))
    queue.check_invariants()
    assert not queue._lines


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
