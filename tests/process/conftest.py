"""What every test against real processes gets: a gate, marks, a pool, and a look at what is left afterwards.

Runs in: the pytest process.
"""

from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker
from pathlib import Path

import pytest

from tests.support.gate import Gate, Marks
from tests.support.leaks import no_leaks
from tests.support.script import Script, start_script


@pytest.fixture(scope="session")
def standard_helpers() -> None:
    """The standard library's tracker lives as long as the process that first needed it; it is no leak of a test."""
    resource_tracker.ensure_running()


@pytest.fixture(autouse=True)
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
def marks(tmp_path: Path) -> Marks:
    return Marks(tmp_path / "marks")


@pytest.fixture
def start(tmp_path: Path, nothing_is_left: None) -> Iterator[Callable[..., Script]]:
    """Start programs in sessions of their own; all are ended with the test."""
    scripts: list[Script] = []

    def start_one(source: str, how: str = "file", **more: object) -> Script:
        folder = tmp_path / f"script{len(scripts)}"
        folder.mkdir()
        scripts.append(start_script(folder, source, how, **more))  # type: ignore[arg-type]
        return scripts[-1]

    yield start_one
    for script in scripts:
        script.close()
