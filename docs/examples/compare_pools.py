"""Run six accidents on three process pools and print what became of each, as the table in README.md.

`python compare_pools.py` prints the table; `python compare_pools.py PROBE POOL` runs one probe and prints its facts as JSON.
Every probe runs in a process and session of its own, with a bounded wait; whatever it leaves behind is counted, then killed.
The cells are words chosen from measured facts (the `tell_...` functions), never written by hand.
Tests: tests/docs/test_examples.py
"""

import contextlib
import ctypes
import json
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor, wait
from importlib.metadata import version
from typing import Any

import psutil

from forkpool import ForkPoolExecutor

TASKS_QUEUED = 30
PATIENCE = 30.0  # seconds that anything may take which does not hang
HANGING = 6.0  # seconds after which a task that should be done long ago counts as hanging
Facts = dict[str, Any]


def make_pool(name: str, workers: int = 2, **options: Any) -> Executor:
    if name == "loky":
        from loky import ProcessPoolExecutor as LokyExecutor  # an extra; only its column needs it

        pool: Executor = LokyExecutor(workers, **options)
        return pool
    return ForkPoolExecutor(workers, **options) if name == "forkpool" else ProcessPoolExecutor(workers, **options)


# -- tasks, which run in workers


def crash_on(number: int) -> int:
    if number == 10:
        ctypes.string_at(0)
    time.sleep(0.02)
    return number


def match_for_ages(text: str) -> bool:
    """Stay in C code that holds the interpreter lock: an accident with a regular expression."""
    return re.fullmatch(r"(a+)+b", text) is not None


def sleep_marked(seconds: float) -> None:
    print("task started", flush=True)
    time.sleep(seconds)


# -- probes: each runs in a fresh process and returns facts


def probe_segfault(pool_name: str) -> Facts:
    pool = make_pool(pool_name)
    futures = [submit_or_fail(pool, crash_on, number) for number in range(20)]
    wait(futures, timeout=PATIENCE)
    errors = [future.exception(timeout=0) for future in futures]
    text = str(errors[10])
    return {
        "lost": sum(error is not None for error in errors),
        "task": "crash_on" in text,
        "signal": "SIGSEGV" in text,
        "stack": "string_at" in text,
        "usable": submit_or_fail(pool, len, "abc").exception(timeout=PATIENCE) is None,
    }


def probe_lambda(pool_name: str) -> Facts:
    error = make_pool(pool_name).submit(lambda: 42).exception(timeout=PATIENCE)
    return {"error": None if error is None else f"{type(error).__name__}"}


def probe_max_tasks(pool_name: str) -> Facts:
    """Six tasks for one worker that is to be replaced after two."""
    try:
        pool = make_pool(pool_name, 1, max_tasks_per_child=2, **needs_context(pool_name))
    except TypeError as error:
        return {"error": str(error)}
    futures = [pool.submit(len, "abc") for _ in range(6)]
    return {"error": None, "hangs": bool(wait(futures, timeout=HANGING).not_done)}


def probe_stuck(pool_name: str) -> Facts:
    """One worker, a task that never ends, a limit of one second, then another task."""
    pool = make_pool(pool_name, 1)
    pool.submit(len, "abc").result(PATIENCE)
    stuck_text = "a" * 60
    future: Future[bool]
    if isinstance(pool, ForkPoolExecutor):
        future = pool.options(timeout=1).submit(match_for_ages, stuck_text)
    else:
        future = pool.submit(match_for_ages, stuck_text)
    limit = PATIENCE if isinstance(pool, ForkPoolExecutor) else 1
    try:
        error = type(future.exception(limit)).__name__
    except TimeoutError as expired:
        error = type(expired).__name__
    follower = pool.submit(len, "abc")
    return {"error": error, "follower_runs": bool(wait([follower], timeout=HANGING).done)}


def probe_ctrl_c(pool_name: str) -> Facts:
    """The probe is the program at which the user presses Ctrl-C; `watch_ctrl_c` presses it."""
    with make_pool(pool_name) as pool:
        futures = [pool.submit(sleep_marked, 0.5) for _ in range(TASKS_QUEUED)]
        wait(futures)
    return {}


