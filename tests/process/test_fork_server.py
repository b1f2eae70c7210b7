"""Row "fork server killed": nothing is noticed, whatever the pool was doing."""

import errno
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import pytest

from forkpool import ForkPoolExecutor, WorkerCrashedError
from forkpool._host import servers
from forkpool._host.server_link import ServerLink
from tests.support import processes, tasks
from tests.support.gate import Gate, Marks
from tests.support.shortage import SendFails


def kill_server_of(pid: int) -> int:
    """Kill the fork server of this worker; its pid."""
    stat = processes.read_stat(pid)
    assert stat is not None
    os.kill(stat.parent, signal.SIGKILL)
    processes.wait_exit(stat.parent)
    return stat.parent


def servers_of_this_process() -> set[int]:
    """Children that lead a session of their own; the resource tracker does not."""
    stats = map(processes.read_stat, processes.children())
    return {stat.pid for stat in stats if stat is not None and stat.session == stat.pid and stat.state != "Z"}


def test_killed_while_idle() -> None:
    with ForkPoolExecutor(1) as ex:
        pid = ex.submit(tasks.pid).result()
        kill_server_of(pid)
        assert [ex.submit(tasks.add, n, n).result() for n in range(10)] == [2 * n for n in range(10)]
        assert ex.submit(tasks.pid).result() == pid


def test_killed_while_a_task_runs(gate: Gate, marks: Marks) -> None:
    with ForkPoolExecutor(2) as ex:
        running = [ex.submit(tasks.enter, gate, number) for number in range(2)]
        pids = [gate.wait_inside() for _ in running]
        waiting = [ex.submit(tasks.leave_mark, marks, str(number)) for number in range(10)]
        kill_server_of(pids[0])
        gate.open_for_all()
        assert [future.result() for future in running] == [0, 1]
        assert [future.result() for future in waiting] == [str(number) for number in range(10)]
    assert sorted(marks.words()) == [str(number) for number in range(10)]


def test_it_fails_by_itself_while_a_task_runs(
    write: Callable[[str, str], Path], tmp_path: Path, gate: Gate, capfd: pytest.CaptureFixture[str]
) -> None:
    """It killed all workers as it ended: each call that ran was blamed for a crash."""
    sends = SendFails(tmp_path, errno.ENOBUFS, all_packets=True)
    write("without_memory", sends.source)
    with ForkPoolExecutor(2, preload=["without_memory"]) as ex:
        first = ex.submit(tasks.enter_then, gate, os.getpid)
        pid = gate.wait_inside()
        stat = processes.read_stat(pid)
        assert stat is not None
        sends.fail(stat.parent)
        second = ex.submit(tasks.enter_then, gate, os.getppid)
        gate.wait_inside()
        processes.wait_exit(stat.parent)
        gate.open_for_all()
        assert first.result() == pid
        assert second.result() != stat.parent
    assert os.strerror(errno.ENOBUFS) in capfd.readouterr().err


def test_a_new_one_comes_when_a_fork_is_needed(gate: Gate) -> None:
    with ForkPoolExecutor(2) as ex:
        first = ex.submit(tasks.enter, gate, "first")
        old = kill_server_of(gate.wait_inside())
        second = ex.submit(tasks.enter, gate, "second")
        stat = processes.read_stat(gate.wait_inside())
        assert stat is not None
        assert stat.parent != old
        gate.open_for_all()
        assert [first.result(), second.result()] == ["first", "second"]


def test_killed_while_it_was_to_fork(gate: Gate, caplog: pytest.LogCaptureFixture) -> None:
    with ForkPoolExecutor(3) as ex:
        first = ex.submit(tasks.enter, gate, "first")
        stat = processes.read_stat(gate.wait_inside())
        assert stat is not None
        os.kill(stat.parent, signal.SIGSTOP)
        processes.wait_state(stat.parent, "T")
        others = [ex.submit(tasks.enter, gate, "other") for _ in range(2)]
        ex.statistics()  # answered when the server was asked for two workers
        os.kill(stat.parent, signal.SIGKILL)
        for _ in others:
            gate.wait_inside()
        gate.open_for_all()
        assert [first.result(), *(other.result() for other in others)] == ["first", "other", "other"]
    (record,) = caplog.records
    assert "a worker could not be started (the fork server was killed); trying again" in record.getMessage()


@pytest.mark.parametrize("how", ["SIGKILL", "exit"])
def test_crash_after_the_server_was_killed(how: str, gate: Gate) -> None:
    """The exit status went with the server, unless the kernel kept it."""
    with ForkPoolExecutor(1) as ex:
        future = ex.submit(tasks.enter_then, gate, tasks.leave, 3)
        pid = gate.wait_inside()
        kill_server_of(pid)
        if how == "SIGKILL":
            os.kill(pid, signal.SIGKILL)
        gate.open_for_all()
        error = future.exception()
        assert type(error) is WorkerCrashedError, repr(error)
        assert error.pid == pid
        assert error.exitcode in (None, -9 if how == "SIGKILL" else 3)
        assert ex.submit(tasks.add, 1, 1).result() == 2


