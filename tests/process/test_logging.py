"""The user's logging runs beside the pool: a handler that raises, blocks or calls the pool delays no future.

Row "a logging handler or filter of the host raises, blocks, or calls the pool", and "forkpool itself fails".
A worker that cannot be started at first makes the pool log a warning; it is started at the next attempt.
"""

import errno
import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from forkpool import ForkPoolExecutor, InternalError, PoolBrokenError, WorkerCrashedError
from forkpool._core.durations import Durations
from forkpool._core.machine import PoolMachine
from forkpool._host import log
from tests.support import tasks
from tests.support.gate import Gate
from tests.support.script import run_script
from tests.support.supervision import kills_timeouts_and_crashes_go_on


class Handler(logging.Handler):
    def __init__(self, do: Callable[[], object]) -> None:
        super().__init__()
        self._do = do

    def emit(self, record: logging.LogRecord) -> None:
        self._do()


@contextmanager
def handled_by(do: Callable[[], object]) -> Iterator[None]:
    """Whatever forkpool logs calls this."""
    logger, handler = logging.getLogger("forkpool"), Handler(do)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


@pytest.fixture
def fork_server_fails_once(monkeypatch: pytest.MonkeyPatch) -> None:
    spawn, attempts = os.posix_spawn, iter([1])

    def failing(*args: Any, **more: Any) -> Any:
        if next(attempts, None) is not None:
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return spawn(*args, **more)

    monkeypatch.setattr(os, "posix_spawn", failing)


def raises(error: BaseException) -> Callable[[], object]:
    def do() -> None:
        raise error

    return do


# --- a warning -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [ValueError("mine"), SystemExit(3), KeyboardInterrupt()])
def test_a_handler_that_raises(error: BaseException, fork_server_fails_once: None) -> None:
    """It ended the supervisor, and no future of its pool ever ended."""
    with handled_by(raises(error)), ForkPoolExecutor(1) as ex:
        assert ex.submit(tasks.add, 1, 1).result() == 2
        assert type(ex.submit(tasks.leave, 3).exception()) is WorkerCrashedError
        assert ex.submit(tasks.add, 2, 2).result() == 4


def test_a_filter_that_raises(fork_server_fails_once: None) -> None:
    def refuse(_: logging.LogRecord) -> bool:
        raise SystemExit(3)

    logger = logging.getLogger("forkpool")
    logger.addFilter(refuse)
    try:
        with ForkPoolExecutor(1) as ex:
            assert ex.submit(tasks.add, 1, 1).result() == 2
    finally:
        logger.removeFilter(refuse)


