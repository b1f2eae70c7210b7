"""preload=: imported once, in the fork server, before its first fork; what it raises and what it leaves behind.

Runs in: pytest, fork servers and workers. The modules are files of the test's own, which the host never imports.
"""

import gc
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from forkpool import ForkPoolExecutor
from forkpool.errors import PoolBrokenError, RemoteTraceback
from tests.support import processes, tasks
from tests.support.gate import Marks

Write = Callable[[str, str], Path]


def look(name: str, attribute: str) -> object:
    """In a worker: an attribute of a module that must be there already."""
    return getattr(sys.modules[name], attribute)


def parent_of(pid: int) -> int:
    stat = processes.read_stat(pid)
    assert stat is not None
    return stat.parent


def test_it_is_imported_once_in_the_fork_server(write: Write, marks: Marks) -> None:
    write("early", f"import os; from tests.support.gate import Marks; Marks({marks.path!r}).add('early'); pid = os.getpid()")
    write("late", f"import early; from tests.support.gate import Marks; Marks({marks.path!r}).add('late')")
    with ForkPoolExecutor(2, max_tasks_per_child=1, preload=("early", "late")) as ex:
        pids = [ex.submit(look, "early", "pid").result() for _ in range(4)]
        servers = {ex.submit(os.getppid).result() for _ in range(4)}
    assert {*pids} == servers
    assert len(servers) == 1
    assert marks.words() == ["early", "late"]
    assert "early" not in sys.modules


def test_a_submodule(write: Write) -> None:
    with ForkPoolExecutor(1, preload=("json.tool",)) as ex:
        assert ex.submit(look, "json.tool", "__name__").result() == "json.tool"


def test_no_collection_in_a_worker_looks_at_what_was_preloaded(write: Write) -> None:
    write("large", "things = [[] for _ in range(100_000)]")
    with ForkPoolExecutor(1, preload=("large",)) as ex:
        assert ex.submit(gc.get_freeze_count).result() > 100_000
        assert ex.submit(gc.isenabled).result()


def test_what_it_prints_comes_once(write: Write, capfd: pytest.CaptureFixture[str]) -> None:
    write("talks", "print('preloaded')")
    with ForkPoolExecutor(2, max_tasks_per_child=1, preload=("talks",)) as ex:
        assert [ex.submit(tasks.add, n, n).result() for n in range(3)] == [0, 2, 4]
    assert capfd.readouterr().out == "preloaded\n"


# --- what it raises -------------------------------------------------------------------------------------


def test_a_module_that_does_not_exist_is_raised_by_submit() -> None:
    ex = ForkPoolExecutor(1, preload=("there_is_no_such_module",))
    for _ in range(2):
        with pytest.raises(ModuleNotFoundError, match="there_is_no_such_module") as caught:
            ex.submit(tasks.add, 1, 1)
        assert caught.value.name == "there_is_no_such_module"
        assert isinstance(caught.value.__cause__, RemoteTraceback)
        assert any("preload='there_is_no_such_module'" in note for note in caught.value.__notes__)
    ex.shutdown()


def test_its_own_exception_with_its_traceback(write: Write) -> None:
    write("fails", "class Odd(Exception):\n    pass\n\n\ndef start():\n    raise Odd('broken', 3)\n\n\nstart()")
    with ForkPoolExecutor(1, preload=("fails",)) as ex:
        with pytest.raises(Exception, match="broken") as caught:
            ex.submit(tasks.add, 1, 1)
        assert type(caught.value).__name__ == "Odd"
        assert caught.value.args == ("broken", 3)
        assert 'fails.py", line 6, in start' in str(caught.value.__cause__)
        assert "_child" not in str(caught.value.__cause__)


def test_sys_exit_does_not_end_the_host(write: Write) -> None:
    write("exits", "import sys; sys.exit(3)")
    with (
        ForkPoolExecutor(1, preload=("exits",)) as ex,
        pytest.raises(ImportError, match=r"preload 'exits' raised SystemExit\(3\)"),
    ):
        ex.submit(tasks.add, 1, 1)


