"""Sweep a parameter with numpy, on workers that have it imported already and are replaced after some tasks.

`preload` imports numpy once, in the fork server; each worker is forked with it, so that a fresh one costs little.
That makes recycling cheap: `max_tasks_per_child` replaces a worker after 5 tasks, whatever they left behind.
Each task draws from a seed of its own, so the result does not depend on which worker ran it.
Tests: tests/docs/test_examples.py
"""

import os

import numpy as np

from forkpool import ForkPoolExecutor

POINTS = 20
SAMPLES = 50_000
TASKS_PER_WORKER = 5


def share_inside(point: int) -> tuple[float, int]:
    """The task: which share of normally distributed numbers lies within this bound, and who counted."""
    numbers = np.random.default_rng(point).normal(size=SAMPLES)
    return float(np.mean(np.abs(numbers) < point / 5)), os.getpid()


def main() -> None:
    with ForkPoolExecutor(max_workers=2, preload=("numpy",), max_tasks_per_child=TASKS_PER_WORKER) as pool:
        results = list(pool.map(share_inside, range(POINTS)))
    for point in range(0, POINTS, 5):
        print(f"within {point / 5:.0f} sigma: {results[point][0]:.3f}")
    print(f"{POINTS} tasks on {len({pid for _, pid in results})} workers")


if __name__ == "__main__":
    main()
