"""What the kernel can is tried, and what it cannot is told.

Runs in: pytest; no process is started.
"""

import errno
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from forkpool._host.kernel_means import Means, try_all


def found(root: str = "/") -> dict[str, Means]:
    return {one.name: one for one in try_all(root)}


def test_here_everything_that_is_needed_is_there_and_nothing_is_left() -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    means = found()
    assert sorted(os.listdir("/proc/self/fd")) == before
    assert [one.name for one in means.values() if one.needed and not one.present] == []
    assert [one.why for one in means.values() if one.present] == [None] * sum(one.present for one in means.values())


REFUSED = OSError(errno.EPERM, "Operation not permitted")


@pytest.mark.parametrize(
    ("module", "function", "names"),
    [
        (os, "pidfd_open", {"pidfd", "PIDFD_GET_INFO", "pidfd group signal"}),
        (os, "memfd_create", {"memfd"}),
        (os, "eventfd", {"eventfd"}),
        (signal, "pidfd_send_signal", {"pidfd", "pidfd group signal"}),
        (os, "pipe2", {"packet pipes", "F_SETSIG lifeline"}),
    ],
)
def test_what_a_filter_of_system_calls_refuses(
    monkeypatch: pytest.MonkeyPatch, module: Any, function: str, names: set[str]
) -> None:
    def refuse(*_: Any) -> None:
        raise REFUSED

    working = {name for name, one in found().items() if one.present}
    monkeypatch.setattr(module, function, refuse)
    means = found()
    assert working - {name for name, one in means.items() if one.present} == names & working
    assert all("not permitted" in str(means[name].why) for name in names & working)


def test_what_this_python_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create")
    assert "memfd_create" in str(found()["memfd"].why)


def test_pipes_that_do_not_keep_packets_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "O_DIRECT", 0)
    assert found()["packet pipes"].why == "a pipe with O_DIRECT does not keep packets apart"


def test_without_proc(tmp_path: Path) -> None:
    assert not found(str(tmp_path))["/proc"].present


def test_a_proc_of_another_pid_namespace(tmp_path: Path) -> None:
    (tmp_path / "proc" / "4711" / "fd").mkdir(parents=True)
    (tmp_path / "proc" / "self").symlink_to("4711")
    proc = found(str(tmp_path))["/proc"]
    assert not proc.present
    assert "another pid namespace" in str(proc.why)


def test_without_a_file_for_claims(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORKPOOL_CPU_CLAIMS", "/no/such/file")
    assert "/no/such/file" in str(found()["OFD locks"].why)
