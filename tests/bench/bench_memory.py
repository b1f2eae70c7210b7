"""Measure what a worker adds to the memory of the machine, with numpy preloaded and used.

Run by hand: `python tests/bench/bench_memory.py [workers ...]`. It prints kB of /proc/PID/smaps_rollup, and asserts nothing.
Private dirty memory is what a worker alone has; PSS is that, and its share of what it has in common with others: with the
fork server, and with every program that has mapped the same libraries. All workers live while they are measured.
Used means: a matrix of 64 x 64 is filled, multiplied, summed, and random numbers are drawn, in each worker.
"""

import os
import platform
import statistics
import sys
from collections import Counter
from pathlib import Path

from forkpool import ForkPoolExecutor
from tests.support.gate import RECORD_BYTES, Gate

FIELDS = ("Private_Dirty", "Pss", "Rss")
ROUNDS = 3


def enter(inside_path: str, go_path: str) -> None:
    """Say that we are inside, and wait to be let go. Not the gate's own, whose import is memory of each worker."""
    inside, go = os.open(inside_path, os.O_WRONLY), os.open(go_path, os.O_RDONLY)
    os.write(inside, b"%*d" % (RECORD_BYTES, os.getpid()))
    os.read(go, 1)
    os.close(inside)
    os.close(go)


def use_numpy(inside_path: str, go_path: str) -> None:
    import numpy

    matrix = numpy.arange(4096.0).reshape(64, 64)
    numpy.random.random(10)
    (matrix @ matrix).sum()
    enter(inside_path, go_path)


def memory(pid: int) -> dict[str, int]:
    lines = (line.split() for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
    return {words[0].rstrip(":"): int(words[1]) for words in lines}


def by_mapping(pid: int) -> Counter[str]:
    """Kilobytes of private dirty memory by file or kind."""
    found: Counter[str] = Counter()
    name = ""
    for words in map(str.split, Path(f"/proc/{pid}/smaps").read_text().splitlines()):
        if "-" in words[0]:
            name = os.path.basename(words[5]) if len(words) > 5 else "[anonymous]"
        elif words[0] == "Private_Dirty:":
            found[name] += int(words[1])
    return found


def measure(workers: int, gate: Gate) -> None:
    with ForkPoolExecutor(workers, preload=("numpy",)) as ex:
        for title, task in (("idle", enter), ("used", use_numpy)):
            futures = [ex.submit(task, gate.inside_path, gate.go_path) for _ in range(workers)]
            pids = [gate.wait_inside() for _ in futures]
            figures = [memory(pid) for pid in pids]
            medians = {field: statistics.median(one[field] for one in figures) for field in FIELDS}
            most = max(one["Private_Dirty"] for one in figures)
            largest = ", ".join(f"{name} {size}" for name, size in by_mapping(pids[0]).most_common(5))
            shown = "  ".join(f"{field} {value:7,.0f}" for field, value in medians.items())
            print(f"{workers:3} workers, {title}: {shown}  (most private dirty {most:,}; {largest})")
            gate.release(workers)
            for future in futures:
                future.result()


def main() -> None:
    import tempfile

    print(f"CPython {platform.python_version()}, {platform.system()} {platform.release()}; kB, medians over the workers")
    for workers in [int(word) for word in sys.argv[1:]] or [2, 8]:
        for _ in range(ROUNDS):
            with tempfile.TemporaryDirectory() as folder:
                gate = Gate(folder)
                try:
                    measure(workers, gate)
                finally:
                    gate.close()


if __name__ == "__main__":
    main()
