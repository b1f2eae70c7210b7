"""The first submit waits for preloading: it can be interrupted, one server is started, a shutdown meanwhile ends it.

Runs in: pytest and programs of their own. A module that is preloaded enters a gate, so that the test decides how long it takes.
"""

import os
import signal
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from forkpool import ForkPoolExecutor
from tests.process.test_interruptions import Interrupted, LineCounter, traced
from tests.support import processes, tasks
from tests.support.gate import Gate, Marks
from tests.support.script import Script

Start = Callable[..., Script]


@pytest.fixture
def slow_module(tmp_path: Path, gate: Gate, marks: Marks, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module whose import waits for the gate."""
    folder = tmp_path / "modules"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    inside = f"GateInTask({gate.inside_path!r}, {gate.go_path!r}).enter()"
    source = f"from tests.support.gate import GateInTask, Marks\nMarks({marks.path!r}).add('import')\n{inside}\n"
    (folder / "slow_module.py").write_text(source)
    return "slow_module"


def in_thread(do: Callable[[], object]) -> tuple[threading.Thread, list[object]]:
    """Run it in a thread; the list gets its value, or what it raised."""
    outcome: list[object] = []

    def run() -> None:
        try:
            outcome.append(do())
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, outcome


def test_threads_that_submit_first_together_start_one_server(slow_module: str, gate: Gate, marks: Marks) -> None:
    with ForkPoolExecutor(2, preload=(slow_module,)) as ex:
        together = threading.Barrier(8)

        def submit(number: int) -> object:
            together.wait()
            return ex.submit(tasks.add, number, 1).result()

        threads = [in_thread(lambda number=number: submit(number)) for number in range(8)]  # type: ignore[misc]
        gate.wait_inside()
        gate.open_for_all()
        for thread, _ in threads:
            thread.join()
        assert [outcome for _, outcome in threads] == [[number + 1] for number in range(8)]
    assert marks.words() == ["import"]


@pytest.mark.parametrize("how", ["shutdown", "no wait", "cancel", "terminate", "kill"])
def test_a_shutdown_meanwhile_ends_the_wait(how: str, slow_module: str, gate: Gate) -> None:
    ex = ForkPoolExecutor(1, preload=(slow_module,))
    thread, outcome = in_thread(lambda: ex.submit(tasks.add, 1, 1))
    gate.wait_inside()
    match how:
        case "shutdown":
            ex.shutdown()
        case "no wait":
            ex.shutdown(wait=False)
        case "cancel":
            ex.shutdown(cancel_futures=True)
        case "terminate":
            ex.terminate_workers()
        case "kill":
            ex.kill_workers()
    thread.join()
    assert isinstance(outcome[0], RuntimeError)
    assert "after shutdown" in str(outcome[0])
    ex.shutdown()


def test_a_callback_may_submit_to_a_pool_that_preloads(slow_module: str, gate: Gate, tmp_path: Path) -> None:
    other = closing(Gate(tmp_path, "other"))
    with other as other_gate, ForkPoolExecutor(1) as quick, ForkPoolExecutor(1, preload=(slow_module,)) as slow:
        inner: list[object] = []
        done = threading.Event()

        def submit_there(_: object) -> None:
            inner.append(slow.submit(tasks.add, 2, 2).result())
            done.set()

        quick.submit(tasks.enter, other_gate).add_done_callback(submit_there)
        other_gate.open_for_all()
        gate.wait_inside()
        gate.open_for_all()
        assert quick.submit(tasks.add, 3, 3).result() == 6
        done.wait()
    assert inner == [4]


INTERRUPTED = """
import threading, forkpool
from tests.support import tasks
from tests.support.gate import GateInTask
gate = GateInTask(sys.argv[1], sys.argv[2])
with forkpool.ForkPoolExecutor(1, preload=("slow_module",)) as ex:
    try:
        ex.submit(tasks.add, 1, 1)
    except KeyboardInterrupt:
        mark("interrupted")
    mark("result", ex.submit(tasks.add, 2, 2).result())
"""


def test_ctrl_c_ends_the_wait_and_the_pool_is_usable(
    start: Start, slow_module: str, gate: Gate, marks: Marks, tmp_path: Path
) -> None:
    script = start(f"sys.path.insert(0, {str(tmp_path / 'modules')!r})\n" + INTERRUPTED, args=[gate.inside_path, gate.go_path])
    gate.wait_inside()
    script.send(signal.SIGINT)
    script.wait_mark("interrupted")
    gate.open_for_all()
    assert script.finish().value("result") == "4"
    assert marks.words() == ["import"]


def test_ctrl_c_that_leaves_the_block_ends_everything(start: Start, slow_module: str, gate: Gate, tmp_path: Path) -> None:
    script = start(f"""
        sys.path.insert(0, {str(tmp_path / "modules")!r})
        import forkpool
        with forkpool.ForkPoolExecutor(1, preload=("slow_module",)) as ex:
            ex.submit(len, "x")
        """)
    gate.wait_inside()
    script.send(signal.SIGINT)
    assert "KeyboardInterrupt" in script.finish(status=-signal.SIGINT).errors


def test_the_host_is_killed_meanwhile(start: Start, slow_module: str, gate: Gate, tmp_path: Path) -> None:
    script = start(f"""
        sys.path.insert(0, {str(tmp_path / "modules")!r})
        import forkpool
        forkpool.ForkPoolExecutor(1, preload=("slow_module",)).submit(len, "x")
        """)
    gate.wait_inside()
    script.send(signal.SIGKILL)
    script.finish(status=-signal.SIGKILL)  # reads to the end of what the server inherited


def test_a_signal_handler_submits_while_its_thread_waits(slow_module: str, gate: Gate) -> None:
    inner: list[object] = []
    with ForkPoolExecutor(1, preload=(slow_module,)) as ex:

        def handle(*_: object) -> None:
            threading.Thread(target=gate.open_for_all).start()
            inner.append(ex.submit(tasks.add, 1, 1))

        def ring() -> None:
            gate.wait_inside()
            processes.wait_state(os.getpid(), "S")  # see `Script._await_sleep`
            os.kill(os.getpid(), signal.SIGUSR1)

        before = signal.signal(signal.SIGUSR1, handle)
        try:
            thread, _ = in_thread(ring)
            assert ex.submit(tasks.add, 2, 2).result() == 4
            thread.join()
        finally:
            signal.signal(signal.SIGUSR1, before)
        assert [future.result() for future in inner] == [2]  # type: ignore[attr-defined]


class WaitLines(LineCounter):
    """Counts only the lines around the wait: those before it are `test_first_submit_interrupted_at_every_line`'s."""

    def __call__(self, frame: FrameType, event: str, argument: Any) -> Any:
        around = frame.f_code.co_filename.endswith("preload_gate.py") or frame.f_code.co_name == "_wait_for_preload"
        return super().__call__(frame, event, argument) if around else None


@pytest.mark.slow
@pytest.mark.alarm(120)
def test_the_wait_interrupted_at_every_line(marks: Marks) -> None:
    for line in range(1, 100):
        ex = ForkPoolExecutor(1, preload=("json",))
        tracer = WaitLines(line, Interrupted, None)
        traced(lambda: ex.submit(tasks.leave_mark, marks, f"{line}"), tracer)  # noqa: B023
        assert ex.submit(tasks.add, line, 1).result() == line + 1, tracer.where
        ex.shutdown()
        if not tracer.where:
            break
    assert marks.words() == [str(line)]
    assert line > 8
