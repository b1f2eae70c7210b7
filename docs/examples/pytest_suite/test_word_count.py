"""A suite that uses the fixtures which come with forkpool: `python -m pytest docs/examples/pytest_suite`.

Runs in: pytest; functions and lambdas of this file run in workers as they stand.
Tests: tests/docs/test_examples.py
"""

import os
import time
from collections import Counter
from collections.abc import Callable

import pytest
from word_count import count, count_all

from forkpool import ForkPoolExecutor, TaskTimeoutError, WorkerCrashedError


def test_counts_of_all_texts_are_added(fork_pool: ForkPoolExecutor) -> None:
    """A pool of this test's own, made at the first call and gone with the test."""
    assert count_all(fork_pool, ["a b", "B"]) == Counter(a=1, b=2)


@pytest.mark.parametrize("text", ["", "a", "a a"])
def test_one_text(fork_pool_session: ForkPoolExecutor, text: str) -> None:
    """The pool that all tests share, which costs its start only once."""
    assert fork_pool_session.submit(count, text).result() == count(text)


@pytest.mark.fork_pool(max_workers=1)
def test_a_crash_costs_one_text(fork_pool: ForkPoolExecutor) -> None:
    lost, kept = fork_pool.submit(os.abort), fork_pool.submit(count, "a")
    assert isinstance(lost.exception(), WorkerCrashedError)
    assert kept.result() == Counter(a=1)


def test_a_text_that_takes_too_long(fork_pool: ForkPoolExecutor) -> None:
    with pytest.raises(TaskTimeoutError):
        fork_pool.options(timeout=0.1).submit(lambda: time.sleep(60)).result()


def test_any_number_of_workers_counts_the_same(fork_pool_factory: Callable[..., ForkPoolExecutor]) -> None:
    texts = [f"{number % 3} {number % 5}" for number in range(30)]
    one, two = (count_all(fork_pool_factory(max_workers=workers), texts) for workers in (1, 2))
    assert one == two


def test_what_a_task_prints_is_seen(fork_pool: ForkPoolExecutor, capfd: pytest.CaptureFixture[str]) -> None:
    fork_pool.submit(print, "counted").result()
    assert capfd.readouterr().out == "counted\n"
