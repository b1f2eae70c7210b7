"""Row "fork fails (EAGAIN, ENOMEM), fds run out (EMFILE)": what runs, runs on the workers that exist.

Each test takes something away, waits until the pool has said that it cannot start a worker (or does without what was taken),
gives it back, and sees the pool grow again. That nothing is left open is looked at by the fixture of this folder.
"""

import _socket
import atexit
import contextlib
import errno
import functools
import os
import resource
import signal
import threading
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, wait
from pathlib import Path
from typing import Any

import pytest

from forkpool import ForkPoolExecutor, PoolBrokenError, TaskTimeoutError, WorkerCrashedError
from forkpool._core import staffing
from forkpool._host.crew import Crew
from forkpool._host.pool_lines import PoolLines
from forkpool._host.server_link import ServerLink
from forkpool._host.snapshot import interpreter_command, take_snapshot
from forkpool._host.worker_link import WorkerLink
from tests.support import processes, tasks
from tests.support.gate import Gate
from tests.support.script import run_script
from tests.support.shortage import ForkFails, FullEpoll, SendFails, Warnings, descriptors_left

HOST_NEEDS = 20  # descriptors from the first submit to the first task, with the claims on CPUs and one to spare


def say_goodbye_at(gate: Gate) -> None:
    atexit.register(gate.enter)


