"""Workers on CPUs of their own: real processes on the CPUs that this machine has.

Runs in: pytest and workers. Each test has claims of its own, so pools of other programs do not play a part.
tests/unit/test_placement.py has machines of other shapes.
"""

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from forkpool import ForkPoolExecutor, Placement, WorkerCrashedError
from forkpool._core.placement import Machine
from forkpool._host import pinning
from forkpool._host.cpu_claims import CpuClaims
from forkpool._host.topology import affinity_mask, read_machine
from tests.support import processes, tasks
from tests.support.gate import Gate
from tests.support.script import Script

Start = Callable[..., Script]
pytestmark = pytest.mark.usefixtures("own_claims")

MASK = sorted(os.sched_getaffinity(0))
ALL = len(MASK)
on_two_cpus = pytest.mark.skipif(ALL < 2, reason="needs two CPUs")


def mask_here() -> list[int]:
    return sorted(os.sched_getaffinity(0))


def masks_of_all(ex: ForkPoolExecutor, gate: Gate) -> dict[int, list[int]]:
    """Each slot's mask, as its worker sees it."""
    count = ex._max_workers
    futures = [ex.submit(slot_and_mask, gate) for _ in range(count)]
    for _ in futures:
        gate.wait_inside()
    gate.release(count)
    return dict(future.result() for future in futures)


def slot_and_mask(gate: Gate) -> tuple[int, list[int]]:
    gate.enter()
    return int(os.environ["FORKPOOL_SLOT"]), mask_here()


def told(placement: Placement) -> dict[int, list[int]]:
    return {slot.slot: list(slot.cpus or ()) for slot in placement.slots}


def claimed() -> set[int]:
    claims = CpuClaims()
    claims.open()
    try:
        return claims.look(range(os.cpu_count() or 1))[0]
    finally:
        claims.close()


@on_two_cpus
def test_each_worker_has_a_cpu_of_its_own(gate: Gate) -> None:
    with ForkPoolExecutor(2, pin=True) as ex:
        assert not ex.placement().pinned
        masks = masks_of_all(ex, gate)
        assert sorted(map(len, masks.values())) == [1, 1]
        assert masks[0] != masks[1]
        assert masks == told(ex.placement())
        assert claimed() == {cpu for mask in masks.values() for cpu in mask}
    assert claimed() == set()
    assert told(ex.placement()) == masks


@on_two_cpus
def test_two_pools_share_no_cpu_and_one_too_many_runs_free() -> None:
    with ForkPoolExecutor(1) as first, ForkPoolExecutor(ALL - 1) as second, ForkPoolExecutor(1) as third:
        masks = [ex.submit(mask_here).result() for ex in (first, second, third)]
        assert [len(mask) for mask in masks] == [1, 1, ALL]
        assert not {*masks[0]} & {cpu for mask in told(second.placement()).values() for cpu in mask}
        assert "other pools have claimed" in third.placement().reason


@on_two_cpus
def test_what_one_pool_gives_back_the_next_one_gets() -> None:
    for _ in range(3):
        with ForkPoolExecutor(ALL, pin=True) as ex:
            ex.submit(abs, 0).result()
            assert ex.placement().pinned


def test_the_kernel_drops_the_claims_of_a_host_that_was_killed(start: Start) -> None:
    script = start("""
        import signal
        import forkpool
        ex = forkpool.ForkPoolExecutor(1)
        ex.submit(abs, 0).result()
        mark("cpu", ex.placement().slots[0].cpus[0])
        signal.pause()
    """)
    cpu = int(script.wait_mark("cpu"))
    assert claimed() == {cpu}
    script.send(signal.SIGKILL)
    script.finish(status=-signal.SIGKILL)
    assert claimed() == set()


@on_two_cpus
def test_a_slot_keeps_its_cpus_when_its_worker_is_replaced(gate: Gate) -> None:
    with ForkPoolExecutor(2, pin=True, max_tasks_per_child=3) as ex:
        before = masks_of_all(ex, gate)
        for _ in range(4):
            assert type(ex.submit(tasks.kill_myself).exception()) is WorkerCrashedError
        for _ in range(5):
            assert masks_of_all(ex, gate) == before


