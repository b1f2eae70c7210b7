"""`forkpool run --stats`: what became of the tasks, and what was seen when there was no pool."""

import re
from pathlib import Path

import pytest

from tests.process.test_run_swap import body
from tests.support.programs import run_program


def told(folder: Path, source: str, *options: str, status: int = 0, env: dict[str, str] | None = None) -> str:
    """What `--stats` says."""
    (folder / "program.py").write_text(source)
    done = run_program(folder, "program.py", options=["--stats", *options], env=env)
    assert done.status == status, done.errors
    return "forkpool: " + done.errors.partition("forkpool: ")[2]


POOL = "import os, sys, time\nfrom concurrent.futures import ProcessPoolExecutor\n"


def test_what_became_of_tasks_and_workers(tmp_path: Path) -> None:
    text = told(
        tmp_path,
        POOL
        + body("""
with ProcessPoolExecutor(1) as ex:
    [ex.submit(abs, n).result() for n in range(4)]
    ex.submit(divmod, 1, 0).exception()
    ex.submit(os.abort).exception()
    ex.submit(time.sleep, 60).exception()
ex = ProcessPoolExecutor(1)
ex.submit(abs, 1)
del ex
ProcessPoolExecutor(1)
last = ProcessPoolExecutor(1)
last.submit(abs, 1)
sys.stderr.close()
sys.exit(3)
"""),
        "--max-tasks-per-child=3",
        "--timeout=1",
        status=3,
    )
    assert re.fullmatch(
        r"forkpool: 4 pools, 1 of them never used\n"
        r"    tasks: 9: 6 done, 1 failed, 1 crashed, 1 timed out\n"
        r"    workers: 5 started, 3 replaced \(crashed: 1, max_tasks_per_child: 1, timed_out: 1\)\n"
        r"    time in tasks: [\d.]+ s\n",
        text,
    ), text


def test_a_program_that_fails(tmp_path: Path) -> None:
    text = told(tmp_path, POOL + body("with ProcessPoolExecutor(1) as ex:\n    ex.submit(abs, 1)\n1 / 0"), status=1)
    assert "tasks: 1: 1 done" in text


def test_forkpools_own_class_counts_too(tmp_path: Path) -> None:
    text = told(tmp_path, "import forkpool\nwith forkpool.ForkPoolExecutor(1) as ex:\n    ex.submit(abs, 1)\n")
    assert text.startswith(
        "forkpool: 1 pool\n    tasks: 1: 1 done, 0 failed, 0 crashed\n    workers: 1 started, none replaced\n"
    )


def test_pools_that_run_calls_inline_count_too(tmp_path: Path) -> None:
    source = POOL + body("with ProcessPoolExecutor(1) as ex:\n    print(list(ex.map(abs, [-1, -2])))")
    text = told(tmp_path, source, env={"FORKPOOL_INLINE": "1"})
    assert text.startswith("forkpool: 1 pool\n    tasks: 2: 2 done, 0 failed, 0 crashed\n    workers: 0 started, none replaced")


def test_it_is_told_after_the_exit_handlers_of_the_program(tmp_path: Path) -> None:
    source = "import atexit, sys\natexit.register(lambda: print('mine', file=sys.stderr))\n"
    (tmp_path / "program.py").write_text(source)
    errors = run_program(tmp_path, "program.py", options=["--stats"]).errors
    assert errors.startswith("mine\nforkpool: no ProcessPoolExecutor was made, nor anything else")


INSTEAD = {
    "multiprocessing.Pool (2)": "import multiprocessing as mp\nfor _ in 'ab':\n    with mp.Pool(1) as p: p.map(abs, [1])",
    "joblib (1)": "import joblib\njoblib.Parallel(n_jobs=2)(joblib.delayed(abs)(n) for n in range(3))",
    "loky (1)": "import loky\nwith loky.ProcessPoolExecutor(1) as ex: ex.submit(abs, 1).result()",
    "multiprocessing.Process (1)": "import multiprocessing as mp\np = mp.Process(target=abs, args=(1,))\np.start(); p.join()",
    "2 pools in 1 forked process (ProcessPoolExecutor, multiprocessing.Pool)": (
        "import os, concurrent.futures as f, multiprocessing\n"
        "pid = os.fork()\n"
        "if not pid:\n"
        "    with f.ProcessPoolExecutor(1) as ex: ex.submit(abs, 1).result()\n"
        "    with multiprocessing.Pool(1) as p: p.map(abs, [1])\n"
        "    sys.exit(0)\n"
        "os.waitpid(pid, 0)"
    ),
    "1 Python program started, whose pools are their own: `python3 -c pass`": (
        "import subprocess\nsubprocess.run(['python3', '-c', 'pass'])\nsubprocess.run(['true'])"
    ),
}


@pytest.mark.parametrize("seen", INSTEAD)
def test_what_was_seen_instead(tmp_path: Path, seen: str) -> None:
    if seen.startswith(("joblib", "loky")):
        pytest.importorskip(seen.split()[0])
    text = told(tmp_path, "import sys\n" + body(INSTEAD[seen]))
    assert text.splitlines()[:2] == ["forkpool: no ProcessPoolExecutor was made; seen instead:", f"    {seen}"]
    if not seen.startswith(("joblib", "loky")):  # these start programs of theirs, which are named as well
        assert len(text.splitlines()) == 2


def test_threads_are_no_processes(tmp_path: Path) -> None:
    source = "import multiprocessing.pool\nwith multiprocessing.pool.ThreadPool(1) as pool: pool.map(abs, [1])\n"
    assert "nor anything else" in told(tmp_path, source)


def test_a_fork_that_closed_all_descriptors_writes_nowhere(tmp_path: Path) -> None:
    source = (
        "import os, concurrent.futures as f\n"
        "pid = os.fork()\n"
        "if not pid:\n"
        "    os.closerange(3, 4096)\n"
        "    files = [open(f'file{n}', 'w') for n in range(20)]\n"
        "    f.ProcessPoolExecutor(1)\n"
        "    os._exit(0)\n"
        "os.waitpid(pid, 0)\n"
    )
    assert "nor anything else" in told(tmp_path, source)
    assert {path.stat().st_size for path in tmp_path.glob("file*")} == {0}
