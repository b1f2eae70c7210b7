"""Hold the README's first screen to its word: what a reader sees before scrolling, in the order in which it stands.

Its parts: the diff, eight lines that are run (test_code_blocks.py compares what they print, the message included), a table of
six rows that a script prints (test_examples.py runs it), and two commands, which .ci/run runs word for word on each Python;
here they run with stand-ins for the interpreter and the tools of its virtual environment.
"""

import os
import re
import subprocess
from concurrent.futures import Executor, ProcessPoolExecutor
from pathlib import Path

from forkpool import ForkPoolExecutor

from .markdown import ROOT, all_blocks, blocks_of
from .test_code_blocks import matches
from .test_examples import readme_table

README = ROOT / "README.md"


def test_the_first_screen_has_all_parts_in_order() -> None:
    text = README.read_text()
    parts = ["# forkpool\n", "```diff\n", "```python\n", "```text output\n", "|  | forkpool |", "**Not for** ", "## Try it"]
    places = [text.index(part) for part in parts]
    assert places == sorted(places)
    first = text[: places[-1]]
    assert len([line for line in first.splitlines() if line.strip()]) <= 40
    blocks = [block for block in blocks_of(README) if block.line < first.count("\n")]
    assert [block.language for block in blocks] == ["diff", "python", "text"]
    assert [block.text.count("\n") for block in blocks[:2]] == [2, 8]
    assert len(readme_table()) == 2 + 6


def test_one_word_swaps_the_pool() -> None:
    """Both lines import a class under one name, so that no other line of a program changes."""
    (block,) = [block for block in blocks_of(README) if block.language == "diff"]
    found: list[type[Executor]] = []
    for line in block.text.splitlines():
        names: dict[str, type[Executor]] = {}
        exec(line[1:], names)
        found.append(names["Pool"])
    assert [line[0] for line in block.text.splitlines()] == ["-", "+"]
    assert found == [ProcessPoolExecutor, ForkPoolExecutor]


def test_the_message_is_what_the_eight_lines_say_today() -> None:
    """Made here once more, without a program around it, and compared with the page line by line."""
    import ctypes

    (block,) = [block for block in blocks_of(README) if block.language == "python"]
    with ForkPoolExecutor() as ex:
        error = ex.submit(ctypes.string_at, 0).exception()
    assert block.output is not None
    assert matches(block.output.removeprefix("1024\n"), str(error))


STAND_IN = '#!/bin/sh\necho "${0##*/} $*" >> "$LOG"\nexit ${FAIL:-0}\n'


def run_command(command: str, folder: Path, **env: str) -> list[str]:
    """Run it with stand-ins for `python`, and `pip` and `python` of its environment; return what was called."""
    log = folder / "log"
    log.unlink(missing_ok=True)
    for name in ("interpreter", "venv/bin/pip", "venv/bin/python"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(STAND_IN)
        path.chmod(0o755)
    given = {"PYTHON": str(folder / "interpreter"), "VENV": str(folder / "venv"), "LOG": str(log), **env}
    subprocess.run(["bash", "-c", command], cwd=ROOT, env={**os.environ, **given}, timeout=30)
    return log.read_text().splitlines()


def test_the_two_commands(tmp_path: Path) -> None:
    """Each is one line, makes an environment, installs into it, and runs what it says; a step that fails is the last."""
    demo, tests = (block.text for block in all_blocks("bash", "install"))
    assert demo.count("\n") == tests.count("\n") == 1
    make = f"interpreter -m venv {tmp_path}/venv"
    assert run_command(demo, tmp_path) == [make, "pip install -q -e .", "python docs/examples/survey.py"]
    assert run_command(tests, tmp_path) == [make, "pip install -q -e .[test]", "python -m pytest -q"]
    assert run_command(tests, tmp_path, FAIL="1") == [make]
    assert (ROOT / "docs/examples/survey.py").is_file()


def test_ci_runs_these_two_commands_word_for_word() -> None:
    """With the means by which .ci/run finds them."""
    script = (ROOT / ".ci/run").read_text()
    (find,) = re.findall(r"^readme_command\(\) \{\n.*?^\}", script, re.MULTILINE | re.DOTALL)
    calls = re.findall(r"\$\((readme_command .*)\)$", script, re.MULTILINE)
    found = [
        subprocess.run(["bash", "-c", f"{find}\n{call}"], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout
        for call in calls
    ]
    assert found == [block.text for block in all_blocks("bash", "install")]
    assert script.count('attempt "README') == 2
