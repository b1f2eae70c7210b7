"""How many threads the libraries in a worker start.

Runs in: pytest and workers.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from forkpool import ForkPoolExecutor
from forkpool._core.placement import THREAD_VARIABLES
from tests.support.gate import Gate

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("own_claims", "no_variables")]

MASK = sorted(os.sched_getaffinity(0))
on_two_cpus = pytest.mark.skipif(len(MASK) < 2, reason="needs two CPUs")


@pytest.fixture
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in THREAD_VARIABLES:
        monkeypatch.delenv(name, raising=False)


def variables() -> dict[str, str]:
    return {name: os.environ[name] for name in THREAD_VARIABLES if name in os.environ}


def threads_of_numpy() -> int:
    """Threads of this process after numpy has multiplied matrices that are worth more than one."""
    import numpy

    matrix = numpy.ones((600, 600))
    numpy.dot(matrix, matrix)
    status = Path("/proc/self/status").read_text()
    return int(status.partition("Threads:")[2].split()[0])


@on_two_cpus
def test_numpy_in_a_bound_worker_has_one_thread_for_each_of_its_cpus(gate: Gate) -> None:
    with ForkPoolExecutor(pin=[MASK[:1], MASK[:2]]) as ex:
        assert on_both_slots(ex, gate, threads_of_numpy) == {0: 1, 1: 2}


def on_both_slots(ex: ForkPoolExecutor, gate: Gate, ask: Callable[[], object]) -> dict[int, object]:
    futures = [ex.submit(enter_and_ask, gate, ask) for _ in range(2)]
    for _ in futures:
        gate.wait_inside()
    gate.release(2)
    return dict(future.result() for future in futures)


def enter_and_ask(gate: Gate, ask: Callable[[], object]) -> tuple[int, object]:
    gate.enter()
    return int(os.environ["FORKPOOL_SLOT"]), ask()


PRELOADED = """
import contextlib, os, sys
from forkpool._child import pinning
snapshot = {{"cpu_sets": {sets}, "thread_variables": None}}
pinning.prepare(snapshot)
before = os.sched_getaffinity(0)
with {how}:
    import numpy
assert os.sched_getaffinity(0) == before
if os.fork() == 0:
    assert pinning.bind_worker(snapshot, 0) == ""
    from tests.process.test_threads import threads_of_numpy
    print(threads_of_numpy(), flush=True)
    os._exit(0)
os.wait()
"""


@on_two_cpus
@pytest.mark.parametrize(("how", "threads"), [("pinning.as_a_worker(snapshot)", 1), ("contextlib.nullcontext()", 2)])
def test_numpy_that_the_fork_server_preloaded_as_if_by_a_worker(how: str, threads: int) -> None:
    """The second case shows what the first one cures: numpy counts CPUs when it is loaded, and remembers it over forks."""
    source = PRELOADED.format(sets=[MASK[:1], MASK[1:2]], how=how)
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", source], env=environ, capture_output=True, text=True, check=True)
    assert done.stdout == f"{threads}\n"


@on_two_cpus
def test_preloaded_numpy_in_a_bound_worker_has_one_thread() -> None:
    with ForkPoolExecutor(1, preload=["numpy"]) as ex:
        assert ex.submit(threads_of_numpy).result() == 1
        assert ex.placement().pinned
    with ForkPoolExecutor(1, preload=["numpy"], pin=False) as ex:
        assert ex.submit(threads_of_numpy).result() == len(MASK)


@on_two_cpus
def test_without_a_wish_nothing_is_set() -> None:
    with ForkPoolExecutor(1) as ex:
        assert ex.submit(variables).result() == {}
        assert ex.submit(threads_of_numpy).result() == 1


@on_two_cpus
def test_a_number_is_what_the_libraries_take() -> None:
    with ForkPoolExecutor(1, pin=[MASK[:2]], threads_per_worker=2) as ex:
        assert ex.submit(variables).result() == dict.fromkeys(THREAD_VARIABLES, "2")
        assert ex.submit(threads_of_numpy).result() == 2
        assert ex.placement().slots[0].cpus == tuple(MASK[:2])
    with ForkPoolExecutor(1, threads_per_worker=1, pin=False) as ex:
        assert ex.submit(threads_of_numpy).result() == 1


def test_auto_is_as_many_as_the_worker_has_cpus() -> None:
    with ForkPoolExecutor(1, threads_per_worker="auto") as ex:
        assert ex.submit(variables).result() == dict.fromkeys(THREAD_VARIABLES, "1")


@on_two_cpus
def test_auto_with_unequal_sets(gate: Gate) -> None:
    with ForkPoolExecutor(pin=[MASK[:1], MASK[:2]], threads_per_worker="auto") as ex:
        found = on_both_slots(ex, gate, variables)
    assert found == {slot: dict.fromkeys(THREAD_VARIABLES, str(slot + 1)) for slot in range(2)}


def test_what_the_user_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    with ForkPoolExecutor(1, threads_per_worker="auto") as ex:
        assert ex.submit(variables).result() == {
            "OMP_NUM_THREADS": "7",
            "NUMBA_NUM_THREADS": "1",
            "VECLIB_MAXIMUM_THREADS": "1",
        }
    with ForkPoolExecutor(1, pin=False, threads_per_worker=3, env={"MKL_NUM_THREADS": "5"}) as ex:
        assert ex.submit(variables).result() == {**dict.fromkeys(THREAD_VARIABLES, "3"), "MKL_NUM_THREADS": "5"}
