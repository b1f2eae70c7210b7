"""What is read of a machine: CPUs, cores, nodes, quota. On trees as machines show them.

Runs in: pytest; no process is started.
"""

import os
from pathlib import Path

import pytest

from forkpool._core.placement import Cpu
from forkpool._host.topology import affinity_mask, cpu_quota, parse_numbers, read_machine, usable_cpus
from tests.support.machine import FakeMachine


@pytest.fixture
def machine(tmp_path: Path) -> FakeMachine:
    return FakeMachine(tmp_path)


def cores(machine: FakeMachine, mask: range | set[int]) -> list[tuple[int, tuple[int, ...], int]]:
    return [(cpu.number, cpu.siblings, cpu.node) for cpu in read_machine(mask, machine.root).cpus]


def test_one_cpu(machine: FakeMachine) -> None:
    machine.add_cores(["0"])
    machine.add_nodes("0")
    assert cores(machine, {0}) == [(0, (0,), 0)]


def test_two_cpus_as_this_virtual_machine_shows_them(machine: FakeMachine) -> None:
    machine.add_cores(["0", "1"])
    machine.add_nodes("0-1")
    assert cores(machine, {0, 1}) == [(0, (0,), 0), (1, (1,), 0)]


def test_four_cpus_where_hyper_threads_are_neighbours(machine: FakeMachine) -> None:
    machine.add_cores(["0-1", "2-3"])
    assert cores(machine, range(4)) == [(0, (0, 1), 0), (1, (0, 1), 0), (2, (2, 3), 0), (3, (2, 3), 0)]


def test_eight_cpus_where_hyper_threads_come_after_all_cores(machine: FakeMachine) -> None:
    machine.add_cores(["0,4", "1,5", "2,6", "3,7"])
    machine.add_nodes("0-7")
    assert [cpu[1] for cpu in cores(machine, range(8))] == [(0, 4), (1, 5), (2, 6), (3, 7)] * 2


def test_an_old_kernel_calls_the_file_otherwise(machine: FakeMachine) -> None:
    machine.add_cores(["0,2", "1,3"], name="thread_siblings_list")
    assert [cpu[1] for cpu in cores(machine, range(4))] == [(0, 2), (1, 3)] * 2


def test_64_cpus_on_two_nodes(machine: FakeMachine) -> None:
    machine.add_cores(f"{number},{number + 32}" for number in range(32))
    machine.add_nodes("0-15,32-47", "16-31,48-63")
    found = cores(machine, range(64))
    assert found[0] == (0, (0, 32), 0)
    assert found[31] == (31, (31, 63), 1)
    assert [cpu[2] for cpu in found].count(1) == 32


def test_256_cpus_on_eight_nodes(machine: FakeMachine) -> None:
    machine.add_cores(f"{number},{number + 128}" for number in range(128))
    machine.add_nodes(*(f"{first}-{first + 15},{first + 128}-{first + 143}" for first in range(0, 128, 16)))
    found = cores(machine, range(256))
    assert (len(found), found[255]) == (256, (255, (127, 255), 7))


def test_offline_cpus_are_not_in_the_mask_nor_among_the_siblings(machine: FakeMachine) -> None:
    machine.add_cores(["0,4", "1", "3,7"])  # 2, 5 and 6 are offline: no topology folder
    machine.add_nodes("0-1,3-4,7")
    assert cores(machine, {0, 1, 3, 4, 7}) == [(0, (0, 4), 0), (1, (1,), 0), (3, (3, 7), 0), (4, (0, 4), 0), (7, (3, 7), 0)]


def test_odd_numbers_and_a_node_without_cpus(machine: FakeMachine) -> None:
    machine.add_cores(["3,17", "40"])
    machine.add_nodes("", "3,17", "40")
    assert cores(machine, {3, 17, 40}) == [(3, (3, 17), 1), (17, (3, 17), 1), (40, (40,), 2)]


def test_a_sibling_that_we_may_not_use_is_still_a_sibling(machine: FakeMachine) -> None:
    machine.add_cores(["0,2", "1,3"])
    assert cores(machine, {0, 1}) == [(0, (0, 2), 0), (1, (1, 3), 0)]


def test_without_sys_each_cpu_is_a_core(machine: FakeMachine) -> None:
    assert read_machine({0, 5}, machine.root).cpus == (Cpu(0, (0,)), Cpu(5, (5,)))
    assert read_machine(set(), machine.root).cpus == ()


