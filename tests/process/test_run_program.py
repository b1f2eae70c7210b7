"""A program cannot tell from outside or inside that it runs under `forkpool run`: each is run twice, and compared.

Programs here use no pool; those that do are in test_run_swap.py and test_run_libraries.py.
"""

import py_compile
import signal
import zipfile
from pathlib import Path

import pytest

from tests.support.programs import both, run_console_script, run_program

LOOKS_AROUND = """
import sys, os
main = sys.modules["__main__"]
shown = {name: str(value).split(" object at")[0] for name, value in sorted(vars(main).items())}
print(sorted(shown.items()))
print(main.__dict__ is globals(), __spec__ and (__spec__.name, __spec__.origin))
print(sys.argv, sys.path[:1], len(sys.path), os.getcwd())
print(sys.flags, sys.warnoptions, repr(sys.stdin.read()))
import pickle
def f(): pass
print(pickle.loads(pickle.dumps(f)) is f)
import helper
print(helper.where)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A program as a file, a module, a folder, an archive; beside it modules named as what we import ourselves."""
    below = tmp_path / "below"
    package = below / "package"
    package.mkdir(parents=True)
    for place in (tmp_path, below):
        (place / "looks.py").write_text(LOOKS_AROUND)
        (place / "helper.py").write_text(f"where = {str(place)!r}\n")
        for name in ("argparse", "atexit_", "cli", "runpy_", "inspect"):
            (place / f"{name}.py").write_text("raise SystemExit('the wrong module')\n")
    (package / "__init__.py").write_text("print('package', __name__)\n")
    (package / "__main__.py").write_text(LOOKS_AROUND)
    (package / "helper.py").write_text("where = 'package'\n")
    (tmp_path / "link.py").symlink_to(below / "looks.py")
    with zipfile.ZipFile(tmp_path / "archive.zip", "w") as archive:
        archive.writestr("__main__.py", LOOKS_AROUND)
        archive.writestr("helper.py", "where = 'archive'\n")
    py_compile.compile(str(below / "looks.py"), str(tmp_path / "compiled.pyc"))
    return tmp_path


@pytest.mark.parametrize(
    "program",
    [
        ("looks.py", "a", "--stats", "-m", "b"),
        ("below/looks.py",),
        ("./below/../looks.py", "--", "-h"),
        ("link.py",),
        ("compiled.pyc", "x"),
        ("below/package", "x"),
        ("archive.zip", "x"),
        ("-m", "looks", "--stats", "-m", "b"),
        ("-m", "below.looks", "-h"),
        ("-m", "below.package"),
    ],
    ids=" ".join,
)
def test_what_a_program_finds(folder: Path, program: tuple[str, ...]) -> None:
    plain, ours = both(folder, *program, text="input\n")
    assert plain.status == 0, plain.errors
    assert "'input\\n'" in plain.output
    assert ours == plain


@pytest.mark.parametrize("python", [("-P",), ("-I",), ("-W", "error", "-O", "-X", "dev"), ("-s", "-E", "-B")], ids=" ".join)
def test_options_of_the_interpreter(folder: Path, python: tuple[str, ...]) -> None:
    (folder / "looks.py").write_text(LOOKS_AROUND.replace("import helper\nprint(helper.where)\n", ""))
    for program in (("looks.py",), ("-m", "timeit", "-n1", "-r1", "-s", "import sys", "assert sys.argv")):
        plain, ours = both(folder, *program, python=python)
        assert plain.status == 0, plain.errors
        if program == ("looks.py",):
            assert ours == plain
        assert (ours.status, ours.errors) == (plain.status, plain.errors)


