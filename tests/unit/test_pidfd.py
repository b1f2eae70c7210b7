"""What a system without pidfds looks like, and how a stand-in is told from a pidfd."""

import errno
import os

import pytest

from forkpool._shared.pidfd import is_stand_in, open_pidfd


def refuse_with(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: int) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "pidfd_open", refuse)


def test_a_pidfd_is_no_stand_in() -> None:
    fd = open_pidfd(os.getpid())
    try:
        assert not is_stand_in(fd)
    finally:
        os.close(fd)


def test_a_pipe_is_one() -> None:
    read, write = os.pipe()
    try:
        assert is_stand_in(read)
    finally:
        os.close(read)
        os.close(write)


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EPERM])
def test_a_system_that_has_none(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_with(number, monkeypatch)
    assert open_pidfd(os.getpid()) == -1


def test_a_python_that_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "pidfd_open")
    assert open_pidfd(os.getpid()) == -1


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ESRCH])
def test_other_failures_are_told(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_with(number, monkeypatch)
    with pytest.raises(OSError, match=os.strerror(number)):
        open_pidfd(os.getpid())
