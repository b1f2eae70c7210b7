"""Measure what binding workers to CPUs costs or gains: pin="auto" against pin=False, in pairs, in one run.

Run by hand: `python tests/bench/bench_pin.py [pairs] [workers]`. It prints medians and spread, and asserts nothing.
In each pair both take their turn right after each other, the one that begins alternates, and the two figures are divided:
a slow minute of the machine falls on both. What is printed last is the median of these quotients, with the range in which
it lies with 95 % (order statistics of the binomial distribution).
"""

import math
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import wait
from typing import Literal

from forkpool import ForkPoolExecutor

TASKS = 4000  # of one storm of tiny submits
TRIPS = 1500  # of one latency figure
Pin = Literal["auto", False]


def do_nothing() -> None:
    """A function of `__main__`, shipped by value."""


def count(steps: int) -> int:
    """Some milliseconds of pure Python."""
    total = 0
    for step in range(steps):
        total += step & 7
    return total


def make(pin: Pin, workers: int) -> ForkPoolExecutor:
    """A pool whose workers have all run something."""
    pool = ForkPoolExecutor(workers, pin=pin)
    wait([pool.submit(count, 20_000) for _ in range(8 * workers)])
    wait([pool.submit(do_nothing) for _ in range(100)])
    if pool.placement().pinned != (pin == "auto"):
        sys.exit(f"cannot measure: {pool.placement()}")
    return pool


def tiny(pin: Pin, workers: int) -> float:
    """Microseconds for each task of a storm that does nothing."""
    with make(pin, workers) as pool:
        started = time.perf_counter()
        wait([pool.submit(do_nothing) for _ in range(TASKS)])
        return (time.perf_counter() - started) / TASKS * 1e6


def trips(pin: Pin, workers: int) -> list[float]:
    """Microseconds from submit to result, one after the other, sorted."""
    with make(pin, workers) as pool:
        return sorted(trip(pool) for _ in range(TRIPS))


def trip(pool: ForkPoolExecutor) -> float:
    started = time.perf_counter()
    pool.submit(do_nothing).result()
    return (time.perf_counter() - started) * 1e6


def latency(pin: Pin, workers: int) -> float:
    return trips(pin, workers)[TRIPS // 2]


def tail_latency(pin: Pin, workers: int) -> float:
    return trips(pin, workers)[TRIPS * 99 // 100]


def cpu_bound(pin: Pin, workers: int) -> float:
    """Milliseconds for 60 tasks of some milliseconds each, for each worker."""
    with make(pin, workers) as pool:
        started = time.perf_counter()
        wait([pool.submit(count, 100_000) for _ in range(60 * workers)])
        return (time.perf_counter() - started) * 1e3


def cpu_bound_beside_the_host(pin: Pin, workers: int) -> float:
    """The same, while the host computes as well: one process more than CPUs, if there are as many workers."""
    with make(pin, workers) as pool:
        started = time.perf_counter()
        futures = [pool.submit(count, 100_000) for _ in range(60 * workers)]
        while not all(future.done() for future in futures):
            count(5_000)
        return (time.perf_counter() - started) * 1e3


def start(pin: Pin, workers: int) -> float:
    """Milliseconds from nothing to the first result."""
    started = time.perf_counter()
    with ForkPoolExecutor(workers, pin=pin) as pool:
        pool.submit(do_nothing).result()
        return (time.perf_counter() - started) * 1e3


def fork_to_ready(pin: Pin, workers: int) -> float:
    """Milliseconds for a worker that serves one task and is replaced: fork, bind, ready, task, exit."""
    with ForkPoolExecutor(1, pin=pin, max_tasks_per_child=1) as pool:
        pool.submit(do_nothing).result()
        started = time.perf_counter()
        for _ in range(60):
            pool.submit(do_nothing).result()
        return (time.perf_counter() - started) / 60 * 1e3


SUBJECTS: dict[str, tuple[Callable[[Pin, int], float], str]] = {
    "tiny submits": (tiny, "µs each"),
    "round trip p50": (latency, "µs"),
    "round trip p99": (tail_latency, "µs"),
    "CPU-bound": (cpu_bound, "ms"),
    "CPU-bound, host too": (cpu_bound_beside_the_host, "ms"),
    "start to first result": (start, "ms"),
    "replace a worker": (fork_to_ready, "ms"),
}


def measure(subject: Callable[[Pin, int], float], workers: int, pairs: int) -> tuple[list[float], list[float]]:
    """Figures of `pin="auto"` and of `pin=False`."""
    figures: dict[Pin, list[float]] = {"auto": [], False: []}
    orders: list[tuple[Pin, Pin]] = [("auto", False), (False, "auto")]
    for number in range(pairs):
        for pin in orders[number % 2]:
            figures[pin].append(subject(pin, workers))
    return figures["auto"], figures[False]


def likely_range(values: list[float]) -> tuple[float, float]:
    """Where the median lies with 95 %."""
    ordered, count = sorted(values), len(values)
    below = max(0, math.floor(count / 2 - 0.98 * math.sqrt(count)))
    return ordered[below], ordered[count - 1 - below]


def main() -> None:
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    workers = int(sys.argv[2]) if len(sys.argv) > 2 else len(os.sched_getaffinity(0))
    print(f"CPython {platform.python_version()}, {platform.system()} {platform.release()}, {os.cpu_count()} CPUs,", end=" ")
    print(f"load {os.getloadavg()[0]:.2f}; {workers} workers; medians of {pairs} pairs; below 1: auto is faster")
    for name, (subject, unit) in SUBJECTS.items():
        auto, free = measure(subject, workers, pairs)
        quotients = [one / other for one, other in zip(auto, free, strict=True)]
        least, most = likely_range(quotients)
        print(f"  {name:22} auto {statistics.median(auto):9,.1f}  False {statistics.median(free):9,.1f} {unit:8}", end=" ")
        print(f"auto/False {statistics.median(quotients):.3f} ({least:.3f} to {most:.3f})", flush=True)


if __name__ == "__main__":
    main()
