"""Signals in a worker: none from the terminal, none blocked, and what a task sets up is undone after it.

Runs in: pytest and workers. Signals go to programs in sessions of their own.
"""

import faulthandler
import os
import signal
import weakref
from collections.abc import Callable

import pytest

from forkpool import ForkPoolExecutor
from tests.support import processes
from tests.support.gate import Gate, GateInTask
from tests.support.script import Script

Start = Callable[..., Script]

pytestmark = pytest.mark.slow


def state() -> tuple[set[int], dict[int, str]]:
    handlers = {number: repr(signal.getsignal(number)) for number in signal.valid_signals()}
    return set(signal.pthread_sigmask(signal.SIG_BLOCK, [])), handlers


def mess_up() -> None:
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1, signal.SIGTERM])
    os.kill(os.getpid(), signal.SIGUSR1)
    signal.setitimer(signal.ITIMER_REAL, 3600)
    signal.setitimer(signal.ITIMER_VIRTUAL, 3600)


def timers() -> list[float]:
    return [signal.getitimer(which)[0] for which in (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)]


def test_what_a_task_did_to_signals_is_undone_before_the_next() -> None:
    with ForkPoolExecutor(1) as ex:
        before, pid = ex.submit(state).result(), ex.submit(os.getpid).result()
        ex.submit(mess_up).result()
        assert ex.submit(state).result() == before
        assert ex.submit(timers).result() == [0, 0, 0]
        assert ex.submit(os.getpid).result() == pid


def use_handlers() -> list[str]:
    caught: list[str] = []
    signal.signal(signal.SIGUSR1, lambda *_: caught.append("USR1"))
    signal.signal(signal.SIGTERM, lambda *_: caught.append("TERM"))
    os.kill(os.getpid(), signal.SIGUSR1)
    os.kill(os.getpid(), signal.SIGTERM)
    return caught


class TooLate(Exception):
    pass


def limited_by_an_alarm() -> str:
    def ring(*_: object) -> None:
        raise TooLate

    signal.signal(signal.SIGALRM, ring)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        while True:  # not pause(): it would miss an alarm that came just before
            pass
    except TooLate:
        return "rang"


def test_handlers_and_alarms_of_a_task_work_while_it_runs() -> None:
    with ForkPoolExecutor(1) as ex:
        assert ex.submit(use_handlers).result() == ["USR1", "TERM"]
        assert ex.submit(limited_by_an_alarm).result() == "rang"


def ring_right_after() -> None:
    def ring(*_: object) -> None:
        raise TooLate

    signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, 1e-5)


def test_an_alarm_that_goes_off_between_two_tasks_hurts_neither() -> None:
    with ForkPoolExecutor(1) as ex:
        pid = ex.submit(os.getpid).result()
        for _ in range(300):
            error = ex.submit(ring_right_after).exception()
            assert error is None or isinstance(error, TooLate)
            assert ex.submit(os.getpid).result() == pid


def leave_timer(which: int) -> None:
    signal.setitimer(which, 3600)


@pytest.mark.parametrize("which", [signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF])
def test_a_timer_that_a_task_leaves_is_stopped(which: int) -> None:
    """Also if that is all that it leaves: by default each kills whoever runs then."""
    with ForkPoolExecutor(1) as ex:
        ex.submit(leave_timer, which).result()
        assert ex.submit(timers).result() == [0, 0, 0]


class DumpFile:
    """Where faulthandler is to write. It holds the object for as long as it waits, which is how one can tell."""

    def fileno(self) -> int:
        return 2


dump_file: Callable[[], DumpFile | None] = lambda: None  # noqa: E731  # replaced in a worker


def watch() -> None:
    global dump_file
    file = DumpFile()
    faulthandler.dump_traceback_later(3600, exit=True, file=file)  # type: ignore[arg-type]
    dump_file = weakref.ref(file)


def is_watched() -> bool:
    return dump_file() is not None


def watch_and_look() -> bool:
    watch()
    return is_watched()


def test_a_watchdog_of_a_task_does_not_end_the_next() -> None:
    with ForkPoolExecutor(1) as ex:
        pid = ex.submit(os.getpid).result()
        assert ex.submit(watch_and_look).result()
        assert not ex.submit(is_watched).result()
        assert ex.submit(os.getpid).result() == pid


def test_a_watchdog_of_the_initializer_stays() -> None:
    with ForkPoolExecutor(1, initializer=watch) as ex:
        assert ex.submit(is_watched).result()
        assert ex.submit(is_watched).result()


