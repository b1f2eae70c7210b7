"""Measure what a new worker for each task costs, on forkpool and on the standard library's pool, interleaved in one run.

Run by hand:
    python tests/bench/bench_recycling.py [rounds]      tasks per second at max_tasks_per_child=1, and who spends the CPU time
    python tests/bench/bench_recycling.py --stall       10,000 tasks for each of 12 pools: does any stop?
It prints medians and spread, and asserts nothing; --stall ends with status 1 if a pool stopped.

Each figure is measured in a program of its own, a file with a main module as users write them: the standard library's pool
imports that module in every worker, so what it imports is part of the price. "bare" imports nothing, "heavy" imports numpy
(without numpy: a few modules of the standard library), "heavy, used" also uses it in the task, "heavier, used" the same
with scipy.stats. ProcessPoolExecutor hangs for ever at limits above 1 (python/cpython#115634), so every program has a time
limit, and one that is over it is told as such.
CPU time is read from /proc/PID/stat: of the host, of the fork server, and of the workers that the fork server has reaped; its
unit is a hundredth of a second, so it is told for all tasks of a program together, divided by their number.
"""

import json
import multiprocessing
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, wait
from importlib.util import find_spec
from pathlib import Path

from forkpool import ForkPoolExecutor, diagnostics

WORKERS = 2
OURS, THEIRS, HELPED = "forkpool", "ProcessPoolExecutor(forkserver)", "the same, told to preload"
POOLS = (OURS, THEIRS, HELPED)
PATIENCE_S = 60.0  # for a program of some seconds
STALL_TASKS = 10_000
STALL_PATIENCE_S = 20.0  # without any answer
TICKS = os.sysconf("SC_CLK_TCK")

HEAVY = ("numpy",) if find_spec("numpy") else ("asyncio", "email.message", "http.client", "sqlite3", "xml.dom.minidom")
USE = "numpy.dot([1, 2], [3, 4])" if find_spec("numpy") else "sqlite3.connect(':memory:').close()"
PROGRAMS: dict[str, tuple[tuple[str, ...], str]] = {  # what the main module imports, and what a task does
    "bare": ((), "pass"),
    "heavy": (HEAVY, "pass"),
    "heavy, used": (HEAVY, USE),
}
if find_spec("scipy"):
    PROGRAMS["heavier, used"] = (("scipy.stats",), "scipy.stats.norm.cdf(0.5)")
PROGRAM = """\
import {imports}
def task():
    {body}

if __name__ == "__main__":
    sys.path.insert(0, {folder!r})
    import bench_recycling
    bench_recycling.measure_program(task, {pool!r}, {name!r})
"""


# --- in the measured program ---------------------------------------------------------------------------


def make_pool(which: str, program: str) -> Executor:
    """The pool as somebody would write it who knows the means that it has."""
    imports, body = PROGRAMS[program]
    if which == OURS:
        return ForkPoolExecutor(WORKERS, max_tasks_per_child=1, preload=() if body == "pass" else imports)
    context = multiprocessing.get_context("forkserver")
    if which == HELPED:
        context.set_forkserver_preload(["concurrent.futures.process", *imports])
    return ProcessPoolExecutor(WORKERS, context, max_tasks_per_child=1)


def tasks_of(which: str) -> int:
    """Some seconds' worth."""
    if which == OURS:
        return 500
    return 60 if which == HELPED else 30


def measure_program(task: Callable[[], object], which: str, program: str) -> None:
    """Run the tasks, print seconds per task as JSON: of the clock, and of the CPU of host, fork server and workers."""
    count = tasks_of(which)
    with make_pool(which, program) as pool:
        wait([pool.submit(task) for _ in range(2 * WORKERS)])  # the fork server has started
        server = server_pid(pool)
        before = cpu_times(server)
        started = time.perf_counter()
        futures = [pool.submit(task) for _ in range(count)]
        wait(futures)
        seconds = time.perf_counter() - started
        after = cpu_times(server)
    assert not any(future.exception() for future in futures)
    spent = [(end - begin) / count for begin, end in zip(before, after, strict=True)]
    print(json.dumps([seconds / count, *spent]))


def server_pid(pool: Executor) -> int:
    if isinstance(pool, ForkPoolExecutor):
        return next(one.pid for one in diagnostics.snapshot(pool).processes if one.role == "fork server")
    from multiprocessing import forkserver

    return int(forkserver._forkserver._forkserver_pid)  # type: ignore[attr-defined]


def cpu_times(server: int) -> tuple[float, float, float]:
    """Seconds that host, fork server and reaped workers have computed so far."""
    host, _ = own_and_children(os.getpid())
    own, children = own_and_children(server)
    return host, own, children


