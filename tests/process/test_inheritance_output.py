"""What a task prints is on the host's fd 1 and 2 before its future is done, once.

Runs in: pytest and workers.
"""

import os
import sys
from collections.abc import Callable

import pytest

from forkpool import ForkPoolExecutor, WorkerCrashedError
from tests.support.script import Script

Start = Callable[..., Script]

pytestmark = pytest.mark.slow


def speak() -> None:
    print("to stdout")
    print("to stderr", file=sys.stderr)
    sys.stdout.write("no end of line")


def test_capfd_sees_what_a_task_printed_and_capsys_cannot(capfd: pytest.CaptureFixture[str]) -> None:
    with ForkPoolExecutor(1) as ex:
        ex.submit(speak).result()
        captured = capfd.readouterr()
        assert captured.out == "to stdout\nno end of line"
        assert captured.err == "to stderr\n"
    assert capfd.readouterr().out == ""  # once: not again when the worker leaves


def test_it_is_there_before_the_future_is_done(start: Start) -> None:
    program = start("""
        from forkpool import ForkPoolExecutor
        def speak(n):
            print(f"task {n}", end="\\n" if n % 2 else " ")
        with ForkPoolExecutor(2) as ex:
            for n in range(20):
                ex.submit(speak, n).result()
                os.write(1, b"[done %d]\\n" % n)
        """).finish()
    text = "\n".join(program.lines)
    for n in range(20):
        assert text.index(f"task {n}") < text.index(f"[done {n}]")
    assert text.count("task") == 20


def crash_after_speaking(how: str) -> None:
    print("last words")
    print("and to stderr", file=sys.stderr)
    if how == "exit":
        os._exit(3)
    os.kill(os.getpid(), 9 if how == "kill" else 11)


@pytest.mark.parametrize("how", ["kill", "exit", "segfault"])
def test_also_when_the_task_then_crashes(how: str, capfd: pytest.CaptureFixture[str]) -> None:
    with ForkPoolExecutor(1) as ex, pytest.raises(WorkerCrashedError):
        ex.submit(crash_after_speaking, how).result()
    captured = capfd.readouterr()
    assert captured.out == "last words\n"
    assert captured.err.count("and to stderr\n") == 1


def test_what_the_host_has_in_its_buffer_is_not_printed_by_workers(start: Start) -> None:
    program = start(
        """
        sys.stdout = open(1, "w", buffering=65536, closefd=False)
        sys.stdout.write("once only\\n")
        from forkpool import ForkPoolExecutor
        with ForkPoolExecutor(2, max_tasks_per_child=1) as ex:
            list(ex.map(len, ["a", "b", "c"]))
        sys.stdout.flush()
        """
    ).finish()
    assert program.lines.count("once only") == 1


def test_output_is_encoded_as_in_the_host(start: Start) -> None:
    program = start(
        """
        from forkpool import ForkPoolExecutor
        def look():
            import sys
            return sys.stdout.encoding, sys.stdout.errors, sys.stderr.errors
        with ForkPoolExecutor(1) as ex:
            mark("same", ex.submit(look).result() == look())
        """,
        env={"PYTHONIOENCODING": "latin-1:replace"},
    ).finish()
    assert program.value("same") == "True"
