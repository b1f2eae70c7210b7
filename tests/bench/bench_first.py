"""Measure what a user feels first, on forkpool and on the standard library's pools, interleaved in one run.

Run by hand: `python tests/bench/bench_first.py [rounds]`. It prints medians and spread, and asserts nothing.
Each figure is measured `rounds` times; in every round each pool takes its turn, so that a slow minute of the machine
falls on all of them. Import time is that of a fresh interpreter, minus a bare one's in the same round.
"""

import multiprocessing
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, wait
from functools import partial
from importlib.util import find_spec

from forkpool import ForkPoolExecutor

WORKERS = 2
TASKS = 4000  # of one throughput figure
TRIPS = 400  # of one latency figure
Maker = Callable[[], Executor]


def do_nothing() -> None:
    """A function of `__main__`: forkpool ships it by value, and each worker keeps it; the others find it by name."""


TASKS_TRIED: dict[str, Callable[[], object]] = {"an importable function": os.getpid, "a function of __main__": do_nothing}


def pools() -> dict[str, Maker]:
    made: dict[str, Maker] = {"forkpool": partial(ForkPoolExecutor, WORKERS)}
    for method in ("fork", "forkserver"):
        made[f"standard, {method}"] = partial(ProcessPoolExecutor, WORKERS, multiprocessing.get_context(method))
    if find_spec("loky"):
        from loky import ProcessPoolExecutor as LokyExecutor

        made["loky"] = partial(LokyExecutor, WORKERS)
    return made


def startup(make: Maker) -> float:
    """Milliseconds from nothing to the first result."""
    started = time.perf_counter()
    pool = make()
    pool.submit(do_nothing).result()
    seconds = time.perf_counter() - started
    pool.shutdown()
    return seconds * 1e3


def throughput(make: Maker, task: Callable[[], object]) -> float:
    """Tasks per second of a storm of submits that do nothing, in a warm pool."""
    with warm(make) as pool:
        started = time.perf_counter()
        wait([pool.submit(task) for _ in range(TASKS)])
        return TASKS / (time.perf_counter() - started)


def trips(make: Maker, task: Callable[[], object]) -> tuple[float, float]:
    """Microseconds of a submit and its result, one after the other: median and 99th percentile."""
    with warm(make) as pool:
        times = sorted(trip(pool, task) for _ in range(TRIPS))
    return times[TRIPS // 2], times[TRIPS * 99 // 100]


def trip(pool: Executor, task: Callable[[], object]) -> float:
    started = time.perf_counter()
    pool.submit(task).result()
    return (time.perf_counter() - started) * 1e6


def warm(make: Maker) -> Executor:
    pool = make()
    for task in TASKS_TRIED.values():
        wait([pool.submit(task) for _ in range(100)])
    return pool


def import_time(statement: str) -> float:
    """Milliseconds that a statement adds to an interpreter's life."""

    def life(code: str) -> float:
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        return (time.perf_counter() - started) * 1e3

    return life(statement) - life("pass")


def repeat(rounds: int, subjects: dict[str, Callable[[], float]]) -> dict[str, list[float]]:
    """Measure every subject once per round."""
    figures: dict[str, list[float]] = {name: [] for name in subjects}
    for _ in range(rounds):
        for name, measure in subjects.items():
            figures[name].append(measure())
    return figures


def show(title: str, figures: dict[str, list[float]]) -> None:
    print(f"\n{title}")
    for name, values in figures.items():
        print(f"  {name:36} {statistics.median(values):10,.1f}   ({min(values):,.1f} to {max(values):,.1f})")


def measure_all(rounds: int) -> None:
    statements = ["import forkpool", "from forkpool import ForkPoolExecutor"]
    statements.append("from concurrent.futures import ProcessPoolExecutor")
    show("import, ms", repeat(rounds, {text: partial(import_time, text) for text in statements}))
    makers = pools()
    show("start to first result, ms", repeat(rounds, {name: partial(startup, make) for name, make in makers.items()}))
    for what, task in TASKS_TRIED.items():
        figures = repeat(rounds, {name: partial(throughput, make, task) for name, make in makers.items()})
        show(f"submits that do nothing, {what}, tasks/s", figures)
    measure_trips(rounds, makers, os.getpid)


def measure_trips(rounds: int, makers: dict[str, Maker], task: Callable[[], object]) -> None:
    median: dict[str, list[float]] = {name: [] for name in makers}
    tail: dict[str, list[float]] = {name: [] for name in makers}
    for _ in range(rounds):
        for name, make in makers.items():
            p50, p99 = trips(make, task)
            median[name].append(p50)
            tail[name].append(p99)
    show("round trip p50, µs", median)
    show("round trip p99, µs", tail)


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    print(f"CPython {platform.python_version()}, {platform.system()} {platform.release()}, {os.cpu_count()} CPUs,", end=" ")
    print(f"load {os.getloadavg()[0]:.2f}; {WORKERS} workers; median (least to most) of {rounds} rounds")
    measure_all(rounds)


if __name__ == "__main__":
    main()
