"""Run a program as `python` does and as `forkpool run` does, and compare what can be seen from outside.

Runs in: the pytest process.
"""

import os
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.support.script import PACKAGE

PATIENCE_S = 100  # the test's own alarm is shorter


@dataclass(frozen=True)
class Outcome:
    """How a program ended, and what it wrote."""

    status: int
    output: str
    errors: str


def run_program(
    folder: Path,
    *program: str,
    options: Iterable[str] | None = None,
    python: Iterable[str] = (),
    text: str = "",
    env: dict[str, str] | None = None,
) -> Outcome:
    """Run `python PROGRAM` in a folder.

    Args:
        options: Under `python -m forkpool run OPTIONS`; None: without it.
        python: Options of the interpreter.
        text: For its standard input.
    """
    ours = [] if options is None else ["-m", "forkpool", "run", *options]
    return _finish([sys.executable, *python, *ours, *program], folder, text, env or {})


def run_console_script(folder: Path, *arguments: str, text: str = "") -> Outcome:
    """Run `forkpool ARGUMENTS`."""
    return _finish([str(Path(sys.executable).parent / "forkpool"), *arguments], folder, text, {})


def _finish(command: list[str], folder: Path, text: str, env: dict[str, str]) -> Outcome:
    done = subprocess.run(
        command,
        cwd=folder,
        # Unbuffered, two workers' lines would mix, with us and without.
        env={**os.environ, "PYTHONPATH": str(PACKAGE), "PYTHONUNBUFFERED": "", **env},
        input=text.encode(),
        capture_output=True,
        timeout=PATIENCE_S,
        start_new_session=True,
    )
    return Outcome(done.returncode, done.stdout.decode(), done.stderr.decode())  # as they are: "\r" is no "\n"


def both(folder: Path, *program: str, **more: object) -> tuple[Outcome, Outcome]:
    """Run it without us, then under `forkpool run`."""
    plain = run_program(folder, *program, **more)  # type: ignore[arg-type]
    return plain, run_program(folder, *program, options=(), **more)  # type: ignore[arg-type]
