"""ForkFuture without a pool: who unpickles what came, and where one may wait for it.

Runs in: pytest. Races are forced by calling the other side in the middle of a step.
"""

import concurrent.futures
import errno
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest

from forkpool.future import EncodedAnswer, ForkFuture
from tests.support.futures import in_thread, make, running

# --- unpickling


class Decoder:
    """Counts, and lets a test do something in the middle."""

    def __init__(self, value: Any, meanwhile: Callable[[], object] | None = None) -> None:
        self.value = value
        self.meanwhile = meanwhile
        self.threads: list[int] = []

    def __call__(self, data: bytes | bytearray) -> Any:
        self.threads.append(threading.get_ident())
        if self.meanwhile is not None:
            self.meanwhile()
        if isinstance(self.value, type):
            raise self.value
        return self.value


def finished_with(decoder: Decoder, *, is_error: bool = False) -> ForkFuture[Any]:
    future = running()
    future._finish(encoded=EncodedAnswer(b"data", decoder, is_error))
    return future


def test_nobody_unpickles_before_somebody_asks() -> None:
    decoder = Decoder(5)
    future = finished_with(decoder)
    assert future.done()
    assert decoder.threads == []
    assert future.result() == 5
    assert future.result() == 5
    assert future.exception() is None
    assert len(decoder.threads) == 1


def test_an_error_is_unpickled_once() -> None:
    decoder = Decoder(ValueError("user's"))
    future = finished_with(decoder, is_error=True)
    error = future.exception()
    assert isinstance(error, ValueError)
    with pytest.raises(ValueError, match="user's"):
        future.result()
    assert future.exception() is error
    assert len(decoder.threads) == 1


def test_many_threads_ask_and_one_unpickles() -> None:
    everybody = threading.Barrier(4)
    gate = threading.Event()
    decoder = Decoder("value", gate.wait)
    future = finished_with(decoder)
    results = []

    def ask() -> None:
        everybody.wait()
        results.append(future.result())

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    everybody.wait()
    gate.set()
    for thread in threads:
        thread.join()
    assert results == ["value"] * 3
    assert len(decoder.threads) == 1


@pytest.mark.parametrize("is_error", [False, True])
@pytest.mark.parametrize("method", ["result", "exception"])
def test_who_asks_while_another_unpickles_gets_the_answer_too(
    monkeypatch: pytest.MonkeyPatch, is_error: bool, method: str
) -> None:
    # 1. A asks the base class: no value, no error yet; 2. B unpickles and is done; 3. A goes on: nothing is left to unpickle.
    value = ValueError("user's") if is_error else "value"
    future = finished_with(Decoder(value), is_error=is_error)
    original = getattr(Future, method)

    def interleaved(self: Future[Any], timeout: float | None = None) -> Any:
        monkeypatch.setattr(Future, method, original)
        found = original(self, timeout)
        in_thread(self.exception)
        return found

    monkeypatch.setattr(Future, method, interleaved)
    if method == "exception":
        assert future.exception() is (value if is_error else None)
    elif is_error:
        with pytest.raises(ValueError, match="user's"):
            future.result()
    else:
        assert future.result() == "value"


@pytest.mark.parametrize("error", [SystemExit, ValueError, GeneratorExit])
def test_what_unpickling_raises_is_the_answer(error: type[BaseException]) -> None:
    future = finished_with(Decoder(error))
    for _ in range(2):
        with pytest.raises(error):
            future.result()
    assert isinstance(future.exception(), error)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.EMFILE, "too many"), OSError(errno.ENFILE, "too many")])
def test_ctrl_c_or_a_shortage_while_unpickling_loses_nothing(error: BaseException) -> None:
    failures = [error]

    def fail_once() -> None:
        if failures:
            raise failures.pop()

    future = finished_with(Decoder("value", fail_once))
    with pytest.raises(type(error)):
        future.result()
    assert future.result() == "value"
    assert in_thread(future.result) == ["value"]


def test_unpickling_that_asks_for_its_own_result_is_told_so() -> None:
    future: ForkFuture[Any] = running()
    decoder = Decoder("value")
    decoder.meanwhile = lambda: future.result()
    future._finish(encoded=EncodedAnswer(b"", decoder, False))
    with pytest.raises(RuntimeError, match="asks for this future's result"):
        future.result()


def test_unpickling_that_asks_for_another_future_is_fine() -> None:
    other = finished_with(Decoder("other"))
    decoder = Decoder("value")
    decoder.meanwhile = other.result
    assert finished_with(decoder).result() == "value"


# --- where it may be waited for


def test_on_the_pools_own_thread_waiting_says_why_it_cannot_end() -> None:
    future = make()
    future._pool.on_supervisor = True
    with pytest.raises(RuntimeError, match="finalizer"):
        future.result()


def test_a_timeout_of_the_caller_leaves_the_task_alone() -> None:
    future = running()
    for ask in (future.result, future.exception):
        with pytest.raises(concurrent.futures.TimeoutError):
            ask(timeout=0)
    assert future.running()