def test_the_host_has_room_for_one_worker_and_that_one_takes_long_to_leave(
    gate: Gate, second_gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its successor could not be started meanwhile, and that broke the pool."""
    monkeypatch.setattr(staffing, "MAX_BACKOFF_S", 0.05)
    failed, on_not_started = threading.Semaphore(0), Crew.on_not_started

    def tell(crew: Crew, worker: Any, reason: str) -> None:
        on_not_started(crew, worker, reason)
        failed.release()

    monkeypatch.setattr(Crew, "on_not_started", tell)
    with ForkPoolExecutor(
        1, max_tasks_per_child=2, initializer=say_goodbye_at, initargs=(second_gate,), grace_period=60.0
    ) as ex:
        assert ex.submit(tasks.add, 1, 1).result() == 2
        with descriptors_left(0):
            last = ex.submit(tasks.enter, gate, "last")  # of this worker: its successor is asked for now
            gate.wait_inside()
            rest = [ex.submit(tasks.add, number, 1) for number in range(3)]
            for _ in range(staffing.START_FAILURES_IN_A_ROW):
                failed.acquire()
            gate.release()
            second_gate.wait_inside()
            assert last.result() == "last"
            while failed.acquire(blocking=False):
                pass
            failed.acquire()
            failed.acquire()  # this one began after it was about to leave
        second_gate.open_for_all()
        assert [future.result() for future in rest] == [1, 2, 3]


def submit_if_possible(ex: ForkPoolExecutor) -> Any:
    try:
        return ex.submit(tasks.add, 1, 1)
    except OSError as error:
        if error.errno != errno.EMFILE:
            raise
        return None


@pytest.mark.parametrize("left", range(HOST_NEEDS))
def test_the_host_has_few_descriptors_from_the_start(left: int) -> None:
    with Warnings() as warnings, ForkPoolExecutor(1) as ex:
        with descriptors_left(left):
            future = submit_if_possible(ex)
            if future is not None:
                future.add_done_callback(lambda _: warnings.stop_waiting())
                warnings.wait()
        if future is not None:
            assert future.result() == 2, warnings.texts
        assert ex.submit(tasks.add, 2, 2).result() == 4
    assert len(warnings.texts) <= 1
    assert left < HOST_NEEDS - 1 or not warnings.texts, "more may be missing than this test takes away"


def grows_again(ex: ForkPoolExecutor, gate: Gate) -> bool:
    """Two tasks are inside at once."""
    futures = [ex.submit(tasks.enter, gate, number) for number in range(2)]
    pids = {gate.wait_inside() for _ in futures}
    gate.open_for_all()
    return len(pids) == 2 and {future.result() for future in futures} == {0, 1}


@pytest.mark.parametrize("left", range(8))
def test_the_host_has_few_descriptors_for_a_second_worker(left: int, gate: Gate, second_gate: Gate) -> None:
    with Warnings() as warnings, ForkPoolExecutor(2) as ex:
        first = ex.submit(tasks.enter, gate, "first")
        pid = gate.wait_inside()
        with descriptors_left(left):
            rest = [ex.submit(tasks.pid) for _ in range(20)]
            rest[0].add_done_callback(lambda _: warnings.stop_waiting())
            warnings.wait()
            if warnings.texts:
                gate.release()
                assert {future.result() for future in rest} == {pid}
        gate.release()
        assert first.result() == "first"
        wait(rest)
        assert len(warnings.texts) <= 1
        assert grows_again(ex, second_gate)


def test_tasks_are_ended_and_judged_without_a_descriptor(gate: Gate, second_gate: Gate) -> None:
    """Crash, timeout, kill: none needs one, and the dead give back what a replacement needs."""
    with Warnings() as warnings, ForkPoolExecutor(3) as ex:
        crashing = ex.submit(tasks.enter_then, second_gate, tasks.kill_myself)
        second_gate.wait_inside()
        killed = ex.submit(tasks.enter, gate)
        slow = ex.options(timeout=0.1).submit(tasks.tell_then, gate, tasks.busy_in_python)
        gate.wait_inside()
        gate.wait_inside()
        with descriptors_left(0):
            second_gate.open_for_all()
            wait([crashing, slow])
            assert killed.kill()
            wait([killed])
            assert ex.submit(tasks.add, 1, 1).result() == 2
    assert warnings.texts == []
    assert type(crashing.exception()) is WorkerCrashedError
    assert type(slow.exception()) is TaskTimeoutError
    assert killed.cancelled()


def test_what_became_of_a_task_is_not_lost_when_nothing_can_be_imported(tmp_path: Path) -> None:
    """The classes of our errors are imported with the first of them: OSError was the task's error from then on."""
    script = run_script(
        tmp_path,
        """
        import os
        from concurrent.futures import wait
        from forkpool import ForkPoolExecutor
        from tests.support.shortage import descriptors_left

        with ForkPoolExecutor(1) as ex:
            future = ex.submit(os._exit, 3)
            wait([future])
        # Now nobody closes what was the dead worker's any more: there would be room for a file of the import.
        with descriptors_left(0):
            try:
                future.result()
            except Exception as error:
                mark("at first", type(error).__name__)
        mark("then", type(future.exception()).__name__)
        """,
    )
    assert script.lines[-2:] == ["MARK at first OSError", "MARK then WorkerCrashedError"]


def test_no_worker_at_all_for_too_long() -> None:
    with Warnings(), ForkPoolExecutor(1) as ex:
        with descriptors_left(6):
            future = ex.submit(tasks.add, 1, 1)
            wait([future])
        error = future.exception()
        assert type(error) is PoolBrokenError
        assert "Too many open files" in str(error)


@pytest.mark.parametrize("limit", [0, 4096])
def test_the_limit_on_files_is_named(limit: int, tmp_path: Path) -> None:
    """What processes share is memory that counts as a file: "File too large" alone says nothing to who wrote none."""
    script = run_script(
        tmp_path,
        f"""
        import resource
        from forkpool import ForkPoolExecutor

        resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, resource.RLIM_INFINITY))
        with ForkPoolExecutor(1) as ex:
            error = ex.submit(abs, -1).exception()
        mark(type(error).__name__, error)
        """,
    )
    assert "RLIMIT_FSIZE" in script.value("PoolBrokenError")
    assert "ulimit -f" in script.value("PoolBrokenError")


def test_the_fork_server_dies_when_the_host_has_no_descriptors(gate: Gate, second_gate: Gate) -> None:
    with Warnings() as warnings, ForkPoolExecutor(2) as ex:
        first = ex.submit(tasks.enter, gate)
        pid = gate.wait_inside()
        server = server_of(pid)
        with descriptors_left(0):
            os.kill(server, signal.SIGKILL)
            rest = [ex.submit(tasks.pid) for _ in range(20)]
            warnings.wait()
            gate.open_for_all()
            assert {future.result() for future in [*rest, first]} == {pid, None}
        assert grows_again(ex, second_gate)
    assert len(warnings.texts) == 1


def test_no_room_for_the_pidfd_of_a_new_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    # 1. the server is asked; 2. another thread takes the last descriptors; 3. the answer comes with a pidfd, which is lost.
    close_child_fds, taken = WorkerLink.close_child_fds, contextlib.ExitStack()

    def close_and_lose_the_rest(link: WorkerLink) -> None:
        close_child_fds(link)
        monkeypatch.undo()
        taken.enter_context(descriptors_left(0))

    monkeypatch.setattr(WorkerLink, "close_child_fds", close_and_lose_the_rest)
    with Warnings() as warnings, ForkPoolExecutor(1) as ex:
        with taken:
            future = ex.submit(tasks.add, 1, 1)
            warnings.wait()
        assert future.result() == 2
    assert len(warnings.texts) == 1


STEPS = [
    (_socket, "socketpair"),
    (os, "pidfd_open"),
    (os, "memfd_create"),
    (os, "lseek"),
    (os, "posix_spawn"),
    (os, "pidfd_open"),
]


@pytest.mark.parametrize("failing", range(len(STEPS)), ids=[name for _, name in STEPS])
def test_of_a_fork_server_that_cannot_be_started_nothing_is_left(failing: int, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    def attempt(name: str, call: Any, *args: Any, **more: Any) -> Any:
        if len(done) == failing:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        done.append(name)
        return call(*args, **more)

    for module, name in set(STEPS):
        monkeypatch.setattr(module, name, functools.partial(attempt, name, getattr(module, name)))
    snapshot, lines = take_snapshot(None), PoolLines()
    with pytest.raises(OSError, match="Too many"):
        ServerLink(interpreter_command(), snapshot, lines)
    monkeypatch.undo()
    lines.close()
    assert done == [name for _, name in STEPS[:failing]], "these are the steps"


# --- no room for another watch


@pytest.mark.parametrize(("room", "number"), [(0, errno.ENOMEM), (0, errno.ENOSPC), (1, errno.ENOSPC), (2, errno.ENOSPC)])
def test_no_worker_can_be_watched(
    room: int, number: int, monkeypatch: pytest.MonkeyPatch, gate: Gate, second_gate: Gate
) -> None:
    """It ended the supervisor, and all futures with it."""
    epoll = FullEpoll(monkeypatch, number)
    with Warnings() as warnings, ForkPoolExecutor(2) as ex:
        first = ex.submit(tasks.enter, gate)
        pid = gate.wait_inside()
        epoll.room = room
        rest = [ex.submit(tasks.pid) for _ in range(20)]
        warnings.wait()
        large = ex.submit(len, bytes(8 << 20))  # it is written piece by piece: what that needs was reserved
        gate.open_for_all()
        assert {future.result() for future in [*rest, first]} == {pid, None}
        assert large.result() == 8 << 20
        epoll.room = 100
        assert grows_again(ex, second_gate)
    assert len(warnings.texts) == 1
    assert os.strerror(number) in warnings.texts[0]


@pytest.mark.parametrize("room", range(3))
def test_neither_relay_nor_fork_server_can_be_watched_at_first(room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    epoll = FullEpoll(monkeypatch)
    epoll.room = room
    with Warnings() as warnings, ForkPoolExecutor(1) as ex:
        if room == 0:
            with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
                ex.submit(tasks.add, 1, 1)
            future = None
        else:
            future = ex.submit(tasks.add, 1, 1)
            warnings.wait()
        epoll.room = 100
        assert future is None or future.result() == 2
        assert ex.submit(tasks.add, 2, 2).result() == 4


# --- the fork server's own shortage


def server_of(pid: int) -> int:
    stat = processes.read_stat(pid)
    assert stat is not None
    return stat.parent


@pytest.mark.parametrize("left", range(9))
def test_the_fork_server_has_few_descriptors(left: int, gate: Gate, second_gate: Gate) -> None:
    with Warnings() as warnings, ForkPoolExecutor(2) as ex:
        first = ex.submit(tasks.enter, gate)
        pid = gate.wait_inside()
        with descriptors_left(left, server_of(pid)):
            rest = [ex.submit(tasks.pid) for _ in range(20)]
            rest[0].add_done_callback(lambda _: warnings.stop_waiting())
            warnings.wait()
            if warnings.texts:
                gate.release()
                assert {future.result() for future in rest} == {pid}
        gate.open_for_all()
        wait([first, *rest])
        assert grows_again(ex, second_gate)
    assert len(warnings.texts) <= 1


def test_the_fork_server_watches_more_than_it_may_open(gate: Gate) -> None:
    # poll(2) fails with EINVAL when it is to watch more than RLIMIT_NOFILE: the server ended, and all workers with it.
    with ForkPoolExecutor(3) as ex:
        futures = [ex.submit(tasks.enter, gate, number) for number in range(3)]
        pids = [gate.wait_inside() for _ in futures]
        with descriptors_left(0, server_of(pids[0])):
            os.kill(pids[0], signal.SIGKILL)
            wait(futures, return_when=FIRST_COMPLETED)
            gate.open_for_all()
            wait(futures)
        errors = [error for future in futures if (error := future.exception()) is not None]
        assert [(type(error), error.signal, error.pid) for error in errors] == [(WorkerCrashedError, "SIGKILL", pids[0])]


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.ENOMEM], ids=errno.errorcode.get)
def test_fork_fails(number: int, tmp_path: Path, gate: Gate, second_gate: Gate) -> None:
    forks = ForkFails(tmp_path, number)
    with Warnings() as warnings, ForkPoolExecutor(2, env=forks.env) as ex:
        first = ex.submit(tasks.enter, gate)
        pid = gate.wait_inside()
        forks.fail()
        rest = [ex.submit(tasks.pid) for _ in range(20)]
        warnings.wait()
        gate.open_for_all()
        assert {future.result() for future in [*rest, first]} == {pid, None}
        forks.work_again()
        assert grows_again(ex, second_gate)
    assert len(warnings.texts) == 1
    assert os.strerror(number) in warnings.texts[0]


def test_fork_never_works(tmp_path: Path) -> None:
    forks = ForkFails(tmp_path, errno.EAGAIN)
    forks.fail()
    with Warnings(), ForkPoolExecutor(1, env=forks.env) as ex:
        error = ex.submit(tasks.add, 1, 1).exception()
        assert type(error) is PoolBrokenError
        assert os.strerror(errno.EAGAIN) in str(error)


def test_a_new_worker_cannot_be_told_with_its_descriptor(
    write: Callable[[str, str], Path], tmp_path: Path, gate: Gate, second_gate: Gate
) -> None:
    """The fork server ended with a traceback, and took all running calls with it."""
    sends = SendFails(tmp_path, errno.ETOOMANYREFS, all_packets=False)
    write("crowded", sends.source)
    with Warnings() as warnings, ForkPoolExecutor(2, preload=["crowded"]) as ex:
        first = ex.submit(tasks.enter, gate)
        pid = gate.wait_inside()
        server = server_of(pid)
        sends.fail(server)
        rest = [ex.submit(tasks.pid) for _ in range(20)]
        warnings.wait()
        gate.open_for_all()
        assert {future.result() for future in [*rest, first]} == {pid, None}
        sends.work_again()
        assert grows_again(ex, second_gate)
        assert server_of(pid) == server
    assert len(warnings.texts) == 1
    assert os.strerror(errno.ETOOMANYREFS) in warnings.texts[0]


# --- no process for the fork server


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.ENOMEM], ids=errno.errorcode.get)
def test_the_fork_server_cannot_be_started(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    spawn, attempts = os.posix_spawn, iter(range(3))

    def failing(*args: Any, **more: Any) -> Any:
        if next(attempts, None) is not None:
            raise OSError(number, os.strerror(number))
        return spawn(*args, **more)

    monkeypatch.setattr(os, "posix_spawn", failing)
    with Warnings() as warnings, ForkPoolExecutor(1) as ex:
        assert ex.submit(tasks.add, 1, 1).result() == 2
    assert len(warnings.texts) == 1


def limit_address_space(size: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (size, resource.RLIM_INFINITY))


def test_a_call_for_which_a_worker_has_no_room(capfd: pytest.CaptureFixture[str]) -> None:
    """Its user has limited the worker's memory: the call gets the error, and the next one, which is smaller, has room."""
    with ForkPoolExecutor(1) as ex:
        pid = ex.submit(os.getpid).result()
        ex.submit(limit_address_space, 1 << 20).result()
        large, small = ex.submit(len, bytes(4 << 20)), ex.submit(os.getpid)
        error = large.exception()
        assert isinstance(error, MemoryError)
        assert int(str(error).partition(" bytes of this call")[0].split()[-1]) > 4 << 20
        assert small.result() == pid
        assert ex.submit(limit_address_space, resource.RLIM_INFINITY).result() is None
        assert ex.submit(len, bytes(4 << 20)).result() == 4 << 20
    assert capfd.readouterr().err == ""


def no_memory(*_: object) -> None:
    raise MemoryError


def fail_where_no_failure_can_be_described() -> None:
    from forkpool._shared import remote_exceptions

    remote_exceptions.describe = no_memory  # type: ignore[assignment]
    raise MemoryError


def test_a_worker_without_memory_to_describe_an_exception(capfd: pytest.CaptureFixture[str]) -> None:
    with ForkPoolExecutor(1) as ex:
        pid = ex.submit(os.getpid).result()
        error = ex.submit(fail_where_no_failure_can_be_described).exception()
        assert isinstance(error, MemoryError)
        assert "no memory left" in str(error)
        assert ex.submit(os.getpid).result() == pid
    assert capfd.readouterr().err == ""


def leave_no_memory_to_read() -> int:
    os.read = no_memory  # type: ignore[assignment]
    return os.getpid()


def test_a_worker_without_memory_to_read_a_call_is_replaced(capfd: pytest.CaptureFixture[str]) -> None:
    with ForkPoolExecutor(1) as ex:
        pid = ex.submit(leave_no_memory_to_read).result()
        assert ex.submit(os.getpid).result() != pid
    assert capfd.readouterr().err == f"forkpool worker {pid} leaves: no memory\n"


def test_a_program_that_sets_the_limit_of_descriptors_to_zero(gate: Gate) -> None:
    """poll(2) refused to look at a single one then, and the pool broke with the next death."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ForkPoolExecutor(1) as ex:
        future = ex.submit(tasks.enter_then, gate, tasks.leave, 3)
        gate.wait_inside()
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
        try:
            gate.release()
            wait([future])
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert type(future.exception()) is WorkerCrashedError
        assert future.exception().exitcode == 3
        assert ex.submit(tasks.add, 1, 1).result() == 2
