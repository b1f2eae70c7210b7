"""The host's ends of a worker's task pipe: frames go in, and what the worker has not taken can be taken back.

Runs in: host, supervisor thread. Owns two descriptors: the pipe's write end, and a read end of the same pipe; without /proc two
more, see below.

Hard part: a task that was written but never taken must be told from one that was taken. The pipe is a packet pipe (`O_DIRECT`,
pipe(2)): a frame is read whole or not at all, and the host can read it too. What the host still finds in the pipe of a dead
worker never began. The second read end is opened through /proc without O_DIRECT (with it: EINVAL), so that its
non-blocking flag is its own. Without /proc it is a copy of the worker's end, which blocks: what lies in it is spliced into a
pipe of our own, for splice(2) can be told not to wait, and keeps packets whole. (So can reads, RWF_NOWAIT; on 6.1 they cannot.)
For a streamed frame the count of unread bytes tells (FIONREAD): all of them, or it was taken.

Each system call lets another thread take the interpreter, which may keep it for milliseconds. So several frames are written in
one: the kernel cuts a long write into packets of a page (`pipe_write` in its fs/pipe.c), and each frame but the last is padded
to one. A pipe may hold few pages (beyond /proc/sys/fs/pipe-user-pages-soft one or two): what does not fit waits here.
Tests: tests/unit/test_worker_link.py
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import struct
import sys
import termios
from collections import deque
from itertools import islice

from .._core.wire import INLINE_BYTES, PACKET_BYTES, STREAM, Kind, MalformedFrame, pack, pack_header, unpack_header

_PIPE_BYTES = 1 << 20
_PADDING = memoryview(bytes(mmap.PAGESIZE))
_BATCH = 32  # frames in one write, and pages in the pipe: what is sent ahead and the one that runs (_core.ahead)


Payload = bytes | list[bytes | memoryview]  # as pieces: a large one


class TaskSender:
    """Writes frames to one worker, as many at once as there are, and takes back what it has not taken."""

    __slots__ = ("_aside", "_frame_bytes", "_frame_seq", "_frames", "_grown", "_stream", "task_fd", "untaken_fd")

    def __init__(self, task_fd: int, untaken_fd: int, is_copy: bool = False) -> None:
        """
        Args:
            is_copy: `untaken_fd` shares its description with the worker's end, and blocks.
        Raises:
            OSError: No descriptors to be had for a copy; the two are still the caller's.
        """
        self.task_fd = task_fd
        self.untaken_fd = untaken_fd
        self._aside = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK) if is_copy else ()
        self._frames: deque[tuple[int, bytes]] = deque()  # seq and packet of what is still to be written
        self._stream: deque[memoryview] = deque()  # what is still to be written of a streamed frame, before those
        self._frame_bytes = 0  # written of the last streamed frame, header included; 0 after a packet
        self._frame_seq = 0
        self._grown = False
        self._set_packets(True)
        self._resize(_BATCH * mmap.PAGESIZE)

    @property
    def fds(self) -> tuple[int, ...]:
        return self.task_fd, self.untaken_fd, *self._aside

    def add(self, kind: Kind, seq: int, payload: Payload, tried: int = 0) -> None:
        """Take a frame on, to be written by the next `flush`. A large one only for an idle worker."""
        if isinstance(payload, bytes):
            if len(payload) <= INLINE_BYTES:
                self._frames.append((seq, pack(kind, seq, payload, 0, tried)))
                return
            payload = [payload]
        header = pack_header(kind, seq, sum(map(len, payload)), STREAM, tried)
        os.write(self.task_fd, header)
        self._frame_bytes, self._frame_seq = len(header), seq
        self._set_packets(False)
        self._grow()
        self._stream = deque(memoryview(piece) for piece in payload)

    def flush(self) -> bool:
        """Write what was taken on. False: a part is left, call again when the pipe is writable."""
        try:
            self._write_stream()
            while self._frames:
                self._frame_bytes = 0
                self._write_frames()
        except BlockingIOError:
            return False
        return True

    def recall(self) -> list[int]:
        """Take back the frames that the worker has not taken; returns their seqs. Whoever reads a packet owns its task."""
        if self._frame_bytes:
            return self._recall_streamed()
        unwritten = [seq for seq, _ in self._frames]
        self._frames.clear()
        seqs = []
        # A dead worker may have left an initializer's stream with STOP behind it: the bytes of that are no frame.
        with contextlib.suppress(BlockingIOError, MalformedFrame, struct.error):
            while packet := self._read_untaken():
                _, flags, seq, _, _ = unpack_header(packet)
                if flags & STREAM:
                    break
                seqs.append(seq)
        return seqs + unwritten

    def hang_up(self) -> None:
        """Close the write end. What is in the pipe can still be taken, and taken back."""
        fd, self.task_fd = self.task_fd, -1
        os.close(fd)

    def all_was_read(self) -> bool:
        """Is the pipe empty, and nothing left to be written? False also after `hang_up`."""
        return not (self._frames or self._stream or self.task_fd < 0 or self._count_unread())

    def _count_unread(self) -> int:
        unread = bytearray(4)
        fcntl.ioctl(self.untaken_fd, termios.FIONREAD, unread)
        return int.from_bytes(unread, sys.byteorder)

    def _read_untaken(self) -> bytes:
        if not self._aside:
            return os.read(self.untaken_fd, PACKET_BYTES)
        read, write = self._aside
        try:
            return os.read(read, PACKET_BYTES)
        except BlockingIOError:  # nothing of ours is there: fetch as much as a packet may have, which may be several
            if not os.splice(self.untaken_fd, write, PACKET_BYTES, flags=os.SPLICE_F_NONBLOCK):
                return b""
        return os.read(read, PACKET_BYTES)

    def _recall_streamed(self) -> list[int]:
        """Nothing lies behind a streamed frame; ask only when the worker is dead, or it may be reading it."""
        return [self._frame_seq] if self._count_unread() == self._frame_bytes else []

    def _write_frames(self) -> None:
        frames = self._frames
        if len(frames) == 1:
            os.write(self.task_fd, frames[0][1])
            frames.clear()
            return
        parts: list[bytes | memoryview] = []
        for _, frame in islice(frames, _BATCH):
            parts += (frame, _PADDING[len(frame) :])
        written = os.writev(self.task_fd, parts[:-1])
        for _ in range(-(-written // mmap.PAGESIZE)):
            frames.popleft()

    def _write_stream(self) -> None:
        stream = self._stream
        while stream:
            written = os.write(self.task_fd, stream[0][:_PIPE_BYTES])
            self._frame_bytes += written
            rest = stream.popleft()[written:]
            if rest:
                stream.appendleft(rest)
            elif not stream:
                self._set_packets(True)

    def _set_packets(self, packets: bool) -> None:
        fcntl.fcntl(self.task_fd, fcntl.F_SETFL, os.O_NONBLOCK | (os.O_DIRECT if packets else 0))

    def _grow(self) -> None:
        if not self._grown:
            self._grown = True
            self._resize(_PIPE_BYTES)

    def _resize(self, size: int) -> None:
        with contextlib.suppress(OSError):  # beyond /proc/sys/fs/pipe-user-pages-soft: slower, not wrong
            fcntl.fcntl(self.task_fd, fcntl.F_SETPIPE_SZ, size)
