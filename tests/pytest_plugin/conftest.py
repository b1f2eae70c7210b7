"""A suite of its own, run by a pytest of its own, as a user's is.

Runs in: the pytest process. Each inner run is a process in a session of its own; nothing of it may live afterwards.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from tests.support import processes

PATIENCE_S = 60


@pytest.fixture(autouse=True)
def mark_of_this_test(alarm_clock: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(processes.MARK_VARIABLE, processes.new_mark())


@pytest.fixture
def run_suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Callable[..., pytest.RunResult]:
    """Write files, run pytest on them, check that no process is left; its output.

    Keyword arguments are files: name without `.py`, and source.
    """
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")

    def run(*options: str, **files: str) -> pytest.RunResult:
        if files:
            pytester.makepyfile(**files)
        result = pytester.runpytest_subprocess("-ra", *options, timeout=PATIENCE_S)
        processes.wait_none_marked()
        return result

    return run


def python(source: str, **more: Any) -> str:
    """What a fresh interpreter prints."""
    command = [sys.executable, "-c", source]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=os.environ, **more).stdout
