"""The hint that the kernel's out-of-memory killer ended a worker: by a recorded tree, and by a real kill.

Runs in: pytest, workers and, for the real kill, a program in a memory cgroup of its own.
"""

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from forkpool import ForkPoolExecutor, WorkerCrashedError
from forkpool._host import oom
from tests.support import processes
from tests.support.script import Script

Start = Callable[..., Script]

pytestmark = pytest.mark.slow

LIMIT_BYTES = 256 << 20


def score_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/oom_score_adj").read_text())


def test_the_kernel_chooses_workers_before_the_host() -> None:
    with ForkPoolExecutor(1) as ex:
        assert score_of(ex.submit(os.getpid).result()) == min(score_of(os.getpid()) + 100, 1000)


def be_killed(counter: str) -> None:
    """As the kernel does it: first count, then kill."""
    Path(counter).write_text("oom_kill 8\n")
    os.kill(os.getpid(), 9)


def test_the_error_carries_the_hint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counter = tmp_path / "proc/vmstat"
    counter.parent.mkdir()
    counter.write_text("oom_kill 7\n")
    monkeypatch.setattr(oom.OomWatch.__init__, "__defaults__", (str(tmp_path),))
    with ForkPoolExecutor(1) as ex:
        error = ex.submit(be_killed, str(counter)).exception()
        assert isinstance(error, WorkerCrashedError)
        assert error.oom_hint is not None
        assert "out-of-memory killer acted once on this machine" in error.oom_hint
        assert error.oom_hint in str(error)
        later = ex.submit(os.kill, 0, 9).exception()
        assert isinstance(later, WorkerCrashedError)
        assert later.oom_hint is None  # that kill was another


def lose_a_child(counter: str) -> None:
    """The kernel chooses a process that this task has started."""
    Path(counter).write_text("oom_kill 8\n")


def test_a_kill_before_the_call_began_was_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counter = tmp_path / "proc/vmstat"
    counter.parent.mkdir()
    counter.write_text("oom_kill 7\n")
    monkeypatch.setattr(oom.OomWatch.__init__, "__defaults__", (str(tmp_path),))
    monkeypatch.setattr(oom, "LOOK_EVERY_S", 0.0)
    with ForkPoolExecutor(1) as ex:
        ex.submit(lose_a_child, str(counter)).result()
        error = ex.submit(os.kill, 0, 9).exception()
        assert isinstance(error, WorkerCrashedError)
        assert error.oom_hint is None


@pytest.fixture
def memory_cgroup(nothing_is_left: None) -> Iterator[Path]:
    """A memory cgroup with a small limit.

    Below our own; in version 2 beside it, where a group that holds processes limits no others.
    """
    control = Path(oom.OomWatch()._path)
    names = {"memory.oom_control": "memory.limit_in_bytes", "memory.events": "memory.max"}
    above = control.parent.parent if control.name == "memory.events" else control.parent
    if control.name not in names:
        pytest.skip("no memory cgroup; the recorded tree above and in tests/unit/test_oom.py stand for it")
    folder = above / f"forkpool-test-{uuid.uuid4().hex[:8]}"
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"no right to make a memory cgroup ({error}); the recorded trees stand for it")
    try:
        try:
            (folder / names[control.name]).write_text(str(LIMIT_BYTES))
            if (folder / "memory.swap.max").exists():
                (folder / "memory.swap.max").write_text("0")
        except OSError as error:
            pytest.skip(f"no memory limit to be had here ({error}); the recorded trees stand for it")
        yield folder
    finally:
        processes.kill_marked()
        processes.wait_none_marked()
        folder.rmdir()


def test_a_real_kill(start: Start, memory_cgroup: Path) -> None:
    program = start(
        f"""
        from pathlib import Path
        Path({str(memory_cgroup / "cgroup.procs")!r}).write_text(str(os.getpid()))
        from forkpool import ForkPoolExecutor, WorkerCrashedError

        def fill():
            hoard = []
            while True:
                hoard.append(b"x" * (4 << 20))

        with ForkPoolExecutor(1) as ex:
            ex.submit(len, "").result()
            try:
                ex.submit(fill).result()
            except WorkerCrashedError as error:
                mark("signal", error.signal)
                mark("hint", error.oom_hint)
                mark("peak", error.peak_rss)
            mark("next", ex.submit(len, "abc").result())
        """
    ).finish()
    assert program.value("signal") == "SIGKILL"
    assert "acted once in this process's memory cgroup" in program.value("hint")
    assert str(memory_cgroup) in program.value("hint")
    assert LIMIT_BYTES // 2 < int(program.value("peak")) <= LIMIT_BYTES
    assert program.value("next") == "3"
