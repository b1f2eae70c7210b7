"""ForkFuture in a fork of its pool's process, without a fork: there, threads of the host may have stopped anywhere.

Runs in: pytest. Each test stops another thread in the middle of a step, and then takes the futures for another process's.
tests/process/test_fork.py has real forks.
"""

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, as_completed, wait
from concurrent.futures._base import CANCELLED
from contextlib import contextmanager
from typing import Any

import pytest

from forkpool import _lazy_future
from forkpool.future import EncodedAnswer, ForkFuture
from tests.support.futures import in_thread, make, running

OWNER = os.getpid() + 1


@pytest.fixture
def fork(monkeypatch: pytest.MonkeyPatch) -> Callable[[ForkFuture[Any]], None]:
    """From now on the future is one of another process."""

    def be_in_fork(future: ForkFuture[Any]) -> None:
        monkeypatch.setattr(_lazy_future, "in_fork", True)
        future._pool.pid = OWNER

    return be_in_fork


@contextmanager
def held(lock: Any) -> Iterator[None]:
    """Another thread holds it: in a fork, for ever."""
    taken, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            taken.set()
            go_on.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    taken.wait()
    try:
        yield
    finally:
        go_on.set()
        thread.join()


ASK: dict[str, Callable[[ForkFuture[Any]], object]] = {
    "result": lambda f: f.result(),
    "exception": lambda f: f.exception(),
    "wait": lambda f: wait([f]).done,
    "as_completed": lambda f: list(as_completed([f])),
    "done": lambda f: f.done(),
    "cancel": lambda f: f.cancel(),
    "kill": lambda f: f.kill(),
    "running": lambda f: f.running(),
    "pid": lambda f: f.pid,
    "add_done_callback": lambda f: f.add_done_callback(repr),
    "repr": repr,
}


@pytest.mark.parametrize("ask", ASK)
@pytest.mark.parametrize("new", [make, running], ids=["pending", "running"])
def test_whatever_is_asked_first_it_has_ended(fork: Any, new: Callable[[], ForkFuture[Any]], ask: str) -> None:
    future, ran = new(), []
    future.add_done_callback(ran.append)
    with held(future._condition):
        fork(future)
        said = in_thread(lambda: ASK[ask](future))[0]
        if ask == "result":
            assert isinstance(said, RuntimeError)
        if ask in ("cancel", "kill", "running"):
            assert said is False
        error = future.exception()
        with pytest.raises(RuntimeError, match=f"process {OWNER}, and this is a fork of it .*post_fork.*worker_process_init"):
            future.result()
    assert isinstance(error, RuntimeError)
    assert (future.done(), future.running(), future.cancelled(), future.pid) == (True, False, False, None)
    assert (future.kill(), future.cancel()) == (False, False)
    assert future._pool.killed == []
    assert ran == [], "callbacks that were left before the fork are the host's"
    future.add_done_callback(ran.append)
    assert ran == [future], "one that is left here runs here"


def test_what_had_arrived_is_there_whoever_holds_its_locks(fork: Any) -> None:
    future, ran = running(), []
    future.add_done_callback(ran.append)
    encoded = EncodedAnswer(b"7", int, is_error=False)
    future._finish(encoded=encoded)
    with held(future._condition), held(encoded.lock):
        fork(future)
        assert wait([future]).done == {future}
        assert future.result() == 7
    assert ran == []


def test_an_end_that_was_decided_and_not_yet_written(fork: Any) -> None:
    future = running()
    future.__dict__["_meeting"] = ("FINISHED", 7, None, None)
    future.__dict__["_result"] = 7
    fork(future)
    assert wait([future]).done == {future}
    assert future.result() == 7


def test_an_end_of_which_half_was_written(fork: Any) -> None:
    """Result and exception of an answer that is to be unpickled are None; the answer itself would have come next."""
    future = running()
    future._result, future._exception = None, None
    fork(future)
    assert isinstance(future.exception(), RuntimeError)


@pytest.mark.parametrize("how", ["cancel", "kill", "told half"])
def test_what_its_user_had_cancelled_is_cancelled(fork: Any, how: str) -> None:
    future = running() if how == "kill" else make()
    if how == "kill":
        assert future.kill()
    elif how == "cancel":
        future.__dict__["_owner"] = "user"
    else:
        future._state = CANCELLED
    fork(future)
    assert wait([future]).done == {future}
    with pytest.raises(CancelledError):
        future.result()
    assert future.cancelled()
    assert future.kill(), "it has ended cancelled, as a host's would say"


def test_an_answer_that_this_thread_unpickles_is_not_unpickled_inside_itself(fork: Any) -> None:
    """An answer whose unpickling forks, and asks for itself in the fork."""
    future = running()
    said: list[object] = []

    def decode(_: object) -> int:
        fork(future)
        try:
            future.result()
        except RuntimeError as error:
            said.append(str(error))
        return 7

    future._finish(encoded=EncodedAnswer(b"", decode, is_error=False))
    assert future.result() == 7
    assert said == ["unpickling this future's result asks for this future's result"]


def test_a_future_of_this_process_is_left_alone(fork: Any) -> None:
    """A fork makes a pool of its own."""
    future, other = running(), make()
    fork(other)
    assert not future.done()
    with future._condition:
        assert future.running()
    future._finish(7)
    assert future.result() == 7
