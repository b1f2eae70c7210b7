"""Tasks that do to their worker what they should not. The pool stays, the blame is right.

Rows "task closes every fd it can find ...", "task forks, and the forked child returns", "a worker writes malformed
frames", "nested".
"""

import functools
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import wait
from pathlib import Path
from typing import Any

import pytest

from forkpool import ForkPoolExecutor, SerializationError, WorkerCrashedError
from forkpool._core.wire import Kind, pack, pack_header
from tests.support import processes, tasks
from tests.support.gate import Gate, Marks


def worker_fds() -> list[int]:
    return sorted(int(name) for name in os.listdir("/proc/self/fd"))


def close_everything() -> str:
    os.closerange(0, 1 << 20)
    return "closed"


def close_the_small_ones() -> str:
    os.closerange(3, 256)
    return "closed"


def close_and_open(path: str) -> str:
    """The log gets the number of whatever was closed first."""
    os.closerange(0, 1 << 20)
    with open(path, "w") as log:
        log.write("mine")
    return "closed"


class BadStream:
    """What a test library leaves in place of stdout."""

    def __init__(self, error: type[BaseException]) -> None:
        self.error = error

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        raise self.error


def leave_a_stream(error: type[BaseException]) -> int:
    sys.stdout = BadStream(error)
    return os.getpid()


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt, GeneratorExit])
def test_task_leaves_a_stdout_that_cannot_be_flushed(error: type[BaseException]) -> None:
    """Its worker died after the call, and the result with it."""
    with ForkPoolExecutor(1) as ex:
        pid = ex.submit(leave_a_stream, error).result()
        assert ex.submit(tasks.pid).result() == pid


def ended(future: Any) -> Any:
    """The result, or None for a crash; nothing else may come."""
    error = future.exception()
    if error is None:
        return future.result()
    assert type(error) is WorkerCrashedError, repr(error)
    return None


@pytest.mark.parametrize("task", [close_everything, close_the_small_ones])
def test_task_closes_fds(task: Any) -> None:
    with ForkPoolExecutor(1) as ex:
        for _ in range(3):
            future = ex.submit(task)
            assert ended(future) in ("closed", None)
            assert getattr(future.exception(), "may_have_run", "yes") != "no"
        assert ex.submit(tasks.add, 1, 1).result() == 2


def test_our_fds_are_out_of_the_way() -> None:
    """A task that closes what daemons close (3 to 255) loses nothing of ours."""
    with ForkPoolExecutor(1) as ex:
        pid = ex.submit(tasks.pid).result()
        assert ex.submit(close_the_small_ones).result() == "closed"
        assert ex.submit(tasks.pid).result() == pid


def test_our_frames_never_land_in_a_file_of_the_user(tmp_path: Any) -> None:
    with ForkPoolExecutor(1) as ex:
        for number in range(5):
            path = tmp_path / f"log{number}"
            assert ended(ex.submit(close_and_open, str(path))) in ("closed", None)
            assert not path.exists() or path.read_text() in ("", "mine")  # we may kill it as soon as it closed our fds
        assert ex.submit(tasks.add, 1, 1).result() == 2


def keep_a_file_open(path: str, count: int) -> None:
    os.closerange(0, 1 << 20)
    global _kept
    _kept = [os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND) for _ in range(count)]


def test_files_that_take_freed_numbers_get_no_frame(tmp_path: Any) -> None:
    path = tmp_path / "log"
    with ForkPoolExecutor(1) as ex:
        ended(ex.submit(keep_a_file_open, str(path), 900))  # our numbers are higher
        assert ex.submit(tasks.add, 1, 1).result() == 2
    assert not path.exists() or b"\0" not in path.read_bytes()  # a traceback for fd 2 may be in it, no frame


def write_to_every_pipe(data: bytes) -> str:
    for fd in worker_fds():
        try:
            os.set_blocking(fd, False)
            if fd > 2:
                os.write(fd, data)
        except OSError:
            continue
    return "written"


