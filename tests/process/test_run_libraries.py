"""`forkpool run` with programs and libraries as people have them: the same output, and the pool was ours.

Each is run twice, in a folder that is made anew; the second time with `--stats`, whose lines tell that the pool was used.
"""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.programs import Outcome, run_program

pytestmark = [pytest.mark.slow, pytest.mark.alarm(110)]

FILES = {
    "one.py": "import os\ndef  one( a ) :\n    return os.sep+a\n",
    "two.py": "def two(b):\n    unused = 1\n    return b\n",
    "three.py": "x = {  'a':1 }\n",
    "four.py": "from one import nothing\n",
}


@pytest.fixture
def compare(tmp_path: Path) -> Callable[..., tuple[Outcome, int]]:
    """Run a program on the files, without us and with; check that all is the same. Returns the outcome and the tasks we ran."""

    def run_both(*program: str, files: dict[str, str] = FILES) -> tuple[Outcome, int]:
        outcomes = []
        for options in (None, ["--stats"]):
            folder = tmp_path / "work"
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            for name, text in files.items():
                (folder / name).write_text(text)
            env = {"XDG_CACHE_HOME": str(tmp_path / f"cache{len(outcomes)}"), "PYTHONHASHSEED": "0"}
            outcomes.append(run_program(folder, *program, options=options, env=env))
        plain, ours = outcomes
        errors, _, told = ours.errors.partition("forkpool: ")
        assert (ours.status, sorted_lines(ours.output)) == (plain.status, sorted_lines(plain.output)), ours.errors
        assert sorted_lines(errors) == sorted_lines(plain.errors)
        tasks = re.search(r"tasks: (\d+): (\d+) done, 0 failed, 0 crashed$", told, re.MULTILINE)
        assert tasks is not None, told
        return plain, int(tasks[1])

    return run_both


def sorted_lines(text: str) -> list[str]:
    """What runs in parallel is told in any order, and in plain pools two lines may become one.

    Of a progress bar the last state counts. Times, addresses and the name of the future's class differ.
    """
    text = text.replace("Compiling ", "\nCompiling ")
    lines = [re.sub(r"\[\d\d:\d\d.*\]$", "[#]", line.rpartition("\r")[2]) for line in text.split("\n")]
    text = re.sub(r"\b\d+\.\d+s\b|\d\d:\d\d:\d\d\.\d+|0x[0-9a-f]+", "#", "\n".join(lines)).replace("ForkFuture", "Future")
    return sorted(filter(None, text.split("\n")))


def test_compileall(compare: Callable[..., tuple[Outcome, int]], tmp_path: Path) -> None:
    outcome, tasks = compare("-m", "compileall", "-j", "2", ".", files={**FILES, "wrong.py": "def\n"})
    assert outcome.status == 1
    assert "SyntaxError" in outcome.output
    assert tasks in (5, 2)  # Python 3.13 sends four files at a time
    assert len(list((tmp_path / "work").rglob("*.pyc"))) == 4


def test_black(compare: Callable[..., tuple[Outcome, int]], tmp_path: Path) -> None:
    pytest.importorskip("black")
    outcome, tasks = compare("-m", "black", "--workers", "2", ".")
    assert "2 files reformatted" in outcome.errors
    assert tasks == len(FILES)
    assert (tmp_path / "work/three.py").read_text() == 'x = {"a": 1}\n'


def test_black_with_a_lock_of_a_manager(compare: Callable[..., tuple[Outcome, int]]) -> None:
    pytest.importorskip("black")
    outcome, tasks = compare("-m", "black", "--workers", "2", "--diff", ".")
    assert "+def one(a):" in outcome.output
    assert tasks == len(FILES)


def test_pylint(compare: Callable[..., tuple[Outcome, int]]) -> None:
    pytest.importorskip("pylint")
    outcome, tasks = compare("-m", "pylint", "-j", "2", "--persistent=n", *FILES)
    assert "two.py:2:4: W0612" in outcome.output
    assert "No name 'nothing' in module 'one'" in outcome.output
    assert tasks == len(FILES)


SUITE = """
import concurrent.futures as futures
import os
import pytest

SEEN = []

def square(x):
    SEEN.append(x)
    return x * x

def own_pid(_):
    return os.getpid()

@pytest.fixture
def pool():
    with futures.ProcessPoolExecutor(2) as pool:
        yield pool

def test_map(pool):
    assert list(pool.map(square, range(5), chunksize=2)) == [0, 1, 4, 9, 16]
    assert SEEN == []

def test_error(pool):
    with pytest.raises(ZeroDivisionError):
        pool.submit(divmod, 1, 0).result()

def test_initializer():
    with futures.ProcessPoolExecutor(1, initializer=SEEN.append, initargs=(1,)) as pool:
        assert pool.submit(own_pid, 0).result() != os.getpid()

def test_fails(pool):
    assert pool.submit(square, 3).result() == 10
"""


@pytest.mark.parametrize("mode", ["prepend", "importlib"])
def test_pytest(tmp_path: Path, mode: str) -> None:
    (tmp_path / "test_suite.py").write_text(SUITE)
    command = (
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "-c",
        "/dev/null",
        "--rootdir=.",
        f"--import-mode={mode}",
        "-q",
        "-W",
        "error",
    )
    plain = run_program(tmp_path, *command)
    ours = run_program(tmp_path, *command, options=["--stats"])
    assert (ours.status, sorted_lines(ours.output)) == (plain.status, sorted_lines(plain.output))
    assert "1 failed, 3 passed" in plain.output
    assert "forkpool: 4 pools\n    tasks: 6: 5 done, 1 failed, 0 crashed\n" in ours.errors


SCIPY = """
from concurrent.futures import ProcessPoolExecutor
from scipy.optimize import differential_evolution, rosen

def shifted(x):
    return rosen(x - SHIFT)

if __name__ == "__main__":
    SHIFT = 0.25
    with ProcessPoolExecutor(2) as ex:
        found = differential_evolution(
            shifted, [(-2, 2)] * 2, workers=ex.map, updating="deferred", seed=7, maxiter=3, popsize=4, polish=False
        )
    print(found.x, found.fun, found.nfev)
"""


def test_scipy(compare: Callable[..., tuple[Outcome, int]]) -> None:
    pytest.importorskip("scipy")
    outcome, tasks = compare("program.py", files={"program.py": SCIPY})
    assert outcome.output.split()[-1] == str(tasks)


TQDM = """
from tqdm import tqdm
from tqdm.contrib.concurrent import process_map

def work(x):
    with tqdm.get_lock():  # the lock of the program's own tqdm
        return x + 1

if __name__ == "__main__":
    print(process_map(work, range(20), max_workers=2))
    print(process_map(work, range(5), max_workers=2, disable=True))
"""


def test_tqdm(compare: Callable[..., tuple[Outcome, int]]) -> None:
    pytest.importorskip("tqdm")
    outcome, tasks = compare("program.py", files={"program.py": TQDM})
    assert "20/20" in outcome.errors
    assert tasks == 20 + 5
