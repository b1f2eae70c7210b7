"""Measure what binding workers to CPUs costs or gains: pin=True against pin=False, in pairs, in one run.

Run by hand: `python tests/bench/bench_pin.py [pairs] [workers]`. It prints medians and spread, and asserts nothing.
Pools differ among themselves, by where the kernel put them, more than binding is worth: so there are many, each measured
briefly. A bound pool and a free one take their turn right after each other, the one that begins alternates, and their
figures are divided: a slow minute of the machine falls on both. What is printed last is the median of these quotients, with
the range in which it lies with 95 % (order statistics of the binomial distribution).
"""

import math
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import wait

from forkpool import ForkPoolExecutor

TASKS = 4000  # of one storm of tiny submits
TRIPS = 500  # of one latency figure


def do_nothing() -> None:
    """A function of `__main__`, shipped by value."""


def count(steps: int) -> int:
    """Some milliseconds of pure Python."""
    total = 0
    for step in range(steps):
        total += step & 7
    return total


def make(pin: bool, workers: int) -> ForkPoolExecutor:
    """A pool whose workers have all run something."""
    pool = ForkPoolExecutor(workers, pin=pin)
    wait([pool.submit(count, 20_000) for _ in range(8 * workers)])
    wait([pool.submit(do_nothing) for _ in range(100)])
    if pool.placement().pinned != pin:
        sys.exit(f"cannot measure: {pool.placement()}")
    return pool


def tiny(pool: ForkPoolExecutor, workers: int) -> float:
    """Microseconds for each task of a storm that does nothing."""
    started = time.perf_counter()
    wait([pool.submit(do_nothing) for _ in range(TASKS)])
    return (time.perf_counter() - started) / TASKS * 1e6


def trips(pool: ForkPoolExecutor) -> list[float]:
    """Microseconds from submit to result, one after the other, sorted."""
    return sorted(trip(pool) for _ in range(TRIPS))


def trip(pool: ForkPoolExecutor) -> float:
    started = time.perf_counter()
    pool.submit(do_nothing).result()
    return (time.perf_counter() - started) * 1e6


def latency(pool: ForkPoolExecutor, workers: int) -> float:
    return trips(pool)[TRIPS // 2]


def tail_latency(pool: ForkPoolExecutor, workers: int) -> float:
    return trips(pool)[TRIPS * 99 // 100]


def cpu_bound(pool: ForkPoolExecutor, workers: int) -> float:
    """Milliseconds for 30 tasks of some milliseconds each, for each worker."""
    started = time.perf_counter()
    wait([pool.submit(count, 100_000) for _ in range(30 * workers)])
    return (time.perf_counter() - started) * 1e3


def cpu_bound_beside_the_host(pool: ForkPoolExecutor, workers: int) -> float:
    """The same, while the host computes as well: one process more than CPUs, if there are as many workers."""
    started = time.perf_counter()
    futures = [pool.submit(count, 100_000) for _ in range(30 * workers)]
    while not all(future.done() for future in futures):
        count(5_000)
    return (time.perf_counter() - started) * 1e3


def start(pin: bool, workers: int) -> float:
    """Milliseconds from nothing to the first result."""
    started = time.perf_counter()
    with ForkPoolExecutor(workers, pin=pin) as pool:
        pool.submit(do_nothing).result()
        return (time.perf_counter() - started) * 1e3


def fork_to_ready(pin: bool, workers: int) -> float:
    """Milliseconds for a worker that serves one task and is replaced: fork, bind, ready, task, exit."""
    with ForkPoolExecutor(1, pin=pin, max_tasks_per_child=1) as pool:
        pool.submit(do_nothing).result()
        started = time.perf_counter()
        for _ in range(60):
            pool.submit(do_nothing).result()
        return (time.perf_counter() - started) / 60 * 1e3


IN_A_POOL: dict[str, tuple[Callable[[ForkPoolExecutor, int], float], str]] = {
    "tiny submits": (tiny, "µs each"),
    "round trip p50": (latency, "µs"),
    "round trip p99": (tail_latency, "µs"),
    "CPU-bound": (cpu_bound, "ms"),
    "CPU-bound, host too": (cpu_bound_beside_the_host, "ms"),
}
OF_A_POOL: dict[str, tuple[Callable[[bool, int], float], str]] = {
    "start to first result": (start, "ms"),
    "replace a worker": (fork_to_ready, "ms"),
}
Figures = dict[str, tuple[float, float]]  # of a bound and of a free pool


def measure_pair(number: int, workers: int) -> Figures:
    """All figures of two pools, one after the other; who begins alternates."""
    found: dict[bool, dict[str, float]] = {}
    for pin in (True, False) if number % 2 else (False, True):
        with make(pin, workers) as pool:
            found[pin] = {name: subject(pool, workers) for name, (subject, _) in IN_A_POOL.items()}
        found[pin] |= {name: subject(pin, workers) for name, (subject, _) in OF_A_POOL.items()}
    return {name: (figure, found[False][name]) for name, figure in found[True].items()}


def likely_range(values: list[float]) -> tuple[float, float]:
    """Where the median lies with 95 %."""
    ordered, count = sorted(values), len(values)
    below = max(0, math.floor(count / 2 - 0.98 * math.sqrt(count)))
    return ordered[below], ordered[count - 1 - below]


def main() -> None:
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    workers = int(sys.argv[2]) if len(sys.argv) > 2 else len(os.sched_getaffinity(0))
    print(f"CPython {platform.python_version()}, {platform.system()} {platform.release()}, {os.cpu_count()} CPUs,", end=" ")
    print(f"load {os.getloadavg()[0]:.2f}; {workers} workers; medians of {pairs} pairs of pools; below 1: bound is faster")
    figures = [measure_pair(number, workers) for number in range(pairs)]
    for name, (_, unit) in (IN_A_POOL | OF_A_POOL).items():
        bound, free = zip(*(pair[name] for pair in figures), strict=True)
        quotients = [one / other for one, other in zip(bound, free, strict=True)]
        least, most = likely_range(quotients)
        print(f"  {name:22} bound {statistics.median(bound):9,.1f}  free {statistics.median(free):9,.1f} {unit:8}", end=" ")
        print(f"bound/free {statistics.median(quotients):.3f} ({least:.3f} to {most:.3f})")


if __name__ == "__main__":
    main()
