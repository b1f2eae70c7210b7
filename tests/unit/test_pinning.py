"""From what is asked, what the machine is like and who claims what, to what the workers are told.

Runs in: pytest; no process is started. tests/process/test_pinning.py has real workers.
"""

from pathlib import Path
from typing import Any

import pytest

from forkpool._core.placement import Cpu, Machine
from forkpool._host.cpu_claims import PATH_VARIABLE, CpuClaims
from forkpool._host.pinning import Pinning, placement_before_start
from forkpool.config import PoolConfig, pool_config

pytestmark = pytest.mark.usefixtures("own_claims")
FOUR = Machine(tuple(Cpu(number, (number,)) for number in range(4)))


def config(workers: int | None = 2, **changes: Any) -> PoolConfig:
    given = {"pin": "auto", "threads_per_worker": None, "env": None, **changes}
    return pool_config(
        max_workers=workers,
        mp_context=None,
        initializer=None,
        initargs=(),
        max_tasks_per_child=None,
        max_tasks_jitter=0,
        serializer="auto",
        grace_period=5.0,
        mask=range(4),
        count_cpus=lambda: 4,
        **given,
    )


def pinning(workers: int | None = 2, *, machine: Machine = FOUR, **changes: Any) -> Pinning:
    """One that has chosen."""
    made = Pinning(config(workers, **changes), lambda: machine)
    made.choose()
    return made


def told(one: Pinning, environ: dict[str, str] | None = None) -> dict[str, Any]:
    snapshot: dict[str, Any] = {"environ": environ or {}, "cpu_sets": None, "thread_variables": None}
    one.write_into(snapshot)
    return snapshot


def openmp(one: Pinning, environ: dict[str, str] | None = None) -> str | None:
    return told(one, environ)["environ"].get("OMP_NUM_THREADS")


def test_two_pools_share_none_and_a_third_runs_free() -> None:
    first, second = pinning(), pinning()
    assert (first.sets, second.sets) == (((0,), (1,)), ((2,), (3,)))
    third = pinning()
    assert third.sets is None
    assert str(third.placement) == (
        "pin='auto': not pinned, because 2 workers need 2 CPUs, and of CPU 0-3 other pools have claimed 0-3"
    )
    assert [slot.cpus for slot in third.placement.slots] == [None, None]
    first.close()
    fourth = pinning()
    assert fourth.sets == ((0,), (1,))
    for one in (second, third, fourth):
        one.close()


def test_a_pool_that_runs_free_claims_nothing() -> None:
    held = CpuClaims()
    held.open()
    assert held.take([0, 1, 2])
    assert pinning(2).sets is None
    assert held.look(range(4)) == (set(), set())
    held.close()


@pytest.mark.parametrize(
    ("machine", "why"),
    [
        (Machine(FOUR.cpus, quota=2.5), "a cgroup grants the time of 2.5 CPUs"),
        (Machine(FOUR.cpus, nested=True), "itself a worker"),
        (Machine(FOUR.cpus[:1]), "this process may use 1"),
        (Machine(FOUR.cpus[:2]), "2 workers would take every CPU"),
        (Machine(()), "cannot bind"),
    ],
)
def test_auto_leaves_the_whole_pool_free(machine: Machine, why: str) -> None:
    one = pinning(machine=machine)
    assert one.sets is None
    assert why in one.placement.reason
    assert told(one)["cpu_sets"] is None


def test_demanded_pinning_minds_neither_quota_nor_nesting() -> None:
    one = pinning(pin=True, machine=Machine(FOUR.cpus, quota=1.0, nested=True))
    assert one.sets == ((0,), (1,))
    one.close()


@pytest.mark.parametrize(
    ("machine", "why"),
    [
        (Machine(FOUR.cpus[:1]), r"pin=True cannot be: 2 workers need 2 CPUs, and this process may use 1 \(CPU 0\)"),
        (Machine(()), r"pin=True cannot be: this system cannot bind a process to CPUs"),
    ],
)
def test_demanded_pinning_that_cannot_be_is_an_error(machine: Machine, why: str) -> None:
    with pytest.raises(RuntimeError, match=why):
        pinning(pin=True, machine=machine)


def test_the_error_names_who_holds_the_cpus() -> None:
    import os

    first = pinning(3)
    with pytest.raises(RuntimeError, match=rf"have claimed 0-2 \(pid {os.getpid()}\)"):
        pinning(2, pin=True)
    first.close()


def test_without_a_place_for_claims_auto_is_free_and_a_demand_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PATH_VARIABLE, str(tmp_path / "nowhere"))
    assert "CPUs cannot be claimed in" in pinning().placement.reason
    with pytest.raises(RuntimeError, match=r"cannot be claimed in .*nowhere.*No such file"):
        pinning(pin=True)
    assert pinning(pin=[0, 1]).sets == ((0,), (1,))


def test_a_pool_that_is_always_outrun_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CpuClaims, "take", lambda self, cpus: False)
    assert pinning().placement.reason.endswith("other pools claim CPUs at this very moment")