def test_crash_at_the_very_moment(gate: Gate) -> None:
    with ForkPoolExecutor(1) as ex:
        for _ in range(10):
            future = ex.submit(tasks.enter, gate)
            pid = gate.wait_inside()
            stat = processes.read_stat(pid)
            assert stat is not None
            os.kill(pid, signal.SIGKILL)
            os.kill(stat.parent, signal.SIGKILL)
            error = future.exception()
            assert type(error) is WorkerCrashedError, repr(error)
            assert error.exitcode in (None, -signal.SIGKILL)
            assert ex.submit(tasks.add, 1, 1).result() == 2


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT])
def test_other_signals_to_the_server(signum: int) -> None:
    with ForkPoolExecutor(1) as ex:
        server = ex.submit(os.getppid).result()
        os.kill(server, signum)
        assert [ex.submit(tasks.add, n, n).result() for n in range(10)] == [2 * n for n in range(10)]
        assert type(ex.submit(tasks.leave, 3).exception()) is WorkerCrashedError
        assert ex.submit(tasks.add, 1, 1).result() == 2


def test_killed_between_the_submits_of_a_storm(marks: Marks) -> None:
    words = [str(number) for number in range(300)]
    killed = 0
    with ForkPoolExecutor(2, max_tasks_per_child=20) as ex:
        futures = []
        for number, word in enumerate(words):
            futures.append(ex.submit(tasks.leave_mark, marks, word))
            if number % 60 == 30:
                assert ex.submit(tasks.add, 1, 1).result() == 2
                # Not by asking a worker for its parent: it may have left after this task, or be an orphan already.
                for server in servers_of_this_process():
                    os.kill(server, signal.SIGKILL)
                    processes.wait_exit(server)
                    killed += 1
        assert killed >= 2
        assert [future.result() for future in futures] == words
    assert sorted(marks.words()) == sorted(words)


def test_kill_of_a_task_after_the_server_was_killed(gate: Gate) -> None:
    with ForkPoolExecutor(1) as ex:
        future = ex.submit(tasks.start_child, gate)
        child = gate.wait_inside()
        stat = processes.read_stat(child)
        assert stat is not None
        kill_server_of(stat.parent)
        assert future.kill()
        assert wait([future]).done == {future}
        assert future.cancelled()
        processes.wait_exit(child)
        assert ex.submit(tasks.add, 1, 1).result() == 2


def test_shutdown_after_the_server_was_killed(gate: Gate) -> None:
    with ForkPoolExecutor(2) as ex:
        running = [ex.submit(tasks.enter, gate) for _ in range(2)]
        pids = [gate.wait_inside() for _ in running]
        server = kill_server_of(pids[0])
        gate.open_for_all()
    for pid in [*pids, server]:
        assert processes.has_ended(pid)


def test_stopped_server_delays_no_task() -> None:
    with ForkPoolExecutor(1) as ex:
        server = ex.submit(os.getppid).result()
        os.kill(server, signal.SIGSTOP)
        try:
            assert [ex.submit(tasks.add, n, n).result() for n in range(10)] == [2 * n for n in range(10)]
        finally:
            os.kill(server, signal.SIGCONT)


def stop_and_go(_: Any = None) -> int:
    return os.getppid()


def test_each_pool_has_its_own_server() -> None:
    with ForkPoolExecutor(1) as one, ForkPoolExecutor(1) as two:
        first, second = one.submit(stop_and_go).result(), two.submit(stop_and_go).result()
        assert first != second
        os.kill(first, signal.SIGKILL)
        assert two.submit(stop_and_go).result() == second
        assert one.submit(tasks.add, 1, 1).result() == 2


def test_another_thread_forks_while_the_fork_server_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    # Its child has whatever is open at that moment, and lives on: nothing may wait for it.
    spawn, children = os.posix_spawn, []

    def fork_first(*args: Any, **more: Any) -> int:
        pid = os.fork()
        if pid == 0:
            signal.pause()
        children.append(pid)
        return spawn(*args, **more)

    monkeypatch.setattr(os, "posix_spawn", fork_first)
    try:
        with ForkPoolExecutor(1) as ex:
            assert ex.submit(tasks.add, 1, 1).result() == 2
    finally:
        for pid in children:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    assert len(children) == 1


