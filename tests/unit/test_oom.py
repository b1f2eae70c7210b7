"""The counters of the kernel's out-of-memory killer, on trees as machines show them.

Runs in: pytest; no process is started. tests/process/test_oom.py has a real kill.
"""

import time
from pathlib import Path

import pytest

from forkpool._host.oom import OomWatch
from tests.support.machine import FakeMachine

V1_COUNTS = "oom_kill_disable 0\nunder_oom 0\noom_kill {}\n"
V2_COUNTS = "low 0\nhigh 0\nmax 12\noom 1\noom_kill {}\noom_group_kill 0\n"
OURS = "in this process's memory cgroup, and may have chosen this worker"
VMSTAT = "nr_free_pages 12\noom_kill {}\nnuma_hit 7\n"


class Machine(FakeMachine):
    """A recorded tree, and one counter that rises."""

    began = 0.0  # monotonic seconds: when a task began, right after the base line was taken

    def watch(self) -> OomWatch:
        watch = OomWatch(self.root)
        watch.baseline()
        self.began = time.monotonic()
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
    assert watch.hint(machine.began) is None
    machine.write(events, V2_COUNTS.format(4))
    hint = watch.hint(machine.began)
    assert hint == f"the kernel's out-of-memory killer acted once {OURS} ({events}: oom_kill 4)"
    assert watch.hint(machine.began) is None


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
    assert f"once {OURS}" in (watch.hint(machine.began) or "")


def test_a_group_without_the_memory_controller_is_part_of_the_one_above(machine: Machine) -> None:
    # Its kills were looked for on the whole machine.
    machine.write("/proc/self/cgroup", "0::/app/inner/most\n")
    machine.write("/proc/self/mountinfo", "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n")
    machine.write("/sys/fs/cgroup/app/inner/most/cgroup.procs", "1\n")
    events = "/sys/fs/cgroup/app/memory.events"
    machine.write(events, V2_COUNTS.format(0))
    watch = machine.watch()
    machine.write(events, V2_COUNTS.format(1))
    assert watch.hint(machine.began) == f"the kernel's out-of-memory killer acted once {OURS} ({events}: oom_kill 1)"


def test_a_container_that_mounts_a_part_of_the_tree(machine: Machine) -> None:
    machine.write("/proc/self/cgroup", "4:memory:/docker/abc/inner\n")
    machine.write("/proc/self/mountinfo", "35 31 0:32 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n")
    control = "/sys/fs/cgroup/memory/inner/memory.oom_control"
    machine.write(control, V1_COUNTS.format(0))
    watch = machine.watch()
    machine.write(control, V1_COUNTS.format(1))
    assert control in (watch.hint(machine.began) or "")


def test_a_mount_point_with_a_space_in_its_name(machine: Machine) -> None:
    machine.write("/proc/self/cgroup", "0::/\n")
    machine.write("/proc/self/mountinfo", r"30 23 0:26 / /my\040mounts/cgroup rw - cgroup2 none rw" + "\n")
    machine.write("/my mounts/cgroup/memory.events", V2_COUNTS.format(0))
    watch = machine.watch()
    machine.write("/my mounts/cgroup/memory.events", V2_COUNTS.format(1))
    assert watch.hint(machine.began)


def test_two_kills_at_once_are_two_hints(machine: Machine) -> None:
    watch = machine.watch()
    machine.write("/proc/vmstat", VMSTAT.format(102))
    assert "2 times" in (watch.hint(machine.began) or "")
    assert "once" in (watch.hint(machine.began) or "")
    assert watch.hint(machine.began) is None


def test_without_a_cgroup_the_machine_is_watched_and_the_hint_says_so(machine: Machine) -> None:
    watch = machine.watch()
    machine.write("/proc/vmstat", VMSTAT.format(101))
    assert "on this machine, which may have been about another program" in (watch.hint(machine.began) or "")


@pytest.mark.parametrize("text", ["", "no lines of ours\n", "oom_kill many\n"])
def test_nothing_to_read_is_no_evidence(tmp_path: Path, text: str) -> None:
    machine = Machine(tmp_path)
    for path in ("/proc/vmstat", "/proc/self/cgroup", "/proc/self/mountinfo"):
        machine.write(path, text)
    assert machine.watch().hint(machine.began) is None


def test_without_proc_there_is_no_evidence(tmp_path: Path) -> None:
    watch = OomWatch(str(tmp_path))
    watch.baseline()
    assert watch.hint(0.0) is None


def test_without_a_baseline_there_is_no_evidence(machine: Machine) -> None:
    assert OomWatch(machine.root).hint(machine.began) is None


def test_a_kill_that_was_seen_before_the_task_began_was_another(machine: Machine) -> None:
    # A child of a task was killed; a later SIGKILL of the worker, by anybody, was put down to the kernel.
    watch = machine.watch()
    begin = time.monotonic()
    machine.write("/proc/vmstat", VMSTAT.format(101))
    watch.look(begin + 10)
    assert watch.hint(begin + 11) is None
    assert "once" in (watch.hint(begin + 9) or ""), "this one had begun before it"
    assert watch.hint(begin + 9) is None, "it is told of once"
    machine.write("/proc/vmstat", VMSTAT.format(103))
    assert "2 times" in (watch.hint(begin + 11) or "")


def test_it_is_looked_at_now_and_then(machine: Machine) -> None:
    watch = machine.watch()
    begin = time.monotonic()
    machine.write("/proc/vmstat", VMSTAT.format(101))
    watch.look_if_due(begin)
    assert "once" in (watch.hint(begin) or ""), "that was too soon for a look"
    machine.write("/proc/vmstat", VMSTAT.format(102))
    watch.look_if_due(begin + 10)
    assert watch.hint(begin + 10) is None


def test_many_kills_are_not_remembered_for_ever(machine: Machine) -> None:
    watch = machine.watch()
    begin = time.monotonic()
    for kill in range(1, 1001):
        machine.write("/proc/vmstat", VMSTAT.format(100 + kill))
        watch.look(begin + kill)
    assert "99 times" in (watch.hint(begin) or "")
