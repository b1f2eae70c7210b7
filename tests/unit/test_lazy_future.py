"""A future whose condition is made on demand meets an end that came first.

Runs in: pytest. Races are forced by calling the other side in the middle of a step.
"""

import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import as_completed, wait
from typing import Any

import pytest

from forkpool._unpickling import EncodedAnswer
from forkpool.future import ForkFuture
from tests.support.futures import in_thread, make, running


class Halfway(ForkFuture[Any]):
    """The supervisor has published the end, and was interrupted before it wrote it."""

    def _write(self, end: Any) -> None:
        if threading.current_thread() is threading.main_thread():
            super()._write(end)


def ended_halfway(**end: Any) -> ForkFuture[Any]:
    future = Halfway()
    future._try_start()
    in_thread(lambda: future._finish(**end))
    assert not future.done()
    return future


def test_a_future_that_nobody_looks_at_has_no_condition() -> None:
    future = running()
    future._finish(1)
    assert future.done()
    assert future.result() == 1
    assert not any(hasattr(part, "wait") for part in vars(future).values())


@pytest.mark.parametrize(
    "look",
    [
        lambda f: f.result(0) == 1,
        lambda f: f.exception(0) is None,
        lambda f: wait([f, make()], timeout=0).done == {f},
        lambda f: next(as_completed([make(), f], timeout=0)) is f,
        lambda f: not f.cancel(),
        lambda f: not f.kill(),
        lambda f: not f.cancelled() and f.done(),
        lambda f: "returned int" in repr(f),
    ],
)
def test_who_looks_while_the_end_is_being_written_sees_it(look: Callable[[ForkFuture[Any]], bool]) -> None:
    assert look(ended_halfway(result=1))


def test_a_callback_that_comes_while_the_end_is_being_written_runs_at_once() -> None:
    future, seen = ended_halfway(result=1), []
    future.add_done_callback(seen.append)
    assert seen == [future]


def test_an_end_that_is_written_late_once_more_changes_nothing() -> None:
    decoded: list[object] = []

    def decode(data: object) -> None:
        decoded.append(data)

    future = ended_halfway(encoded=EncodedAnswer(b"x", decode, False))
    end = vars(future)["_meeting"]
    assert future.result(0) is None
    future._write(end)
    assert future.result(0) is None
    assert decoded == [b"x"]


MADE_TWICE = """
import gc, threading
from forkpool.future import ForkFuture

def during_a_collection(phase, _):
    if phase == "start" and not cancelled:
        thread = threading.Thread(target=lambda: cancelled.append(future.cancel()))
        thread.start()
        thread.join()

future, cancelled = ForkFuture(), []
future.note = held = []
kept = [{} for _ in range(200)]  # the next dict is none that lay ready
gc.disable()
gc.callbacks.append(during_a_collection)
gc.set_threshold(1)
gc.enable()
future._try_start()
gc.disable()
print(sum(one is not globals() for one in gc.get_referrers(held)), flush=True)
"""


def test_two_threads_that_first_meet_in_a_future_have_one_dict() -> None:
    """A collection in the middle of `future.__dict__` lets another thread do the same: Python 3.11 freed the values twice."""
    ended = subprocess.run([sys.executable, "-c", MADE_TWICE], stdout=subprocess.PIPE, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (0, "1\n")


def test_a_cancel_and_an_end_of_the_pool_tell_the_waiters_once() -> None:
    future, other = make(), make()
    vars(future)["_owner"] = "user"  # `cancel` in a thread that was not heard of since
    iterator = as_completed([future, other], timeout=0)
    future._finish(error=ValueError())
    assert future.cancel()
    assert next(iterator) is future
    waiter = vars(other)["_meeting"].waiters[0]
    assert waiter.finished_futures == [], "told once"


@pytest.mark.alarm(60)
def test_ends_meet_those_who_wait() -> None:
    """Threads look in every way while another one ends the futures; a lost wake-up would hang, a second one would raise."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(30):
            futures = [running() for _ in range(200)]
            called: list[object] = []
            threads = [
                threading.Thread(target=target)
                for target in (
                    lambda futures=futures: [f._finish(n) and f._run_callbacks() for n, f in enumerate(futures)],
                    lambda futures=futures: wait(futures),
                    lambda futures=futures: list(as_completed(futures)),
                    lambda futures=futures: [future.result() for future in futures],
                    lambda futures=futures, called=called: [f.add_done_callback(called.append) for f in futures],
                )
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert [future.result(0) for future in futures] == list(range(200))
            assert sorted(map(id, called)) == sorted(map(id, futures)), "each once"
    finally:
        sys.setswitchinterval(before)