def own_and_children(pid: int) -> tuple[float, float]:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    utime, stime, cutime, cstime = (int(field) for field in fields[11:15])  # proc(5)
    return (utime + stime) / TICKS, (cutime + cstime) / TICKS


# --- the comparison ------------------------------------------------------------------------------------


def run_program(folder: Path, which: str, name: str) -> list[float] | None:
    """Milliseconds per task (clock, host, fork server, workers); None if the program hung."""
    imports, body = PROGRAMS[name]
    here = str(Path(__file__).parent)
    path = folder / "program.py"
    path.write_text(PROGRAM.format(imports=", ".join(("sys", *imports)), body=body, folder=here, pool=which, name=name))
    with subprocess.Popen([sys.executable, str(path)], stdout=subprocess.PIPE, text=True, start_new_session=True) as program:
        try:
            output, _ = program.communicate(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            os.killpg(program.pid, 9)  # with its fork server and workers, which share its group
            return None
    assert program.returncode == 0, f"{which}, {name}: status {program.returncode}"
    return [seconds * 1e3 for seconds in json.loads(output)]


def compare(rounds: int) -> None:
    for name in PROGRAMS:
        figures: dict[str, list[list[float] | None]] = {which: [] for which in POOLS}
        with tempfile.TemporaryDirectory() as folder:
            for _ in range(rounds):
                for which, results in figures.items():
                    results.append(run_program(Path(folder), which, name))
        show(name, figures)


def show(name: str, figures: dict[str, list[list[float] | None]]) -> None:
    imports, body = PROGRAMS[name]
    print(f"\n{name}: main module imports {', '.join(imports) or 'nothing'}, task `{body}`; load {os.getloadavg()[0]:.1f}")
    print(f"  {'tasks/s':>44} {'least':>7} {'most':>7}   CPU ms per task: host, server, workers")
    rates = {}
    for which, results in figures.items():
        good = [result for result in results if result is not None]
        hung = f"   {len(results) - len(good)} of {len(results)} hung" if len(good) < len(results) else ""
        if not good:
            print(f"  {which:34} {hung}")
            continue
        per_second = sorted(1e3 / result[0] for result in good)
        rates[which] = statistics.median(per_second)
        host, server, workers = (statistics.median(column) for column in list(zip(*good, strict=True))[1:])
        spread = f"{rates[which]:9,.1f} {per_second[0]:7,.1f} {per_second[-1]:7,.1f}"
        print(f"  {which:34} {spread}   {host:6.2f} {server:6.2f} {workers:7.2f}{hung}")
    for other in (THEIRS, HELPED):
        if OURS in rates and other in rates:
            print(f"  forkpool is {rates[OURS] / rates[other]:.1f} times {other}")


# --- does any pool stop? -------------------------------------------------------------------------------


def look_for_stalls() -> bool:
    """Returns whether all pools finished."""
    print(f"{STALL_TASKS:,} tasks that return their worker's pid; seconds, and workers that were needed")
    good = [finishes(max_tasks, workers) for max_tasks in (1, 2, 3, 10) for workers in (1, 2, 8)]
    return all(good)


def finishes(max_tasks: int, workers: int) -> bool:
    started = time.perf_counter()
    pool = ForkPoolExecutor(workers, max_tasks_per_child=max_tasks)
    futures = [pool.submit(os.getpid) for _ in range(STALL_TASKS)]
    pids = Counter(answers(futures))
    if pids.total() < STALL_TASKS:
        print(f"  max_tasks_per_child={max_tasks:2}, {workers} workers: STALL after {pids.total()}: {pool.statistics()}")
        pool.kill_workers()
        return False
    pool.shutdown()
    replaced = pool.statistics().workers_started
    seconds = time.perf_counter() - started
    print(f"  max_tasks_per_child={max_tasks:2}, {workers} workers: {seconds:6.2f} s, {replaced:6,} workers", flush=True)
    return True


def answers(futures: Sequence[Future[int]]) -> Iterable[int]:
    """Results as they come; ends early when none has come for too long."""
    for future in futures:
        try:
            yield future.result(STALL_PATIENCE_S)
        except TimeoutError:
            return


def main() -> None:
    print(f"CPython {platform.python_version()}, {platform.system()} {platform.release()}, {os.cpu_count()} CPUs,", end=" ")
    print(f"load {os.getloadavg()[0]:.2f}", end="; ")
    if "--stall" in sys.argv:
        sys.exit(not look_for_stalls())
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    print(f"max_tasks_per_child=1, {WORKERS} workers; medians of {rounds} rounds")
    compare(rounds)


if __name__ == "__main__":
    main()