@pytest.mark.parametrize("text", ["", "\n", "no list", "1-", "-1", "0-3,x", "5"])
def test_a_file_that_makes_no_sense_is_as_good_as_none(machine: FakeMachine, text: str) -> None:
    machine.write("/sys/devices/system/cpu/cpu0/topology/core_cpus_list", text)
    machine.write("/sys/devices/system/node/online", text)
    assert cores(machine, {0}) == [(0, (0,), 0)]


@pytest.mark.parametrize(
    ("text", "numbers"), [("0", [0]), ("0-3,8\n", [0, 1, 2, 3, 8]), ("", []), ("7-6", []), ("1,,2", []), ("a-b", [])]
)
def test_lists_of_the_kernel(text: str, numbers: list[int]) -> None:
    assert parse_numbers(text) == numbers


# --- quota ---------------------------------------------------------------------------------------------


def test_no_cgroups_no_quota(machine: FakeMachine) -> None:
    assert cpu_quota(machine.root) is None


def test_version_2(machine: FakeMachine) -> None:
    machine.set_quota_v2("150000 100000")
    assert cpu_quota(machine.root) == 1.5


def test_the_tightest_of_all_groups_counts(machine: FakeMachine) -> None:
    machine.set_quota_v2("max 100000", "50000 100000", "400000 100000", path="/kube/pod/box")
    assert cpu_quota(machine.root) == 0.5


def test_version_1(machine: FakeMachine) -> None:
    machine.set_quota_v1(300_000, 200_000, path="/jobs/7")
    assert cpu_quota(machine.root) == 1.5


def test_version_1_without_a_limit(machine: FakeMachine) -> None:
    machine.set_quota_v1(-1)
    assert cpu_quota(machine.root) is None


def test_a_container_that_mounts_a_part_of_the_tree(machine: FakeMachine) -> None:
    machine.write("/proc/self/cgroup", "2:cpu,cpuacct:/docker/abc\n")
    machine.write("/proc/self/mountinfo", "32 31 0:29 /docker/abc /sys/fs/cgroup/cpu ro - cgroup cgroup rw,cpu,cpuacct\n")
    machine.write("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "200000\n")
    machine.write("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n")
    assert cpu_quota(machine.root) == 2.0


def test_a_group_outside_of_the_cgroup_namespace_leads_nowhere_else(machine: FakeMachine) -> None:
    machine.set_quota_v2("max 100000")
    machine.write("/proc/self/cgroup", "0::/../../elsewhere\n")
    machine.write("/sys/elsewhere/cpu.max", "1 100000\n")
    assert cpu_quota(machine.root) is None


@pytest.mark.parametrize("text", ["", "max", "0 100000", "-1 100000", "100000 0", "many few", "1 2 3"])
def test_no_limit_and_nonsense(machine: FakeMachine, text: str) -> None:
    machine.set_quota_v2(text)
    assert cpu_quota(machine.root) is None


@pytest.mark.parametrize(
    ("limit", "workers"), [("100 100000", 1), ("100000 100000", 1), ("100001 100000", 2), ("max 100000", 8)]
)
def test_usable_cpus_is_the_quota_rounded_up(
    machine: FakeMachine, limit: str, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    machine.set_quota_v2(limit)
    assert usable_cpus(machine.root) == workers


def test_a_quota_beyond_the_mask_changes_nothing(machine: FakeMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {4, 6})
    machine.set_quota_v2("800000 100000")
    assert usable_cpus(machine.root) == 2


def test_without_affinity_the_cpus_are_counted(machine: FakeMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert affinity_mask() == frozenset()
    assert usable_cpus(machine.root) == 1


# --- where to begin ------------------------------------------------------------------------------------


def test_containers_do_not_all_begin_with_the_same_cpu(machine: FakeMachine) -> None:
    machine.add_namespace(4026532567)
    assert read_machine({0, 1}, machine.root).start == 4026532567


def test_outside_of_containers_the_first_cpu_comes_first(machine: FakeMachine) -> None:
    assert read_machine({0, 1}, machine.root).start == 0
    machine.add_namespace(4026531836)
    assert read_machine({0, 1}, machine.root).start == 0


@pytest.mark.parametrize(("value", "nested"), [(None, False), ("", False), ("0", True)])
def test_a_worker_knows_that_it_is_one(
    machine: FakeMachine, value: str | None, nested: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FORKPOOL_SLOT", raising=False)
    if value is not None:
        monkeypatch.setenv("FORKPOOL_SLOT", value)
    assert read_machine({0}, machine.root).nested is nested
