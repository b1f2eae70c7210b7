"""How a process is bound to CPUs through psutil.

Runs in: pytest, which binds itself and takes it back.
"""

import os
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest

from forkpool._child import pinning


@pytest.fixture
def mask() -> Iterator[list[int]]:
    before = os.sched_getaffinity(0)
    yield sorted(before)
    os.sched_setaffinity(0, before)


@pytest.mark.parametrize("load", [pinning.set_affinity_by_psutil, lambda: pinning.set_affinity_by_the_package])
def test_both_ways_bind(load: object, mask: list[int]) -> None:
    set_affinity = load()  # type: ignore[operator]
    set_affinity(os.getpid(), mask[-1:])
    assert psutil.Process().cpu_affinity() == mask[-1:]
    with pytest.raises((OSError, ValueError)):
        set_affinity(os.getpid(), [4095])
    assert psutil.Process().cpu_affinity() == mask[-1:]


def test_the_compiled_part_is_where_we_look_for_it() -> None:
    """A psutil that has moved it works too, but costs each pool and worker what the docstring says: look for it anew."""
    assert pinning.set_affinity_by_psutil() is not pinning.set_affinity_by_the_package


def test_the_package_is_not_imported_and_still_can_be() -> None:
    program = """
import os, sys
from forkpool._child import pinning
mask = sorted(os.sched_getaffinity(0))
pinning.prepare({"cpu_sets": [mask[:1]]})
assert pinning.bind_worker({"cpu_sets": [mask[:1]], "thread_variables": None}, 0) == ""
assert "psutil" not in sys.modules
import psutil
assert psutil.Process().cpu_affinity() == mask[:1]
"""
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run([sys.executable, "-c", program], env=environ, check=True)


def test_a_psutil_that_is_built_otherwise_is_used_by_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    class Finder:
        @staticmethod
        def find_spec(name: str, path: object = None) -> None:
            return None

    monkeypatch.setattr(pinning, "PathFinder", Finder)
    assert pinning.set_affinity_by_psutil() is pinning.set_affinity_by_the_package


def test_what_cannot_be_is_told(mask: list[int]) -> None:
    told = pinning.bind_worker({"cpu_sets": [[4095]], "thread_variables": None}, 0)
    assert told.startswith("it cannot be bound to CPU 4095: ")
    assert sorted(os.sched_getaffinity(0)) == mask
