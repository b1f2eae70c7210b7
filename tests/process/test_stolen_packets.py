"""Somebody in the worker reads calls out of forkpool's task pipe: the task that runs, or a thread or child that one left.

Row "a task, or what it left, reads calls out of our pipe": each of them runs all the same, once. There is no answer to wait for
and no death to be told: such a future never ended.
"""

import contextlib
import os
import select
import signal
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, wait
from typing import Any

import pytest

from forkpool import ForkPoolExecutor, WorkerCrashedError
from forkpool._host.lookout import Lookout
from forkpool._host.worker_link import WorkerLink
from forkpool._shared.status_page import StatusPage
from tests.support import processes, tasks
from tests.support.gate import Gate, GateInTask, Marks
from tests.support.tasks import task_pipe

WHOLE, PART = 65536, 7


def steal(size: int = WHOLE, limit: int = 100, patience_ms: int = 0) -> int:
    """Read what lies in the pipe, or comes soon; how many packets."""
    fd, count = task_pipe(), 0
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    while count < limit and poll.poll(0 if count else patience_ms):
        os.read(fd, size)
        count += 1
    return count


def steal_for_ever(fd: int) -> None:
    while os.read(fd, WHOLE):
        pass


def leave_thread(*, daemon: bool = True) -> None:
    threading.Thread(target=steal_for_ever, args=[task_pipe()], daemon=daemon).start()


def leave_child() -> None:
    fd = task_pipe()
    if os.fork() == 0:
        with contextlib.suppress(BaseException):
            steal_for_ever(fd)
        os._exit(0)


def act(marks: Marks, number: int, then: Any = None, *args: Any) -> Any:
    """One function for all, so that it is known as short, and sent ahead."""
    marks.add(str(number))
    return number if then is None else then(*args)


def steal_and_enter(gate: GateInTask) -> int:
    count = steal(patience_ms=100)
    gate.enter()
    return count


def steal_and_leave(gate: GateInTask) -> None:
    steal_and_enter(gate)
    os._exit(3)


@pytest.fixture
def marks(tmp_path: Any) -> Marks:
    return Marks(tmp_path / "marks")


def each_once(marks: Marks, count: int) -> None:
    assert sorted(map(int, marks.words())) == list(range(count))


@pytest.mark.parametrize("size", [WHOLE, PART])
@pytest.mark.parametrize("limit", [1, 100])
def test_a_task_that_takes_what_was_sent_behind_it(marks: Marks, size: int, limit: int) -> None:
    """All of it, or only the next one; the rest of a packet that is read in part is gone."""
    with ForkPoolExecutor(1) as ex:
        stolen = 0
        for begin in range(0, 600, 120):
            futures = [ex.submit(act, marks, begin + number) for number in range(100)]
            futures.append(ex.submit(act, marks, begin + 100, steal, size, limit))
            futures += [ex.submit(act, marks, begin + number) for number in range(101, 120)]
            wait(futures)
            stolen += futures.pop(100).result()
            assert [future.result() for future in futures] == [begin + number for number in range(120) if number != 100]
        assert stolen > 0
        each_once(marks, 600)


def ahead_of(ex: ForkPoolExecutor, marks: Marks, thief: Callable[..., Any], gate: Gate) -> tuple[Any, list[Any]]:
    """A thief with tasks behind it in its pipe, when it is inside and has taken them; it and they."""
    known = [ex.submit(act, marks, number) for number in range(50)]
    bad = ex.submit(act, marks, 50, thief, gate)
    good = [ex.submit(act, marks, number) for number in range(51, 60)]
    gate.wait_inside()
    wait(known)
    return bad, good


@pytest.mark.parametrize("how", ["waits", "crashes", "is killed"])
def test_a_thief_that_runs_on_dies_or_is_killed(marks: Marks, gate: Gate, how: str) -> None:
    with ForkPoolExecutor(1) as ex, contextlib.ExitStack() as stack:
        stack.callback(gate.open_for_all)
        bad, good = ahead_of(ex, marks, steal_and_leave if how == "crashes" else steal_and_enter, gate)
        if how == "is killed":
            assert bad.kill()
            with pytest.raises(CancelledError):
                bad.result()
        stack.close()
        assert [future.result() for future in good] == list(range(51, 60))
        if how == "crashes":
            assert type(bad.exception()) is WorkerCrashedError
        each_once(marks, 60)


def test_others_need_not_wait_until_the_thief_is_done(marks: Marks, gate: Gate) -> None:
    with ForkPoolExecutor(2) as ex, contextlib.ExitStack() as stack:
        stack.callback(gate.open_for_all)
        bad, good = ahead_of(ex, marks, steal_and_enter, gate)
        assert [future.result() for future in good] == list(range(51, 60))
        assert not bad.done()
        stack.close()
        assert bad.result() >= 0
        each_once(marks, 60)