def test_a_long_message(write: Write) -> None:
    write("fails", "raise RuntimeError('x' * 1_000_000)")
    with ForkPoolExecutor(1, preload=("fails",)) as ex:
        with pytest.raises(RuntimeError) as caught:
            ex.submit(tasks.add, 1, 1)
        assert len(str(caught.value)) == 1_000_000


def test_a_module_that_submits_at_import(write: Write) -> None:
    write(
        "eager",
        """
        from forkpool import ForkPoolExecutor
        made_here = ForkPoolExecutor(1, preload=("eager",))
        made_here.submit(len, "x")
        """,
    )
    with (
        ForkPoolExecutor(1, preload=("eager",)) as ex,
        pytest.raises(RuntimeError, match="preloads 'eager', whose code submits"),
    ):
        ex.submit(tasks.add, 1, 1)


def test_a_module_that_makes_a_pool_at_import(write: Write) -> None:
    write("makes", "from forkpool import ForkPoolExecutor\nex = ForkPoolExecutor(1)")
    with ForkPoolExecutor(1, preload=("makes",)) as ex:
        assert ex.submit(use_pool_of, "makes").result() == 2


def use_pool_of(name: str) -> int:
    with sys.modules[name].ex as ex:
        return ex.submit(len, "xy").result()


HELPERS = {"return": "", "sys.exit": "sys.exit()", "raise": "raise ValueError('only the child')"}


@pytest.mark.parametrize("how", HELPERS)
def test_a_child_that_it_forks_does_not_speak_for_the_fork_server(
    how: str, write: Write, marks: Marks, caplog: pytest.LogCaptureFixture
) -> None:
    """It said that preloading had failed, or went on to be a second fork server on the same socket."""
    write(
        "forks",
        f"""
        import os, sys
        from tests.support.gate import Marks

        pid, child = os.getpid(), os.fork()
        if child:
            os.waitpid(child, 0)
        else:
            Marks({marks.path!r}).add("child")
            {HELPERS[how]}
        """,
    )
    write("next", f"from tests.support.gate import Marks; Marks({marks.path!r}).add('next')")
    with ForkPoolExecutor(1, preload=("forks", "next")) as ex:
        assert ex.submit(os.getppid).result() == ex.submit(look, "forks", "pid").result()
    assert marks.words() == ["child", "next"]
    assert caplog.text == ""


def test_what_such_a_child_printed_is_not_lost(write: Write, capfd: pytest.CaptureFixture[str]) -> None:
    write("forks", "import os\nif os.fork():\n    os.wait()\nelse:\n    print('child', end='')")
    with ForkPoolExecutor(1, preload=("forks",)) as ex:
        assert ex.submit(tasks.add, 1, 1).result() == 2
    assert capfd.readouterr().out == "child"


# --- a fork server that replaces another ----------------------------------------------------------------


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    processes.wait_exit(pid)


def test_a_replaced_fork_server_preloads_again(write: Write) -> None:
    write("early", "import os; pid = os.getpid()")
    with ForkPoolExecutor(1, preload=("early",)) as ex:
        first = ex.submit(look, "early", "pid").result()
        worker = ex.submit(os.getpid).result()
        kill(first)
        kill(worker)
        second = ex.submit(look, "early", "pid").result()
        assert second != first
        assert ex.submit(os.getppid).result() == second


def test_if_it_fails_then_it_is_a_failure_to_start(write: Write, marks: Marks, caplog: pytest.LogCaptureFixture) -> None:
    write("once", f"import os\nif os.path.exists({marks.path!r}):\n    raise LookupError('not twice')")
    with ForkPoolExecutor(1, preload=("once",)) as ex:
        worker, server = ex.submit(os.getpid).result(), ex.submit(os.getppid).result()
        marks.add("now")
        kill(server)
        kill(worker)
        error = ex.submit(tasks.add, 1, 1).exception()
        assert type(error) is PoolBrokenError
        assert "failed while preloading: LookupError: not twice" in str(error)
        with pytest.raises(PoolBrokenError):
            ex.submit(tasks.add, 1, 1)
    assert "not twice" in caplog.text


