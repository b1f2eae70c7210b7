"""Marks: what really ran, told past the pool.

Runs in: workers (`leave`, which imports little) and the soak's process (`MarkReader`, a thread).
A mark is one record in one FIFO: a write of so few bytes is whole or not at all (pipe(7), PIPE_BUF), and what was written
stays when the writer is killed. So the order of marks is the order in which they were left.
Hard part: a worker may have few descriptors, as it inherits the limit that its host had for a moment. It may raise its own.
"""

from __future__ import annotations

import os
import struct
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from enum import IntEnum
from typing import NamedTuple

_RECORD = struct.Struct("=IIiHHd")
_SYNC = 0  # no task has this number


class Stage(IntEnum):
    BEGIN = 1
    END = 2  # the deed is done; what follows is the pool's: pickling, sending
    STRAY = 3  # a child that the task forked came by


class Mark(NamedTuple):
    task: int
    pid: int
    slot: int
    attempt: int  # from 1
    stage: Stage
    time: float  # monotonic seconds


def leave(path: str, task: int, stage: Stage, slot: int = -1, attempt: int = 1) -> None:
    record = _RECORD.pack(task, os.getpid(), slot, attempt, stage, time.monotonic())
    fd = _open(path)
    try:
        os.write(fd, record)
    finally:
        os.close(fd)


def _open(path: str) -> int:
    flags = os.O_WRONLY | os.O_CLOEXEC
    try:
        return os.open(path, flags)
    except OSError:
        import resource

        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        return os.open(path, flags)


class MarkReader:
    """Reads all marks of the run. `on_begin` is called on its thread with each mark that says that a task begins."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.on_begin: Callable[[Mark], object] = lambda _: None
        self._by_task: defaultdict[int, list[Mark]] = defaultdict(list)
        self._late: list[Mark] = []
        self._settled = 0  # no task up to this number may leave a mark any more
        self._synced = threading.Semaphore(0)
        os.mkfifo(path)
        # Both ends, so that neither a reader nor a writer ever waits in open(). Owned by this object, for the whole run.
        self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self._thread = threading.Thread(target=self._read, name="chaos-marks", daemon=True)
        self._thread.start()

    def take(self, first: int, last: int) -> list[Mark]:
        """All marks of these tasks in the order in which they were left. None of them may come by later."""
        self._sync()
        found: list[Mark] = []
        for task in range(first, last + 1):
            found += self._by_task.pop(task, ())
        self._settled = last
        return sorted(found, key=lambda mark: mark.time)

    def late(self) -> list[Mark]:
        """Marks that came after their tasks had been accounted for."""
        self._sync()
        late, self._late = self._late, []
        return late

    def _sync(self) -> None:
        """What was in the FIFO before this call has been read after it."""
        leave(self.path, _SYNC, Stage.END)
        self._synced.acquire()

    def _read(self) -> None:
        while True:
            data = os.read(self._fd, _RECORD.size * 1000)  # records are whole, so this is too
            for task, pid, slot, attempt, stage, when in _RECORD.iter_unpack(data):
                self._sort(Mark(task, pid, slot, attempt, Stage(stage), when))

    def _sort(self, mark: Mark) -> None:
        if mark.task == _SYNC:
            self._synced.release()
        elif mark.task <= self._settled:
            self._late.append(mark)
        else:
            self._by_task[mark.task].append(mark)
            if mark.stage is Stage.BEGIN:
                self.on_begin(mark)
