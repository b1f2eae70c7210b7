"""Which control group would be killed as a whole, and how much it holds, on trees as machines show them. Runs in: pytest."""

from pathlib import Path

import pytest

from forkpool._core.states import GroupMemory
from forkpool._host.group_memory import GroupWatch, find_groups
from tests.support.machine import FakeMachine

GROUPS = "/sys/fs/cgroup"
MIB = 1 << 20


@pytest.fixture
def machine(tmp_path: Path) -> FakeMachine:
    """Two groups, one in the other; nothing limits them."""
    machine = FakeMachine(tmp_path)
    machine.write("/proc/self/cgroup", "0::/pod/app\n")
    machine.write("/proc/self/mountinfo", "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n")
    for group in ("/pod", "/pod/app"):
        machine.write(f"{GROUPS}{group}/memory.oom.group", "0\n")
        machine.write(f"{GROUPS}{group}/memory.max", "max\n")
        machine.write(f"{GROUPS}{group}/memory.current", f"{100 * MIB}\n")
    return machine


def watch(machine: FakeMachine) -> GroupWatch:
    found = find_groups(machine.root)
    assert found is not None
    return found


def look(machine: FakeMachine) -> GroupMemory | None:
    return watch(machine).look()


@pytest.mark.parametrize(
    ("marked", "limited", "found"),
    [
        ((), ("/pod", "/pod/app"), None),
        (("/pod/app",), (), None),
        (("/pod/app",), ("/pod/app",), "/pod/app"),
        (("/pod/app",), ("/pod",), "/pod"),  # /pod is out of memory: of what is below, /pod/app is killed whole
        (("/pod",), ("/pod",), "/pod"),
        (("/pod",), ("/pod/app",), None),  # /pod/app is out of memory: the kernel does not look above it
        (("/pod", "/pod/app"), ("/pod", "/pod/app"), "/pod/app"),
    ],
)
def test_which_limit_counts(machine: FakeMachine, marked: tuple[str, ...], limited: tuple[str, ...], found: str | None) -> None:
    for group in marked:
        machine.write(f"{GROUPS}{group}/memory.oom.group", "1\n")
    for group in limited:
        machine.write(f"{GROUPS}{group}/memory.max", f"{(500 if group == '/pod/app' else 1000) * MIB}\n")
    group_memory = look(machine)
    assert (group_memory and group_memory.file) == (found and f"{GROUPS}{found}/memory.max")
    assert group_memory is None or group_memory.limit == (500 if found == "/pod/app" else 1000) * MIB


def test_the_group_with_the_least_room(machine: FakeMachine) -> None:
    # A neighbour in the group above filled that one, while only the tighter limit, our own, was watched: all of us was killed.
    machine.write(f"{GROUPS}/pod/memory.max", f"{600 * MIB}\n")
    groups = limited(machine)
    for used_above, file in ((150, "/pod/app"), (300, "/pod")):
        machine.write(f"{GROUPS}/pod/memory.current", f"{used_above * MIB}\n")
        group_memory = read(groups)
        assert group_memory.file == f"{GROUPS}{file}/memory.max"
        assert group_memory.tightest == 500 * MIB
    assert (group_memory.limit, group_memory.used) == (600 * MIB, 300 * MIB)
    machine.write(f"{GROUPS}/pod/memory.current", "")
    assert read(groups).file == f"{GROUPS}/pod/app/memory.max", "of the other one nobody can tell"


def test_what_is_changed_later_is_seen(machine: FakeMachine) -> None:
    # A container was resized in place: the limit was read once.
    groups = watch(machine)
    assert groups.look() is None
    limited(machine)
    for mib in (500, 800, 300):
        machine.write(f"{GROUPS}/pod/app/memory.max", f"{mib * MIB}\n")
        assert read(groups).limit == mib * MIB
    machine.write(f"{GROUPS}/pod/app/memory.oom.group", "0\n")
    assert groups.look() is None


def limited(machine: FakeMachine) -> GroupWatch:
    machine.write(f"{GROUPS}/pod/app/memory.oom.group", "1\n")
    machine.write(f"{GROUPS}/pod/app/memory.max", f"{500 * MIB}\n")
    return watch(machine)


def read(groups: GroupWatch) -> GroupMemory:
    group_memory = groups.look()
    assert group_memory is not None
    return group_memory


def test_the_page_cache_can_be_taken_back(machine: FakeMachine) -> None:
    groups = limited(machine)
    assert read(groups).used == 100 * MIB
    machine.write(
        f"{GROUPS}/pod/app/memory.stat",
        f"anon {20 * MIB}\nfile {70 * MIB}\nshmem {MIB}\ninactive_file {40 * MIB}\nactive_file {29 * MIB}\n"
        f"workingset_refault_file 7\nslab_reclaimable {MIB}\nslab_unreclaimable {MIB}\n",
    )
    assert read(groups).used == 30 * MIB


def test_what_can_be_swapped_out(machine: FakeMachine) -> None:
    machine.write("/proc/meminfo", "MemTotal:  9 kB\nSwapTotal:        204800 kB\nSwapFree:  3 kB\n")
    machine.write(f"{GROUPS}/pod/app/memory.swap.current", f"{7 * MIB}\n")
    groups = limited(machine)
    for limit, more in (("max", 200), (str(50 * MIB), 50), ("0", 0)):
        machine.write(f"{GROUPS}/pod/app/memory.swap.max", f"{limit}\n")
        group_memory = read(groups)
        assert group_memory.limit == (500 + more) * MIB
        assert group_memory.used == (107 if more else 100) * MIB


def test_what_cannot_be_read(machine: FakeMachine, tmp_path: Path) -> None:
    groups = limited(machine)
    machine.write(f"{GROUPS}/pod/app/memory.current", "")
    assert read(groups).used is None
    assert find_groups(str(tmp_path / "nothing")) is None


def test_version_1_has_no_such_thing(tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path)
    machine.write("/proc/self/cgroup", "4:memory:/docker/abc\n0::/\n")
    machine.write("/proc/self/mountinfo", "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n")
    machine.write("/sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes", "268435456\n")
    assert find_groups(machine.root) is None