def test_a_pool_that_is_outrun_once_takes_others(monkeypatch: pytest.MonkeyPatch) -> None:
    rival = CpuClaims()
    rival.open()
    real_take = CpuClaims.take

    def outrun(self: CpuClaims, cpus: list[int]) -> bool:
        monkeypatch.setattr(CpuClaims, "take", real_take)
        rival.take([0])  # between our look and our claim
        return self.take(cpus)

    monkeypatch.setattr(CpuClaims, "take", outrun)
    one = pinning()
    assert one.sets == ((1,), (2,))
    one.close()
    rival.close()


def test_named_cpus_are_taken_whoever_claims_them() -> None:
    first = pinning(2, pin=[3, 2])
    assert first.sets == ((3,), (2,))
    assert str(first.placement) == "pin=[3, 2]\n  slot 0: CPU 3, as named\n  slot 1: CPU 2, as named"
    second = pinning(None, pin=[[0, 1, 2]])
    assert second.sets == ((0, 1, 2),)
    assert str(second.placement) == "pin=[[0, 1, 2]]\n  slot 0: CPU 0, 1, 2, as named"
    assert pinning(1).sets is None  # all four are claimed, one by both
    first.close()
    second.close()


def test_named_cpus_that_have_gone_since_are_an_error() -> None:
    with pytest.raises(RuntimeError, match=r"pin=\[0, 3\]: CPU 3 can no longer be used by this process"):
        pinning(2, pin=[0, 3], machine=Machine(FOUR.cpus[:2]))


def test_without_pinning_nothing_is_looked_at() -> None:
    def look() -> Machine:
        raise AssertionError

    one = Pinning(config(pin=False), look)
    one.choose()
    assert str(one.placement) == "pin=False: not pinned, because it was not asked for"


def test_before_the_start() -> None:
    assert str(placement_before_start(config())) == "pin='auto': not pinned, because nothing has been submitted yet"


def test_a_worker_that_cannot_be_bound_changes_its_slot_and_is_news_once() -> None:
    one = pinning()
    assert [one.on_refused(1, "CPU 1 is offline") for _ in range(2)] == [True, False]
    assert [slot.cpus for slot in one.placement.slots] == [(0,), None]
    one.close()


# --- threads -------------------------------------------------------------------------------------------


def test_without_a_wish_no_variable_is_set() -> None:
    one = pinning()
    assert told(one, {"A": "b"}) == {"environ": {"A": "b"}, "cpu_sets": [[0], [1]], "thread_variables": None}
    one.close()


def test_a_number_of_threads_is_a_number_of_cpus() -> None:
    one, all_of_them = pinning(1, threads_per_worker=2), pinning(2, threads_per_worker=2)
    assert (one.sets, all_of_them.sets) == (((0, 1),), None)
    assert (openmp(one), openmp(all_of_them)) == ("2", "2")
    one.close()
    demanded = pinning(2, pin=True, threads_per_worker=2)
    assert demanded.sets == ((0, 1), (2, 3))
    demanded.close()
    assert "2 workers with 3 threads each need 6 CPUs" in pinning(2, threads_per_worker=3).placement.reason


def test_a_number_wins_over_the_shell_and_not_over_env() -> None:
    one = pinning(1, pin=False, threads_per_worker=3, env={"MKL_NUM_THREADS": "5"})
    environ = told(one, {"OMP_NUM_THREADS": "8", "MKL_NUM_THREADS": "5"})["environ"]
    assert (environ["OMP_NUM_THREADS"], environ["MKL_NUM_THREADS"]) == ("3", "5")


def test_auto_is_the_size_of_the_set_or_a_fair_share() -> None:
    one = pinning(2, threads_per_worker="auto")
    assert openmp(one) == "1"
    one.close()
    assert openmp(pinning(None, pin=[[0, 1, 2]], threads_per_worker="auto")) == "3"
    assert openmp(pinning(2, pin=False, threads_per_worker="auto")) == "2"
    assert openmp(pinning(3, pin=False, threads_per_worker="auto", machine=Machine(FOUR.cpus, quota=3.5))) == "1"
    assert openmp(pinning(9, pin=False, threads_per_worker="auto")) == "1"


def test_auto_leaves_what_the_user_set() -> None:
    one = pinning(2, threads_per_worker="auto")
    environ = told(one, {"OMP_NUM_THREADS": "8"})["environ"]
    assert environ == {"OMP_NUM_THREADS": "8", "NUMBA_NUM_THREADS": "1", "VECLIB_MAXIMUM_THREADS": "1"}
    one.close()


def test_unequal_sets_have_variables_of_their_own() -> None:
    one = pinning(None, pin=[[0], [1, 2, 3]], threads_per_worker="auto")
    found = told(one, {"MKL_NUM_THREADS": "7"})
    assert (found["environ"]["OMP_NUM_THREADS"], found["environ"]["MKL_NUM_THREADS"]) == ("1", "7")
    assert [each["OMP_NUM_THREADS"] for each in found["thread_variables"]] == ["1", "3"]
    assert not any("MKL_NUM_THREADS" in each for each in found["thread_variables"])
    one.close()
