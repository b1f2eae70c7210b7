"""Which modules cross by reference, which by value, and how the import path travels.

Runs in: pytest; each program is an interpreter of its own.
"""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.script import Script, environment

Start = Callable[..., Script]

pytestmark = pytest.mark.slow


def test_a_module_that_a_fresh_interpreter_finds_is_imported_there(start: Start) -> None:
    program = start("""
        from pathlib import Path
        Path("helpers.py").write_text("import os\\nLOADED_IN = os.getpid()\\ndef where():\\n    return LOADED_IN, __file__\\n")
        import helpers
        from forkpool import ForkPoolExecutor
        with ForkPoolExecutor(1) as ex:
            pid, file = ex.submit(helpers.where).result()
            mark("own", pid == ex.submit(os.getpid).result() != os.getpid())
            mark("file", file == helpers.__file__)
        """).finish()
    assert (program.value("own"), program.value("file")) == ("True", "True")


def test_a_module_that_only_the_host_has_goes_by_value(start: Start) -> None:
    program = start("""
        import types
        plugin = types.ModuleType("plugin")
        sys.modules["plugin"] = plugin
        exec("factor = 3\\ndef task(n):\\n    return n * factor\\nclass Thing:\\n    pass\\n", plugin.__dict__)
        from forkpool import ForkPoolExecutor
        with ForkPoolExecutor(1) as ex:
            mark("task", ex.submit(plugin.task, 14).result())
            mark("class", type(ex.submit(plugin.Thing).result()) is plugin.Thing)
            plugin.factor = 4
            mark("task", ex.submit(plugin.task, 14).result())
        """).finish()
    assert program.all("task") == ["42", "56"]
    assert program.value("class") == "True"


def test_a_name_that_means_another_file_in_the_worker_goes_by_value(start: Start) -> None:
    """A loader (pytest's importlib mode, a plugin system) took the file from elsewhere than `sys.path` would."""
    program = start("""
        import importlib.util
        from pathlib import Path
        Path("elsewhere").mkdir()
        Path("tool.py").write_text("def who():\\n    return 'found on sys.path'\\n")
        Path("elsewhere/tool.py").write_text("def who():\\n    return 'loaded by hand'\\n")
        spec = importlib.util.spec_from_file_location("tool", "elsewhere/tool.py")
        tool = sys.modules["tool"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(tool)
        from forkpool import ForkPoolExecutor
        with ForkPoolExecutor(1) as ex:
            mark("who", ex.submit(tool.who).result())
        """).finish()
    assert program.value("who") == "loaded by hand"


def test_entries_added_to_the_path_later_travel_with_the_next_task(start: Start) -> None:
    program = start("""
        from pathlib import Path
        from forkpool import ForkPoolExecutor
        with ForkPoolExecutor(1) as ex:
            pid = ex.submit(os.getpid).result()
            Path("later").mkdir()
            Path("later/late_module.py").write_text("import os\\ndef task():\\n    return os.getpid()\\n")
            sys.path.insert(0, str(Path("later").resolve()))
            import late_module
            mark("same_worker", ex.submit(late_module.task).result() == pid)
            mark("by_name", ex.submit(lambda: __import__("late_module").task()).result() == pid)
        """).finish()
    assert (program.value("same_worker"), program.value("by_name")) == ("True", "True")


MODULES_IN_TWO_FOLDERS = """
from pathlib import Path
for folder in ("a", "b"):
    Path(folder, "lib").mkdir(parents=True)
    for name in ("model", "lib/tool", f"lib/tool_of_{folder}"):
        Path(folder, f"{name}.py").write_text(f"def who():\\n    return {folder!r}\\n")
from forkpool import ForkPoolExecutor
"""


