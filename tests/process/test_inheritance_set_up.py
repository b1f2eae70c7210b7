"""What a worker gets of the host's set-up at its spawn, and that a replacement gets the same.

Runs in: pytest; each program is an interpreter of its own.
"""

import subprocess
from collections.abc import Callable

import pytest

from tests.support.script import PACKAGE, ROOT, Script

Start = Callable[..., Script]

pytestmark = pytest.mark.slow


def both_tell(start: Start, what: str, *, before: str = "", **more: object) -> tuple[str, str]:
    """The value of an expression in the host and in a worker."""
    program = start(
        f"""
import locale, logging, sys, warnings
from forkpool import ForkPoolExecutor
{before}
def look():
    import locale, logging, sys, warnings
    return {what}
with ForkPoolExecutor(1) as ex:
    mark("host", look())
    mark("worker", ex.submit(look).result())
""",
        **more,
    ).finish()
    return program.value("host"), program.value("worker")


def test_cwd_umask_and_arguments(start: Start) -> None:
    host, worker = both_tell(
        start,
        "(os.getcwd(), (mask := os.umask(0), os.umask(mask))[0], sys.argv)",
        before="os.mkdir('sub'); os.chdir('sub'); os.umask(0o027)",
        args=["--fast", "ä"],
    )
    assert worker == host
    assert "sub" in worker
    assert "--fast" in worker


def test_environ_with_changes_made_by_the_program(start: Start) -> None:
    host, worker = both_tell(
        start,
        "sorted((k, v) for k, v in os.environ.items() if k.startswith('ROW_') or k == 'HOME')",
        before="os.environ['ROW_NEW'] = 'new'; del os.environ['ROW_OLD']; os.environ['HOME'] = '/elsewhere'",
        env={"ROW_OLD": "old", "ROW_KEPT": "kept \udcff"},
    )
    assert worker == host
    assert "ROW_NEW" in worker
    assert "ROW_OLD" not in worker


def test_names_imported_from_os_and_sys_are_the_workers(start: Start) -> None:
    program = start("""
        import os, sys
        from os import environ
        from sys import modules, path
        from forkpool import ForkPoolExecutor
        def look():
            return environ is os.environ, path is sys.path, modules is sys.modules, environ["MINE"], environ["FORKPOOL_SLOT"]
        with ForkPoolExecutor(1, env={"MINE": "yes"}) as ex:
            mark("seen", ex.submit(look).result())
            mark("copy", ex.submit(dict, ex.submit(lambda: os.environ).result()).result()["MINE"])
        """).finish()
    assert program.value("seen") == "(True, True, True, 'yes', '0')"
    assert program.value("copy") == "yes"


def test_env_is_set_before_anything_is_imported(start: Start) -> None:
    program = start("""
        from pathlib import Path
        Path("reads_at_import.py").write_text("import os\\nFOUND = os.environ.get('OMP_NUM_THREADS')\\n")
        from forkpool import ForkPoolExecutor
        with ForkPoolExecutor(1, env={"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "7", "PYTHONUTF8": "1"}) as ex:
            mark("module", ex.submit(lambda: __import__("reads_at_import").FOUND).result())
            mark("interpreter", ex.submit(lambda: (__import__("sys").flags.utf8_mode, hash("a"))).result())
            mark("again", ex.submit(lambda: (__import__("sys").flags.utf8_mode, hash("a"))).result())
        mark("host", os.environ.get("OMP_NUM_THREADS"))
        """).finish()
    assert program.value("module") == "1"
    assert program.value("interpreter") == program.value("again")
    assert program.value("interpreter").startswith("(1,")
    assert program.value("host") == "None"


@pytest.mark.parametrize(
    "options", ["", "-O -B", "-I", "-Werror::UserWarning -bb", "-X dev", "-X int_max_str_digits=5000 -X ours=1"]
)
def test_flags_and_options_of_the_interpreter(start: Start, options: str) -> None:
    # -I drops PYTHONPATH: the program finds its packages by itself, the worker by the path that it is given.
    paths = "import os, sys; sys.path[:0] = [p for p in os.environ.get('PYTHONPATH', '').split(':') if p]\n"
    program = start(
        paths
        + """
from forkpool import ForkPoolExecutor
def look():
    import sys
    return list(sys.flags), sys.warnoptions, sys._xoptions, __debug__, sys.get_int_max_str_digits()
with ForkPoolExecutor(1) as ex:
    mark("host", look())
    mark("worker", ex.submit(look).result())
""",
        python=options.split(),
    ).finish()
    assert program.value("worker") == program.value("host")


