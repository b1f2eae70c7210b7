"""Which /proc is believed. Runs in: pytest."""

import os
from pathlib import Path

import pytest

from forkpool._shared.own_proc import folder_of, numbers_as_we_do


def mount(root: Path, number: int) -> str:
    (root / "proc").mkdir()
    (root / "proc" / "self").symlink_to(str(number))
    return str(root)


def test_the_one_that_is_mounted_here() -> None:
    assert numbers_as_we_do()
    assert folder_of(4711) == "/proc/4711"


def test_one_that_numbers_as_we_do(tmp_path: Path) -> None:
    assert folder_of(4711, mount(tmp_path, os.getpid())) == f"{tmp_path}/proc/4711"


def test_one_of_another_pid_namespace(tmp_path: Path) -> None:
    root = mount(tmp_path, os.getpid() + 1)
    assert not numbers_as_we_do(root)
    with pytest.raises(FileNotFoundError, match="another pid namespace"):
        folder_of(4711, root)


def test_none(tmp_path: Path) -> None:
    assert not numbers_as_we_do(str(tmp_path))
    with pytest.raises(FileNotFoundError, match="not mounted"):
        folder_of(4711, str(tmp_path))
