"""CPython's own `test_concurrent_futures`, run on our pool where this Python ships it.

Every test of process pools passes, or stands in cpython_suite.py with its reason; what stands there exists, and does not pass.
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contract.cpython_suite import CANNOT_APPLY
from tests.support import cpython_runner
from tests.support.script import PACKAGE

SHARDS = 3  # at its end the slowest has slept for 20 s
ENOUGH_TESTS = 50


def run_suite(folder: Path) -> dict[str, tuple[str, str]]:
    """{"Class.method": (outcome, why)}; all shards run side by side."""
    results = [folder / f"{shard}.json" for shard in range(SHARDS)]
    programs = [start_shard(path, shard) for shard, path in enumerate(results)]
    told = [program.communicate()[0] for program in programs]
    for program, output in zip(programs, told, strict=True):
        assert program.returncode == 0, output.decode(errors="replace")
    return {name: tuple(outcome) for path in results for name, outcome in json.loads(path.read_text()).items()}


def start_shard(results: Path, shard: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "forkpool", "run", cpython_runner.__file__, str(results), str(shard), str(SHARDS)],
        cwd=results.parent,
        env={**os.environ, "PYTHONPATH": str(PACKAGE)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def why_wrong(name: str, outcome: str, why: str) -> str | None:
    listed = CANNOT_APPLY.get(name)
    if listed is None:
        return None if outcome == "passed" else f"{name}: {outcome}\n{why}"
    if listed.outcome in (outcome, "either"):
        return None
    return f"{name}: {outcome}, but listed as {listed.outcome}, because: {listed.reason}\n{why}"


@pytest.mark.slow
@pytest.mark.alarm(150)
def test_all_of_it_passes_or_is_listed(tmp_path: Path) -> None:
    if importlib.util.find_spec("test") is None or importlib.util.find_spec(cpython_runner.SUITE) is None:
        pytest.skip(f"this Python does not ship {cpython_runner.SUITE}")
    outcomes = run_suite(tmp_path)
    assert len(outcomes) > ENOUGH_TESTS
    wrong = [why for name, (outcome, reason) in outcomes.items() if (why := why_wrong(name, outcome, reason))]
    assert not wrong, "\n\n".join(wrong)
    must_exist = {name for name, listed in CANNOT_APPLY.items() if sys.version_info >= listed.since}
    assert not must_exist - set(outcomes)