@pytest.mark.parametrize("where", ["environ", "env"])
def test_flags_by_variables_that_the_program_sets(start: Start, where: str) -> None:
    """A worker's interpreter was started with them; the host's had begun before."""
    program = start(f"""
        import sys
        from forkpool import ForkPoolExecutor
        variables = {{"PYTHONOPTIMIZE": "2", "PYTHONUTF8": "1"}}
        if {where == "environ"}:
            os.environ.update(variables)
        with ForkPoolExecutor(1, env=variables if {where == "env"} else None) as ex:
            mark("worker", ex.submit(lambda: (sys.flags.optimize, sys.flags.utf8_mode)).result())
        """).finish()
    assert program.value("worker") == "(2, 1)"


def test_import_path(start: Start) -> None:
    host, worker = both_tell(
        start,
        "sys.path",
        before="sys.path.append('/added/by/hand'); sys.path.remove('/dropped')",
        env={"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}:/dropped"},
    )
    assert worker == host
    assert "/added/by/hand" in worker


def test_warnings_filters(start: Start) -> None:
    host, worker = both_tell(
        start,
        "[(a, m and m.pattern, c.__name__, str(w), l) for a, m, c, w, l in warnings.filters]",
        before="warnings.filterwarnings('error', 'so it goes', DeprecationWarning)",
    )
    assert worker == host
    assert "so it goes" in worker


def test_a_filter_whose_category_is_imported_later_by_the_task(start: Start) -> None:
    program = start("""
        import warnings
        from pathlib import Path
        Path("library.py").write_text(
            "import warnings\\nclass Noise(UserWarning): pass\\n"
            "def task():\\n    warnings.warn('noise', Noise)\\n    warnings.warn('other')\\n")
        import library
        from forkpool import ForkPoolExecutor
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", library.Noise)
        with ForkPoolExecutor(1) as ex:
            mark("error", repr(ex.submit(library.task).exception()))
        """).finish()
    assert program.value("error") == "UserWarning('other')"


def test_levels_of_loggers_and_a_handler_for_stderr(start: Start) -> None:
    program = start("""
        import logging
        logging.basicConfig(level=logging.INFO, format="%(levelname)s|%(name)s|%(processName)s|%(message)s")
        logging.getLogger("noisy").setLevel(logging.ERROR)
        logging.getLogger("detailed").setLevel(logging.DEBUG)
        from forkpool import ForkPoolExecutor
        def task():
            import logging
            logging.debug("root debug")
            logging.info("root info")
            logging.getLogger("noisy.part").warning("noisy warning")
            logging.getLogger("detailed").debug("detailed debug")
        with ForkPoolExecutor(1) as ex:
            ex.submit(task).result()
        """).finish()
    assert program.errors.splitlines() == [
        "INFO|root|ForkPoolWorker-0|root info",
        "DEBUG|detailed|ForkPoolWorker-0|detailed debug",
    ]


@pytest.mark.parametrize("needs", ["defaults", "factory", "class"])
def test_a_format_that_a_worker_could_not_follow_is_left_out(start: Start, needs: str) -> None:
    program = start(f"""
        import logging
        class Shouting(logging.Formatter):
            def format(self, record): return super().format(record).upper()
        handler, plain = logging.StreamHandler(), logging.getLogRecordFactory()
        def make(*args, **kwargs):
            record = plain(*args, **kwargs)
            record.site = "here"
            return record
        match {needs!r}:
            case "defaults": handler.setFormatter(logging.Formatter("%(site)s %(message)s", defaults={{"site": "here"}}))
            case "factory":
                logging.setLogRecordFactory(make)
                handler.setFormatter(logging.Formatter("%(site)s %(message)s"))
            case "class": handler.setFormatter(Shouting("%(levelname)s %(message)s"))
        logging.getLogger().addHandler(handler)
        from forkpool import ForkPoolExecutor
        with ForkPoolExecutor(1) as ex:
            ex.submit(lambda: logging.warning("said")).result()
        """).finish()
    assert program.errors == "said\n"


def test_a_handler_for_stdout_and_none_for_a_file_or_of_another_logger(start: Start) -> None:
    program = start("""
        import logging
        to_stdout = logging.StreamHandler(sys.stdout)
        to_stdout.setFormatter(logging.Formatter("MARK {levelname} {processName} {message}", style="{"))
        to_stdout.setLevel(logging.WARNING)
        root, other = logging.getLogger(), logging.getLogger("other")
        root.handlers[:] = [to_stdout, logging.FileHandler("log")]
        other.addHandler(logging.StreamHandler())
        from forkpool import ForkPoolExecutor
        def task():
            import logging
            logging.getLogger("other").warning("said")
            logging.getLogger("other").info("too low for the handler")
            return len(logging.getLogger().handlers), len(logging.getLogger("other").handlers)
        with ForkPoolExecutor(1) as ex:
            mark("handlers", ex.submit(task).result())
        mark("log", repr(open("log").read()))
        """).finish()
    assert program.value("handlers") == "(1, 0)"
    assert program.value("WARNING") == "ForkPoolWorker-0 said"
    assert program.value("log") == "''"
    assert program.errors == ""


