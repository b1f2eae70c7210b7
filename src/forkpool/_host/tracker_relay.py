"""Pass on what workers tell `multiprocessing`'s resource tracker, to the host's tracker, started only then.

Runs in: host, supervisor thread. Owns both ends of a pipe; the fork server and every worker have the write end as
the file descriptor of "their" tracker (forkpool._child.family).
Without it a worker that makes a SharedMemory would start a tracker of its own, which unlinks the memory when that
worker is recycled. Handing on the host's own tracker would do, but it would have to be started for every pool. So the
pipe waits, and a pool without shared memory costs no process.
One relay serves a pool for life: workers outlive a killed fork server, and go on writing.

Hard part, order: a task makes shared memory, the host attaches and unlinks it. The host's tracker must hear of the
making first, or it complains of a leak at exit. The worker wrote to the relay before it wrote its answer, so it is
enough to call `on_readable` between reading an answer and completing its future; answers that ask for it are TRACKED.
The relay writes to the tracker's pipe by a description of its own, so no lock of the tracker stands between: only
finding the pipe takes that lock, which another thread holds no longer than starting a tracker takes.
Hard part, blocking: the tracker may be stopped and its pipe full. Then what came is kept and a thread of its own
passes it on; where none can be started (interpreter exit), the next call tries again.
Tests: tests/unit/test_tracker_relay.py, tests/process/test_inheritance_multiprocessing.py
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from typing import Any

from .ready import is_readable, is_writable
from .shared_names import SharedNames
from .side_thread import SideThread

_READ_BYTES = 1 << 16
_ATOMIC_BYTES = 512  # what POSIX promises for every pipe; the tracker's own limit for a line
_KNOWN_STARTS = (b"REGISTER:", b"UNREGISTER:", b"{")  # "{": newer trackers also read JSON
_KNOWN_PROBES = (b'"PROBE"',)


class TrackerRelay:
    """One pipe for all workers of a pool, and what came through it and is not passed on yet."""

    def __init__(self) -> None:
        """Make the pipe.

        Raises:
            OSError: No file descriptors left; nothing is left open.
        """
        self._read_fd, self.child_fd = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._read_fd, False)
        self._rest = b""  # an unfinished line
        self._lock = threading.Lock()  # guards all below
        self._lines: list[bytes] = []  # whole lines, not passed on
        self._tracker_fd = -1  # our description of the tracker's pipe, not blocking; -1 before the first line
        self._side: SideThread | None = None  # alive while the tracker is slow; it polls _tracker_fd
        self._is_closed = False
        self.names = SharedNames()

    @property
    def thread(self) -> threading.Thread | None:
        """The one that passes on what a slow tracker cannot take; mostly None."""
        side = self._side
        return None if side is None else side.thread

    def fileno(self) -> int:
        """The end to watch for reading."""
        return self._read_fd

    def on_readable(self) -> bool:
        """Read and pass on what is there; False when no writer is left. Never blocks; cheap when there is nothing."""
        data = self._read()
        if data:
            self._take(data)
        if self._lines:
            self._pass_on()
        return data != b""

    def _read(self) -> bytes | None:
        try:
            return os.read(self._read_fd, _READ_BYTES)
        except BlockingIOError:
            return None

    def close_child_fd(self) -> None:
        """Give the write end back: from then on the last worker's end is seen by `on_readable`."""
        if self.child_fd >= 0:
            os.close(self.child_fd)
            self.child_fd = -1

    def close(self) -> None:
        """Pass on what is left and give everything back."""
        self.close_child_fd()
        if self._read_fd < 0:
            return
        with contextlib.suppress(OSError):
            while self.on_readable() and is_readable(self._read_fd):
                pass
        os.close(self._read_fd)
        self._read_fd = -1
        with self._lock:
            self._is_closed = True
            if self._side is None:
                self._forget_tracker()

    def _take(self, data: bytes) -> None:
        *lines, rest = (self._rest + data).split(b"\n")
        self._rest = rest if len(rest) <= _ATOMIC_BYTES else b""  # longer: a task wrote something else here
        wanted = [line + b"\n" for line in lines if _is_wanted(line)]
        for line in wanted:
            self.names.hear(line)
        with self._lock:
            self._lines += wanted

    def _pass_on(self) -> None:
        with self._lock:
            if self._side is not None or self._write():
                return
            side = SideThread("forkpool-tracker", self._pass_on_patiently)
            if side.begin():  # else none can be had, and the next call tries again
                self._side = side

    def _pass_on_patiently(self) -> None:
        while True:
            with self._lock:
                if self._write():
                    self._side = None
                    if self._is_closed:
                        self._forget_tracker()
                    return
                fd = self._tracker_fd
            is_writable(fd, None)

    def _write(self) -> bool:
        """Write what there is to the host's tracker, which is started if need be; False when its pipe is full."""
        is_dead = False
        while self._lines:
            if self._tracker_fd < 0:
                self._tracker_fd = _open_tracker(is_dead)
            if self._tracker_fd < 0:
                return True  # none can be had now; the next call tries again
            try:
                os.write(self._tracker_fd, self._lines[0])  # short enough to be atomic beside other writers
            except BlockingIOError:
                return False
            except OSError:  # it died, and what it knew with it; this line follows if the next one dies too
                self._forget_tracker()
                if not is_dead:
                    is_dead = True
                    continue
            del self._lines[0]
        return True

    def _forget_tracker(self) -> None:
        if self._tracker_fd >= 0:
            os.close(self._tracker_fd)
            self._tracker_fd = -1


def _is_wanted(line: bytes) -> bool:
    return len(line) < _ATOMIC_BYTES and line.startswith(_KNOWN_STARTS) and not any(probe in line for probe in _KNOWN_PROBES)


def _open_tracker(is_dead: bool) -> int:
    """Open the pipe of the host's tracker for ourselves; -1 when there is none to be had.

    Args:
        is_dead: Whether the one that runs was seen dead. Only then is it asked whether it lives, since the question
            blocks when its pipe is full.
    """
    from multiprocessing import resource_tracker

    tracker: Any = resource_tracker._resource_tracker
    # Starting it unblocks SIGINT and SIGTERM in this thread, and may warn, of which a filter may make an error.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        if is_dead or tracker._fd is None:
            tracker.ensure_running()
        with tracker._lock:  # nobody closes it now
            return os.open(f"/proc/self/fd/{tracker._fd}", os.O_WRONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except Exception:
        return -1
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