def test_a_relative_entry_of_the_path_means_what_it_means_at_submit(start: Start) -> None:
    """`python -c`, a REPL and a notebook have "" on `sys.path`: after `os.chdir` that is another directory."""
    program = start(
        MODULES_IN_TWO_FOLDERS
        + """
sys.path.insert(0, "")
with ForkPoolExecutor(1) as ex:
    os.chdir("a")
    pid = ex.submit(os.getpid).result()
    os.chdir("../b")
    import model
    mark("who", model.who())
    mark("who", ex.submit(model.who).result())
    sys.path.insert(0, "lib")
    import tool
    mark("who", ex.submit(tool.who).result())
    os.chdir("../a")  # for the interpreter "lib" is still what it was when it was first searched
    import tool_of_b
    mark("who", ex.submit(tool_of_b.who).result())
    mark("who", ex.submit(lambda: __import__("model").who()).result())
    mark("same", ex.submit(os.getpid).result() == pid)
    ex.submit(os._exit, 1).exception()
    mark("who", ex.submit(model.who).result())
    mark("who", ex.submit(tool.who).result())
"""
    ).finish()
    assert program.all("who") == ["b"] * 7
    assert program.value("same") == "True"


def test_a_module_of_an_entry_that_was_removed_again(start: Start) -> None:
    """The idiom: insert, import, remove. The next worker and the next pool find the module as the first one did."""
    program = start(
        MODULES_IN_TWO_FOLDERS
        + """
ex = ForkPoolExecutor(1)
ex.submit(len, "a").result()
sys.path.insert(0, str(Path("a").resolve()))
import model
mark("who", ex.submit(model.who).result())
del sys.path[0]
mark("who", ex.submit(model.who).result())
ex.submit(os._exit, 1).exception()
mark("who", ex.submit(model.who).result())
ex.restart_workers()
mark("who", ex.submit(model.who).result())
ex.shutdown()
with ForkPoolExecutor(1) as ex:
    mark("who", ex.submit(model.who).result())
"""
    ).finish()
    assert program.all("who") == ["a"] * 5


def test_an_entry_that_hides_a_module_which_the_host_has(start: Start) -> None:
    """What runs is the host's, in each worker, though a fresh interpreter would find another file now."""
    program = start(
        MODULES_IN_TWO_FOLDERS
        + """
sys.path.insert(0, str(Path("a").resolve()))
import model
with ForkPoolExecutor(1) as ex:
    mark("who", ex.submit(model.who).result())
    sys.path.insert(0, str(Path("b").resolve()))
    mark("who", ex.submit(model.who).result())
    ex.submit(os._exit, 1).exception()
    mark("who", ex.submit(model.who).result())
"""
    ).finish()
    assert program.all("who") == ["a"] * 3


USES_A_POOL = """
import os
from forkpool import ForkPoolExecutor
depth = int(os.environ.get("DEPTH", "0"))
if depth > 2:
    raise SystemExit("nested without end")
class Pair:
    def __init__(self, n):
        self.twice = n * 2
def square(n):
    return n * n, Pair(n)
with ForkPoolExecutor(1, env={"DEPTH": str(depth + 1)}) as ex:
    TABLE = [n + pair.twice for n, pair in ex.map(square, range(3)) if type(pair) is Pair]
"""


def test_a_module_that_uses_a_pool_while_it_is_imported(start: Start) -> None:
    """Sent by name, its function would make the worker import the module, which makes a pool, whose worker imports it ..."""
    program = start(
        f"SOURCE = {USES_A_POOL!r}"
        + """
from pathlib import Path
import importlib
Path("package").mkdir()
Path("module.py").write_text(SOURCE)
Path("package/__init__.py").write_text(
    SOURCE.replace("def square", "from package.inner import square\\nfrom package.inner import Pair\\ndef unused"))
Path("package/inner.py").write_text(SOURCE.partition("with ")[0])
import module, package
mark("table", module.TABLE)
mark("table", package.TABLE)
mark("table", importlib.reload(module).TABLE)
from forkpool import ForkPoolExecutor
with ForkPoolExecutor(1) as ex:
    mark("table", sorted(set(n for n, pair in ex.map(module.square, range(3)) if type(pair) is module.Pair)))
"""
    ).finish()
    assert program.all("table") == ["[0, 3, 8]"] * 3 + ["[0, 1, 4]"]


