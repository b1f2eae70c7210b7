"""What is read of limits, on trees as machines show them.

Runs in: pytest; no process is started.
"""

from pathlib import Path

import pytest

from forkpool._host.limits import GroupLimit, Limits, Rlimit, read_limits
from tests.support.machine import FakeMachine

# /proc/self/limits of Linux 6.18
PROC_LIMITS = """\
Limit                     Soft Limit           Hard Limit           Units     
Max cpu time              unlimited            unlimited            seconds   
Max processes             96365                unlimited            processes 
Max open files            1024                 1048576              files     
Max locked memory         8388608              8388608              bytes     
Max realtime timeout      unlimited            unlimited            us        
"""  # noqa: W291  # the kernel pads its columns
V2_MOUNT = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
V1_MOUNTS = """\
35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
36 31 0:33 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids
"""


@pytest.fixture
def machine(tmp_path: Path) -> FakeMachine:
    return FakeMachine(tmp_path)


def test_nothing_can_be_read(machine: FakeMachine) -> None:
    none = GroupLimit(None, None, None)
    unknown = Rlimit(None, None)
    assert read_limits(machine.root) == Limits(unknown, None, unknown, unknown, none, none, None, None, None)


def test_limits_of_the_process(machine: FakeMachine) -> None:
    machine.write("/proc/self/limits", PROC_LIMITS)
    for number in range(4):
        machine.write(f"/proc/self/fd/{number}", "")
    found = read_limits(machine.root)
    assert found.descriptors == Rlimit(1024, 1048576)
    assert found.descriptors_open == 3  # the fourth is that of who lists them
    assert found.processes == Rlimit(96365, None)
    assert found.locked_memory == Rlimit(8388608, 8388608)


def test_version_2_the_tightest_group_counts(machine: FakeMachine) -> None:
    machine.write("/proc/self/cgroup", "0::/kubepods/pod1/app\n")
    machine.write("/proc/self/mountinfo", V2_MOUNT)
    pod = "/sys/fs/cgroup/kubepods/pod1"
    for folder, limit, used in ((f"{pod}/app", "max", 10), (pod, "536870912", 20), (pod.rpartition("/")[0], "8589934592", 30)):
        machine.write(f"{folder}/memory.max", f"{limit}\n")
        machine.write(f"{folder}/memory.current", f"{used}\n")
    machine.write(f"{pod}/app/pids.max", "100\n")
    found = read_limits(machine.root)
    assert found.memory_of_group == GroupLimit(536870912, 20, f"{pod}/memory.max")
    assert found.processes_of_group == GroupLimit(100, None, f"{pod}/app/pids.max")


def test_version_1(machine: FakeMachine) -> None:
    machine.write("/proc/self/cgroup", "8:pids:/\n4:memory:/docker/abc\n0::/\n")
    machine.write("/proc/self/mountinfo", V1_MOUNTS)
    folder = "/sys/fs/cgroup/memory/docker/abc"
    machine.write(f"{folder}/memory.limit_in_bytes", "268435456\n")
    machine.write(f"{folder}/memory.usage_in_bytes", "1048576\n")
    machine.write("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n")  # no limit
    machine.write("/sys/fs/cgroup/pids/pids.max", "max\n")
    found = read_limits(machine.root)
    assert found.memory_of_group == GroupLimit(268435456, 1048576, f"{folder}/memory.limit_in_bytes")
    assert found.processes_of_group.limit is None
    assert found.oom_group is None


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"/app.slice/app": "0", "/app.slice": "0"}, None),
        ({"/app.slice/app": "1", "/app.slice": "0"}, "/app.slice/app"),
        ({"/app.slice/app": "0", "/app.slice": "1"}, "/app.slice"),
        ({"/app.slice/app": "1", "/app.slice": "1"}, "/app.slice"),  # the highest is the one that is killed
    ],
)
def test_who_is_killed_when_memory_runs_out(machine: FakeMachine, settings: dict[str, str], expected: str | None) -> None:
    machine.write("/proc/self/cgroup", "0::/app.slice/app\n")
    machine.write("/proc/self/mountinfo", V2_MOUNT)
    for group, value in settings.items():
        machine.write(f"/sys/fs/cgroup{group}/memory.oom.group", f"{value}\n")
    assert read_limits(machine.root).oom_group == (expected and f"/sys/fs/cgroup{expected}/memory.oom.group")


def test_shared_memory(machine: FakeMachine) -> None:
    machine.write("/dev/shm/somebodys", "")
    found = read_limits(machine.root)
    assert found.shared_memory is not None
    assert found.shared_memory_free is not None
    assert 0 < found.shared_memory_free <= found.shared_memory
