"""What a pool says it holds, against what the kernel says, and what is left of it."""

import os
import signal
import threading
import weakref
from multiprocessing.shared_memory import SharedMemory

import pytest

from forkpool import ForkPoolExecutor, diagnostics
from forkpool.diagnostics import PoolSnapshot, leftovers, snapshot
from tests.support import processes, tasks
from tests.support.gate import Gate, GateInTask
from tests.support.leaks import open_fds


def states(snap: PoolSnapshot) -> list[tuple[str, str, int | None]]:
    return [(task.name, task.state, task.slot) for task in snap.tasks]


def test_a_pool_that_was_never_used_holds_nothing() -> None:
    with ForkPoolExecutor(2) as ex:
        assert snapshot(ex) == PoolSnapshot()
        ex.submit(tasks.pid).result()
        assert snapshot(ex) != PoolSnapshot()
    assert snapshot(ex) == PoolSnapshot()


def test_tasks_are_in_it_from_submit_until_they_are_done(gate: Gate) -> None:
    with ForkPoolExecutor(1) as ex:
        running = ex.options(name="first").submit(tasks.enter, gate)
        waiting = ex.submit(tasks.pid)
        cancelled = ex.submit(tasks.add, 1, 1)
        pid = gate.wait_inside()
        cancelled.cancel()
        snap = snapshot(ex.options(name="a view"))
        assert states(snap) == [("first", "running", 0), ("pid", "waiting", None)]
        assert [task.future for task in snap.tasks] == [running, waiting]
        assert (snap.tasks[0].pid, snap.tasks[1].pid) == (pid, None)
        assert snap.tasks[0].seconds > 0.0 == snap.tasks[1].seconds
        gate.open_for_all()
        waiting.result()
        assert states(snapshot(ex)) == []


def test_no_task_slips_through_between_submit_and_worker() -> None:
    """It is looked at in the middle of everything; each task that is not done then is in it, once."""
    with ForkPoolExecutor(2) as ex:
        futures = []
        for _ in range(300):
            futures += [ex.submit(tasks.add, 1, 1), ex.submit(tasks.add, 2, 2)]
            seen = [task.future for task in snapshot(ex).tasks]
            assert len(seen) == len(set(seen))
            assert {future for future in futures if not future.done()} <= set(seen)


def test_a_task_that_is_being_killed_is_ending(gate: Gate) -> None:
    with ForkPoolExecutor(1) as ex:
        future = ex.submit(tasks.enter, gate)
        gate.wait_inside()
        (server,) = processes_of(ex, "fork server")
        os.kill(server, signal.SIGSTOP)  # it cannot tell of the death, for which the pool waits
        future.kill()
        assert states(snapshot(ex)) == [("enter", "ending", 0)]
        os.kill(server, signal.SIGCONT)


def processes_of(ex: ForkPoolExecutor, role: str) -> list[int]:
    return [one.pid for one in snapshot(ex).processes if one.role == role]


def start_a_program(gate: GateInTask, own_session: bool) -> int:
    import subprocess

    child = subprocess.Popen(["sleep", "1000"], start_new_session=own_session)
    gate.enter()
    return child.pid


def test_processes_threads_and_descriptors(gate: Gate) -> None:
    threads, fds = set(threading.enumerate()), open_fds()
    with ForkPoolExecutor(2) as ex:
        future = ex.submit(start_a_program, gate, False)
        future.add_done_callback(lambda _: None)
        worker = gate.wait_inside()
        (child,) = processes.children(worker)
        snap = snapshot(ex)
        (server,) = processes_of(ex, "fork server")
        assert server in processes.children()
        assert processes_of(ex, "worker") == [worker]
        assert processes_of(ex, "descendant") == [child]
        assert {(one.role, one.slot) for one in snap.processes} == {("fork server", None), ("worker", 0), ("descendant", 0)}
        assert set(snap.threads) == set(threading.enumerate()) - threads
        here = {fd for fd, target in open_fds().items() if fds.get(fd) != target and "/memfd:" not in target}
        assert {one.fd for one in snap.descriptors} == here  # but for what maps the status pages
        gate.open_for_all()
        assert leftovers(snap, patience=0)
    assert leftovers(snap) == []


def make_shared_memory() -> str:
    memory = SharedMemory(create=True, size=100)
    memory.close()
    return memory.name


