"""What every test against real processes gets: programs of their own, and a look at what is left afterwards.

Runs in: the pytest process.
"""

import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.script import Script, start_script


@pytest.fixture(autouse=True)
def leak_check(nothing_is_left: None) -> None:
    """Each test here starts processes."""


@pytest.fixture
def start(tmp_path: Path, nothing_is_left: None) -> Iterator[Callable[..., Script]]:
    """Start programs in sessions of their own; all are ended with the test."""
    scripts: list[Script] = []

    def start_one(source: str, how: str = "file", **more: object) -> Script:
        folder = tmp_path / f"script{len(scripts)}"
        folder.mkdir()
        scripts.append(start_script(folder, source, how, **more))  # type: ignore[arg-type]
        return scripts[-1]

    yield start_one
    for script in scripts:
        script.close()


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Path]:
    """Write a module that a fork server finds; its folder."""
    folder = tmp_path / "modules"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))

    def write_module(name: str, source: str) -> Path:
        (folder / f"{name}.py").write_text(textwrap.dedent(source))
        return folder

    return write_module