def test_without_logging_in_the_host_there_is_no_handler(start: Start) -> None:
    host, worker = both_tell(start, "(logging.getLogger().handlers, logging.getLogger().level)")
    assert worker == host


def test_the_locale(start: Start) -> None:
    names = subprocess.run(["locale", "-a"], capture_output=True, text=True, check=True).stdout.split()
    other = next((name for name in names if name not in ("C", "POSIX")), "C")
    host, worker = both_tell(
        start,
        "[locale.setlocale(getattr(locale, c)) for c in ('LC_CTYPE', 'LC_NUMERIC', 'LC_TIME', 'LC_COLLATE')]",
        before=f"locale.setlocale(locale.LC_TIME, {other!r})",
    )
    assert worker == host
    assert other in worker


def test_settings_of_the_interpreter(start: Start) -> None:
    host, worker = both_tell(
        start,
        "(sys.getrecursionlimit(), sys.getswitchinterval(), sys.get_int_max_str_digits(), sys.dont_write_bytecode)",
        before="sys.setrecursionlimit(2345); sys.setswitchinterval(0.002); sys.set_int_max_str_digits(9999); "
        "sys.dont_write_bytecode = not sys.dont_write_bytecode",
    )
    assert worker == host


@pytest.mark.parametrize("entries", [None, "", ".", "folder:", ":é'"])
def test_a_deleted_working_directory(start: Start, entries: str | None) -> None:
    """With a relative entry in PYTHONPATH no interpreter starts in one."""
    path = {} if entries is None else {"PYTHONPATH": f"{PACKAGE}:{ROOT}:{entries}"}
    source = """
        os.mkdir("gone")
        os.chdir("gone")
        os.rmdir(os.getcwd())
        from forkpool import ForkPoolExecutor
        with ForkPoolExecutor(1) as ex:
            mark("cwd", repr(ex.submit(os.getcwd).exception()))
            mark("again", ex.submit(len, "abc").result())
            mark("path", ex.submit(os.getenv, "PYTHONPATH").result() == os.environ.get("PYTHONPATH"))
        """
    program = start(source, env=path).finish()
    assert program.value("cwd") == "FileNotFoundError(2, 'No such file or directory')"
    assert program.value("again") == "3"
    assert program.value("path") == "True"


def test_a_working_directory_that_is_deleted_before_the_fork_server_is_replaced(start: Start) -> None:
    program = start(
        """
        os.mkdir("gone")
        os.chdir("gone")
        import signal
        from forkpool import ForkPoolExecutor
        with ForkPoolExecutor(1) as ex:
            server = ex.submit(os.getppid).result()
            os.rmdir(os.getcwd())
            os.kill(server, signal.SIGKILL)
            ex.submit(os._exit, 3).exception()
            mark("new", ex.submit(os.getppid).result() != server)
            mark("cwd", repr(ex.submit(os.getcwd).exception()))
        """,
        env={"PYTHONPATH": f"{PACKAGE}:{ROOT}:folder"},
    ).finish()
    assert program.value("new") == "True"
    assert program.value("cwd") == "FileNotFoundError(2, 'No such file or directory')"


REPLACED = """
import signal
from forkpool import ForkPoolExecutor, WorkerCrashedError
os.environ["ROW"] = "first"
os.umask(0o027)
os.mkdir("later")
first = os.getcwd()
def look():
    umask = os.umask(0o027)
    return os.getcwd() == first, os.environ["ROW"], oct(umask), os.getppid()
ex = ForkPoolExecutor(1)
before = ex.submit(look).result()
os.environ["ROW"] = "second"
os.chdir("later")
os.umask(0o077)
"""


def test_a_replaced_worker_sees_the_same(start: Start) -> None:
    program = start(
        REPLACED
        + """
try:
    ex.submit(os._exit, 1).result()
except WorkerCrashedError:
    pass
mark("same", ex.submit(look).result() == before)
mark("value", before[:3])
ex.shutdown()
"""
    ).finish()
    assert program.value("same") == "True"
    assert program.value("value") == "(True, 'first', '0o27')"


def test_a_worker_of_another_fork_server_sees_the_same(start: Start) -> None:
    program = start(
        REPLACED
        + """
fd = os.pidfd_open(before[3])
os.kill(before[3], signal.SIGKILL)
import select
select.select([fd], [], [])
try:
    ex.submit(os._exit, 1).result()
except WorkerCrashedError:
    pass
after = ex.submit(look).result()
mark("same", after[:3] == before[:3])
mark("another_server", after[3] != before[3])
ex.shutdown()
"""
    ).finish()
    assert program.value("another_server") == "True"
    assert program.value("same") == "True"