@pytest.mark.parametrize("data", [b"\0", b"garbage" * 20, b"\xff" * 4096, b"\1" * 25], ids=["0", "text", "ff", "01"])
def test_malformed_frames(data: bytes) -> None:
    """The lifeline is among the pipes: a byte in it kills as well. Either way one task is lost at most."""
    with ForkPoolExecutor(1) as ex:
        future = ex.submit(write_to_every_pipe, data)
        error = future.exception()
        assert error is None or type(error) is WorkerCrashedError, repr(error)
        assert [ex.submit(tasks.add, n, n).result() for n in range(5)] == [0, 2, 4, 6, 8]


def write_to_the_answer_pipe(data: bytes) -> str:
    """Only into the stream that our answers take: not the lifeline."""
    fd = answer_fd()
    os.write(fd, data)
    return "written"


def answer_fd() -> int:
    """The pipe that this worker may only write to, and that its fork server does not hold."""
    of_server = {os.readlink(f"/proc/{os.getppid()}/fd/{name}") for name in os.listdir(f"/proc/{os.getppid()}/fd")}
    found = []
    for fd in worker_fds():
        try:
            target, info = os.readlink(f"/proc/self/fd/{fd}"), Path(f"/proc/self/fdinfo/{fd}").read_text()
        except OSError:
            continue
        mode = int(info.split("flags:")[1].split()[0], 8) & os.O_ACCMODE
        if fd > 2 and target.startswith("pipe:") and mode == os.O_WRONLY and target not in of_server:
            found.append(fd)
    (fd,) = found
    return fd


@pytest.mark.parametrize("data", [b"garbage" * 20, b"\xff" * 4096], ids=["text", "ff"])
def test_malformed_frame_is_named(data: bytes) -> None:
    with ForkPoolExecutor(1) as ex:
        error = ex.submit(write_to_the_answer_pipe, data).exception()
        assert type(error) is WorkerCrashedError, repr(error)
        assert "malformed" in str(error)
        assert error.may_have_run in ("maybe", "yes")
        assert ex.submit(tasks.pid).result() != error.pid


def write_to_the_answer_pipe_and_wait(data: bytes, gate: Any) -> None:
    write_to_the_answer_pipe(data)
    gate.enter()


PLAUSIBLE = {
    "the header of a large answer": pack_header(Kind.VALUE, 1, 1 << 30),
    "the header of a small answer": pack_header(Kind.VALUE, 1, 1000),
    "half a header": pack_header(Kind.VALUE, 1, 1000)[:11],
    "a whole answer": pack(Kind.VALUE, 1, b"N."),
}


@pytest.mark.parametrize("data", PLAUSIBLE.values(), ids=PLAUSIBLE.keys())
def test_a_frame_that_will_never_be_complete(data: bytes, gate: Gate) -> None:
    """It was waited for until the task's timeout, if there was one; the real answer vanished in it."""
    with ForkPoolExecutor(1) as ex:
        returns = ex.submit(write_to_the_answer_pipe, data).exception()
        waits = ex.submit(write_to_the_answer_pipe_and_wait, data, gate).exception()
        for error in (returns, waits):
            assert type(error) is WorkerCrashedError, repr(error)
            assert "malformed" in str(error)
        assert ex.submit(tasks.add, 1, 1).result() == 2


def half_a_frame_and_leave() -> None:
    os.write(answer_fd(), b"\1\x0b\0\0")
    os._exit(3)


def test_half_a_frame_then_the_end() -> None:
    with ForkPoolExecutor(1) as ex:
        error = ex.submit(half_a_frame_and_leave).exception()
        assert type(error) is WorkerCrashedError, repr(error)
        assert ex.submit(tasks.add, 1, 1).result() == 2


def fork_and_return_twice(marks: Marks) -> int:
    """Both processes return from the task."""
    if os.fork() == 0:
        marks.add("stray")
    return os.getpid()


def test_forked_child_returns_from_the_task(marks: Marks) -> None:
    with ForkPoolExecutor(1) as ex:
        pid = ex.submit(tasks.pid).result()
        for _ in range(5):
            assert ex.submit(fork_and_return_twice, marks).result() == pid
        assert ex.submit(tasks.pid).result() == pid
        assert [ex.submit(tasks.add, n, n).result() for n in range(20)] == [2 * n for n in range(20)]


def fork_and_let_the_child_return_first() -> None:
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        os.kill(os.getpid(), signal.SIGKILL)


