"""What programs do with `executor._processes`: look at the workers, end one, wait for one.

Row "a worker is killed from outside" holds for those that are ended here.
"""

import atexit
import os
import signal
import threading
from collections.abc import Callable

import pytest

from forkpool import ForkPoolExecutor, WorkerCrashedError
from tests.support import processes, tasks
from tests.support.gate import Gate
from tests.support.growing import at_each_collection
from tests.support.script import Script


@pytest.mark.parametrize(("method", "number"), [("terminate", signal.SIGTERM), ("kill", signal.SIGKILL)])
def test_one_is_ended_and_another_takes_its_slot(gate: Gate, method: str, number: int) -> None:
    with ForkPoolExecutor(1) as ex:
        future = ex.submit(tasks.enter, gate)
        pid = gate.wait_inside()
        (worker,) = ex._processes.values()
        assert (worker.pid, worker.ident, worker.name, worker.exitcode) == (pid, pid, "ForkPoolWorker-0", None)
        assert worker.is_alive()
        getattr(worker, method)()
        worker.join()
        assert (worker.is_alive(), worker.exitcode) == (False, -number)
        error = future.exception()
        assert isinstance(error, WorkerCrashedError)
        assert (error.pid, error.signal) == (pid, signal.Signals(number).name)
        assert ex.submit(os.getpid).result() != pid


def test_one_that_has_ended_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its number may be that of another process by now."""
    sent: list[object] = []
    with ForkPoolExecutor(1) as ex:
        first = ex.submit(os.getpid).result()
        worker = ex._processes[first]
        ex.submit(os._exit, 3).exception()
        worker.join()
        assert worker.exitcode == 3
        monkeypatch.setattr("forkpool._host.worker_link.send_signal", lambda *arguments: sent.append(arguments))
        worker.terminate()
        worker.kill()
        ex.statistics()  # asked after the signals, and answered after them
        assert not sent
        monkeypatch.undo()
    worker.terminate()
    worker.kill()
    worker.join()
    assert (worker.is_alive(), worker.exitcode) == (False, 3)


def linger(gate: Gate) -> int:
    """Have the worker stay a while when it leaves."""
    atexit.register(tasks.enter, gate)
    return os.getpid()


def test_one_that_leaves_is_not_listed_beside_the_one_in_its_slot(gate: Gate) -> None:
    with ForkPoolExecutor(1, max_tasks_per_child=1) as ex:
        assert ex.submit(linger, gate).result() == gate.wait_inside()
        heir = ex.submit(tasks.enter, gate)
        pids = {gate.wait_inside()}
        assert set(ex._processes) == pids
        gate.open_for_all()
        heir.result()


def test_who_waits_is_told_and_who_waits_no_longer_is_forgotten(gate: Gate) -> None:
    with ForkPoolExecutor(1) as ex:
        ex.submit(tasks.enter, gate)
        pid = gate.wait_inside()
        (worker,) = ex._processes.values()
        worker.join(0)
        worker.join(timeout=0.001)
        assert worker.is_alive()
        assert worker._link.waiters == []
        threads = [threading.Thread(target=worker.join) for _ in range(3)]
        for thread in threads:
            thread.start()
        gate.release()
        ex.shutdown()
        for thread in threads:
            thread.join()
    assert worker.exitcode == 0
    processes.wait_exit(pid)


def test_ending_each_does_not_end_the_pool(gate: Gate) -> None:
    """`kill_workers` does."""
    with ForkPoolExecutor(2) as ex:
        running = [ex.submit(tasks.enter, gate) for _ in range(2)]
        pids = {gate.wait_inside() for _ in running}
        queued = [ex.submit(os.getpid) for _ in range(4)]
        for worker in ex._processes.values():
            worker.terminate()
        assert {future.exception().pid for future in running} == pids  # type: ignore[union-attr]
        assert pids.isdisjoint(future.result() for future in queued)


def test_in_a_fork_of_the_host(start: Callable[..., Script]) -> None:
    script = start("""
import forkpool
ex = forkpool.ForkPoolExecutor(1)
pid = ex.submit(os.getpid).result()
worker = ex._processes[pid]
if os.fork() == 0:
    for use in (worker.is_alive, worker.terminate, worker.kill, worker.join):
        try:
            use()
        except RuntimeError as error:
            mark("refused", f"process {os.getppid()}," in str(error))
    os._exit(0)
os.wait()
mark("alive", worker.is_alive())
""").finish()
    assert script.all("refused") == ["True"] * 4
    assert script.value("alive") == "True"


def test_workers_that_come_and_go_while_somebody_asks() -> None:
    with ForkPoolExecutor(1) as ex:
        pid = ex.submit(os.getpid).result()
        # By no public way: that a worker comes just between two steps of one loop cannot be had from outside.
        links = ex._pool._claim["supervisor"]._crew.links  # type: ignore[attr-defined]
        (link,) = links.values()
        more = iter(range(1000, 1_000_000))
        came: list[int] = []

        def come() -> None:
            came.append(next(more))
            links[came[-1]] = link

        try:
            with at_each_collection(come):
                asked = [list(ex._processes) for _ in range(20)]
        finally:
            for generation in came:
                del links[generation]
        assert asked == [[pid]] * 20