def test_a_module_that_is_gone_when_the_worker_looks_for_it(start: Start) -> None:
    """The error shows both paths, whether the host's was changed since the pool was made or not."""
    program = start("""
        from pathlib import Path
        Path("short_lived.py").write_text("def task():\\n    return 1\\n")
        import short_lived
        from forkpool import ForkPoolExecutor
        with ForkPoolExecutor(1) as ex:
            ex.submit(short_lived.task).result()  # a worker can import it, so it goes by name from now on
        Path("short_lived.py").unlink()
        with ForkPoolExecutor(1) as ex:
            first = ex.submit(short_lived.task).exception()
            sys.path.append("/added later")
            second = ex.submit(short_lived.task).exception()
            sys.path.pop()
            third = ex.submit(short_lived.task).exception()
        for error in (first, second, third):
            mark("kind", type(error).__name__)
            looked, of_host = error.__notes__[0].splitlines()
            mark("looked", looked.startswith("The worker looked for 'short_lived' in its sys.path: ["))
            shown = eval(of_host.removeprefix("The host's sys.path when the call was submitted: "))
            mark("host", "added" if shown == [*sys.path, "/added later"] else shown == sys.path)
        """).finish()
    assert program.all("kind") == ["ModuleNotFoundError"] * 3
    assert program.all("looked") == ["True"] * 3
    assert program.all("host") == ["True", "added", "True"]


def test_files_beside_the_program_do_not_hide_modules_that_the_pool_needs(start: Start) -> None:
    program = start(
        """
        from pathlib import Path
        os.mkdir("work")
        os.chdir("work")
        for name in ("random", "pickle", "socket", "signal", "select", "cloudpickle", "sitecustomize"):
            Path(f"{name}.py").write_text("raise SystemExit('a module of the user was imported')\\n")
        from forkpool import ForkPoolExecutor
        with ForkPoolExecutor(1) as ex:
            mark("len", ex.submit(len, "abc").result())
        """
    ).finish()
    assert program.value("len") == "3"


def test_a_worker_is_light(start: Start) -> None:
    """What nobody uses is not imported, nor what the host alone has."""
    program = start("""
        import decimal, sqlite3, multiprocessing.managers
        from forkpool import ForkPoolExecutor
        heavy = {"decimal", "sqlite3", "psutil", "forkpool.errors", "concurrent.futures.process",
                 "multiprocessing.managers", "multiprocessing.resource_tracker"}
        with ForkPoolExecutor(1) as ex:
            mark("there", sorted(heavy & ex.submit(lambda: set(__import__("sys").modules)).result()))
        """).finish()
    assert program.value("there") == "[]"


def test_what_the_program_imported_by_name_is_the_modules_own(start: Start) -> None:
    program = start("""
        import sys
        from pathlib import Path
        lines = "cache = {}", "def put(key): cache[key] = 1", "def get(key): return cache.get(key)", ""
        Path("helpers.py").write_text("\\n".join(lines))
        sys.path.insert(0, "")
        from helpers import cache, get, put
        from forkpool import ForkPoolExecutor
        def task():
            put("a")
            return sorted(cache), get("ours")
        cache["ours"] = 5
        with ForkPoolExecutor(1, max_tasks_per_child=2) as ex:
            for _ in range(3):
                mark("seen", ex.submit(task).result())
        mark("host", cache)
        """).finish()
    assert program.all("seen") == ["(['a', 'ours'], 5)"] * 3
    assert program.value("host") == "{'ours': 5}"


@pytest.mark.parametrize("how", ["app", "app.program"])
def test_a_module_that_is_run_may_import_its_relatives_in_a_task(how: str, tmp_path: Path) -> None:
    package = tmp_path / "app"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "util.py").write_text("def shout(text): return text.upper()")
    for name in ("__main__.py", "program.py"):
        (package / name).write_text(RELATIVE)
    done = subprocess.run([sys.executable, "-m", how], cwd=tmp_path, env=environment({}), capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("A B\n", "")


RELATIVE = """
from forkpool import ForkPoolExecutor

def task(text):
    from .util import shout
    return shout(text)

class Task:
    def run(self, text):
        from . import util
        return util.shout(text)

with ForkPoolExecutor(1) as ex:
    print(ex.submit(task, "a").result(), ex.submit(Task().run, "b").result())
"""