def test_forked_child_that_returned_does_not_speak_for_the_worker() -> None:
    # It went on to pickle its result, and said so on the worker's page: then the worker died, and "the task had returned".
    with ForkPoolExecutor(1) as ex:
        error = ex.submit(fork_and_let_the_child_return_first).exception()
        assert isinstance(error, WorkerCrashedError)
        assert error.may_have_run == "maybe"


def mark_and_fork(marks: Marks, number: int) -> int:
    marks.add(str(number))
    if child := os.fork():
        os.waitpid(child, 0)
    return number


def test_forked_child_leaves_the_rest_of_a_chunk_to_the_worker(marks: Marks) -> None:
    with ForkPoolExecutor(1) as ex:
        assert list(ex.map(functools.partial(mark_and_fork, marks), range(4), chunksize=4)) == [0, 1, 2, 3]
    assert marks.words() == ["0", "1", "2", "3"]


def fork_and_raise() -> int:
    if os.fork() == 0:
        raise ValueError("in the stray child")
    os.wait()
    return os.getpid()


def test_forked_child_raises_out_of_the_task() -> None:
    with ForkPoolExecutor(1) as ex:
        pid = ex.submit(tasks.pid).result()
        assert ex.submit(fork_and_raise).result() == pid
        assert ex.submit(tasks.pid).result() == pid


def child_that_returns_after_the_worker_is_killed(gate: Any, marks: Marks) -> str:
    told, tells = os.pipe()
    if os.fork() == 0:
        os.setsid()
        os.write(tells, b".")
        gate.enter()
        marks.add("stray")
        return "from the stray child"
    os.read(told, 1)  # until it has left the group, it goes with us
    os.kill(os.getpid(), signal.SIGKILL)
    return ""


def test_a_stray_child_in_its_own_session_answers_for_nobody(gate: Gate, marks: Marks) -> None:
    with ForkPoolExecutor(1) as ex:
        future = ex.submit(child_that_returns_after_the_worker_is_killed, gate, marks)
        stray = gate.wait_inside()
        assert type(future.exception()) is WorkerCrashedError
        later = [ex.submit(tasks.add, n, n) for n in range(10)]
        gate.open_for_all()
        assert [future.result() for future in later] == [2 * n for n in range(10)]
        processes.wait_exit(stray)


def run_subprocesses() -> int:
    codes = [subprocess.run([sys.executable, "-c", "pass"], check=True).returncode for _ in range(2)]
    return sum(codes) + os.system("true")


def test_subprocesses_work() -> None:
    with ForkPoolExecutor(1) as ex:
        assert ex.submit(run_subprocesses).result() == 0


def multiprocessing_in_a_task() -> int:
    import multiprocessing

    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return int(pool.apply(abs, (-7,)))


@pytest.mark.slow
def test_multiprocessing_works_in_a_task() -> None:
    with ForkPoolExecutor(1) as ex:
        assert ex.submit(multiprocessing_in_a_task).result() == 7


def daemonize(gate: Any) -> int:
    """A daemon that closes nothing: it keeps our pipes open."""
    pid = os.fork()
    if pid == 0:
        os.setsid()
        gate.enter()
        os._exit(0)
    return pid


def test_a_daemon_that_keeps_our_pipes_open(gate: Gate) -> None:
    ex = ForkPoolExecutor(1)
    daemon = ex.submit(daemonize, gate).result()
    assert gate.wait_inside() == daemon
    assert type(ex.submit(tasks.leave, 3).exception()) is WorkerCrashedError
    assert ex.submit(tasks.add, 1, 1).result() == 2
    ex.shutdown()
    gate.open_for_all()
    processes.wait_exit(daemon)


def start_threads(count: int) -> str:
    for _ in range(count):
        threading.Thread(target=threading.Event().wait, daemon=True).start()
    return "started"


def test_task_leaves_threads() -> None:
    with ForkPoolExecutor(1) as ex:
        pid = ex.submit(tasks.pid).result()
        assert ex.submit(start_threads, 20).result() == "started"
        assert ex.submit(tasks.pid).result() == pid


def start_a_thread_that_never_ends() -> str:
    threading.Thread(target=threading.Event().wait).start()
    return "started"