def probe_sigkill(pool_name: str) -> Facts:
    """The probe is the program that gets killed; `watch_sigkill` kills it."""
    pool = make_pool(pool_name)
    wait([pool.submit(sleep_marked, 60) for _ in range(2)])
    return {}


def submit_or_fail(pool: Executor, task: Callable[..., Any], *args: Any) -> Future[Any]:
    try:
        return pool.submit(task, *args)
    except RuntimeError as error:  # a broken pool: let its futures tell the same
        future: Future[Any] = Future()
        future.set_exception(error)
        return future


def needs_context(pool_name: str) -> dict[str, Any]:
    """The standard library refuses `max_tasks_per_child` with its default context, fork, before Python 3.14."""
    import multiprocessing

    return {"mp_context": multiprocessing.get_context("forkserver")} if pool_name == "standard" else {}


# -- outside the probe: start it, watch it, count what is left of it


class Probe:
    """A running probe and every process that came from it, orphans included."""

    def __init__(self, probe: str, pool_name: str) -> None:
        self.output = tempfile.TemporaryFile()  # noqa: SIM115  # closed in end(); not a pipe, which orphans would hold open
        self.token = f"{os.getpid()}-{probe}-{pool_name}"  # in the environment, which children inherit
        self.process = subprocess.Popen(
            [sys.executable, __file__, probe, pool_name],
            env={**os.environ, "COMPARE_POOLS_PROBE": self.token},
            stdin=subprocess.DEVNULL,
            stdout=self.output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.members: set[psutil.Process] = set()

    def text(self) -> str:
        # Not by seek() and read(): the position is shared with those who write, who would overwrite what they wrote before.
        return os.pread(self.output.fileno(), 1 << 20, 0).decode(errors="replace")

    def wait_for_tasks(self, count: int = 2) -> None:
        """Wait until each of the two workers is inside a task."""
        deadline = time.monotonic() + PATIENCE
        while self.text().count("task started") < count and time.monotonic() < deadline:
            time.sleep(0.02)

    def look(self) -> None:
        """Remember everybody: children by their parent, orphans by the environment."""
        if self.process.returncode is None:  # not reaped yet: the pid is still its own
            self.members |= set(psutil.Process(self.process.pid).children(recursive=True))
        self.members |= {process for process in psutil.process_iter() if self.token in token_of(process)}

    def left_after(self, seconds: float) -> int:
        self.look()
        psutil.wait_procs(self.members, timeout=seconds)
        return len([member for member in self.members if is_alive(member)])

    def end(self) -> None:
        """Kill what is left, whatever it is."""
        self.process.kill()
        self.process.wait()
        self.look()
        for member in self.members:
            with contextlib.suppress(psutil.NoSuchProcess):  # the end of one may be the end of the next
                member.kill()
        self.output.close()


def token_of(process: psutil.Process) -> str:
    try:
        return str(process.environ().get("COMPARE_POOLS_PROBE", ""))
    except psutil.Error:
        return ""


def is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def run(probe: str, pool_name: str) -> Facts:
    """Try others again whose probe found nothing; forkpool has one try.

    Now and then the standard library's pool hangs over what cannot be pickled (seen with 3.13.0):
    the table is to show what a pool usually does.
    """
    for _ in range(0 if pool_name == "forkpool" else 2):
        with contextlib.suppress(NoFacts):
            return run_once(probe, pool_name)
    return run_once(probe, pool_name)


def run_once(probe: str, pool_name: str) -> Facts:
    running = Probe(probe, pool_name)
    try:
        return WATCHERS.get(probe, watch_to_the_end)(running)
    finally:
        running.end()


class NoFacts(Exception):
    """A probe did not print what it found: it failed, or hung."""


def watch_to_the_end(running: Probe) -> Facts:
    with contextlib.suppress(subprocess.TimeoutExpired):  # a program that fails may still wait for its pool
        running.process.wait(timeout=PATIENCE * 2)
    for line in running.text().splitlines():
        if line.startswith("{"):
            return dict(json.loads(line))
    raise NoFacts(f"{running.token} did not print its facts, but:\n{running.text()}")


def watch_ctrl_c(running: Probe) -> Facts:
    running.wait_for_tasks()
    # At once, without a look(), which takes long on a busy machine: a worker of the others that gets the signal between two
    # tasks dies of it, and the row would tell of that instead.
    started = time.monotonic()
    os.killpg(running.process.pid, signal.SIGINT)  # what a terminal does: everybody in the foreground group
    try:
        running.process.wait(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        return {"seconds": None, "tracebacks": 0, "left": running.left_after(0)}
    seconds = time.monotonic() - started
    started_tasks = running.text().count("task started")
    # "Process ForkProcess-1:" and the like head the traceback of a multiprocessing worker.
    tracebacks = len(re.findall(r"^(Process \S+:|.*LokyProcess.*)$", running.text(), re.MULTILINE))
    return {"seconds": seconds, "ran": started_tasks, "tracebacks": tracebacks, "left": running.left_after(2.0)}


def watch_sigkill(running: Probe) -> Facts:
    running.wait_for_tasks()
    running.look()
    running.process.kill()
    running.process.wait()
    return {"left": running.left_after(2.0)}


WATCHERS = {"ctrl_c": watch_ctrl_c, "sigkill": watch_sigkill}


# -- facts to words


def tell_segfault(facts: Facts) -> str:
    whose = "only its future fails" if facts["lost"] == 1 else "all unfinished futures fail"
    known = [word for word in ("task", "signal", "stack") if facts[word]]
    told = f"the error tells the {', '.join(known)}" if known else "the error does not tell which task"
    return f"{whose}; {told}; the pool {'goes on' if facts['usable'] else 'is broken'}"


def tell_lambda(facts: Facts) -> str:
    return "works" if facts["error"] is None else f"`{facts['error']}`"


def tell_max_tasks(facts: Facts) -> str:
    if facts["error"] is not None:
        return "no such option"
    return "hangs after the first replacement" if facts["hangs"] else "works"


def tell_stuck(facts: Facts) -> str:
    if facts["follower_runs"]:
        return f"`{facts['error']}`, worker killed; the next task runs"
    return f"`{facts['error']}` for the caller; the worker stays stuck, the next task waits"


def tell_ctrl_c(facts: Facts) -> str:
    if facts["seconds"] is None:
        queue = "does not end"
    else:
        queue = "works through the queue first" if facts["ran"] == TASKS_QUEUED else "drops the queue, ends"
    noise = "; tracebacks of workers" if facts["tracebacks"] else ""
    return f"{queue}{noise}; {left(facts)}"


def left(facts: Facts) -> str:
    return "processes left behind" if facts["left"] else "nothing left"


ROWS: dict[str, tuple[str, Callable[[str], Facts], Callable[[Facts], str]]] = {
    "segfault": ("a task segfaults", probe_segfault, tell_segfault),
    "lambda": ("`submit(lambda: 42)`", probe_lambda, tell_lambda),
    "max_tasks": ("`max_tasks_per_child=2`", probe_max_tasks, tell_max_tasks),
    "stuck": ("a task is stuck in C code, limit 1 s", probe_stuck, tell_stuck),
    "ctrl_c": (f"Ctrl-C, {TASKS_QUEUED} tasks queued", probe_ctrl_c, tell_ctrl_c),
    "sigkill": ("the program is killed (SIGKILL)", probe_sigkill, left),
}
POOLS = {"forkpool": "forkpool", "standard": "ProcessPoolExecutor", "loky": f"loky {version('loky')}"}


def print_table() -> None:
    titles = ["", "forkpool", f"ProcessPoolExecutor, Python {platform.python_version()}", f"loky {version('loky')}"]
    print("|", " | ".join(titles), "|")
    print("|---" * len(titles) + "|")
    for probe, (title, _, tell) in ROWS.items():
        cells = [tell(run(probe, pool_name)) for pool_name in POOLS]
        print("|", " | ".join([title, *cells]), "|", flush=True)


def run_probe(probe: str, pool_name: str) -> None:
    facts = ROWS[probe][1](pool_name)
    print(json.dumps(facts), flush=True)
    os._exit(0)  # some of these pools could not be left otherwise


if __name__ == "__main__":
    if len(sys.argv) == 3:
        run_probe(*sys.argv[1:])
    else:
        print_table()
