"""Run tasks, one at a time, and answer each before taking the next.

Runs in: a worker, main thread; forked from the fork server. It owns its three descriptors: the task pipe (read end), the
answer pipe (write end), the status page.
It never imports the exception classes of forkpool: it sends facts.

Hard part: user code may do anything between two of our steps. It may fork and return twice (the pid is checked before every
write, and the child writes on a page of its own), close our descriptors (EBADF ends the worker: the host then blames the task
it holds), change signal handlers (undone after the task), leave a timer that would end the next one (likewise), fill all memory
(then an answer that was made before says so), raise KeyboardInterrupt late. The answer is written before the next task is
read, so the host always knows which task a death belongs to.
SIGTERM does nothing unless the host itself asked for it on the status page: a SIGTERM to the whole group or cgroup is the
host's to handle. A task's own handlers work while it runs.
Tests: tests/process/test_crash.py, tests/process/test_signals.py
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # unknown to typeshed
import atexit
import contextlib
import errno
import faulthandler
import os
import pickle
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, TypeVar

from .._core.wire import (
    HEADER,
    INLINE_BYTES,
    MAX_MICROS,
    PACKET_BYTES,
    PLAIN,
    STREAM,
    TRACKED,
    Kind,
    pack,
    pack_large_answer,
    unpack_header,
)
from .._shared import clock
from .._shared.calls import count_fork
from .._shared.current_task import SEAT
from .._shared.decoding import CallDecoder, Lacking
from .._shared.payload import PayloadError, ResultEncoder
from .._shared.status_page import Stage, StatusPage
from .inherit import prepare_worker, tells_tracker
from .output import flush_output, keep_unfinished_lines
from .pinning import bind_worker
from .signal_guard import SignalGuard

# As numbers: a worker would copy what an enum takes to find its members, each time that it starts.
_STOP, _READY, _INIT_FAILED = int(Kind.STOP), int(Kind.READY), int(Kind.INIT_FAILED)
_VALUE, _EXCEPTION, _RESULT_ERROR = int(Kind.VALUE), int(Kind.EXCEPTION), int(Kind.RESULT_ERROR)
_LACKING = int(Kind.LACKING)
_RUNNING, _ENCODING, _ANSWERED = int(Stage.RUNNING), int(Stage.ENCODING), int(Stage.ANSWERED)
_LONG_MICROS = 10_000  # less than the host's `LOOK_AFTER_S`
_BIG = 1 << 16
_cancel_watchdog = faulthandler.cancel_dump_traceback_later
_PIPE_BYTES = 1 << 20
_SCRATCH = bytearray(_BIG)  # there is room for it before there is none; a worker that never writes here has no page of it
T = TypeVar("T")
Payload = bytes | bytearray | MemoryError
Call = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]


class WorkerProcess:
    """What a worker is made of, prepared in the fork server before the fork.

    A worker copies each page of memory on which it writes, be it a reference count, and each copy takes two microseconds:
    so what can be made in the fork server is made there, and what it makes once is shared by all workers.
    """

    def __init__(self, snapshot: dict[str, Any]) -> None:
        """In the fork server, when everything is preloaded. It gets a worker's signal handlers, which do nothing in it."""
        self._snapshot = snapshot
        self._loop = TaskLoop(snapshot["path_of_calls"], snapshot["sys_path"])
        self._identity = prepare_worker(snapshot, keep_signals=self._loop.set_handlers())
        self._signals = SignalGuard(in_fork=True)
        self._streams = keep_unfinished_lines()
        if not faulthandler.is_enabled():
            faulthandler.enable(0)  # to /dev/null: what it allocates once is there, and a worker only names another descriptor

    def before_fork(self) -> None:
        """In the fork server, for each worker."""
        self._identity.before_fork()

    def run(self, slot: int, fds: list[int], has_initializer: bool) -> int:
        """Be the worker on this slot. Returns the exit status when the host asks it to leave.

        Args:
            fds: Ours from now on: the task pipe (read end), the answer pipe (write end), the status page.
        """
        why_unbound = bind_worker(self._snapshot, slot)
        task_fd, answer_fd, page_fd = fds
        page = StatusPage(page_fd)
        faulthandler.enable(page_fd, all_threads=True)
        os.register_at_fork(after_in_child=self._part)
        self._identity.take(slot)
        for stream in self._streams:
            stream.begin(page)
        return self._loop.serve(task_fd, answer_fd, page, has_initializer, why_unbound, self._signals)

    def _part(self) -> None:
        """This process is a child that a task forked."""
        self._loop.page.part()
        count_fork()
        for stream in self._streams:
            stream.write_through()