@on_two_cpus
def test_a_slot_keeps_its_cpus_when_the_fork_server_is_replaced(gate: Gate) -> None:
    with ForkPoolExecutor(2, pin=True) as ex:
        before = masks_of_all(ex, gate)
        server = ex.submit(os.getppid).result()
        os.kill(server, signal.SIGKILL)
        processes.wait_exit(server)
        for pid in list(ex._processes):
            os.kill(pid, signal.SIGKILL)
            processes.wait_exit(pid)
        assert masks_of_all(ex, gate) == before
        assert ex.submit(os.getppid).result() != server


@on_two_cpus
def test_a_slot_keeps_its_cpus_when_all_are_restarted(gate: Gate) -> None:
    with ForkPoolExecutor(2, pin=True) as ex:
        before = masks_of_all(ex, gate)
        ex.restart_workers()
        assert masks_of_all(ex, gate) == before
        assert told(ex.placement()) == before


@on_two_cpus
def test_the_fork_server_is_not_bound() -> None:
    with ForkPoolExecutor(1) as ex:
        assert len(ex.submit(mask_here).result()) == 1
        assert psutil.Process(ex.submit(os.getppid).result()).cpu_affinity() == MASK
        assert mask_here() == MASK


@on_two_cpus
def test_nobody_is_bound_where_it_was_not_asked_for() -> None:
    with ForkPoolExecutor(1, pin=False) as ex:
        assert ex.submit(mask_here).result() == MASK
        assert claimed() == set()


@on_two_cpus
def test_named_cpus() -> None:
    with ForkPoolExecutor(pin=[MASK[1]]) as ex, ForkPoolExecutor(pin=[MASK[:2]]) as both, ForkPoolExecutor(ALL - 1) as auto:
        assert ex._max_workers == 1
        assert ex.submit(mask_here).result() == [MASK[1]]
        assert auto.submit(mask_here).result() != [MASK[1]]
        assert both.submit(mask_here).result() == MASK[:2]
        assert claimed() == set(MASK)


def test_cpus_that_may_not_be_used_are_refused_by_the_constructor() -> None:
    with pytest.raises(ValueError, match=r"pin names CPU 4095, which this process may not use; usable: "):
        ForkPoolExecutor(pin=[4095])


# --- auto stays free -----------------------------------------------------------------------------------


def pool_in_a_task(pin: object) -> tuple[str, list[int]]:
    with ForkPoolExecutor(1, pin=pin) as ex:  # type: ignore[arg-type]
        mask = ex.submit(mask_here).result()
        return str(ex.placement()), mask


def test_a_pool_in_a_task_is_free_within_the_cpus_of_its_worker() -> None:
    with ForkPoolExecutor(1) as ex:
        placement, mask = ex.submit(pool_in_a_task, "auto").result()
        assert "this process is itself a worker of a pool" in placement
        assert mask == ex.submit(mask_here).result()
        error = ex.submit(pool_in_a_task, True).exception()
        assert type(error) is RuntimeError
        assert f"(pid {os.getpid()})" in str(error)


@on_two_cpus
def test_under_a_quota_the_pool_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = read_machine(affinity_mask())
    monkeypatch.setattr(pinning, "_this_machine", lambda: Machine(machine.cpus, quota=ALL - 0.5))
    with ForkPoolExecutor(1) as ex:
        assert ex.submit(mask_here).result() == MASK
        assert "a cgroup grants the time of" in ex.placement().reason


@on_two_cpus
@pytest.mark.parametrize("workers", [ALL, ALL + 1])
def test_a_pool_that_leaves_its_host_no_cpu_is_free(workers: int, gate: Gate) -> None:
    with ForkPoolExecutor(workers) as ex:
        assert list(masks_of_all(ex, gate).values()) == [MASK] * workers
        assert claimed() == set()


def test_a_host_with_one_cpu(start: Start) -> None:
    script = start(f"""
import forkpool
os.sched_setaffinity(0, [{MASK[0]}])
with forkpool.ForkPoolExecutor(pin=True) as one, forkpool.ForkPoolExecutor(2) as two:
    mark("workers", one._max_workers)
    mark("one", one.submit(os.sched_getaffinity, 0).result())
    mark("two", two.submit(os.sched_getaffinity, 0).result())
    mark("pinned", [one.placement().pinned, two.placement().pinned])
""").finish()
    assert script.value("workers") == "1"
    assert script.value("one") == script.value("two") == f"{{{MASK[0]}}}"
    assert script.value("pinned") == "[True, False]"


