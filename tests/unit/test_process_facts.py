"""What /proc tells of a process. Runs in: pytest."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from forkpool._host import process_facts
from forkpool._host.process_facts import is_exiting
from tests.support import processes

LIVES, EXITS = 0x400040, 0x40050C  # flags as they were read
SOME_PID = 4711


def test_this_process() -> None:
    assert is_exiting(os.getpid()) is False


def test_one_that_has_ended() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    processes.wait_state(pid, "Z")
    assert is_exiting(pid) is True
    os.waitpid(pid, 0)
    assert is_exiting(pid) is None


@pytest.fixture
def threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Have a process with these threads: what is in their `stat`, None for one that goes while it is looked at."""
    monkeypatch.setattr(process_facts, "folder_of", lambda _: str(tmp_path))

    def make(*stats: str | None) -> None:
        for number, stat in enumerate(stats):
            folder = tmp_path / "task" / str(SOME_PID + number)
            folder.mkdir(parents=True)
            if stat is not None:
                (folder / "stat").write_text(stat)

    return make


def stat_of(state: str, flags: int) -> str:
    return f"{SOME_PID} (a) (name)) {state} 1 2 3 0 -1 {flags} 0 0 0 0 0 0 0 0 20 0 1 0 99 0 0\n"


def test_one_that_gives_back_its_memory(threads: Callable[..., None]) -> None:
    threads(stat_of("R", EXITS), stat_of("X", EXITS), None)
    assert is_exiting(SOME_PID) is True


def test_one_whose_first_thread_has_ended_and_whose_second_lives_on(threads: Callable[..., None]) -> None:
    threads(stat_of("Z", EXITS), stat_of("S", LIVES))
    assert is_exiting(SOME_PID) is False


def test_nobody_can_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_facts, "folder_of", lambda _: str(tmp_path))
    assert is_exiting(SOME_PID) is None