def test_shutdown_does_not_wait_for_a_thread_that_a_task_left() -> None:
    with ForkPoolExecutor(1, grace_period=0.5) as ex:
        assert ex.submit(start_a_thread_that_never_ends).result() == "started"


def print_much(count: int) -> int:
    for _ in range(count):
        os.write(1, b"x" * 1000)
        os.write(2, b"y" * 1000)
    return count


def test_task_prints_megabytes(capfd: pytest.CaptureFixture[str]) -> None:
    with ForkPoolExecutor(1) as ex:
        pid = ex.submit(tasks.pid).result()
        assert ex.submit(print_much, 2000).result() == 2000
        assert ex.submit(tasks.pid).result() == pid
    out, err = capfd.readouterr()
    assert (len(out), len(err)) == (2_000_000, 2_000_000)


def change_what_can_be_changed() -> None:
    import faulthandler
    import gc
    import resource

    os.umask(0)
    os.chdir("/")
    os.environ.clear()
    gc.disable()
    faulthandler.disable()
    sys.setrecursionlimit(100)
    sys.settrace(None)
    sys.stdout = sys.stderr = None  # type: ignore[assignment]
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    signal.setitimer(signal.ITIMER_REAL, 0.001)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))


def test_task_changes_what_can_be_changed() -> None:
    with ForkPoolExecutor(1) as ex:
        assert ended(ex.submit(change_what_can_be_changed)) is None
        assert [ended(ex.submit(tasks.add, n, n)) for n in range(5)][-1] in (8, None)
    with ForkPoolExecutor(1) as ex:
        ended(ex.submit(change_what_can_be_changed))
        ended(ex.submit(tasks.leave, 3))
        assert ex.submit(tasks.add, 1, 1).result() == 2


def nothing_can_be_imported(do: Any) -> Any:
    sys.meta_path.clear()
    return do()


def lose_all_descriptors(do: Any) -> Any:
    import resource

    resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
    return do()


@pytest.mark.parametrize("prepare", [nothing_can_be_imported, lose_all_descriptors])
def test_what_answers_need_was_imported_before_the_fork(prepare: Any) -> None:
    """Such a worker once ended with status 1 and a traceback of ours on stderr, at each task that raised."""

    class OfThisTest:
        pass

    with ForkPoolExecutor(1) as ex:
        pid = ex.submit(tasks.pid).result()
        assert type(ex.submit(prepare, OfThisTest).result()) is OfThisTest
        with pytest.raises(ZeroDivisionError):
            ex.submit(prepare, lambda: 1 / 0).result()
        with pytest.raises(SerializationError):
            ex.submit(prepare, threading.Lock).result()
        with pytest.raises(tasks.TwoArguments):
            ex.submit(prepare, tasks.raise_two_arguments).result()
        assert ex.submit(tasks.pid).result() == pid


def nested(depth: int) -> int:
    if depth == 0:
        return os.getpid()
    with ForkPoolExecutor(1) as ex:
        return ex.submit(nested, depth - 1).result()


def test_a_task_makes_its_own_pool() -> None:
    with ForkPoolExecutor(1) as ex:
        pid = ex.submit(nested, 2).result()
        assert pid not in (os.getpid(), ex.submit(tasks.pid).result())
    processes.wait_exit(pid)


def nested_and_stuck(gate: Any) -> None:
    with ForkPoolExecutor(1) as ex:
        ex.submit(tasks.enter, gate).result()


def test_killing_a_task_ends_its_own_pool_too(gate: Gate) -> None:
    with ForkPoolExecutor(1) as ex:
        future = ex.submit(nested_and_stuck, gate)
        inner = gate.wait_inside()
        assert future.kill()
        processes.wait_exit(inner)
        assert wait([future]).done == {future}
        assert ex.submit(tasks.add, 1, 1).result() == 2


def test_a_task_that_uses_the_pool_it_runs_in_by_name_gets_an_error() -> None:
    ex = ForkPoolExecutor(1)
    try:
        with pytest.raises(Exception, match="ForkPoolExecutor"):
            ex.submit(tasks.identity, ex).result()
        assert ex.submit(tasks.add, 1, 1).result() == 2
    finally:
        ex.shutdown()
