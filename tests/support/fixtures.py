"""Fixtures of all tests that start processes: a gate, marks, and a look at what is left afterwards.

Runs in: the pytest process; a plugin that the top-level conftest.py names. The leak check takes a tenth of a second, so only
the folders whose tests start processes switch it on for each test (`tests/process`, `tests/contract`).
"""

from collections.abc import Iterator
from multiprocessing import resource_tracker
from pathlib import Path

import pytest

from tests.support.gate import Gate, Marks
from tests.support.leaks import no_leaks


@pytest.fixture(scope="session")
def standard_helpers() -> None:
    """The standard library's tracker lives as long as the process that first needed it; it is no leak of a test."""
    resource_tracker.ensure_running()


@pytest.fixture
def nothing_is_left(alarm_clock: None, standard_helpers: None) -> Iterator[None]:
    """Compare fds, children, threads and shared memory before and after the test."""
    with no_leaks():
        yield


@pytest.fixture
def gate(tmp_path: Path, nothing_is_left: None) -> Iterator[Gate]:
    gate = Gate(tmp_path)
    yield gate
    gate.close()


@pytest.fixture
def second_gate(tmp_path: Path, nothing_is_left: None) -> Iterator[Gate]:
    """For a test in which one gate is open for all already."""
    gate = Gate(tmp_path, "second")
    yield gate
    gate.close()


@pytest.fixture
def marks(tmp_path: Path) -> Marks:
    return Marks(tmp_path / "marks")
