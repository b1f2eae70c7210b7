"""Under `forkpool run` a program finds our pool where it looks for the standard library's, with what the options say."""

import os
from pathlib import Path

import pytest

from tests.support.programs import both, run_program

MAIN = 'if __name__ == "__main__":\n'


def body(text: str) -> str:
    return MAIN + "".join(f"    {line}\n" for line in text.strip().splitlines())


def run_source(folder: Path, source: str, *options: str, python: tuple[str, ...] = ()) -> tuple[list[str], str]:
    """The lines that it prints, and what it writes on stderr."""
    (folder / "program.py").write_text(source)
    done = run_program(folder, "program.py", options=options, python=python)
    assert done.status == 0, done.errors
    return done.output.splitlines(), done.errors


def test_wherever_a_program_looks_for_it(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(
        """
import concurrent.futures as futures
from concurrent import futures as again
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures import *
import concurrent.futures.process
from concurrent.futures.process import ProcessPoolExecutor as Pool, BrokenProcessPool
import importlib, inspect, pickle

class Mine(ProcessPoolExecutor):
    def __init__(self, workers, *args, **more):
        super().__init__(workers, *args, **more)
        self.mine = 7
    def submit(self, fn, /, *args, **kwargs):
        return super().submit(fn, *args, **kwargs)

"""
        + body(
            """
names = [futures.ProcessPoolExecutor, again.ProcessPoolExecutor, ProcessPoolExecutor, Pool]
names.append(importlib.import_module("concurrent.futures.process").ProcessPoolExecutor)
names.append(getattr(futures, "ProcessPoolExecutor"))
print([one is Pool for one in names], Pool, Pool.__name__, Pool.__module__, inspect.signature(Pool))
print(pickle.loads(pickle.dumps(Pool)) is Pool)
with Mine(2) as ex:
    print(ex.mine, ex._max_workers, isinstance(ex, ProcessPoolExecutor), isinstance(ex, futures.Executor))
    print(list(ex.map(abs, [-1, -2])), ex._mp_context.get_start_method())
    try:
        ex.submit(divmod, 1, 0).result()
    except ZeroDivisionError as error:
        print(error)
with Pool() as ex:
    print(isinstance(ex, Mine), ex.submit(pow, 2, 3).result())
    import os
    try:
        ex.submit(os._exit, 3).result()
    except BrokenProcessPool:
        print("broken")
"""
        )
    )
    plain, ours = both(tmp_path, "program.py")
    signature = "(max_workers: 'int | None' = None, mp_context: 'Any' = None"
    assert signature in ours.output
    assert ours.output.splitlines()[1:] == plain.output.splitlines()[1:]
    assert ours.output.startswith(
        "[True, True, True, True, True, True] <class 'concurrent.futures.process.ProcessPoolExecutor'>"
    )
    assert plain.errors == ours.errors == ""


def test_it_is_forkpools(tmp_path: Path) -> None:
    source = "from concurrent.futures import *\nimport forkpool, os\n" + body("""
with ProcessPoolExecutor(1) as ex:
    print(isinstance(ex, forkpool.ForkPoolExecutor))
    print(type(ex.submit(os.abort).exception()).__name__)
    print(ex.submit(lambda: 42).result())
""")
    assert run_source(tmp_path, source) == (["True", "WorkerCrashedError", "42"], "")


def test_a_fork_context_is_a_warning(tmp_path: Path) -> None:
    source = "from concurrent.futures import *\nimport multiprocessing\n" + body("""
with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as ex:
    print(ex.submit(abs, -7).result(), ex._mp_context.get_start_method())
with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as ex:
    print(ex.submit(abs, -7).result(), ex._mp_context.get_start_method())
try:
    ProcessPoolExecutor(1, mp_context=7)
except TypeError as error:
    print(error)
""")
    lines, errors = run_source(tmp_path, source)
    assert lines == ["7 fork", "7 spawn", "mp_context must be a multiprocessing context or None, not int"]
    assert errors.count("RuntimeWarning") == 1
    assert "program.py:4: RuntimeWarning: mp_context" in errors
    assert run_source(tmp_path, source, python=("-W", "ignore"))[1] == ""


LOOKS = """
from concurrent.futures import ProcessPoolExecutor
import os, sys, time

def facts(_):
    return os.getpid(), sorted(os.sched_getaffinity(0)), "colorsys" in sys.modules

"""


def test_options(tmp_path: Path) -> None:
    cpu = min(os.sched_getaffinity(0))
    source = LOOKS + body("""
with ProcessPoolExecutor(5, max_tasks_per_child=None) as ex:
    print(ex._max_workers)
    pids, cpus, preloaded = zip(*[ex.submit(facts, n).result() for n in range(4)])
    print(len(set(pids)), cpus[0], all(preloaded))
    print(type(ex.submit(time.sleep, 60).exception()).__name__)
    print(type(next(iter([ex.submit(time.sleep, 60)])).exception()).__name__)
""")
    options = f"--max-tasks-per-child 2 --preload colorsys --timeout 0.5 --pin {cpu}".split()
    assert run_source(tmp_path, source, *options)[0] == ["1", f"2 [{cpu}] True", "TaskTimeoutError", "TaskTimeoutError"]
    source = LOOKS + body("print(ProcessPoolExecutor(5)._max_workers, ProcessPoolExecutor()._max_workers)")
    assert run_source(tmp_path, source, "--max-workers", "3")[0] == ["3 3"]


def test_the_program_is_preloaded(tmp_path: Path) -> None:
    source = "import os\nfrom concurrent.futures import ProcessPoolExecutor\nMADE_BY = os.getpid()\n" + body("""
with ProcessPoolExecutor(1) as ex:
    print(ex.submit(lambda: MADE_BY).result() == MADE_BY)
""")
    for program in (("program.py",), ("-m", "program")):
        (tmp_path / "program.py").write_text(source)
        assert run_program(tmp_path, *program, options=["--preload", "__main__"]).status == 0


LOCKS = """
import multiprocessing
from concurrent.futures import ProcessPoolExecutor

def keep(*given):
    global kept
    kept = given

def use():
    lock, event, queue, value, condition, semaphore = kept
    with lock, condition, semaphore:
        value.value += 1
    event.set()
    queue.put("said")

"""


@pytest.mark.parametrize("context", ["", ".get_context('fork')"])
def test_locks_of_the_default_context(tmp_path: Path, context: str) -> None:
    (tmp_path / "program.py").write_text(
        LOCKS
        + body(f"""
mp = multiprocessing{context}
given = mp.RLock(), mp.Event(), mp.Queue(), mp.Value("i", 0), mp.Condition(), mp.Semaphore(2)
with ProcessPoolExecutor(2, initializer=keep, initargs=given) as ex:
    for future in [ex.submit(use) for _ in range(3)]:
        future.result()
process = mp.Process(target=given[1].clear)
process.start()
process.join()
print(given[3].value, [given[2].get() for _ in range(3)], given[1].is_set(), process.exitcode)
print(multiprocessing.get_start_method(), given[0].acquire(), given[0].acquire())
""")
    )
    plain, ours = both(tmp_path, "program.py")
    assert plain.output == "3 ['said', 'said', 'said'] False 0\nfork True True\n"
    assert ours == plain


def test_a_pool_inside_a_task_is_the_standard_librarys(tmp_path: Path) -> None:
    source = (
        "import concurrent.futures as futures\n"
        "def nested(n):\n"
        "    with futures.ProcessPoolExecutor(1) as ex:\n"
        "        return ex.submit(abs, n).result(), futures.ProcessPoolExecutor.__mro__[1].__name__\n"
    ) + body("""
with futures.ProcessPoolExecutor(1) as ex:
    print(ex.submit(nested, -7).result())
""")
    assert run_source(tmp_path, source) == (["(7, 'Executor')"], "")


def test_what_a_sitecustomize_has_imported_already(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site/sitecustomize.py").write_text(
        "import concurrent.futures, multiprocessing.synchronize\nconcurrent.futures.ProcessPoolExecutor\n"
    )
    (tmp_path / "program.py").write_text(
        "import concurrent.futures as f, forkpool\nprint(issubclass(f.ProcessPoolExecutor, forkpool.ForkPoolExecutor))\n"
    )
    path = os.pathsep.join([str(tmp_path / "site"), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = run_program(tmp_path, "program.py", options=(), env={"PYTHONPATH": path})
    assert done.output == "True\n", done.errors
