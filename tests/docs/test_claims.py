"""Hold the tables that compare us with others to their word: each row is tried with the real library.

The probes are programs in tests/docs/probes; a row without a claim there, or a claim without a row, fails.
"""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from .markdown import ROOT, prose_of

PROBES = Path(__file__).parent / "probes"
PAGES = {
    "coming-from/fork.md": "from_fork.py",
    "coming-from/loky-and-joblib.md": "from_loky_and_joblib.py",
    "coming-from/multiprocessing-pool.md": "from_multiprocessing.py",
    "coming-from/pebble.md": "from_pebble.py",
    "coming-from/process-pool-executor.md": "from_process_pool_executor.py",
    "how-to/why-did-my-worker-die.md": "why_did_my_worker_die.py",
}


def rows_of(page: str) -> list[str]:
    """Return the first cells of all tables, without their heads."""
    lines = [line for _, line in prose_of(ROOT / "docs" / page)]
    below_head = [
        line for before, line in zip(["", *lines], lines, strict=False) if line.startswith("|") and before.startswith("|")
    ]
    return [re.split(r"(?<!\\)\|", line)[1].strip() for line in below_head if not line.startswith("|--")]


def try_rows(probe: str) -> dict[str, str | None]:
    """Run the probe; return for each row its traceback, or None."""
    with tempfile.TemporaryFile("w+") as output:  # not a pipe, which what other pools leave behind would hold open
        process = subprocess.Popen(
            [sys.executable, str(PROBES / probe)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # not reaped: the group is still its own
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        output.seek(0)
        text = output.read()
    assert process.returncode == 0, text
    return dict(json.loads(line.removeprefix("CLAIM ")) for line in text.splitlines() if line.startswith("CLAIM "))


@pytest.mark.slow
@pytest.mark.alarm(300)
@pytest.mark.parametrize("page", PAGES)
def test_each_row_is_true_with_the_real_library(page: str) -> None:
    tried = try_rows(PAGES[page])
    assert not [f"{row}\n{outcome}" for row, outcome in tried.items() if outcome is not None]
    assert sorted(tried) == sorted(set(rows_of(page)))
