"""Run every code block of README and docs, as a user would who pastes it into a file.

How blocks are marked stands in markdown.py. Numbers, addresses and folders of files differ from run to run, so what is
compared is the text with these replaced.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from .markdown import PAGES, Block, all_blocks, blocks_of

FORMS = {
    ("python", ""),
    ("python", "fragment"),
    ("text", "output"),
    ("text", ""),
    ("console", ""),
    ("bash", "install"),
    ("diff", ""),
}


def normal(text: str) -> str:
    """Replace what differs between two runs: hexadecimal addresses, folders of files, numbers with a unit or after `pid`."""
    text = re.sub(r"0x[0-9a-f]+", "0x#", text)
    text = re.sub(r'File "[^"]*/', 'File "', text)
    text = re.sub(r"line \d+", "line #", text)
    text = re.sub(r"worker \d+ \(pid \d+\)", "worker # (pid #)", text)
    text = re.sub(r"\b[\d.e-]+ (s|MiB)\b", r"# \1", text)
    return text.strip()


def matches(expected: str, printed: str) -> bool:
    pattern = re.escape(normal(expected)).replace(r"\.\.\.\n", r"(?:.*\n)*?")
    return re.fullmatch(pattern, normal(printed)) is not None


def run(command: list[str], folder: Path) -> str:
    """Run in an empty folder, with the interpreter of the tests first on the path."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PATH": path},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_every_block_has_a_known_form() -> None:
    unknown = [f"{block}: {block.language} {block.mark}" for page in PAGES for block in blocks_of(page)]
    unknown = [text for text in unknown if tuple(text.split(": ")[1].split(" ")) not in FORMS and ": {" not in text]
    assert not unknown


@pytest.mark.slow
@pytest.mark.alarm(110)
@pytest.mark.parametrize("block", all_blocks("python", ""), ids=str)
def test_python_block_runs_and_prints_what_the_page_says(block: Block, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(block.text)
    printed = run([sys.executable, str(program)], tmp_path)
    if block.output is not None:
        assert matches(block.output, printed), f"{block} printed:\n{printed}"


@pytest.mark.slow
@pytest.mark.alarm(110)
@pytest.mark.parametrize("block", all_blocks("python", "")[:1], ids=str)
def test_readme_block_runs_from_stdin_and_as_a_command(block: Block, tmp_path: Path) -> None:
    assert block.output is not None
    assert matches(block.output, run([sys.executable, "-c", block.text], tmp_path))
    assert matches(block.output, run(["bash", "-c", f'"{sys.executable}" - <<"END"\n{block.text}END'], tmp_path))


@pytest.mark.slow
@pytest.mark.alarm(110)
@pytest.mark.parametrize("block", all_blocks("console", ""), ids=str)
def test_console_block_prints_what_the_page_says(block: Block, tmp_path: Path) -> None:
    for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
        command, _, expected = part.partition("\n")
        printed = run(["bash", "-c", command], tmp_path)
        assert matches(expected, printed), f"{block}: {command} printed:\n{printed}"
