"""The command line as it is read: before the program, ours; from it on, its own."""

import os
import subprocess
import sys

import pytest

from forkpool import __version__, cli
from forkpool._run import command, program
from forkpool._run.pool_options import PoolOptions
from tests.support.script import PACKAGE

CPU = min(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("", "x.py"),
        ("--stats", "x.py --stats -h"),
        ("--max-workers 2 --stats", "-m mod -- --max-workers 3"),
        ("--max-workers=2", "x.py -m mod"),
        ("--timeout 1", "-mmod x"),
        ("--stats", "- x"),
        ("--stats -h", ""),
    ],
)
def test_split(ours: str, theirs: str) -> None:
    assert command.split(["run", *ours.split(), *theirs.split()]) == (["run", *ours.split()], theirs.split())


def test_two_dashes_begin_the_program() -> None:
    assert command.split(["run", "--stats", "--", "-x.py", "--"]) == (["run", "--stats"], ["-x.py", "--"])


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What would have run; nothing is swapped."""
    found: list[object] = []
    monkeypatch.setattr(command, "swap", lambda _, options: found.append(options))
    monkeypatch.setattr(command.ImportWatch, "install", lambda _: None)
    monkeypatch.setattr(program, "run_script", lambda *words: found.append(("script", *words)))
    monkeypatch.setattr(program, "run_module", lambda *words: found.append(("module", *words)))
    return found


def test_options(started: list[object]) -> None:
    words = (
        f"--max-workers 3 --max-tasks-per-child=5 --pin {CPU} --preload json,csv --preload re --timeout 1.5 x.py --stats -m y"
    )
    assert cli.command(["run", *words.split()]) is None
    options = PoolOptions(max_workers=3, max_tasks_per_child=5, pin=((CPU,),), preload=("json", "csv", "re"), timeout=1.5)
    assert started == [options, ("script", "x.py", ["--stats", "-m", "y"])]


@pytest.mark.parametrize(("text", "meaning"), [("auto", "auto"), ("on", True), ("off", False), (f"{CPU}-{CPU}", ((CPU,),))])
def test_pin(started: list[object], text: str, meaning: object) -> None:
    cli.command(["run", "--pin", text, "-m", "mod", "a"])
    assert started == [PoolOptions(pin=meaning), ("module", "mod", ["a"])]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("", "which program?"),
        ("-m", "which program?"),
        ("- x", "which program?"),
        ("--max-workers 0 x.py", "'0' is not a number from 1"),
        ("--max-tasks-per-child many x.py", "'many' is not a number from 1"),
        ("--timeout -1 x.py", "'-1' is not seconds, more than 0"),
        ("--timeout nan x.py", "'nan' is not seconds, more than 0"),
        ("--pin 999999 x.py", "may not use CPU 999999; usable: "),
        ("--pin 3-1 x.py", "'3-1' is not auto, on, off, or CPU numbers"),
        ("--preload a,,b x.py", "'a,,b' is not module names"),
        ("--max 2 x.py", "unrecognized arguments: --max"),
    ],
)
def test_mistakes_are_told_before_the_program_starts(
    started: list[object], capsys: pytest.CaptureFixture[str], words: str, says: str
) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.command(["run", *words.split()])
    assert stopped.value.code == 2
    assert says in capsys.readouterr().err
    assert started == []


@pytest.mark.parametrize(
    ("chosen", "asked", "pool"),
    [
        (PoolOptions(), (2, None), {"max_workers": 2, "max_tasks_per_child": None}),
        (PoolOptions(max_workers=3, max_tasks_per_child=4), (2, 9), {"max_workers": 3, "max_tasks_per_child": 4}),
        (PoolOptions(pin=False), (2, None), {"max_workers": 2, "max_tasks_per_child": None, "pin": False}),
        (PoolOptions(pin=((0,), (1,))), (1, None), {"max_workers": None, "max_tasks_per_child": None, "pin": ((0,),)}),
        (PoolOptions(pin=((0,), (1,))), (8, 1), {"max_workers": None, "max_tasks_per_child": 1, "pin": ((0,), (1,))}),
        (PoolOptions(pin=((0,), (1,))), (None, 1), {"max_workers": None, "max_tasks_per_child": 1, "pin": ((0,), (1,))}),
        (PoolOptions(pin=((0,),)), (-1, None), {"max_workers": -1, "max_tasks_per_child": None}),  # the pool will complain
        (PoolOptions(preload=("re",)), (2, 3), {"max_workers": 2, "max_tasks_per_child": 3, "preload": ("re",)}),
    ],
)
def test_the_command_line_has_the_last_word(chosen: PoolOptions, asked: tuple[int, int], pool: dict[str, object]) -> None:
    assert chosen.for_pool(*asked) == pool


def test_without_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.command([]) == 2
    assert "run a program" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.command(["--version"])
    assert capsys.readouterr().out == f"forkpool {__version__}\n"
    with pytest.raises(SystemExit):
        cli.command(["walk"])
    assert "invalid choice: 'walk'" in capsys.readouterr().err


def test_the_command_line_is_light() -> None:
    source = "import sys; before = set(sys.modules); import forkpool.cli; print(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", source], env={**os.environ, "PYTHONPATH": str(PACKAGE)}, capture_output=True)
    modules = done.stdout.decode().split()
    assert [name for name in modules if name.startswith("forkpool")] == ["forkpool", "forkpool.cli"]
    assert not {"argparse", "typing", "re"} & set(modules)
