"""Claims on CPUs: one for each CPU and user, dropped with their owner.

Runs in: pytest, and child processes that hold or drop a claim. A file of the test's own takes the place of /dev/zero, so
that pools of other programs do not play a part.
"""

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from forkpool._host import cpu_claims
from forkpool._host.cpu_claims import PATH_VARIABLE, CpuClaims


@contextlib.contextmanager
def pool() -> Iterator[CpuClaims]:
    claims = CpuClaims()
    claims.open()
    yield claims
    claims.close()


def look(*cpus: int) -> set[int]:
    """What a newcomer sees taken."""
    with pool() as claims:
        return claims.look(cpus)[0]


def test_each_cpu_is_claimed_once(own_claims: Path) -> None:
    with pool() as first, pool() as second:
        assert first.take([0, 2])
        assert second.look(range(4)) == ({0, 2}, set())
        assert second.take([1, 3])
        assert first.look(range(4)) == ({1, 3}, set())
        assert look(*range(5)) == {0, 1, 2, 3}
    assert look(*range(5)) == set()


def test_all_or_none(own_claims: Path) -> None:
    with pool() as first, pool() as second:
        assert first.take([2])
        assert not second.take([3, 1, 2])
        assert look(*range(4)) == {2}


def test_what_is_free_is_taken(own_claims: Path) -> None:
    with pool() as first, pool() as second:
        assert first.take([1])
        second.take_free([0, 1, 2])
        second.close()
        assert look(0, 1, 2) == {1}


def test_taking_twice_is_no_conflict(own_claims: Path) -> None:
    with pool() as claims:
        assert claims.take([0])
        assert claims.take([0, 1])


def test_closing_twice_is_no_harm(own_claims: Path) -> None:
    with pool() as claims:
        claims.take([0])
        claims.close()
        claims.close_in_fork()
        assert look(0) == set()


def test_no_file_is_made_and_none_is_written(own_claims: Path) -> None:
    with pool() as claims:
        claims.take([0, 8191])
    assert own_claims.stat().st_size == 0
    assert list(own_claims.parent.iterdir()) == [own_claims]


def test_by_default_the_file_is_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PATH_VARIABLE, raising=False)
    with pool() as first, pool() as second:  # on CPUs that no machine has
        assert first.path == "/dev/zero"
        assert first.take([8000])
        assert second.look([8000]) == ({8000}, set())


def test_another_user_is_seen_and_does_not_keep_us_out(own_claims: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pool() as mine, pool() as theirs:
        with monkeypatch.context() as as_somebody_else:
            as_somebody_else.setattr(cpu_claims.os, "getuid", lambda: (1 << 32) - 2)
            assert theirs.take([0])
        assert mine.look([0, 1]) == (set(), {0})
        assert mine.take([0])
        assert look(0) == {0}


@pytest.mark.parametrize("make", [lambda path: None, Path.mkdir], ids=["missing", "folder"])
def test_a_file_that_cannot_serve_is_an_error(
    make: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "claims"
    make(path)
    monkeypatch.setenv(PATH_VARIABLE, str(path))
    with pytest.raises(OSError, match="claims"):
        CpuClaims().open()


def test_a_fifo_by_that_name_does_not_stop_us(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "claims")
    monkeypatch.setenv(PATH_VARIABLE, str(tmp_path / "claims"))
    with pool() as claims:
        claims.take([0])


# --- owners that end -----------------------------------------------------------------------------------

HOLD = """
import os, sys, time
from forkpool._host.cpu_claims import CpuClaims
claims = CpuClaims()
claims.open()
assert claims.take([0])
{then}
print("held", flush=True)
sys.stdin.read()
{finally_}
"""
FORK = """
done, tell = os.pipe()
if os.fork() == 0:
    claims.{method}()
    os.write(tell, b"x")
    os.read(0, 1)
    os._exit(0)
os.read(done, 1)
"""


@contextlib.contextmanager
def holder(then: str = "", finally_: str = "") -> Iterator["subprocess.Popen[str]"]:
    """A process that has claimed CPU 0."""
    source = HOLD.format(then=then, finally_=finally_)
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(
        [sys.executable, "-c", source], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_the_kernel_drops_what_a_killed_owner_held(own_claims: Path) -> None:
    with holder() as process:
        assert look(0) == {0}
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert look(0) == set()


def test_the_holder_can_be_named(own_claims: Path) -> None:
    with holder() as process, pool() as claims:
        assert claims.holders([0, 1]) == {0: process.pid}
        claims.take([1])
        assert claims.holders([0, 1]) == {0: process.pid, 1: os.getpid()}


def test_exec_drops_the_claim(own_claims: Path) -> None:
    with holder(finally_="os.execv('/bin/cat', ['cat'])") as process:
        assert process.stdin is not None
        process.stdin.close()
        process.wait()
        assert look(0) == set()


def test_a_fork_of_the_owner_does_not_keep_the_claim(own_claims: Path) -> None:
    with holder(then=FORK.format(method="close_in_fork")) as process:
        assert look(0) == {0}  # the fork's closing took nothing away
        process.kill()
        process.wait()
        assert look(0) == set()


def test_a_fork_that_nobody_told_us_of_does_not_keep_what_is_given_back(own_claims: Path) -> None:
    """As C code forks, without the hooks: the description lives on in the child, but the owner unlocks."""
    with holder(
        then=FORK.format(method="look").replace("look()", "look([0])"), finally_="claims.close(); os.write(1, b'x')"
    ) as process:
        assert look(0) == {0}
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        assert process.stdout.read(1) == "x"
        assert look(0) == set()


def test_many_pools_at_once_never_share(own_claims: Path) -> None:
    """Threads that claim overlapping sets: what `take` grants is granted to one."""
    owners: dict[int, int] = {}
    clashes = []

    def claim_and_release(seed: int) -> None:
        draw = random.Random(seed)
        for _ in range(100):
            with pool() as claims:
                cpus = draw.sample(range(6), 3)
                if claims.take(cpus):
                    clashes.extend(cpu for cpu in cpus if owners.setdefault(cpu, seed) != seed)
                    for cpu in cpus:
                        owners.pop(cpu, None)

    threads = [threading.Thread(target=claim_and_release, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not clashes
    assert look(*range(6)) == set()