# --- pin=True ------------------------------------------------------------------------------------------


def test_a_demand_that_cannot_be_met_is_an_error_at_the_first_submit_and_after() -> None:
    with ForkPoolExecutor(ALL + 1, pin=True) as ex:
        for _ in range(2):
            with pytest.raises(RuntimeError, match=f"{ALL + 1} workers need {ALL + 1} CPUs, and this process may use {ALL}"):
                ex.submit(abs, 0)
        assert claimed() == set()
        assert not ex._processes


def test_a_demand_is_met_when_the_other_pool_has_gone() -> None:
    with ForkPoolExecutor(ALL, pin=True) as other:
        other.submit(abs, 0).result()
        with ForkPoolExecutor(1, pin=True) as ex, pytest.raises(RuntimeError, match=rf"\(pid {os.getpid()}\)"):
            ex.submit(abs, 0)
    with ForkPoolExecutor(1, pin=True) as ex:
        assert len(ex.submit(mask_here).result()) == 1


def test_a_failed_demand_ends_what_other_threads_submitted_meanwhile() -> None:
    """No call is lost between the thread whose submit raises and the supervisor that cannot work."""
    for _ in range(10):
        with ForkPoolExecutor(ALL + 1, pin=True) as ex:
            errors: list[BaseException | None] = []
            threads = [threading.Thread(target=submit_and_wait, args=(ex, errors)) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert [type(error) for error in errors] == [RuntimeError] * 4


def submit_and_wait(ex: ForkPoolExecutor, errors: list[BaseException | None]) -> None:
    try:
        errors.append(ex.submit(abs, 0).exception())
    except RuntimeError as error:
        errors.append(error)


# --- who holds what ------------------------------------------------------------------------------------


def claim_fds(path: Path) -> int:
    links = []
    for name in os.listdir("/proc/self/fd"):
        try:
            links.append(os.readlink(f"/proc/self/fd/{name}"))
        except FileNotFoundError:
            continue
    return links.count(str(path))


def test_one_descriptor_for_each_pool_and_none_before_the_first_submit(own_claims: Path) -> None:
    with ForkPoolExecutor(ALL, pin=True) as ex:
        assert claim_fds(own_claims) == 0
        ex.submit(abs, 0).result()
        assert claim_fds(own_claims) == 1
    assert claim_fds(own_claims) == 0


@on_two_cpus
def test_threads_that_submit_first_at_the_same_time_do_not_compete_for_cpus(own_claims: Path) -> None:
    for _ in range(10):
        with ForkPoolExecutor(ALL, pin=True) as ex:
            threads = [threading.Thread(target=lambda: ex.submit(abs, 0).result()) for _ in range(6)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert ex.placement().pinned
            assert claim_fds(own_claims) == 1


def test_a_fork_of_the_host_does_not_keep_the_claims(start: Start, gate: Gate) -> None:
    script = start(
        """
import forkpool
from tests.support.gate import GateInTask
ex = forkpool.ForkPoolExecutor(1)
ex.submit(abs, 0).result()
if os.fork() == 0:
    GateInTask(*sys.argv[1:]).enter()
    os._exit(0)
os.wait()
""",
        args=[gate.inside_path, gate.go_path],
    )
    gate.wait_inside()
    assert len(claimed()) == 1
    script.send(signal.SIGKILL)
    processes.wait_exit(script.pid)
    assert claimed() == set()
    gate.open_for_all()
    script.finish(status=-signal.SIGKILL)


def test_a_worker_that_cannot_be_bound_works_unbound(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A CPU that went offline between choosing and forking, a seccomp filter."""
    real = pinning.Pinning.write_into

    def write_wrongly(self: pinning.Pinning, snapshot: dict[str, object]) -> None:
        real(self, snapshot)
        snapshot["cpu_sets"] = [[4095]]

    monkeypatch.setattr(pinning.Pinning, "write_into", write_wrongly)
    with ForkPoolExecutor(1) as ex:
        assert ex.submit(mask_here).result() == MASK
        (slot,) = ex.placement().slots
        assert slot.cpus is None
        assert "it cannot be bound to CPU 4095" in slot.reason
    assert "run unpinned" in caplog.text