def test_what_tasks_leave_behind_is_named(gate: Gate) -> None:
    with ForkPoolExecutor(1) as ex:
        name = ex.submit(make_shared_memory).result()
        program = ex.submit(start_a_program, gate, True)
        gate.wait_inside()
        gate.open_for_all()
        pid = program.result()
        snap = snapshot(ex)
        assert snap.shared_memory == (f"/{name}",)
    try:
        assert leftovers(snap, patience=0) == [
            f"process 'sleep' (pid {pid}): a task on slot 0 started it",
            f"shared memory '/{name}': a task made it, nobody has unlinked it",
        ]
    finally:
        os.kill(pid, 9)
        processes.wait_exit(pid)
        memory = SharedMemory(name)
        memory.close()
        memory.unlink()
    assert leftovers(snap) == []


def test_shared_memory_that_was_unlinked_is_not_held() -> None:
    with ForkPoolExecutor(1) as ex:
        memory = SharedMemory(ex.submit(make_shared_memory).result())
        assert len(snapshot(ex).shared_memory) == 1
        memory.close()
        memory.unlink()
        assert snapshot(ex).shared_memory == ()


def test_looking_from_threads_callbacks_and_while_it_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forkpool._host.pool._LOOK_S", 1000.0)  # who waits in vain for an answer hangs
    seen: list[PoolSnapshot] = []
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            seen.append(snapshot(ex))

    with ForkPoolExecutor(2) as ex:
        threads = [threading.Thread(target=look) for _ in range(3)]
        for thread in threads:
            thread.start()
        for future in [ex.submit(tasks.pid) for _ in range(50)]:
            future.result()
        future.add_done_callback(lambda _: seen.append(snapshot(ex)))
    stop.set()
    for thread in threads:
        thread.join()
    assert len(seen) > 3
    assert snapshot(ex) == PoolSnapshot()


def test_in_a_fork_of_the_host_it_refuses() -> None:
    with ForkPoolExecutor(1) as ex:
        ex.submit(tasks.pid).result()
        pid = os.fork()
        if not pid:
            status = 1
            try:
                snapshot(ex)
            except RuntimeError:
                status = 0
            finally:
                os._exit(status)
        assert os.waitpid(pid, 0)[1] == 0


def test_the_public_names_are_documented_ones() -> None:
    assert set(diagnostics.__all__) == {
        "DescriptorSnapshot", "Ledger", "PoolSnapshot", "ProcessSnapshot", "TaskSnapshot", "leftovers", "snapshot"
    }  # fmt: skip


def test_a_ledger_remembers_pools_that_are_gone() -> None:
    ledger = diagnostics.Ledger()
    try:
        ForkPoolExecutor(1)  # never used
        for n in range(3):
            with ForkPoolExecutor(1) as ex:
                for _ in range(n):
                    ex.submit(abs, -1).result()
        del ex
        with ForkPoolExecutor(1) as ex:
            ex.submit(divmod, 1, 0).exception()
            assert ledger.made == 5
            assert [(one.done, one.failed) for one in ledger.statistics()] == [(1, 0), (2, 0), (0, 1)]
        assert len(ledger.statistics()) == 3
        assert ledger._live == {}
    finally:
        ledger.close()
    ForkPoolExecutor(1)
    assert ledger.made == 5


def test_a_ledger_keeps_no_executor_alive() -> None:
    ledger = diagnostics.Ledger()
    try:
        ex = ForkPoolExecutor(1)
        future = ex.submit(abs, -1)
        gone = weakref.ref(ex)
        del ex
        assert gone() is None
        assert future.result() == 1
        while ledger.statistics()[0].done != 1 or ledger._live:  # closed by the finalizer; the alarm bounds it
            os.sched_yield()
    finally:
        ledger.close()


def test_a_ledger_is_told_of_pools_in_forks() -> None:
    reader, writer = os.pipe()
    ledger = diagnostics.Ledger(lambda: os.write(writer, b"made"))
    try:
        pid = os.fork()
        if pid == 0:
            try:
                ForkPoolExecutor(1)
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
        assert os.read(reader, 10) == b"made"
        assert ledger.made == 0
    finally:
        ledger.close()
        os.close(reader)
        os.close(writer)
