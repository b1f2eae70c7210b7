"""The counters of the kernel's out-of-memory killer, on trees as machines show them.

Runs in: pytest; no process is started. tests/process/test_oom.py has a real kill.
"""

from pathlib import Path

import pytest

from forkpool._host.oom import OomWatch
from tests.support.machine import FakeMachine

V1_COUNTS = "oom_kill_disable 0\nunder_oom 0\noom_kill {}\n"
V2_COUNTS = "low 0\nhigh 0\nmax 12\noom 1\noom_kill {}\noom_group_kill 0\n"
VMSTAT = "nr_free_pages 12\noom_kill {}\nnuma_hit 7\n"


class Machine(FakeMachine):
    """A recorded tree, and one counter that rises."""

    def watch(self) -> OomWatch:
        watch = OomWatch(self.root)
        watch.baseline()
        return watch


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    machine = Machine(tmp_path)
    machine.write("/proc/vmstat", VMSTAT.format(100))
    return machine


def test_version_2(machine: Machine) -> None:
    machine.write("/proc/self/cgroup", "0::/user.slice/app.scope\n")
    machine.write("/proc/self/mountinfo", "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n")
    events = "/sys/fs/cgroup/user.slice/app.scope/memory.events"
    machine.write(events, V2_COUNTS.format(3))
    watch = machine.watch()
    assert watch.hint() is None
    machine.write(events, V2_COUNTS.format(4))
    hint = watch.hint()
    assert hint == f"the kernel's out-of-memory killer acted once in this process's memory cgroup ({events}: oom_kill 4)"
    assert watch.hint() is None


def test_version_1_beside_an_empty_version_2(machine: Machine) -> None:
    machine.write("/proc/self/cgroup", "9:name=systemd:/\n4:memory:/jobs/7\n2:cpu,cpuacct:/\n0::/\n")
    machine.write(
        "/proc/self/mountinfo",
        "32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct\n"
        "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory\n"
        "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n",
    )
    control = "/sys/fs/cgroup/memory/jobs/7/memory.oom_control"
    machine.write(control, V1_COUNTS.format(0))
    watch = machine.watch()
    machine.write(control, V1_COUNTS.format(1))
    assert "once in this process's memory cgroup" in (watch.hint() or "")


def test_a_container_that_mounts_a_part_of_the_tree(machine: Machine) -> None:
    machine.write("/proc/self/cgroup", "4:memory:/docker/abc/inner\n")
    machine.write("/proc/self/mountinfo", "35 31 0:32 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n")
    control = "/sys/fs/cgroup/memory/inner/memory.oom_control"
    machine.write(control, V1_COUNTS.format(0))
    watch = machine.watch()
    machine.write(control, V1_COUNTS.format(1))
    assert control in (watch.hint() or "")


def test_a_mount_point_with_a_space_in_its_name(machine: Machine) -> None:
    machine.write("/proc/self/cgroup", "0::/\n")
    machine.write("/proc/self/mountinfo", r"30 23 0:26 / /my\040mounts/cgroup rw - cgroup2 none rw" + "\n")
    machine.write("/my mounts/cgroup/memory.events", V2_COUNTS.format(0))
    watch = machine.watch()
    machine.write("/my mounts/cgroup/memory.events", V2_COUNTS.format(1))
    assert watch.hint()


def test_two_kills_at_once_are_two_hints(machine: Machine) -> None:
    watch = machine.watch()
    machine.write("/proc/vmstat", VMSTAT.format(102))
    assert "2 times" in (watch.hint() or "")
    assert "once" in (watch.hint() or "")
    assert watch.hint() is None


def test_without_a_cgroup_the_machine_is_watched_and_the_hint_says_so(machine: Machine) -> None:
    watch = machine.watch()
    machine.write("/proc/vmstat", VMSTAT.format(101))
    assert "on this machine, which may have been about another program" in (watch.hint() or "")


@pytest.mark.parametrize("text", ["", "no lines of ours\n", "oom_kill many\n"])
def test_nothing_to_read_is_no_evidence(tmp_path: Path, text: str) -> None:
    machine = Machine(tmp_path)
    for path in ("/proc/vmstat", "/proc/self/cgroup", "/proc/self/mountinfo"):
        machine.write(path, text)
    assert machine.watch().hint() is None


def test_without_proc_there_is_no_evidence(tmp_path: Path) -> None:
    watch = OomWatch(str(tmp_path))
    watch.baseline()
    assert watch.hint() is None


def test_without_a_baseline_there_is_no_evidence(machine: Machine) -> None:
    assert OomWatch(machine.root).hint() is None
