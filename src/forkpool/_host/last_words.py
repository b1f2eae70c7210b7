"""Write what a dead worker had printed behind its last whole line: it lies on the worker's status page.

Runs in: host, supervisor thread, before the task's future is ended. Uses the host's fd 1 and 2, which are the worker's too.
Hard part: nobody may be reading what we write, and the supervisor must not wait for him. So it writes only where there is room
(a pipe that is writable takes a page); else a thread waits, and the future does not.
Tests: tests/process/test_inheritance_output.py
"""

from __future__ import annotations

import os
import select
from functools import partial

from .ready import is_writable
from .side_thread import SideThread
from .worker_link import WorkerLink


def finish_lines(link: WorkerLink) -> None:
    """Call once, when the worker is dead."""
    for fd in (1, 2):
        line = link.unfinished_line(fd)
        if line:
            _write(fd, line)


def _write(fd: int, line: bytes) -> None:
    while line and is_writable(fd):
        line = line[_write_some(fd, line) :]
    if line:
        SideThread("forkpool-last-words", partial(_write_patiently, fd, line)).begin()  # if none can be had, that is lost


def _write_patiently(fd: int, line: bytes) -> None:
    while line and is_writable(fd, None):
        line = line[_write_some(fd, line) :]


def _write_some(fd: int, line: bytes) -> int:
    try:
        return os.write(fd, line[: select.PIPE_BUF])
    except BlockingIOError:  # the program made it non-blocking, and somebody else took the room
        return 0
    except OSError:  # closed, or its reader is gone
        return len(line)
