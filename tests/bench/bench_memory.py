"""Measure what a worker adds to the memory of the machine, with numpy preloaded and used.

Run by hand: `PYTHONPATH=. python tests/bench/bench_memory.py [workers ...]`. It prints kB of /proc/PID/smaps_rollup, and
asserts nothing.
Private dirty memory is what a worker alone has; PSS is that, and its share of what it has in common with others: with the
fork server, and with every program that has mapped the same libraries. All workers live while they are measured.
Beside forkpool's: workers of the standard library's pool with its `forkserver` and the same preload, and children of a bare
`os.fork`, which is the floor. What they do is in memory_workers.py.
"""

import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tests.support.gate import Gate

FIELDS = ("Private_Dirty", "Pss", "Rss")
KINDS = ("bare", "forkpool", "standard")
ROUNDS = 3


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


def measure(kind: str, workers: int, gate: Gate) -> None:
    script = str(Path(__file__).with_name("memory_workers.py"))
    process = subprocess.Popen([sys.executable, script, kind, str(workers), gate.inside_path, gate.go_path])
    for title in ("idle", "used"):
        pids = [gate.wait_inside() for _ in range(workers)]
        figures = [memory(pid) for pid in pids]
        medians = {field: statistics.median(one[field] for one in figures) for field in FIELDS}
        most = max(one["Private_Dirty"] for one in figures)
        largest = ", ".join(f"{name} {size}" for name, size in by_mapping(pids[0]).most_common(5))
        shown = "  ".join(f"{field} {value:7,.0f}" for field, value in medians.items())
        print(f"{kind:8} {workers:3} workers, {title}: {shown}  (most private dirty {most:,}; {largest})")
        gate.release(workers)
    process.wait()


def main() -> None:
    print(f"CPython {platform.python_version()}, {platform.system()} {platform.release()}; kB, medians over the workers")
    for workers in [int(word) for word in sys.argv[1:]] or [2, 8]:
        for kind in KINDS:
            for _ in range(ROUNDS):
                with tempfile.TemporaryDirectory() as folder:
                    gate = Gate(folder)
                    try:
                        measure(kind, workers, gate)
                    finally:
                        gate.close()


if __name__ == "__main__":
    main()
