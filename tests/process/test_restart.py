"""`restart_workers()`: the next call runs in a worker that is like the host is now, and nothing is disturbed.

Runs in: pytest, with real workers.
"""

import contextlib
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import pytest

from forkpool import ForkPoolExecutor, WorkerCrashedError, diagnostics
from forkpool._host import servers as _servers
from tests.support import processes
from tests.support.gate import Gate
from tests.support.shortage import Warnings, descriptors_left, leave_descriptors

pytestmark = pytest.mark.slow


def servers(ex: ForkPoolExecutor) -> list[int]:
    return [process.pid for process in diagnostics.snapshot(ex).processes if process.role == "fork server"]


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A module that a worker imports, and that may be edited."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield tmp_path / "edited_module.py"
    sys.modules.pop("edited_module", None)


def of_today() -> str | None:
    return os.environ.get("OF_TODAY")


def version() -> int:
    import edited_module  # type: ignore[import-not-found]

    return int(edited_module.VERSION)


def test_the_environment_of_now(monkeypatch: pytest.MonkeyPatch) -> None:
    with ForkPoolExecutor(1) as ex:
        assert ex.submit(of_today).result() is None
        monkeypatch.setenv("OF_TODAY", "sun")
        assert ex.submit(of_today).result() is None, "one snapshot per pool"
        ex.restart_workers()
        assert ex.submit(of_today).result() == "sun"
        assert ex.statistics().workers_replaced == {"restart_workers": 1}


@pytest.mark.parametrize("preload", [(), ("edited_module",)], ids=["imported by the task", "preloaded"])
def test_edited_modules(module: Path, preload: tuple[str, ...]) -> None:
    module.write_text("VERSION = 1")
    with ForkPoolExecutor(1, preload=preload) as ex:
        assert ex.submit(version).result() == 1
        module.write_text("VERSION = 2")
        assert ex.submit(version).result() == 1
        ex.restart_workers()
        assert ex.submit(version).result() == 2


def test_a_call_that_runs_is_not_disturbed_and_no_other_joins_it(gate: Gate) -> None:
    with ForkPoolExecutor(2) as ex:
        running = ex.submit(gate.enter)
        old = gate.wait_inside()
        before = servers(ex)
        ex.restart_workers()
        assert len(servers(ex)) == 2, "the old one reaps the worker that still runs"
        pids = {future.result() for future in [ex.submit(os.getpid) for _ in range(20)]}
        assert old not in pids
        gate.release()
        running.result()
        processes.wait_exit(before[0])
        assert before[0] not in servers(ex)


def test_the_old_server_killed_while_its_last_worker_runs(gate: Gate) -> None:
    with ForkPoolExecutor(1) as ex:
        running = ex.submit(gate.enter)
        gate.wait_inside()
        [old] = servers(ex)
        ex.restart_workers()
        os.kill(old, signal.SIGKILL)
        processes.wait_exit(old)
        gate.release()
        running.result()
        assert ex.submit(abs, -1).result() == 1


def test_a_preload_that_fails_leaves_the_pool_as_it_was(module: Path) -> None:
    module.write_text("VERSION = 1")
    with ForkPoolExecutor(1, preload=("edited_module",)) as ex:
        pid = ex.submit(os.getpid).result()
        module.write_text("raise ValueError('edited badly')")
        with pytest.raises(ValueError, match="edited badly"):
            ex.restart_workers()
        assert ex.submit(os.getpid).result() == pid
        assert len(servers(ex)) == 1
        module.write_text("VERSION = 3")
        ex.restart_workers()
        assert ex.submit(version).result() == 3


