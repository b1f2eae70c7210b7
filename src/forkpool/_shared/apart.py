"""Large contents of globals and classes, which travel apart from the calls that use them: to each worker once.

Runs in: host (`set_apart`: the thread that submits), worker (`Apart.open`: the task's thread, while it applies a table).
A worker compares digests, and never looks at the content of what it has already. So in place of a large content the table says
where it is to be had: in a memory file (memfd_create(2)), which the payload owns as it owns other descriptors (`passed_fds`). A
long queue of calls then shares one copy, and a call is as short as its arguments.
Hard part: it is a convenience that must never fail a call. No memory file to be had, or many already: the content stays in the
table. The host has no descriptor left to hand it out: the worker opens it by its name in /proc.
Tests: tests/unit/test_payload_large_globals.py, tests/process/test_large_globals.py
"""

from __future__ import annotations

import mmap
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from forkpool._shared.mp_support import Spawning
    from forkpool._shared.passed_fds import PassedFd

LARGE = 1 << 16  # bytes; to ask for less takes longer than to send it along a few times
MOST = 64  # arbitrary: contents that wait at the same time, each in a descriptor of the host

Entry = tuple[Any, ...]


class Apart:
    """What stands in a table for a content."""

    __slots__ = ("_file", "_passed", "_process")

    def __init__(self, passed: PassedFd, process: int, file: tuple[int, ...]) -> None:
        """
        Args:
            process: Who holds the file.
            file: The number of its descriptor there, device and inode.
        """
        self._passed = passed
        self._process = process
        self._file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Apart, (self._passed, self._process, self._file)

    def open(self) -> mmap.mmap:
        """Return the content, as a file to read.

        Raises:
            OSError: This worker has no descriptor left for it.
            MemoryError: It has no room for it.
        """
        try:
            fd = self._passed.detach()
        except OSError:
            fd = self._open_in_proc()
        try:
            return mmap.mmap(fd, 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise MemoryError("there is no room for a large global that this call uses") from error
        finally:
            os.close(fd)

    def _open_in_proc(self) -> int:
        number, *identity = self._file
        name = f"/proc/{self._process}/fd/{number}"
        if _identity_of(name) == identity:
            fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
            if _identity_of(fd) == identity:
                return fd
            os.close(fd)
        raise ConnectionError("the process that submitted this call no longer holds the content of a large global of it")


def _identity_of(file: str | int) -> list[int]:
    status = os.stat(file)
    return [status.st_dev, status.st_ino]


def set_apart(entries: list[Entry], spawning: Spawning) -> list[Entry]:
    """Return the entries of a call without their large contents, which the payload's descriptors then hold."""
    return [_set_entry_apart(entry, spawning) if _size_of(entry) >= LARGE else entry for entry in entries]


def _set_entry_apart(entry: Entry, spawning: Spawning) -> Entry:
    key, order, digest, *content = entry
    if key[0] == "g":
        return (key, order, digest, _apart(digest, content[0], spawning))
    skeleton, parts = content
    return (key, order, digest, skeleton, [(name, own, _apart(own, data, spawning)) for name, own, data in parts])


def _apart(digest: bytes, data: bytes, spawning: Spawning) -> bytes | Apart:
    if len(data) < LARGE:
        return data
    try:
        passed, fd = spawning.pass_content(digest.hex(), data, MOST)
    except OSError:  # no descriptor or memory for it, or not allowed here, or many already
        return data
    return Apart(passed, os.getpid(), (fd, *_identity_of(fd)))


def _size_of(entry: Entry) -> int:
    content = entry[-1]
    return len(content) if entry[0][0] == "g" else sum(len(data) for _, _, data in content)
