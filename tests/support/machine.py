"""Fake machines: trees of /proc and /sys as the kernel writes them.

Runs in: pytest; no process is started. What reads such files takes the place of the tree as an argument.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

CPUS = "/sys/devices/system/cpu"
NODES = "/sys/devices/system/node"


class FakeMachine:
    """A tree that a test fills."""

    def __init__(self, root: Path) -> None:
        self.path = root
        self.root = str(root)

    def write(self, path: str, text: str) -> None:
        file = self.path / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def add_cores(self, cores: Iterable[str], *, name: str = "core_cpus_list") -> None:
        """Each core as the kernel lists its CPUs: `0,4` or `0-1`."""
        for core in cores:
            for number in _numbers(core):
                self.write(f"{CPUS}/cpu{number}/topology/{name}", f"{core}\n")

    def add_nodes(self, *cpulists: str) -> None:
        self.write(f"{NODES}/online", f"0-{len(cpulists) - 1}\n" if len(cpulists) > 1 else "0\n")
        for node, cpulist in enumerate(cpulists):
            self.write(f"{NODES}/node{node}/cpulist", f"{cpulist}\n")

    def add_namespace(self, inode: int) -> None:
        """The namespace of process numbers; a container's is not the first."""
        link = self.path / "proc/self/ns/pid"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(f"pid:[{inode}]")

    def set_quota_v2(self, *limits: str, path: str = "/") -> None:
        """`cpu.max` of the groups from `path` upwards, as far as given."""
        self.write("/proc/self/cgroup", f"0::{path}\n")
        self.write("/proc/self/mountinfo", "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n")
        for limit in limits:
            self.write(f"/sys/fs/cgroup{path.rstrip('/')}/cpu.max", f"{limit}\n")
            path = path.rpartition("/")[0]

    def set_quota_v1(self, quota: int, period: int = 100_000, path: str = "/") -> None:
        self.write("/proc/self/cgroup", f"4:memory:/\n2:cpu,cpuacct:{path}\n0::/\n")
        self.write("/proc/self/mountinfo", "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n")
        folder = f"/sys/fs/cgroup/cpu,cpuacct{path.rstrip('/')}"
        self.write(f"{folder}/cpu.cfs_quota_us", f"{quota}\n")
        self.write(f"{folder}/cpu.cfs_period_us", f"{period}\n")


def _numbers(spans: str) -> list[int]:
    pairs = [span.partition("-") for span in spans.split(",")]
    return [number for first, _, last in pairs for number in range(int(first), int(last or first) + 1)]
