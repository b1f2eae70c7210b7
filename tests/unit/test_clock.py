"""The clock that forkpool measures by. Runs in: pytest."""

import ast
import time
from pathlib import Path

import pytest
from freezegun import freeze_time

import forkpool
from forkpool._shared import clock

PACKAGE = Path(forkpool.__file__).parent
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != Path(clock.__file__))
READS_TIME = {"time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns"}


def test_it_is_that_of_the_interpreter() -> None:
    assert time.monotonic() <= clock.now() <= time.monotonic()
    assert time.monotonic_ns() <= clock.now_ns() <= time.monotonic_ns()


def test_it_goes_on_where_time_stands_still() -> None:
    before = clock.now(), clock.now_ns()
    with freeze_time("2012-01-14"):
        assert time.monotonic() == time.monotonic()
        frozen = clock.now(), clock.now_ns()
    after = time.monotonic(), time.monotonic_ns()
    assert before[0] < frozen[0] < after[0]
    assert before[1] < frozen[1] < after[1]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_nobody_else_reads_the_time(path: Path) -> None:
    tree = ast.parse(path.read_text())
    read = [node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "time"]
    imported = [
        name.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "time"
        for name in node.names
    ]
    assert READS_TIME & {*read, *imported} == set(), "forkpool._shared.clock knows it also when it is frozen"