def test_the_fork_server_gets_none_of_our_descriptors() -> None:
    read_fd, write_fd = os.pipe()
    os.set_inheritable(write_fd, True)
    try:
        with ForkPoolExecutor(1) as ex:
            assert not ex.submit(os.path.exists, f"/proc/self/fd/{write_fd}").result() or (
                ex.submit(os.readlink, f"/proc/self/fd/{write_fd}").result() != os.readlink(f"/proc/self/fd/{write_fd}")
            )
        os.close(write_fd)
        write_fd = -1
        assert os.read(read_fd, 1) == b"", "somebody has it still"
    finally:
        for fd in (read_fd, write_fd):
            if fd >= 0:
                os.close(fd)


def test_stopped_when_the_first_worker_of_a_slot_is_to_be_forked(gate: Gate) -> None:
    """It holds the request for as long as it is stopped: the other worker goes on, and the second comes from a new server."""
    with ForkPoolExecutor(2) as ex:
        first = ex.submit(tasks.enter, gate, "first")
        stat = processes.read_stat(gate.wait_inside())
        assert stat is not None
        os.kill(stat.parent, signal.SIGSTOP)
        processes.wait_state(stat.parent, "T")
        second = ex.submit(tasks.enter, gate, "second")
        other = processes.read_stat(gate.wait_inside())
        assert other is not None
        assert other.parent != stat.parent
        gate.open_for_all()
        assert [first.result(), second.result()] == ["first", "second"]


# --- stopped before it is ready


STOPPED = "the fork server was stopped by a signal, so forkpool killed it"


@pytest.fixture
def stop_the_next_server(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Call it: the fork server that is started next is stopped before it runs a line of Python."""
    spawn = os.posix_spawn
    to_be_stopped: list[bool] = []

    def spawn_and_stop(*args: Any, **more: Any) -> int:
        pid = spawn(*args, **more)
        if to_be_stopped and to_be_stopped.pop():
            os.kill(pid, signal.SIGSTOP)
            processes.wait_state(pid, "T")
        return pid

    monkeypatch.setattr(os, "posix_spawn", spawn_and_stop)
    return lambda: to_be_stopped.append(True)


def test_stopped_as_the_first_one_starts(stop_the_next_server: Callable[[], None], caplog: pytest.LogCaptureFixture) -> None:
    """It was waited for without end, by the future and by the shutdown."""
    stop_the_next_server()
    with ForkPoolExecutor(1) as ex:
        future = ex.submit(tasks.add, 1, 1)
    assert future.result() == 2
    (record,) = caplog.records
    assert STOPPED in record.getMessage()


def test_stopped_as_it_takes_the_place_of_one_that_was_killed(stop_the_next_server: Callable[[], None]) -> None:
    with ForkPoolExecutor(1, max_tasks_per_child=1) as ex:
        server = ex.submit(os.getppid).result()
        stop_the_next_server()
        os.kill(server, signal.SIGKILL)
        assert [ex.submit(tasks.add, n, n).result() for n in range(5)] == [2 * n for n in range(5)]


def test_stopped_while_it_preloads(write: Callable[[str, str], Path], marks: Marks) -> None:
    """The first submit waits for it."""
    write(
        "stops_once",
        f"""
        import os, signal
        from tests.support.gate import Marks

        marks = Marks({marks.path!r})
        if not marks.words():
            marks.add("stopped")
            os.kill(os.getpid(), signal.SIGSTOP)
        """,
    )
    with ForkPoolExecutor(1, preload=("stops_once",)) as ex:
        assert ex.submit(tasks.add, 1, 1).result() == 2
    assert marks.words() == ["stopped"]


def test_one_that_takes_long_to_be_ready_is_left_alone(
    write: Callable[[str, str], Path], gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = threading.Semaphore(0)
    look = ServerLink.kill_if_stopped

    def look_and_tell(server: ServerLink) -> bool:
        looks.release()
        return look(server)

    monkeypatch.setattr(ServerLink, "kill_if_stopped", look_and_tell)
    monkeypatch.setattr(servers, "SERVER_PATIENCE_S", 0.01)
    inside = f"GateInTask({gate.inside_path!r}, {gate.go_path!r}).enter()"
    write("takes_long", f"from tests.support.gate import GateInTask\n{inside}\n")
    with ForkPoolExecutor(1, preload=("takes_long",)) as ex, ThreadPoolExecutor(1) as threads:
        first = threads.submit(lambda: ex.submit(os.getppid).result())
        server = gate.wait_inside()
        for _ in range(5):
            looks.acquire()
        gate.release()
        assert first.result() == server


def test_a_ready_one_that_was_stopped_is_not_said_to_have_been_killed_by_others(caplog: pytest.LogCaptureFixture) -> None:
    with ForkPoolExecutor(2, max_tasks_per_child=1) as ex:
        server = ex.submit(os.getppid).result()
        os.kill(server, signal.SIGSTOP)
        processes.wait_state(server, "T")
        assert [ex.submit(tasks.add, n, n).result() for n in range(5)] == [2 * n for n in range(5)]
    for record in caplog.records:
        assert STOPPED in record.getMessage()