ENDS = {
    "status": "import sys; sys.exit(7)",
    "text": "raise SystemExit('why')",
    "none": "raise SystemExit",
    "error": "def f():\n    raise ValueError('mine')\nf()",
    "chain": "try:\n    1 / 0\nexcept Exception as e:\n    raise KeyError(2) from e",
    "interrupt": "raise KeyboardInterrupt",
    "real interrupt": "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\ninput()",
    "group": "raise ExceptionGroup('two', [ValueError(1), TypeError(2)])",
    "syntax": "x = = 1",
    "encoding": "x = '\\xff'".encode("latin-1").decode("latin-1"),
    "hook": "import sys\nsys.excepthook = lambda *about: print('hook', about[:2], about[2].tb_frame.f_code.co_name)\n1 / 0",
    "no hook": "import sys\ndel sys.excepthook\n1 / 0",
    "thread": "import threading\nthreading.Thread(target=lambda: print('late')).start()\n1 / 0",
    "exit": "import os\nos._exit(5)",
    "killed": "import os, signal\nos.kill(os.getpid(), signal.SIGTERM)",
    "warning": "import warnings\nwarnings.warn('old', DeprecationWarning)",
    "last error": "import atexit, sys\natexit.register(lambda: print(sys.last_value, sys.last_traceback.tb_lineno))\n1 / 0",
    "unclosed": "import sys\nsys.stdout.write('no newline')",
}


@pytest.mark.parametrize("how", ENDS)
@pytest.mark.parametrize("as_module", [False, True], ids=["script", "module"])
def test_how_a_program_ends(tmp_path: Path, how: str, as_module: bool) -> None:
    (tmp_path / "program.py").write_text(ENDS[how] + "\n")
    plain, ours = both(tmp_path, *(["-m", "program"] if as_module else ["program.py"]))
    assert ours == plain
    if "interrupt" in how:
        assert ours.status == -signal.SIGINT


@pytest.mark.parametrize("program", ["missing.py", "empty", "-m missing", "-m empty", "-m os.path.join", "-m below.missing"])
def test_programs_that_are_not_there(folder: Path, program: str) -> None:
    (folder / "empty").mkdir()
    plain, ours = both(folder, *program.split())
    assert plain.status != 0
    assert ours == plain


def test_exit_handlers_run_in_the_order_of_the_program(tmp_path: Path) -> None:
    """Those of the modules that it imports included: `multiprocessing` joins its processes in one."""
    (tmp_path / "program.py").write_text("""
import atexit
atexit.register(print, "first in, last out")
import multiprocessing.process, os
reader, writer = os.pipe()
def slow():
    os.read(reader, 1)
    print("process", flush=True)
if __name__ == "__main__":
    import multiprocessing.util, logging
    atexit.register(os.write, writer, b"x")  # multiprocessing's own handler, which joins, was registered before: it runs after
    atexit.register(print, "second", flush=True)
    multiprocessing.Process(target=slow).start()
    import concurrent.futures.process
    atexit.register(print, "third", flush=True)
""")
    plain, ours = both(tmp_path, "program.py")
    assert plain.output.split() == ["third", "second", "process", "first", "in,", "last", "out"]
    assert ours == plain


def test_nothing_is_imported_that_the_program_does_not_use(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text("""
import sys
heavy = ("forkpool", "concurrent", "multiprocessing", "logging", "psutil")
print(*(name for name in sys.modules if name.split(".")[0] in heavy))
""")
    modules = set(run_program(tmp_path, "program.py", options=()).output.split())
    assert "forkpool._run.program" in modules
    assert not [name for name in modules if not name.startswith("forkpool")]
    assert "forkpool.executor" not in modules


def test_interactive_afterwards(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text("value = 7\n")
    plain, ours = both(tmp_path, "program.py", python=["-i", "-q"], text="print(value, __name__)\n")
    assert "7 __main__" in plain.output
    assert ours == plain


def test_the_console_script(folder: Path) -> None:
    (folder / "fails.py").write_text("import sys\ndef f():\n    print(sys.argv, sys.path[0], input())\n    1 / 0\nf()\n")
    for program in (("fails.py", "x"), ("-m", "fails", "x")):
        assert run_console_script(folder, "run", *program, text="y\n") == run_program(folder, *program, text="y\n")


def test_children_of_multiprocessing_find_the_program(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text("""
import multiprocessing, sys
def show():
    print(__name__, sys.argv, flush=True)
if __name__ == "__main__":
    for method in ("spawn", "forkserver", "fork"):
        process = multiprocessing.get_context(method).Process(target=show)
        process.start()
        process.join()
""")
    for program in (("program.py", "x"), ("-m", "program", "x")):
        plain, ours = both(tmp_path, *program)
        assert plain.output.count("\n") == 3
        assert ours == plain
