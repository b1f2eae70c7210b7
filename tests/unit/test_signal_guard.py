"""What a task did to signals is undone; a worker starts with clean ones.

Runs in: interpreters of their own, since a signal that goes wrong must not end pytest.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from forkpool._child import signal_guard

pytestmark = pytest.mark.slow

PRELUDE = """
import os, signal, sys
sys.path.insert(0, {src!r})
from forkpool._child.signal_guard import SignalGuard, reset_signals
"""


def run(program: str, *, prefix: tuple[str, ...] = (), **options: object) -> None:
    source = PRELUDE.format(src=str(Path(signal_guard.__file__).parents[2])) + program
    subprocess.run([*prefix, sys.executable, "-c", source], check=True, **options)  # type: ignore[call-overload]


def test_nothing_changed() -> None:
    run("guard = SignalGuard(); assert guard.restore() is False")


def test_handlers_come_back() -> None:
    run("""
before = list(map(signal.getsignal, sorted(signal.valid_signals())))
guard = SignalGuard()
for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
    signal.signal(number, lambda *_: None)
assert guard.restore() is True
assert list(map(signal.getsignal, sorted(signal.valid_signals()))) == before
assert guard.restore() is False
""")


def test_an_alarm_of_the_task_does_not_strike_later() -> None:
    run("""
guard = SignalGuard()
signal.alarm(3600)
assert guard.restore() is True
assert signal.alarm(0) == 0
signal.signal(signal.SIGPROF, lambda *_: None)
signal.setitimer(signal.ITIMER_PROF, 3600)
assert guard.restore() is True
assert signal.getitimer(signal.ITIMER_PROF) == (0, 0)
""")


@pytest.mark.parametrize("which", ["ITIMER_REAL", "ITIMER_VIRTUAL", "ITIMER_PROF"])
def test_a_timer_without_a_handler_does_not_strike_later(which: str) -> None:
    """Nothing but the timer tells of it, and what it does by default is to kill."""
    run(f"""
guard = SignalGuard()
signal.setitimer(signal.{which}, 3600, 1)
assert guard.restore() is True
assert signal.getitimer(signal.{which}) == (0, 0)
assert guard.restore() is False
""")


def test_a_timer_of_the_process_that_forks_is_not_there_in_the_child() -> None:
    run("""
signal.setitimer(signal.ITIMER_REAL, 3600)
guard = SignalGuard(in_fork=True)
if not os.fork():
    signal.setitimer(signal.ITIMER_REAL, 3600)
    guard.restore()
    os._exit(signal.getitimer(signal.ITIMER_REAL)[0] > 0)
assert os.wait()[1] == 0
""")


@pytest.mark.parametrize(
    ("which", "number"), [("ITIMER_REAL", "SIGALRM"), ("ITIMER_VIRTUAL", "SIGVTALRM"), ("ITIMER_PROF", "SIGPROF")]
)
def test_a_timer_of_the_initializer_goes_on(which: str, number: str) -> None:
    run(f"""
signal.signal(signal.{number}, lambda *_: None)
signal.setitimer(signal.{which}, 3600)
guard = SignalGuard()
assert guard.restore() is False
signal.signal(signal.SIGUSR1, lambda *_: None)
assert guard.restore() is True
assert signal.getitimer(signal.{which})[0] > 0
""")


def test_a_signal_that_waits_behind_the_mask_is_not_delivered_to_the_next_task() -> None:
    run("""
guard = SignalGuard()
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1, signal.SIGTERM])
os.kill(os.getpid(), signal.SIGUSR1)
os.kill(os.getpid(), signal.SIGTERM)
assert guard.restore() is True
assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == set()
""")


def test_a_handler_that_raises_at_every_moment() -> None:
    # A timer goes off again and again while restore() runs: in the comparison, before each signal.signal() ...
    run("""
class Late(BaseException): pass
def handler(_, frame):
    if frame.f_code.co_filename.endswith("signal_guard.py"):  # not in this program, between its own statements
        raise Late
for step in range(400):
    guard = SignalGuard()
    signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 1e-6 + step * 1e-7, 5e-5)
    while True:
        try:
            guard.restore()
        except Late:  # before the first statement of restore(): the caller's, not ours
            continue
        break
    assert signal.getsignal(signal.SIGALRM) is signal.SIG_DFL
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
""")


def test_a_handler_with_an_eq_that_raises() -> None:
    run("""
class Odd:
    def __call__(self, *_): pass
    def __eq__(self, other): raise SystemExit
    __hash__ = None
guard = SignalGuard()
signal.signal(signal.SIGUSR1, Odd())
assert guard.restore() is True
assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL
""")


def test_a_wakeup_descriptor_of_the_task_is_taken_back() -> None:
    run("""
guard = SignalGuard()
reading, writing = os.pipe()
os.set_blocking(writing, False)
signal.set_wakeup_fd(writing)
signal.signal(signal.SIGUSR1, lambda *_: None)
guard.restore()
assert signal.set_wakeup_fd(-1) == -1
""")


def test_ignored_and_blocked_signals_are_not_inherited_through_exec() -> None:
    run(
        """
assert signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN
reset_signals()
assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == set()
for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
    wanted = {signal.SIGINT: signal.default_int_handler, signal.SIGPIPE: signal.SIG_IGN, signal.SIGXFSZ: signal.SIG_IGN}
    assert signal.getsignal(number) is wanted.get(number, signal.SIG_DFL), number
""",
        prefix=("env", "--ignore-signal=CHLD,HUP,TERM,INT", "--block-signal=USR1,TERM"),
    )


def test_kept_handlers_are_there_before_a_waiting_signal_is_let_in() -> None:
    run("""
caught = []
signal.signal(signal.SIGTERM, lambda *_: caught.append(1))
reset_signals(keep=[signal.SIGTERM])
os.kill(os.getpid(), signal.SIGTERM)
assert caught == [1]
""")


def test_a_fault_handler_stays() -> None:
    # faulthandler installs its handlers from C, which Python's table does not show.
    run("""
import faulthandler, resource, tempfile
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
file = tempfile.TemporaryFile()
faulthandler.enable(file)
pid = os.fork()
if not pid:
    reset_signals()
    guard = SignalGuard()
    signal.signal(signal.SIGSEGV, lambda *_: None)
    guard.restore()
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
pid = os.fork()
if not pid:
    reset_signals()
    SignalGuard().restore()
    faulthandler._sigsegv()
assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGSEGV
file.seek(0)
assert b"Segmentation fault" in file.read()
""")
