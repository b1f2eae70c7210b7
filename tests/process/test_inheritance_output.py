"""What a task prints is on the host's fd 1 and 2 before its future is done, once.

Runs in: pytest and workers.
"""

import os
import sys
from collections.abc import Callable, Iterator

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


@pytest.fixture
def buffered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As without `-u` and PYTHONUNBUFFERED, with which nothing is ever kept back, and workers are like the host."""
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    with open(1, "w", closefd=False) as stream:
        monkeypatch.setattr(sys, "__stdout__", stream)
        yield


def crash_in_the_middle_of_a_line(how: str, fork: bool = False) -> None:
    print("whole line")
    print("the rest", "of it", end="")
    sys.stderr.write("and of")
    sys.stderr.write(" stderr")
    if fork and os.fork() == 0:
        sys.stdout.write("<child>")
        os._exit(0)
    if fork:
        os.wait()
    if how == "exit":
        os._exit(3)
    os.kill(os.getpid(), 9 if how == "kill" else 11)


@pytest.mark.usefixtures("buffered")
@pytest.mark.parametrize("fork", [False, True], ids=["", "fork"])
@pytest.mark.parametrize("how", ["kill", "exit", "segfault"])
def test_a_line_that_was_not_finished_is_there_after_a_crash(how: str, fork: bool, capfd: pytest.CaptureFixture[str]) -> None:
    with ForkPoolExecutor(1) as ex:
        with pytest.raises(WorkerCrashedError):
            ex.submit(crash_in_the_middle_of_a_line, how, fork).result()
        captured = capfd.readouterr()  # before anything else ends
        assert captured.out.replace("<child>", "") == "whole line\nthe rest of it"
        assert captured.out.count("<child>") == fork
        assert captured.err.count("and of stderr") == 1


def print_in_pieces(lines: int) -> None:
    for number in range(lines):
        print("a", "line", "of", number, "x" * (number % 3000), "end")


@pytest.mark.usefixtures("buffered")
def test_lines_of_several_workers_do_not_tear_each_other(capfd: pytest.CaptureFixture[str]) -> None:
    with ForkPoolExecutor(2) as ex:
        for future in [ex.submit(print_in_pieces, 300) for _ in range(4)]:
            future.result()
    lines = capfd.readouterr().out.splitlines()
    assert len(lines) == 1200
    assert {line.split()[:3] + line.split()[-1:] == ["a", "line", "of", "end"] for line in lines} == {True}


def long_and_short() -> None:
    sys.stdout.write("ab" * 9000)
    sys.stdout.write("c" * 8192)
    sys.stdout.write("d")
    sys.stdout.buffer.write(b"bytes")
    sys.stdout.write("\u00e9\n" * 2 + "f" * 20000)
    sys.stdout.flush()
    sys.stdout.write("g")


@pytest.mark.usefixtures("buffered")
def test_whatever_the_pieces_all_of_it_comes_once(capfd: pytest.CaptureFixture[str]) -> None:
    with ForkPoolExecutor(1, env={"PYTHONIOENCODING": "utf-8"}) as ex:
        ex.submit(long_and_short).result()
    assert capfd.readouterr().out == "ab" * 9000 + "c" * 8192 + "dbytes\u00e9\n\u00e9\n" + "f" * 20000 + "g"


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
