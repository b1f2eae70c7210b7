"""What the doctor advises, and how a report reads. The pool that it tries is in tests/process/test_doctor.py.

Runs in: pytest; no process is started.
"""

import copy
from pathlib import Path
from typing import Any

import pytest

from forkpool import doctor
from tests.support.machine import FakeMachine

NO_LIMIT = {"limit": None, "used": None, "file": None}
HEALTHY: dict[str, Any] = {
    "schema": 1,
    "forkpool": "0.1.0",
    "python": "3.13.0",
    "free_threaded": False,
    "executable": "/usr/bin/python3",
    "system": "Linux 6.18",
    "inline": False,
    "cpus": {"usable": 4, "online": 8, "affinity": [0, 1, 2, 3, 8], "quota": None, "quota_file": None},
    "limits": {
        "descriptors": {"soft": 1024, "hard": 4096},
        "descriptors_open": 4,
        "processes": {"soft": None, "hard": None},
        "locked_memory": {"soft": 8 << 20, "hard": 8 << 20},
        "processes_of_group": NO_LIMIT,
        "memory_of_group": {"limit": 512 << 20, "used": 100 << 20, "file": "/sys/fs/cgroup/memory.max"},
        "oom_group": None,
        "shared_memory": 8 << 30,
        "shared_memory_free": 7 << 30,
    },
    "kernel": [
        {"name": "memfd", "present": True, "needed": True, "purpose": "pages", "why": None},
        {"name": "PIDFD_GET_INFO", "present": False, "needed": False, "purpose": "exit status", "why": "ENOTTY"},
    ],
    "claims": {"file": "/dev/zero", "cpus": {}, "of_others": [], "error": None},
    "pin": {"pinned": True, "reason": "pin='auto'", "slots": [{"slot": 0, "cpus": [2], "reason": "no other worker"}]},
    "preload": {"modules": [], "threads": 1, "warnings": []},
    "first_result": {"seconds": 0.1234, "next": 0.00005, "error": None},
    "works": True,
    "advice": [],
}


def changed(**changes: Any) -> dict[str, Any]:
    """A healthy machine's report with other values: `limits__oom_group="x"`."""
    report = copy.deepcopy(HEALTHY)
    for path, value in changes.items():
        *folders, last = path.split("__")
        place = report
        for folder in folders:
            place = place[folder]
        place[last] = value
    return report


def test_a_healthy_machine_gets_no_advice() -> None:
    assert doctor.advice(HEALTHY) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"limits__oom_group": "/sys/fs/cgroup/app/memory.oom.group"}, ["app/memory.oom.group is 1", "OOMPolicy=continue"]),
        ({"limits__descriptors": {"soft": 32, "hard": 4096}}, ["32 descriptors", "ulimit -n", "4096"]),
        ({"limits__shared_memory": 64 << 20}, ["/dev/shm has 64 MiB", "--shm-size"]),
        ({"limits__shared_memory": None}, ["no /dev/shm"]),
        ({"limits__processes_of_group": {"limit": 10, "used": 8, "file": "pids.max"}}, ["pids.max", "2 more"]),
        ({"works": False}, ["FORKPOOL_INLINE=1"]),
        ({"inline": True}, ["FORKPOOL_INLINE=1 is set"]),
        ({"free_threaded": True}, ["free-threaded build", "nothing of forkpool is tested"]),
        (
            {"kernel": [{"name": "memfd", "present": False, "needed": True, "purpose": "pages", "why": "EPERM"}]},
            ["memfd is missing", "EPERM"],
        ),
    ],
)
def test_advice(changes: dict[str, Any], words: list[str]) -> None:
    (line,) = doctor.advice(changed(**changes))
    assert [word for word in words if word not in line] == []


def test_the_text() -> None:
    assert doctor.text_of(HEALTHY) == [
        "forkpool 0.1.0, Python 3.13.0 (/usr/bin/python3), Linux 6.18",
        "",
        "CPUs    4 usable: the affinity mask has 5 (CPU 0-3,8) of 8; no cgroup limits their time",
        "pin     pin='auto': workers are bound",
        "          slot 0: CPU 2, no other worker",
        "claims  no other pool has claimed a CPU",
        "limits  descriptors: 1024 (at most 4096), 4 open",
        "        processes of this user: unlimited",
        "        processes of the cgroup: unlimited",
        "        locked memory: 8 MiB",
        "        memory of the cgroup: 512 MiB, 100 MiB used (/sys/fs/cgroup/memory.max)",
        "        memory.oom.group: not set",
        "        /dev/shm: 8192 MiB, 7168 MiB free",
        "kernel  memfd           yes",
        "        PIDFD_GET_INFO  no: ENOTTY; exit status",
        "preload nothing (--preload MODULE tries one)",
        "a pool  works: first result after 0.123 s, the next ones after 50 µs at best",
    ]


def test_a_free_threaded_build_is_named() -> None:
    assert doctor.text_of(changed(free_threaded=True))[0].startswith("forkpool 0.1.0, Python 3.13.0 free-threaded (")


def test_the_text_of_what_is_not_as_it_should_be() -> None:
    report = changed(
        cpus={"usable": 2, "online": 64, "affinity": [], "quota": 1.5, "quota_file": "/sys/fs/cgroup/cpu.max"},
        claims={"file": "x", "cpus": {"3": {"pid": 7, "program": "python x.py"}}, "of_others": [5], "error": None},
        preload={"modules": ["a", "b"], "threads": 3, "warnings": ["a thread of a"]},
        first_result={"seconds": None, "next": None, "error": "RuntimeError: no fork"},
        advice=["Do this."],
    )
    text = "\n".join(doctor.text_of(report))
    for words in (
        "2 usable: no affinity mask; /sys/fs/cgroup/cpu.max grants the time of 1.5",
        "claims  CPU 3: pid 7, python x.py\n        CPU 5: another user's pool",
        "preload a, b: 2 threads left in the fork server\n        a thread of a",
        "a pool  does not work here: RuntimeError: no fork",
        "advice  Do this.",
    ):
        assert words in text


def test_cpus_and_where_the_number_comes_from(tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path)
    machine.write("/sys/devices/system/cpu/online", "0-63\n")
    machine.set_quota_v2("max 100000", "50000 100000", path="/pod/app")
    cpus = doctor._cpus(machine.root)
    assert (cpus["usable"], cpus["online"], cpus["quota"]) == (1, 64, 0.5)
    assert cpus["quota_file"] == "/sys/fs/cgroup/pod/cpu.max"
