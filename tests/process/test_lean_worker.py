"""What a worker has for itself is little, and what the fork server prepares for all workers does not show in one.

The figures are in tests/bench/bench_memory.py; the limit here is far above them.
"""

import gc
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import forkpool
from forkpool import ForkPoolExecutor

GAPS = """
import sys
sys.path.insert(0, {src!r})
from forkpool._child import packing

def pages(size):  # of ten new objects
    return len({{id(one) >> 12 for one in [bytes(size - packing._EMPTY_BYTES) for _ in range(10)]}})

SIZES = range(48, 257, 16)
crowd = [bytes(size - packing._EMPTY_BYTES) for _ in range(1000) for size in SIZES]
del crowd[::61]  # a gap here and there, none beside the other
assert sum(map(pages, SIZES)) > 6 * len(SIZES), list(map(pages, SIZES))
packing.begin_new_pages()
assert max(map(pages, SIZES)) <= 2, list(map(pages, SIZES))
"""

PRELOADED = """
import gc, multiprocessing, signal, warnings
gc.disable()
signal.setitimer(signal.ITIMER_REAL, 3600)
signal.signal(signal.SIGUSR1, lambda *_: None)
multiprocessing.current_process().name = "somebody else"
warnings.resetwarnings()
"""


def private_dirty(pid: int) -> int:
    """Bytes."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_Dirty:"))


def set_a_timer() -> None:
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 3600)


def state() -> tuple[bool, float, object, object, str, list[object]]:
    import multiprocessing
    import warnings

    timer, _ = signal.getitimer(signal.ITIMER_REAL)
    handlers = signal.getsignal(signal.SIGALRM), signal.getsignal(signal.SIGUSR1)
    return gc.isenabled(), timer, *handlers, multiprocessing.current_process().name, [one[0] for one in warnings.filters]


def test_new_objects_do_not_lie_in_gaps_between_others() -> None:
    src = str(Path(forkpool.__file__).parents[1])
    subprocess.run([sys.executable, "-c", GAPS.format(src=src)], check=True)


def test_a_worker_has_little_memory_of_its_own() -> None:
    with ForkPoolExecutor(1) as ex:
        assert private_dirty(ex.submit(os.getpid).result()) < 5 << 19


def test_nothing_that_a_preloaded_module_set_is_in_a_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "meddlesome.py").write_text(PRELOADED)
    monkeypatch.syspath_prepend(str(tmp_path))
    import warnings

    with ForkPoolExecutor(1, preload=("meddlesome",)) as ex:
        ex.submit(set_a_timer).result()
        found = ex.submit(state).result()
    assert found[:5] == (True, 0.0, signal.SIG_DFL, signal.SIG_DFL, "ForkPoolWorker-0")
    assert found[5] == [one[0] for one in warnings.filters]