@pytest.mark.parametrize(
    "leave", [leave_thread, leave_child, lambda: leave_thread(daemon=False)], ids=["daemon", "child", "thread"]
)
@pytest.mark.parametrize("size", [0, 20_000], ids=["packets", "streams"])
def test_what_a_task_left_takes_calls_from_an_idle_worker(marks: Marks, leave: Any, size: int) -> None:
    with ForkPoolExecutor(1, grace_period=0.1) as ex:
        ex.submit(leave).result()
        for number in range(12):
            future = ex.submit(act, marks, number, tasks.identity, bytes(size))
            error = future.exception()
            assert error is None or (size and type(error) is WorkerCrashedError), repr(error)
            assert error is not None or future.result() == bytes(size)
            assert marks.words().count(str(number)) == (error is None)


def test_a_thief_in_every_worker_cannot_make_a_call_wait_for_ever(marks: Marks) -> None:
    with ForkPoolExecutor(2, initializer=leave_thread, grace_period=0.1) as ex:
        futures = [ex.submit(act, marks, number) for number in range(8)]
        for number, future in enumerate(futures):
            error = future.exception()
            assert error is None or type(error) is WorkerCrashedError
            assert marks.words().count(str(number)) == (error is None)
            assert error is None or error.may_have_run == "no"


def stop_at_the_next_call(gate: GateInTask, marks: Marks) -> None:
    """The first worker is stopped when it has read its call, before it says so."""
    if marks.words():
        return
    marks.add("0")
    take = StatusPage.take

    def stop_and_take(page: StatusPage, seq: int, now_ns: int) -> None:
        gate.tell()
        os.kill(os.getpid(), signal.SIGSTOP)
        take(page, seq, now_ns)

    StatusPage.take = stop_and_take  # type: ignore[method-assign]  # there is no monkeypatch in a worker


def be_slow_at_the_next_call(marks: Marks) -> None:
    """The worker has read its call, and takes long before it says so: others have the CPUs."""
    take = StatusPage.take

    def wait_and_take(page: StatusPage, seq: int, now_ns: int) -> None:
        marks.add("slow")
        while "go" not in marks.words():  # it does not sleep, as who wants a CPU and does not get one
            pass
        take(page, seq, now_ns)

    StatusPage.take = wait_and_take  # type: ignore[method-assign]  # as above


def test_a_worker_that_is_slow_to_take_a_call_is_not_replaced(marks: Marks, monkeypatch: pytest.MonkeyPatch) -> None:
    look, looked = Lookout.look, threading.Semaphore(0)

    def look_and_tell(lookout: Lookout, now: float) -> None:
        look(lookout, now)
        if "slow" in marks.words():
            looked.release()

    monkeypatch.setattr(Lookout, "look", look_and_tell)
    with ForkPoolExecutor(1, initializer=be_slow_at_the_next_call, initargs=(marks,)) as ex:
        future = ex.submit(act, marks, 1)
        for _ in range(4):
            looked.acquire()
        marks.add("go")
        assert future.result() == 1
        first = ex.submit(tasks.pid).result()
        assert ex.submit(tasks.pid).result() == first
        assert not ex.statistics().workers_replaced


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGCONT])
def test_a_worker_that_is_stopped_as_it_takes_a_call_is_not_accused(
    how: int, gate: Gate, marks: Marks, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looks like one that was robbed: the call is neither in the pipe nor noted."""
    hang_up, has_hung_up = WorkerLink.hang_up, threading.Event()
    monkeypatch.setattr(WorkerLink, "hang_up", lambda link: (hang_up(link), has_hung_up.set()))
    with ForkPoolExecutor(1, initializer=stop_at_the_next_call, initargs=(gate, marks)) as ex:
        future = ex.submit(act, marks, 1)
        worker = gate.wait_inside()
        processes.wait_state(worker, "T")
        has_hung_up.wait()
        os.kill(worker, how)
        assert future.result() == 1
        assert ex.submit(tasks.pid).result() != worker
    each_once(marks, 2)
    assert "read or replaced" not in caplog.text
    assert ("it was stopped as it took it" in caplog.text) == (how == signal.SIGKILL)


def test_an_idle_worker_that_is_dead_is_not_accused(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has no descriptors: that looked as if a task had replaced them. Its fork server is slow to tell that it is dead."""
    look, looked = Lookout.look, threading.Semaphore(0)
    monkeypatch.setattr(Lookout, "look", lambda lookout, now: (look(lookout, now), looked.release()))
    with ForkPoolExecutor(1) as ex:
        worker, server = ex.submit(tasks.call, ids).result()
        os.kill(server, signal.SIGSTOP)
        processes.wait_state(server, "T")
        os.kill(worker, signal.SIGKILL)
        processes.wait_state(worker, "Z")
        while looked.acquire(blocking=False):
            pass
        future = ex.submit(tasks.add, 1, 1)
        for _ in range(3):  # the first one may come too soon to be about this call
            looked.acquire()
        os.kill(server, signal.SIGCONT)
        assert future.result() == 2
        assert ex.statistics().workers_replaced == {"crashed": 1}
    assert "read or replaced" not in caplog.text


def ids() -> tuple[int, int]:
    return os.getpid(), os.getppid()