def test_killed_while_it_preloads_the_first_time(write: Write, marks: Marks, caplog: pytest.LogCaptureFixture) -> None:
    source = """
        import os
        from tests.support.gate import Marks
        marks = Marks({path!r})
        first = not marks.words()
        marks.add("preloaded")
        if first:
            os.kill(os.getpid(), 9)
        """
    write("dies", source.format(path=marks.path))
    with ForkPoolExecutor(1, preload=("dies",)) as ex:
        assert ex.submit(tasks.add, 1, 1).result() == 2
    assert marks.words() == ["preloaded"] * 2


def test_one_that_always_crashes(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    write("crashes", "import os; os.abort()")
    with ForkPoolExecutor(1, preload=("crashes",)) as ex:
        error = ex.submit(tasks.add, 1, 1).exception()
        assert type(error) is PoolBrokenError
        assert "SIGABRT" in str(error)
        assert "'crashes'" in str(error)


# --- what it leaves behind ------------------------------------------------------------------------------


def test_exit_handlers_and_finalizers_are_not_run_by_workers(write: Write, marks: Marks, tmp_path: Path) -> None:
    write(
        "leaves",
        f"""
        import atexit, os, shutil, tempfile, weakref
        from tests.support.gate import Marks
        atexit.register(Marks({marks.path!r}).add, "preloaded")
        keep = tempfile.TemporaryDirectory(dir={str(tmp_path)!r})
        folder = tempfile.mkdtemp(dir={str(tmp_path)!r})
        atexit.register(shutil.rmtree, folder)
        """,
    )
    with ForkPoolExecutor(1, max_tasks_per_child=1, preload=("leaves",)) as ex:
        folder = ex.submit(look, "leaves", "folder").result()
        kept = [ex.submit(name_of_kept).result() for _ in range(3)]
        assert os.path.isdir(str(folder))
        assert os.path.isdir(kept[0])
        ex.submit(register_mark, marks).result()
    assert marks.words() == ["task"]


def name_of_kept() -> str:
    return str(sys.modules["leaves"].keep.name)


def register_mark(marks: Marks) -> None:
    import atexit

    atexit.register(marks.add, "task")


def test_a_watchdog_that_it_sets_ends_nobody(write: Write) -> None:
    """Its thread is the fork server's, which it would end; a worker has only its locks, and would wait for it for ever."""
    write("watching", "import faulthandler; faulthandler.dump_traceback_later(3600, exit=True)")
    with ForkPoolExecutor(1, preload=("watching",)) as ex:
        assert ex.submit(len, "abc").result() == 3
        assert ex.submit(len, "abcd").result() == 4


def test_signal_handlers_that_it_sets_are_not_the_workers(write: Write) -> None:
    write(
        "handles",
        "import signal\nfor n in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):\n    signal.signal(n, signal.SIG_IGN)",
    )
    with ForkPoolExecutor(1, preload=("handles",)) as ex:
        assert ex.submit(handler_of, signal.SIGUSR1).result() == signal.SIG_DFL
        server = ex.submit(os.getppid).result()
        os.kill(server, signal.SIGTERM)
        assert ex.submit(tasks.add, 1, 1).result() == 2


def handler_of(signum: int) -> object:
    return signal.getsignal(signum)


def draw_with_numpy() -> float:
    return float(sys.modules["numpy"].random.random())


def test_numpy_draws_other_numbers_in_each_worker(write: Write) -> None:
    write("seeds", "import numpy; numpy.random.seed(1)")
    with ForkPoolExecutor(2, max_tasks_per_child=1, preload=("seeds",)) as ex:
        drawn = [future.result() for future in [ex.submit(draw_with_numpy) for _ in range(6)]]
    assert len(set(drawn)) == 6


def test_also_from_another_bit_generator(write: Write) -> None:
    write("replaces", "import numpy; numpy.random.set_bit_generator(numpy.random.PCG64(1))")
    with ForkPoolExecutor(2, max_tasks_per_child=1, preload=("replaces",)) as ex:
        drawn = [future.result() for future in [ex.submit(draw_with_numpy) for _ in range(4)]]
    assert len(set(drawn)) == 4
