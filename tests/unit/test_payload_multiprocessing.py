"""multiprocessing's own objects inside calls."""

from __future__ import annotations

import ctypes
import multiprocessing
from collections.abc import Iterator
from multiprocessing import resource_sharer
from typing import Any

import pytest

from forkpool._shared.payload import CallEncoder, PayloadError, is_single_use
from tests.unit.worker_process import Worker


@pytest.fixture(autouse=True)
def no_sharer_left() -> Iterator[None]:
    yield
    resource_sharer.stop(timeout=5)


@pytest.fixture(params=["spawn", "forkserver"])
def context(request: pytest.FixtureRequest) -> Any:
    return multiprocessing.get_context(request.param)


def test_locks_events_and_queues_of_a_spawn_context(context: Any, worker: Worker) -> None:
    lock, event, queue = context.Lock(), context.Event(), context.SimpleQueue()
    worker.call(lambda: None)

    def use(lock: Any, event: Any, queue: Any) -> bool:
        event.set()
        queue.put("from the worker")
        return bool(lock.acquire())

    assert worker.call(use, lock, event, queue)
    assert not lock.acquire(block=False)
    assert event.is_set()
    assert queue.get() == "from the worker"
    queue.close()


def test_values_and_arrays_stay_shared(context: Any, worker: Worker) -> None:
    value, array, raw = context.Value("i", 1), context.Array("d", 3), context.RawValue("i", 1)

    def use(value: Any, array: Any, raw: Any) -> None:
        with value.get_lock():
            value.value += 41
        array[1] = 2.5
        raw.value = 9

    worker.call(use, value, array, raw)
    assert (value.value, list(array), raw.value) == (42, [0.0, 2.5, 0.0], 9)


def test_a_ctypes_object_of_ones_own_is_copied(worker: Worker) -> None:
    multiprocessing.get_context("spawn").RawValue("i", 1)  # makes multiprocessing register the class
    own = ctypes.c_int(4)
    assert worker.call(lambda one: one.value + 1, own) == 5


def test_connections_arrive_and_mark_the_payload(worker: Worker) -> None:
    ours, theirs = multiprocessing.Pipe()
    with ours, theirs:
        worker.call(lambda connection: connection.send(9), theirs)
        assert ours.recv() == 9
        assert is_single_use(CallEncoder().encode(id, (theirs,), {}))
        assert not is_single_use(CallEncoder().encode(id, (multiprocessing.get_context("spawn").Lock(),), {}))


@pytest.mark.parametrize("kind", ["Lock", "RLock", "Event", "Queue", "SimpleQueue", "Semaphore", "Condition"])
def test_those_of_a_fork_context_quote_the_fix(kind: str) -> None:
    made = getattr(multiprocessing.get_context("fork"), kind)()
    with pytest.raises(PayloadError) as info:
        CallEncoder().encode(id, (made,), {})
    assert str(info.value) == (
        f'cannot send argument 1 of `id` to a worker: it is a {kind} of a "fork" context, which no other start method can '
        f'hand over; make it with `multiprocessing.get_context("spawn").{kind}()`'
    )
    if kind == "Queue":
        made.close()


def test_the_thread_is_not_left_spawning() -> None:
    with pytest.raises(PayloadError):
        CallEncoder().encode(id, ((x for x in ()),), {})
    assert multiprocessing.context.get_spawning_popen() is None  # type: ignore[attr-defined]
