"""Run a user's program in a session of its own, as a terminal would, and follow what it prints.

Runs in: the pytest process. Signals go to such a program, never to pytest.
A program tells the test what happened with lines "MARK <name> <value>" on stdout (`mark()`, which is put in front of
its source). Workers inherit that stdout, so the end of the stream proves that nobody of the pool lives.
"""

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import forkpool
from tests.support import processes

How = Literal["file", "-c", "stdin"]
UNSEEN_BY_PYTHON = {signal.SIGKILL, signal.SIGSTOP, signal.SIGCONT}
ROOT = Path(__file__).resolve().parents[2]
PACKAGE = Path(forkpool.__file__).resolve().parents[1]  # an installed forkpool is tested as installed

# Without a line break: line numbers of tracebacks stay those of the test's source.
PRELUDE = "import os, sys\ndef mark(name, value=''):\n    os.write(1, f'MARK {name} {value}\\n'.encode())\n"


@dataclass
class Script:
    """A running program. `marks` holds what it has told so far, in order."""

    process: subprocess.Popen[bytes]
    errors_path: Path
    lines: list[str] = field(default_factory=list)

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def errors(self) -> str:
        return self.errors_path.read_text(errors="replace")

    def all(self, name: str) -> list[str]:
        """The values of all marks of this name so far."""
        words = (line.split(maxsplit=2) for line in self.lines if line.startswith("MARK "))
        return [([*one, ""])[2] for one in words if one[1] == name]

    def value(self, name: str) -> str:
        """The value of the only mark of this name."""
        (value,) = self.all(name)
        return value

    def wait_mark(self, name: str) -> str:
        """Read on until the program has told this mark once more; its value."""
        while line := self._read_line():
            if line.split()[:2] == ["MARK", name]:
                return line.partition(name)[2].strip()
        raise AssertionError(f"the program ended without {name!r}:\n{self._story()}")

    def _read_line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline().decode(errors="replace")
        if line:
            self.lines.append(line.rstrip("\n"))
        return line

    def send(self, signum: int) -> None:
        self._await_sleep(signum)
        self.process.send_signal(signum)

    def send_group(self, signum: int) -> None:
        self._await_sleep(signum)
        os.killpg(self.process.pid, signum)

    def _await_sleep(self, signum: int) -> None:
        """Python acts on a signal between two instructions, or when it wakes one of its calls from sleep.

        One that comes just before such a call goes to sleep waits as long as the call does, in a plain `lock.acquire()` too.
        """
        if signum not in UNSEEN_BY_PYTHON:
            processes.wait_state(self.pid, "SZ")

    def finish(self, *, status: int | None = 0) -> "Script":
        """Read to the end of its output and of everybody who inherited it; check how it ended."""
        while self._read_line():
            pass
        code = self.process.wait()
        if status is not None:
            assert code == status, f"ended with {code}, not {status}:\n{self._story()}"
        return self

    def _story(self) -> str:
        return "\n".join([*self.lines, "--- stderr", self.errors])

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


def start_script(
    folder: Path,
    source: str,
    how: How = "file",
    *,
    python: Iterable[str] = (),
    prefix: Iterable[str] = (),
    args: Iterable[str] = (),
    env: dict[str, str] | None = None,
) -> Script:
    """Start the program and return at once.

    Args:
        how: As a file, as the argument of -c, or piped into the interpreter.
        python: More options of the interpreter.
        prefix: A command that starts it (`unshare ...`).
    """
    text = PRELUDE + textwrap.dedent(source)
    command = [*prefix, sys.executable, "-u", *python]
    errors_path = folder / "stderr.txt"
    path = folder / "program.py"
    path.write_text(text)
    where = {"file": [str(path)], "-c": ["-c", text], "stdin": ["-"]}[how]
    with (
        open(errors_path, "wb") as errors,
        open(path if how == "stdin" else os.devnull, "rb") as stdin,
    ):
        process = subprocess.Popen(
            [*command, *where, *args],
            cwd=folder,
            env=environment(env or {}),
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
        )
    return Script(process, errors_path)


def environment(extra: dict[str, str]) -> dict[str, str]:
    """Ours, so that the mark of the test is in it; tests.support must be importable."""
    paths = [str(PACKAGE), str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), **extra}


def run_script(folder: Path, source: str, how: How = "file", *, status: int | None = 0, **more: object) -> Script:
    """Run the program to its end, check its exit status and that nobody of it lives."""
    script = start_script(folder, source, how, **more)  # type: ignore[arg-type]
    try:
        script.finish(status=status)
    finally:
        script.close()
    processes.wait_none_marked()
    return script


def kill_name(signum: int) -> int:
    """What Popen.returncode says after this signal."""
    return -signal.Signals(signum).value
