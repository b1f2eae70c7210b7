"""Where the supervisor's thread comes from: a machine with no more threads, an interpreter that allows none.

Rows "the host can start no more threads", "the pool is made in a subinterpreter".
"""

import os
import sys
import threading
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from forkpool import ForkPoolExecutor
from forkpool._host.supervisor import Supervisor
from tests.support import tasks
from tests.support.gate import Gate
from tests.support.script import Script, run_script

Start = Callable[..., Script]


@pytest.fixture
def only_one_more_thread(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The bare thread that `submit` starts, and no proper one for the supervisor; the names of those that were refused."""
    start, refused = threading.Thread.start, []

    def start_or_not(thread: threading.Thread) -> None:
        if thread.name == "forkpool-supervisor":
            refused.append(thread.name)
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_or_not)
    return refused


def test_the_bare_thread_serves_and_is_waited_for(only_one_more_thread: list[str], gate: Gate) -> None:
    """`shutdown()` raised AssertionError, "cannot join a dummy thread"."""
    known = set(threading.enumerate())
    called: list[Any] = []
    ex = ForkPoolExecutor(2)
    future = ex.submit(tasks.enter, gate, "first")
    future.add_done_callback(called.append)
    gate.wait_inside()
    gate.open_for_all()
    assert future.result() == "first"
    assert ex.statistics().done == 1
    ex.shutdown()
    ex.shutdown()
    assert called == [future]
    assert only_one_more_thread == ["forkpool-supervisor"]
    assert set(threading.enumerate()) == known


def test_the_exit_hook_waits_for_it(tmp_path: Path) -> None:
    script = run_script(
        tmp_path,
        """
        import threading
        from forkpool import ForkPoolExecutor

        def refuse(thread):
            threading.Thread.start = start
            raise RuntimeError("can't start new thread")

        start, threading.Thread.start = threading.Thread.start, refuse
        ForkPoolExecutor(1).submit(os.write, 1, b"MARK ran yes\\n")
        """,
    )
    assert script.all("ran") == ["yes"]
    assert script.errors == ""


@pytest.mark.skipif(os.geteuid() != 0, reason="RLIMIT_NPROC counts all that a user has, and only root can be another")
def test_the_user_may_have_no_more_threads(tmp_path: Path) -> None:
    """The kernel refuses it, at the moment when the bare thread starts the proper one."""
    script = run_script(
        tmp_path,
        f"""
        import resource, threading
        from forkpool import ForkPoolExecutor

        start, limits = threading.Thread.start, resource.getrlimit(resource.RLIMIT_NPROC)

        def start_as_another_user(thread):
            if thread.name != "forkpool-supervisor":
                return start(thread)
            uid = {200_000 + os.getpid()}  # nobody's, so nothing else counts
            os.setresuid(uid, uid, 0)
            resource.setrlimit(resource.RLIMIT_NPROC, (1, limits[1]))
            try:
                start(thread)
            except RuntimeError as error:
                mark("refused", error)
                raise
            finally:
                os.setresuid(0, 0, 0)
                resource.setrlimit(resource.RLIMIT_NPROC, limits)

        threading.Thread.start = start_as_another_user
        ex = ForkPoolExecutor(1)
        mark("result", ex.submit(abs, -1).result())
        ex.shutdown()
        mark("threads", len(threading.enumerate()))
        """,
    )
    assert script.all("refused") == ["can't start new thread"]
    assert script.value("result") == "1"
    assert script.value("threads") == "1"


@pytest.mark.parametrize("error", [MemoryError(), LookupError("ours"), SystemExit(3)])
@pytest.mark.parametrize("step", ["_open", "_pin", "_start_thread"])
def test_whatever_fails_at_the_start_submit_returns(step: str, error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    """It waited for ever for a thread that had ended."""

    def fail(_: Supervisor) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(Supervisor, step, fail)
        ex = ForkPoolExecutor(1)
        with pytest.raises(type(error)):
            ex.submit(tasks.add, 1, 1)
    if step == "_open":
        assert ex.submit(tasks.add, 1, 1).result() == 2
    ex.shutdown()
    error.__traceback__ = None  # it holds the frames, and so the pool


# --- subinterpreters -------------------------------------------------------------------------------------

IN_A_SUBINTERPRETER = """
SOURCE = '''
import os, forkpool

def mark(name, value):
    os.write(1, f"MARK {name} {value}\\\\n".encode())

mark("inline", forkpool.InlineExecutor().submit(abs, -1).result())
step = "constructor"
try:
    with forkpool.ForkPoolExecutor(1) as ex:
        step = "submit"
        mark("result", ex.submit(abs, -1).result())
except RuntimeError as error:
    mark("refused-by", step)
    mark("error", error)
'''
try:
    import _interpreters
    failed = _interpreters.exec(_interpreters.create(sys.argv[1]), SOURCE)
    assert failed is None, failed
except ImportError:  # Python 3.11 and 3.12
    import _xxsubinterpreters
    _xxsubinterpreters.run_string(_xxsubinterpreters.create(isolated=sys.argv[1] == "isolated"), SOURCE)
"""

can_make_one = pytest.mark.skipif(
    find_spec("_interpreters") is None and find_spec("_xxsubinterpreters") is None, reason="has no module that makes one"
)


@can_make_one
def test_in_a_subinterpreter_that_shares_with_the_main_one_it_works(start: Start) -> None:
    script = start(IN_A_SUBINTERPRETER, args=["legacy"]).finish()
    assert script.all("error") == []
    assert script.value("result") == "1"
    assert script.value("inline") == "1"


@can_make_one
def test_in_an_isolated_subinterpreter_it_is_refused(start: Start) -> None:
    """The first submit waited for ever."""
    script = start(IN_A_SUBINTERPRETER, args=["isolated"]).finish()
    assert script.value("inline") == "1"
    assert script.all("result") == []
    if sys.version_info >= (3, 12):
        assert script.value("refused-by") == "constructor"
        assert "InlineExecutor" in script.value("error")
    else:  # Python does not tell before a thread is started
        assert script.value("refused-by") == "submit"
    assert "subinterpreter" in script.value("error")