def test_beside_an_initializer_without_one_a_watchdog_of_a_task_is_undone_too() -> None:
    with ForkPoolExecutor(1, initializer=handle_usr1) as ex:
        assert ex.submit(watch_and_look).result()
        assert not ex.submit(is_watched).result()


def watch_and_fork() -> int:
    watch()
    return os.fork()


def test_a_child_of_a_task_with_a_watchdog_ends_when_it_comes_back() -> None:
    """The watchdog is a thread, which the child does not have, and cannot join."""
    with ForkPoolExecutor(1) as ex:
        child = ex.submit(watch_and_fork).result()
        assert ex.submit(os.waitpid, child, 0).result() == (child, 0)


def handle_usr1() -> None:
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)


def test_handlers_of_the_initializer_stay() -> None:
    with ForkPoolExecutor(1, initializer=handle_usr1) as ex:
        ex.submit(mess_up).result()
        assert ex.submit(lambda: signal.getsignal(signal.SIGUSR1)).result() == signal.SIG_IGN


def test_ignored_and_blocked_signals_of_the_host_are_not_inherited(start: Start) -> None:
    program = start(
        """
        import signal
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
        from forkpool import ForkPoolExecutor
        def look():
            import signal
            ignored = {n for n in signal.valid_signals() if signal.getsignal(n) == signal.SIG_IGN}
            return sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])), sorted(map(int, ignored))
        with ForkPoolExecutor(1) as ex:
            mark("worker", ex.submit(look).result())
        """,
        prefix=("env", "--ignore-signal=HUP,CHLD,USR1,INT", "--block-signal=ALRM"),
    ).finish()
    # What Python itself ignores.
    assert program.value("worker") == str(([], [int(signal.SIGPIPE), int(signal.SIGXFSZ)]))


def test_ctrl_c_in_the_terminal_does_not_reach_a_worker(start: Start, gate: Gate) -> None:
    program = start(
        f"""
        from forkpool import ForkPoolExecutor
        from tests.support.gate import GateInTask
        gate = GateInTask({gate.inside_path!r}, {gate.go_path!r})
        def task():
            try:
                gate.enter()
            except BaseException as error:
                mark("in_task", repr(error))
                raise
            return "finished"
        ex = ForkPoolExecutor(1)
        future = ex.submit(task)
        try:
            mark("submitted")  # from here on Ctrl-C may come
            future.result()
        except KeyboardInterrupt:
            mark("interrupted")
        mark("result", future.result())
        ex.shutdown()
        """
    )
    gate.wait_inside()
    program.wait_mark("submitted")
    program.send_group(signal.SIGINT)
    program.wait_mark("interrupted")
    gate.release()
    program.finish()
    assert program.value("result") == "finished"
    assert program.all("in_task") == []


def test_sigterm_to_the_whole_cgroup_does_not_fail_running_tasks(start: Start, gate: Gate) -> None:
    """systemd and docker send it to every process; the host drains."""
    program = start(
        f"""
        import signal
        from forkpool import ForkPoolExecutor
        from tests.support.gate import GateInTask
        gate = GateInTask({gate.inside_path!r}, {gate.go_path!r})
        signal.signal(signal.SIGTERM, lambda *_: mark("draining"))
        with ForkPoolExecutor(2) as ex:
            futures = [ex.submit(gate.enter) for _ in range(2)]
            idle = ex.submit(len, "abc")
            mark("submitted")
            mark("results", [future.result() for future in futures] + [idle.result()])
        """
    )
    for _ in range(2):
        gate.wait_inside()
    program.wait_mark("submitted")
    # By cgroup means by pid, one after the other. The host's own comes last, so that its mark tells that all were sent.
    everybody = processes.marked() - {program.pid}
    for pid in everybody:
        os.kill(pid, signal.SIGTERM)
    program.send(signal.SIGTERM)
    program.wait_mark("draining")
    gate.open_for_all()
    program.finish()
    assert len(everybody) == 3  # fork server and two workers
    assert program.value("results") == "[None, None, 3]"


def enter_and_look(gate: GateInTask) -> tuple[int, int]:
    gate.enter()
    return os.getsid(0), os.getpgid(0)


def test_a_worker_has_a_session_and_a_group_of_its_own(gate: Gate) -> None:
    with ForkPoolExecutor(1) as ex:
        future = ex.submit(enter_and_look, gate)
        pid = gate.wait_inside()
        gate.release()
        assert future.result() == (pid, pid)