class TaskPipe:
    """Read frames that the host wrote."""

    __slots__ = ("_fd", "_page")

    def begin(self, fd: int, page: StatusPage) -> None:
        self._fd = fd
        self._page = page
        page.read_from(fd)

    def receive(self) -> tuple[int, int, Payload, int]:
        """Kind, seq, payload and tries before of the next frame.

        There may be no memory for the payload: then the frame is read all the same, and the error stands in its place. It is
        what this call gets, and the next one may be smaller.

        Raises:
            EOFError: The host is gone, or does not trust this pipe any more.
        """
        try:
            packet = os.read(self._fd, PACKET_BYTES)
        except BlockingIOError:
            packet = self._read_patiently(lambda: os.read(self._fd, PACKET_BYTES))
        if not packet:
            raise EOFError
        kind, flags, seq, length, tried = unpack_header(packet)
        if flags & STREAM:
            self._page.read_on(seq)
            return kind, seq, self._stream(length), tried
        return kind, seq, packet[HEADER.size : HEADER.size + length], tried  # it may be padded

    def _stream(self, length: int) -> Payload:
        try:
            payload = bytearray(length)
        except MemoryError:
            self._skip(length)
            return MemoryError(f"there is no room for the {length} bytes of this call in its worker")
        with memoryview(payload) as view:
            filled = 0
            while filled < length:
                filled += self._read_into(view[filled:])
        return payload

    def _skip(self, length: int) -> None:
        with memoryview(_SCRATCH) as view:
            while length:
                length -= self._read_into(view[:length])

    def _read_into(self, room: memoryview) -> int:
        try:
            count = os.readv(self._fd, [room])
        except BlockingIOError:
            count = self._read_patiently(lambda: os.readv(self._fd, [room]))
        if not count:
            self._page.read_on(0)  # it cannot have cost this worker its life
            raise EOFError
        return count

    def _read_patiently(self, read: Callable[[], T]) -> T:
        """Read from the pipe that a task has made non-blocking; a thread that it left may do so at any time."""
        while True:
            os.set_blocking(self._fd, True)
            with contextlib.suppress(BlockingIOError):
                return read()