@pytest.mark.parametrize("lacking", ["server", "host"])
def test_the_old_server_refuses_the_last_worker_that_it_was_asked_for(lacking: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is closed with that, and was read on: "Bad file descriptor" ended the supervisor, and all calls with it."""
    monkeypatch.setattr(_servers, "SERVER_PATIENCE_S", 60.0)  # else it is killed if the new one is slow to start
    with Warnings() as warnings, ForkPoolExecutor(1) as ex, contextlib.ExitStack() as taken:
        assert isinstance(ex.submit(os._exit, 3).exception(), WorkerCrashedError)  # no worker is left, and nobody waits
        [old] = servers(ex)
        os.kill(old, signal.SIGSTOP)
        processes.wait_state(old, "T")
        future = ex.submit(os.getppid)  # asks for a worker, and no step later than the wish to restart is seen to
        ex.restart_workers()
        if lacking == "server":
            leave_descriptors(0, old)
        else:
            taken.enter_context(descriptors_left(0))  # the answer comes without the worker's pidfd
        os.kill(old, signal.SIGCONT)
        warnings.wait()
        taken.close()
        assert future.result() != old
        processes.wait_exit(old)
        assert ex.submit(abs, -1).result() == 1


@pytest.fixture
def stop_servers(monkeypatch: pytest.MonkeyPatch) -> Callable[[], queue.SimpleQueue[int]]:
    """Call it: from then on each fork server that starts is stopped before it is ready, and its pid is put into the queue."""
    told: queue.SimpleQueue[int] = queue.SimpleQueue()
    spawn = os.posix_spawn

    def spawn_and_stop(*args: Any, **more: Any) -> int:
        pid = spawn(*args, **more)
        os.kill(pid, signal.SIGSTOP)
        processes.wait_state(pid, "T")
        told.put(pid)
        return pid

    def stop() -> queue.SimpleQueue[int]:
        monkeypatch.setattr(os, "posix_spawn", spawn_and_stop)
        return told

    return stop


def test_a_server_that_is_stopped_before_it_is_ready_leaves_the_pool_as_it_was(
    stop_servers: Callable[[], queue.SimpleQueue[int]],
) -> None:
    """`restart_workers()` waited for it without end."""
    with ForkPoolExecutor(1) as ex, ThreadPoolExecutor(1) as threads:
        pid = ex.submit(os.getpid).result()
        stopped = stop_servers()
        restarted = threads.submit(ex.restart_workers)
        stopped.get()
        with pytest.raises(RuntimeError, match=r"stopped by a signal, so forkpool killed it. The pool goes on as it was\.$"):
            restarted.result()
        assert ex.submit(os.getpid).result() == pid


def test_a_shutdown_ends_the_wait_and_does_not_say_that_the_pool_goes_on(
    stop_servers: Callable[[], queue.SimpleQueue[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_servers, "SERVER_PATIENCE_S", 1000.0)
    with ThreadPoolExecutor(1) as threads:
        ex = ForkPoolExecutor(1)
        ex.submit(os.getpid).result()
        stopped = stop_servers()
        restarted = threads.submit(ex.restart_workers)
        stopped.get()
        ex.shutdown()
        with pytest.raises(RuntimeError, match=r"the pool was shut down meanwhile\.$"):
            restarted.result()


def test_in_a_storm_nothing_is_lost_or_run_twice(tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()

    def mark(number: int) -> int:
        (marks / str(number)).touch(exist_ok=False)
        return number

    with ForkPoolExecutor(2) as ex:
        futures = []
        for number in range(200):
            futures.append(ex.submit(mark, number))
            if number % 50 == 25:
                ex.restart_workers()
            if number % 40 == 20:
                ex.recycle_workers()
        assert [future.result() for future in futures] == list(range(200))


def test_from_several_threads_at_once() -> None:
    with ForkPoolExecutor(2) as ex:
        ex.submit(abs, -1).result()
        threads = [threading.Thread(target=ex.restart_workers) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert ex.submit(abs, -2).result() == 2
        assert len(servers(ex)) == 1


def test_before_the_first_call_and_after_the_last() -> None:
    ex = ForkPoolExecutor(1)
    ex.restart_workers()
    ex.recycle_workers()
    assert diagnostics.snapshot(ex).processes == ()
    assert ex.submit(abs, -1).result() == 1
    ex.shutdown()
    ex.recycle_workers()
    with pytest.raises(RuntimeError, match="after shutdown"):
        ex.restart_workers()


def test_shutdown_while_the_new_server_preloads(module: Path, tmp_path: Path) -> None:
    gate = Gate(tmp_path, "import")
    try:
        module.write_text("VERSION = 1")
        ex = ForkPoolExecutor(1, preload=("edited_module",))
        assert ex.submit(version).result() == 1
        module.write_text(f"open({gate.inside_path!r}, 'w').write('%16d' % 1)\nopen({gate.go_path!r}).read(1)\n")
        raised: list[BaseException] = []

        def restart() -> None:
            try:
                ex.restart_workers()
            except RuntimeError as error:
                raised.append(error)

        thread = threading.Thread(target=restart)
        thread.start()
        gate.wait_inside()
        ex.shutdown()
        thread.join()
        assert "shut down meanwhile" in str(raised[0])
    finally:
        gate.close()


def test_restart_in_a_done_callback() -> None:
    with ForkPoolExecutor(1) as ex:
        done = threading.Event()
        first = ex.submit(os.getpid)
        first.add_done_callback(lambda _: (ex.restart_workers(), done.set()))
        done.wait()
        assert ex.submit(os.getpid).result() != first.result()
        wait([first])
