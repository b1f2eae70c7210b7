"""ForkFuture without a pool: who unpickles what came, and where one may wait for it.

Runs in: pytest. Races are forced by calling the other side in the middle of a step.
"""

import concurrent.futures
import errno
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial
from types import FrameType
from typing import Any

import pytest

from forkpool._unpickling import EncodedAnswer
from forkpool.future import ForkFuture
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


def test_what_asyncio_of_python_3_14_asks_for_is_unpickled() -> None:
    """It asks for all at once, and the base class reads fields that are not filled before somebody asks."""
    error = ValueError("mine")
    cancelled = make()
    cancelled.cancel()
    assert running()._get_snapshot() == (False, False, None, None)
    assert cancelled._get_snapshot() == (True, True, None, None)
    assert finished_with(Decoder(5))._get_snapshot() == (True, False, 5, None)
    assert finished_with(Decoder(error), is_error=True)._get_snapshot() == (True, False, None, error)
    unreadable = finished_with(Decoder(KeyError))
    assert unreadable._get_snapshot() == (True, False, None, unreadable.exception())
    assert type(unreadable.exception()) is KeyError


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


def once(do: Callable[[], object]) -> Callable[[], object]:
    """Do it the first time only."""
    times = [do]
    return lambda: times.pop()() if times else None


def raiser(error: BaseException) -> Callable[[], object]:
    def fail() -> None:
        raise error

    return fail


SHORTAGES = [OSError(number, "short") for number in (errno.EMFILE, errno.ENFILE, errno.ENOMEM)] + [
    MemoryError(),
    RecursionError(),
]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), *SHORTAGES], ids=repr)
def test_ctrl_c_or_a_shortage_while_unpickling_loses_nothing(error: BaseException) -> None:
    future = finished_with(Decoder("value", once(raiser(error))))
    with pytest.raises(type(error)):
        future.result()
    assert future.result() == "value"
    assert in_thread(future.result) == ["value"]


@pytest.mark.parametrize("error", SHORTAGES, ids=repr)
def test_a_shortage_is_what_exception_says_now_and_not_later(error: BaseException) -> None:
    """Asyncio asks `exception()` first, and who awaits there would never be told if that raised."""
    future = finished_with(Decoder("value", once(raiser(error))))
    assert future.exception() is error
    assert future.exception() is None
    assert future.result() == "value"


def test_a_caller_deep_in_a_recursion_takes_nothing_from_the_next() -> None:
    def build(depth: int = 50) -> object:
        return "value" if depth == 0 else build(depth - 1)

    def ask(depth: int) -> object:
        return future.result() if depth == 0 else ask(depth - 1)

    decoder = Decoder("value", build)
    future = finished_with(decoder)
    for depth in range(sys.getrecursionlimit(), 0, -5):
        try:
            assert ask(depth) == "value"
        except RecursionError:
            continue
        break
    assert len(decoder.threads) > 1, "it had begun before, and not had the room"
    assert future.result() == "value"


class Ring(Exception):
    """What signal handlers raise here. No BaseException, which less code would take for its own."""


def ring(signum: int, frame: FrameType | None) -> None:
    raise Ring


def ring_and_walk(signum: int, frame: FrameType | None) -> None:
    while frame is not None:
        frame = frame.f_back
    raise Ring


def ring_once(*_: object) -> None:
    signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    raise Ring


def ring_below(*args: object) -> None:
    raiser(Ring())()


class Bell:
    def ring(self, signum: int, frame: FrameType | None) -> None:
        raise Ring

    def __call__(self, *_: object) -> None:
        raise Ring


HANDLERS: list[Any] = [ring, ring_and_walk, ring_once, ring_below, Bell().ring, Bell(), partial(ring), partial(ring_and_walk)]


@pytest.fixture
def on_signal() -> Iterator[Callable[[Any], object]]:
    """Install a handler for SIGUSR1."""
    before = signal.getsignal(signal.SIGUSR1)
    yield partial(signal.signal, signal.SIGUSR1)
    signal.signal(signal.SIGUSR1, before)


def send_signal() -> None:
    signal.raise_signal(signal.SIGUSR1)


@pytest.mark.parametrize("handler", HANDLERS)
@pytest.mark.parametrize("method", ["result", "exception"])
@pytest.mark.parametrize("is_error", [False, True])
def test_what_a_signal_handler_raises_is_the_callers_and_not_the_answer(
    on_signal: Callable[[Any], object], handler: Any, method: str, is_error: bool
) -> None:
    value = ValueError("the task's") if is_error else "value"
    future = finished_with(Decoder(value, once(send_signal)), is_error=is_error)
    on_signal(handler)
    with pytest.raises(Ring):
        getattr(future, method)()
    assert future.exception() is (value if is_error else None)
    if not is_error:
        assert future.result() == "value"


def test_what_unpickling_raises_after_a_handler_ran_or_inside_one_is_the_answer(on_signal: Callable[[Any], object]) -> None:
    seen: list[object] = []

    def come_and_go(signum: int, frame: object) -> None:
        seen.append(frame)

    def ask(signum: int, frame: object) -> None:
        seen.append(future.exception())

    on_signal(come_and_go)
    assert isinstance(finished_with(Decoder(ValueError, send_signal)).exception(), ValueError)
    on_signal(ask)
    future = finished_with(Decoder(SystemExit))
    send_signal()
    assert future.exception() is seen[-1]
    assert isinstance(seen[-1], SystemExit)


def test_unpickling_that_was_interrupted_at_any_point_can_be_tried_again_by_the_same_thread() -> None:
    def again() -> None:
        with pytest.raises(RuntimeError, match="asks for this future's result"):
            future.result()
        raise KeyboardInterrupt

    future = finished_with(Decoder("value", once(again)))
    with pytest.raises(KeyboardInterrupt):
        future.result()
    assert future.result() == "value"


class Falsy(Exception):
    def __len__(self) -> int:
        return 0


@pytest.mark.parametrize("unpickled", [True, False])
def test_an_exception_whose_truth_value_is_false_is_raised(unpickled: bool) -> None:
    if unpickled:
        future = running()
        future._finish(error=Falsy())
    else:
        future = finished_with(Decoder(Falsy()), is_error=True)
    for _ in range(2):
        with pytest.raises(Falsy):
            future.result()
    assert type(future.exception()) is Falsy


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