class TaskLoop:
    """Take a task, run it, answer it."""

    _answer_fd: int
    _answer_file: int
    page: StatusPage
    _first_stamp: int
    _signals: SignalGuard

    def __init__(self, path_of_calls: list[str], path_here: list[str]) -> None:
        self._pid = 0  # in the fork server, where what follows is not there yet
        self._pipe = TaskPipe()
        self._decoder = CallDecoder(path_of_calls, path_here)
        self._encoder = ResultEncoder()
        # Made while there is memory for it; said when there is none to describe an exception.
        self._no_memory = self._encoder.encode_exception(MemoryError("the worker has no memory left to tell what was raised"))
        self._in_task = False
        self._ends_watchdog = True
        self._tried = 0  # how often the present call was tried before
        self._grown = False
        self._announced = 0  # bytes of answers, the present one included

    def set_handlers(self) -> tuple[int, ...]:
        """Handle the signals that a worker does not leave to their default; returns which."""
        # Not `signal`, which makes enums of what it answers: each worker would copy more of what it shares with the others.
        _signal.signal(_signal.SIGTERM, self._on_sigterm)
        _signal.signal(_signal.SIGINT, self._on_sigint)
        return _signal.SIGTERM, _signal.SIGINT

    def serve(
        self, task_fd: int, answer_fd: int, page: StatusPage, has_initializer: bool, why_unbound: str, signals: SignalGuard
    ) -> int:
        """Until the host asks us to leave. Returns the exit status."""
        self._pipe.begin(task_fd, page)
        self._answer_fd = answer_fd
        self._answer_file = os.fstat(answer_fd).st_ino
        self.page = page
        self._first_stamp = page.first_stamp()
        self._signals = signals
        self._pid = os.getpid()
        try:
            if has_initializer:
                if not self._initialize():
                    return 0
                self._signals = SignalGuard()  # what the initializer set up is to stay
                self._ends_watchdog = _is_alone()
            self._answer(_READY, 0, why_unbound.encode())
            while self._serve_one():
                pass
        except EOFError:  # not as when we are asked to leave: what reads this pipe besides us might keep us for ever
            return 0
        except (OSError, MemoryError) as error:
            # A task closed our descriptors, or filled all memory, or the host is gone: nothing can be answered any more.
            with contextlib.suppress(MemoryError):
                print(f"forkpool worker {self._pid} leaves: {str(error) or 'no memory'}", file=sys.stderr)
            return 1
        finally:
            if os.getpid() != self._pid:
                os._exit(0)
        _leave()
        return 0

    def _initialize(self) -> bool:
        kind, _, payload, _ = self._pipe.receive()
        if kind == _STOP:
            return False
        try:
            try:
                self._call(*self._decode(payload))
            finally:
                self._check_pid()  # before it is said to have failed: a helper that it forked ends by `sys.exit()`
        except BaseException as error:
            self._answer(_INIT_FAILED, 0, self._describe(error))
            return False
        finally:
            flush_output()
        return True

    def _serve_one(self) -> bool:
        kind, seq, payload, self._tried = self._pipe.receive()
        if kind == _STOP:
            return False
        page = self.page
        begun = clock.now_ns()
        page.take(seq, begun)
        answer = self._work_until_quiet(payload)
        SEAT.running = None
        del payload
        self._check_pid()
        if self._ends_watchdog:
            # `faulthandler.dump_traceback_later(exit=True)` would end the next task. 0.1 µs. Only behind the check of the pid:
            # a child that the task forked has no such thread, and would wait for its end for ever.
            _cancel_watchdog()
        flush_output()
        micros = min((clock.now_ns() - begun) // 1000, MAX_MICROS)
        if micros > _LONG_MICROS:
            self._check_answer_fd()
        flags = answer[2] | TRACKED if tells_tracker() else answer[2]
        self._answer(answer[0], seq, answer[1], flags, micros)
        page.set_stage(_ANSWERED)
        return True

    def _work_until_quiet(self, payload: Payload) -> tuple[int, bytes, int]:
        """Work, then undo what the task did to signals: until that is done, its handlers may raise at any point."""
        answer, late = None, None
        while True:
            try:
                if answer is None and late is None:
                    answer = self._work(payload)
                self._signals.restore()
                break
            except BaseException as error:
                late = error
        if answer is None:
            assert late is not None
            return _EXCEPTION, self._describe(late), 0
        return answer

    def _work(self, payload: Payload) -> tuple[int, bytes, int]:
        """Kind, payload and flags of the answer."""
        try:
            call = self._decode(payload)
            SEAT.running = call[0], self._decoder.name, self._tried + 1
            self.page.set_stage(_RUNNING)
            value = self._call(*call)
            self.page.set_stage(_ENCODING)
            return self._encode(value)
        except Lacking:
            return _LACKING, b"", 0
        except BaseException as error:
            return _EXCEPTION, self._describe(error), 0

    def _describe(self, error: BaseException) -> bytes:
        try:
            return self._encoder.encode_exception(error)
        except MemoryError:
            return self._no_memory

    def _decode(self, payload: Payload) -> Call:
        if isinstance(payload, MemoryError):
            raise payload
        return self._decoder.decode(payload)

    def _call(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            self._in_task = True
            return fn(*args, **kwargs)
        finally:
            self._in_task = False

    def _encode(self, value: object) -> tuple[int, bytes, int]:
        try:
            data, plain = self._encoder.encode_value(value)
        except PayloadError as error:
            cause = self._encoder.encode_exception(error.__cause__ or error)
            return _RESULT_ERROR, pickle.dumps((str(error), error.part, cause)), 0
        return _VALUE, data, PLAIN if plain else 0

    def _answer(self, kind: int, seq: int, payload: bytes, flags: int = 0, micros: int = 0) -> None:
        stamp = self._first_stamp + self._announced
        if len(payload) <= INLINE_BYTES:
            self._send(pack(kind, seq, payload, flags, micros, stamp))
            return
        parts = pack_large_answer(kind, seq, payload, flags, micros, stamp)
        if len(payload) < _BIG:
            self._send(b"".join(parts))
            return
        if not self._grown:
            self._grown = True
            _grow_pipe(self._answer_fd)
        self._send(*parts)

    def _send(self, *parts: bytes) -> None:
        """Write a frame. The page tells its length before: then the host knows when nothing more can come."""
        self._announced += sum(map(len, parts))
        self.page.announce(self._announced)
        for part in parts:
            self._write(part)

    def _write(self, data: bytes) -> None:
        try:
            written = os.write(self._answer_fd, data)
        except BlockingIOError:
            written = 0
        if written < len(data):
            os.set_blocking(self._answer_fd, True)  # a task made it non-blocking
            with memoryview(data) as view:
                while written < len(data):
                    written += os.write(self._answer_fd, view[written : written + _PIPE_BYTES])

    def _check_pid(self) -> None:
        if os.getpid() != self._pid:
            os._exit(0)  # a forked child of the task, or of the initializer, came back from it: it is no worker

    def _check_answer_fd(self) -> None:
        """A task may have put another file there, whose reader waits for nothing. After a short one, the host finds out."""
        if os.fstat(self._answer_fd).st_ino != self._answer_file:
            raise OSError(errno.EBADF, "a task has put another file in the place of forkpool's pipe")

    def _on_sigterm(self, signum: int, frame: FrameType | None) -> None:
        if self._pid and self.page.terminate_asked():
            signal.signal(signum, signal.SIG_DFL)
            os.kill(os.getpid(), signum)

    def _on_sigint(self, signum: int, frame: FrameType | None) -> None:
        if self._in_task:
            raise KeyboardInterrupt


def _is_alone() -> bool:
    """Does this process surely have no thread but this one?

    An initializer's watchdog is to stay, and faulthandler tells nobody whether it has one: but that would be a thread.
    """
    try:
        return len(os.listdir("/proc/self/task")) == 1
    except OSError:  # no /proc
        return False


def _grow_pipe(fd: int) -> None:
    import fcntl

    with contextlib.suppress(OSError, AttributeError):  # beyond /proc/sys/fs/pipe-user-pages-soft: slower, not wrong
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)


def _leave() -> None:
    """What an interpreter does at its end, and a bare `os._exit` would leave out."""
    threading = sys.modules.get("threading")
    steps: list[Callable[[], object]] = [threading._shutdown] if threading is not None else []
    for step in (*steps, atexit._run_exitfuncs, flush_output):
        try:
            step()
        except BaseException:
            sys.excepthook(*sys.exc_info())