def test_a_handler_that_blocks(
    fork_server_fails_once: None, gate: Gate, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Results, timeouts, kills and deaths go on, and so does the end of the pool."""
    blocked, go_on = threading.Event(), threading.Event()

    def block() -> None:
        blocked.set()
        go_on.wait()

    monkeypatch.setattr(log, "_PATIENCE_S", 0.0625)
    with handled_by(block):
        ex = ForkPoolExecutor(1)
        first = ex.submit(tasks.add, 1, 1)
        blocked.wait()
        assert first.result() == 2
        kills_timeouts_and_crashes_go_on(ex, gate)
        ex.shutdown()
        ex.shutdown()
        assert not go_on.is_set()
        go_on.set()


def test_a_handler_that_calls_the_pool(fork_server_fails_once: None) -> None:
    results: list[Any] = []

    def call() -> None:
        results.append(ex.submit(tasks.add, 2, 2).result())
        ex.shutdown()
        results.append("shut down")

    with handled_by(call), ForkPoolExecutor(1) as ex:
        future = ex.submit(tasks.add, 1, 1)
        assert future.result() == 2
    assert results == [4, "shut down"]


def test_shutdown_returns_when_all_is_said(fork_server_fails_once: None, caplog: pytest.LogCaptureFixture) -> None:
    with ForkPoolExecutor(1) as ex:
        ex.submit(tasks.add, 1, 1)
    (record,) = caplog.records
    assert "a worker could not be started" in record.getMessage()
    assert os.strerror(errno.EAGAIN) in record.getMessage()


def test_nothing_is_set_up_and_stderr_is_a_full_pipe(tmp_path: Path) -> None:
    """`logging` writes there by itself, and waits until somebody reads."""
    script = run_script(
        tmp_path,
        """
        import errno, threading
        from contextlib import suppress
        from forkpool import ForkPoolExecutor

        read_fd, write_fd = os.pipe()
        os.set_blocking(write_fd, False)
        with suppress(BlockingIOError):
            while True:
                os.write(write_fd, b"." * 65536)
        with suppress(BlockingIOError):
            while True:
                os.write(write_fd, b".")
        os.set_blocking(write_fd, True)
        real = os.dup(2)
        os.dup2(write_fd, 2)

        spawn, attempts = os.posix_spawn, iter([1])

        def failing(*args, **more):
            if next(attempts, None) is not None:
                raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
            return spawn(*args, **more)

        os.posix_spawn = failing
        with ForkPoolExecutor(1) as ex:
            mark("result", ex.submit(abs, -1).result())
            mark("timeout", type(ex.options(timeout=0.1).submit(sum, range(1 << 40)).exception()).__name__)
            os.dup2(real, 2)
            os.close(write_fd)
            with open(read_fd, "rb") as reader:
                reader.read(1 << 16)  # now there is room for what waits to be written
        mark("end")
        """,
    )
    assert script.value("result") == "1"
    assert script.value("timeout") == "TaskTimeoutError"
    assert script.all("end")


# --- forkpool itself fails ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "expected"),
    [(LookupError("ours"), InternalError), (MemoryError(), PoolBrokenError), (SystemExit(3), InternalError)],
)
def test_a_supervisor_that_fails_ends_all_futures_whatever_logging_does(
    error: BaseException, expected: type[PoolBrokenError], gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it has to say of that raises, too: nobody was told anything."""

    def fail(*_: Any) -> None:
        raise error

    with handled_by(raises(SystemExit(4))):
        ex = ForkPoolExecutor(1)
        running = ex.submit(tasks.enter, gate)
        gate.wait_inside()
        queued = [ex.submit(tasks.add, 1, 1) for _ in range(3)]
        ex.statistics()  # now they are in the core's queue
        monkeypatch.setattr(PoolMachine, "on_submit", fail)
        last = ex.submit(tasks.add, 1, 1)
        for future in (running, *queued, last):
            assert type(future.exception()) is expected
            assert future.exception().__cause__ is error
        with pytest.raises(expected):
            ex.submit(tasks.add, 1, 1)
        ex.shutdown()
    error.__traceback__ = None  # it holds the frames, and so the pool


def test_a_task_that_is_in_no_queue_when_it_fails(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its answer has come, and was not passed on: it was taken for one that the host had no memory for, and never ended."""
    error = MemoryError()

    def fail(*_: Any) -> None:
        raise error

    ex = ForkPoolExecutor(1)
    future = ex.submit(tasks.enter, gate)
    gate.wait_inside()
    monkeypatch.setattr(Durations, "learn", fail)
    gate.open_for_all()
    assert type(future.exception()) is PoolBrokenError
    ex.shutdown()
    error.__traceback__ = None  # as above


@pytest.mark.slow
@pytest.mark.alarm(120)
def test_no_memory_at_any_step(tmp_path: Path) -> None:
    """A task is in the intake, in the queue, with a worker, in an action, or on its way from one to the other.

    In a program of its own: descriptors and files that the supervisor was about to take on are its to lose.
    """
    script = run_script(
        tmp_path,
        """
        import logging, threading
        from concurrent.futures import wait
        import forkpool
        from forkpool import ForkPoolExecutor, PoolBrokenError, WorkerCrashedError

        SOURCES = tuple(os.path.join(os.path.dirname(forkpool.__file__), name) for name in ("_host/", "_core/"))

        class FailsAtLine:
            # Of those that the supervisor runs. Before `_run` there is nothing that needs memory.
            def __init__(self, nth):
                self.left = nth

            def __call__(self, frame, event, _):
                code = frame.f_code
                if threading.current_thread().name != "forkpool-supervisor" or not code.co_filename.startswith(SOURCES):
                    return None
                if code.co_name != "_serve" and event == "line":
                    self.left -= 1
                    if self.left == 0:
                        raise MemoryError
                return self

        def submit_or_not(ex):
            try:
                return ex.submit(abs, -1)
            except (PoolBrokenError, MemoryError):
                return None

        logging.getLogger("forkpool").addHandler(logging.NullHandler())
        logging.getLogger("forkpool").propagate = False
        for nth in [*range(2, 40, 8), *range(600, 6000, 180)]:
            called = []
            threading.settrace(FailsAtLine(nth))
            ex = ForkPoolExecutor(2, max_tasks_per_child=5)
            futures = [submit_or_not(ex)]
            threading.settrace(None)
            futures = [future for future in [*futures, *(submit_or_not(ex) for _ in range(20))] if future is not None]
            for future in futures:
                future.add_done_callback(called.append)
            wait(futures)
            ex.shutdown()
            for future in futures:
                if future not in called:
                    mark("nobody-was-told", nth)
                if type(future.exception()) not in (type(None), PoolBrokenError, MemoryError, WorkerCrashedError):
                    mark("ended-with", f"{nth} {future.exception()!r}")
            mark("step", nth)
        """,
    )
    assert not script.all("nobody-was-told")
    assert not script.all("ended-with")
    assert len(script.all("step")) == 35
