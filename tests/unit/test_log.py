"""Log: what is said is said in order, whatever the user's handlers do."""

import _thread
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from forkpool._host import log as log_module
from forkpool._host.log import Log


class Calls(logging.Handler):
    """Calls a function with each text."""

    def __init__(self, do: Callable[[str], object]) -> None:
        super().__init__()
        self._do = do

    def emit(self, record: logging.LogRecord) -> None:
        self._do(record.getMessage())


@contextmanager
def handler(do: Callable[[str], object]) -> Iterator[None]:
    logger, one = logging.getLogger("forkpool"), Calls(do)
    logger.addHandler(one)
    try:
        yield
    finally:
        logger.removeHandler(one)


def end(log: Log) -> None:
    log.stop()
    log.join()


def test_in_order_and_all_before_join_returns(caplog: pytest.LogCaptureFixture) -> None:
    log, error = Log(), ValueError("mine")
    for number in range(100):
        log.warning("number %d of %s", number, "many")
    log.critical("it failed: 100 %", error)
    end(log)
    assert caplog.messages == [*(f"number {number} of many" for number in range(100)), "it failed: 100 %"]
    assert caplog.records[-1].exc_info is not None
    assert caplog.records[-1].exc_info[1] is error
    assert caplog.records[0].levelno == logging.WARNING


def test_nothing_is_started_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_thread, "start_new_thread", None)
    end(Log())


@pytest.mark.parametrize("error", [ValueError("mine"), SystemExit(3), KeyboardInterrupt()])
def test_a_handler_that_raises_is_told_of_and_the_next_record_comes(
    error: BaseException, capsys: pytest.CaptureFixture[str]
) -> None:
    said: list[str] = []

    def fail(text: str) -> None:
        said.append(text)
        raise error

    log = Log()
    with handler(fail):
        log.warning("first")
        log.warning("second")
        end(log)
    assert said == ["first", "second"]
    assert capsys.readouterr().err.count(type(error).__name__) == 2


def test_a_handler_that_blocks_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    go_on, waits = threading.Event(), []
    monkeypatch.setattr(log_module, "_PATIENCE_S", 0.0625)
    log = Log()
    join = log.side.join

    def note(timeout: float) -> bool:
        waits.append(timeout)
        return join(timeout)

    monkeypatch.setattr(log.side, "join", note)
    with handler(lambda _: go_on.wait()):
        log.warning("first")
        end(log)
        log.join()
        go_on.set()
        assert join()
    assert waits == [0.0625]


def test_without_a_thread_it_is_said_when_one_can_be_had(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: Any) -> int:
        raise RuntimeError("can't start new thread")

    log = Log()
    with monkeypatch.context() as patch:
        patch.setattr(_thread, "start_new_thread", refuse)
        log.warning("first")
        log.warning("second")
    assert caplog.messages == []
    end(log)
    assert caplog.messages == ["first", "second"]


def test_without_any_thread_it_is_dropped(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def refuse(*_: Any) -> int:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(_thread, "start_new_thread", refuse)
    log = Log()
    log.warning("first")
    end(log)
    assert caplog.messages == []
