"""multiprocessing's own objects inside calls."""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import os
import socket
import threading
from typing import Any

import pytest

from forkpool._shared.owning_payload import OwningPayload
from forkpool._shared.passed_fds import Holding
from forkpool._shared.payload import CallEncoder, PayloadError
from tests.unit.conftest import Notebook
from tests.unit.worker_process import Worker


@pytest.fixture(params=["spawn", "forkserver"])
def context(request: pytest.FixtureRequest) -> Any:
    return multiprocessing.get_context(request.param)


@pytest.fixture
def count_held() -> Any:
    return lambda: len([fd for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")])


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


def test_a_shared_value_as_a_global_holds_one_descriptor(notebook: Notebook, worker: Worker, count_held: Any) -> None:
    """Each call had a duplicate of its own, and counted as changed."""
    shared = notebook.module.SHARED = multiprocessing.RawArray("d", 4)  # type: ignore[attr-defined]
    notebook.cell("def put(place, value): SHARED[place] = value")
    gc.collect()  # what other tests left is not closed while we count
    before = count_held()
    payloads = [CallEncoder().encode(notebook.put, (1, 2.5), {}) for _ in range(20)]
    assert len(set(payloads)) == 1
    assert count_held() == before + 1
    worker.run(payloads[0])
    assert shared[1] == 2.5


def test_a_ctypes_object_of_ones_own_is_copied(worker: Worker) -> None:
    multiprocessing.get_context("spawn").RawValue("i", 1)  # makes multiprocessing register the class
    own = ctypes.c_int(4)
    assert worker.call(lambda one: one.value + 1, own) == 5


def test_connections_and_sockets_arrive(worker: Worker) -> None:
    ours, theirs = multiprocessing.Pipe()
    near, far = socket.socketpair()
    far.settimeout(2.5)

    def send(connection: Any, sock: socket.socket) -> Any:
        connection.send(9)
        sock.sendall(b"said")
        return sock.gettimeout(), sock.family.name, sock.type.name, sock.get_inheritable(), connection.fileno() != sock.fileno()

    with ours, theirs, near, far:
        threads = threading.active_count()
        assert worker.call(send, theirs, far) == (2.5, "AF_UNIX", "SOCK_STREAM", False, True)
        assert ours.recv() == 9
        assert near.recv(9) == b"said"
        assert threading.active_count() == threads


def test_one_duplicate_for_all_calls_closed_with_the_last_payload(count_held: Any) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        before = count_held()
        payloads = [CallEncoder().encode(id, (theirs, [theirs]), {}) for _ in range(20)]
        assert count_held() == before + 1
        assert len(set(payloads)) == 1  # or a global that is a socket would count as changed each time
        payloads.pop()
        assert count_held() == before + 1
        payloads.clear()
        assert count_held() == before


def test_a_duplicate_that_is_being_closed_is_not_shared_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """1. The supervisor drops the last payload; 2. a thread that submits holds the same socket; 3. the duplicate is closed.

    With a `__del__` that closes, the thread got the dying object from the weak reference, and the worker a closed descriptor.
    """
    ours, theirs = socket.socketpair()
    second, close = Holding(), os.close

    def hold_then_close(fd: int) -> None:
        monkeypatch.setattr(os, "close", close)
        second.hold(theirs.fileno())
        close(fd)

    with ours, theirs:
        first = Holding()
        key = first.hold(theirs.fileno())
        monkeypatch.setattr(os, "close", hold_then_close)
        del first
        lent = second.lend(key, again=True)
        assert lent is not None
        assert os.path.sameopenfile(lent.fd, theirs.fileno())


def test_both_ends_of_a_pipe_are_told_apart() -> None:
    reader, writer = multiprocessing.Pipe(duplex=False)
    with reader, writer:
        payload = CallEncoder().encode(id, (reader, writer), {})
        assert isinstance(payload, OwningPayload)
        assert payload.holding is not None
        assert len(payload.holding._held) == 2


def test_what_is_given_away_is_given_as_often_as_it_is_named() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        holding = Holding()
        key = holding.hold(theirs.fileno())
        assert holding.hold(theirs.fileno()) == key
        first = holding.lend(key, again=True)
        assert first is not None
        assert [holding.lend(key, again=False) for _ in range(3)] == [first, first, None]
        assert holding.lend("0.0", again=True) is None


def test_a_call_that_cannot_be_pickled_holds_nothing(count_held: Any) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        before = count_held()
        with pytest.raises(PayloadError, match="generator"):
            CallEncoder().encode(id, (theirs, (x for x in ())), {})
        assert count_held() == before


def test_big_calls_that_are_watched_may_hold_sockets_and_locks() -> None:
    said: list[str] = []
    ours, theirs = socket.socketpair()
    lock = multiprocessing.get_context("spawn").Lock()
    with ours, theirs:
        encoder = CallEncoder(warn=said.append)
        for _ in range(3):
            encoder.encode(id, (theirs, lock, [bytes(1_100_000)]), {})
    assert len(said) == 1


@pytest.mark.parametrize("kind", ["Lock", "RLock", "Event", "Queue", "SimpleQueue", "Semaphore", "Condition"])
def test_those_of_a_fork_context_quote_the_fix(kind: str) -> None:
    made = getattr(multiprocessing.get_context("fork"), kind)()
    with pytest.raises(PayloadError) as info:
        CallEncoder().encode(id, (made,), {})
    one = f"an {kind}" if kind in ("Event", "RLock") else f"a {kind}"
    assert str(info.value) == (
        f'cannot send argument 1 of `id` to a worker: it is {one} of a "fork" context, which no other start method can '
        f'hand over; make it with `multiprocessing.get_context("spawn").{kind}()`'
    )
    if kind == "Queue":
        made.close()


def test_the_thread_is_not_left_spawning() -> None:
    with pytest.raises(PayloadError):
        CallEncoder().encode(id, ((x for x in ()),), {})
    assert multiprocessing.context.get_spawning_popen() is None  # type: ignore[attr-defined]
