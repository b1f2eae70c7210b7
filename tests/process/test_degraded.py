"""Machines that lack something: /proc, room in /dev/shm, pidfds. The pool works with less and says so, or says what it needs.

The programs take it away from themselves: a mount namespace of their own, a seccomp filter. Real ones, so root is needed.
"""

import os
from collections.abc import Callable

import pytest

from tests.support import processes
from tests.support.gate import Gate
from tests.support.script import Script

Start = Callable[..., Script]

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mount namespaces want root")

TAKE_AWAY = """
import ctypes, logging, struct
libc = ctypes.CDLL(None, use_errno=True)

def check(result):
    if result:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

def mount(path, options):
    check(libc.unshare(0x20000))  # CLONE_NEWNS
    check(libc.mount(None, b"/", None, 1 << 14 | 1 << 18, None))  # MS_REC | MS_PRIVATE
    check(libc.mount(b"tmpfs", path, b"tmpfs", 0, options))

def forbid(*numbers):
    # EPERM for these system calls, seccomp(2): the filter loads the number and compares.
    rows = [(0x20, 0, 0, 0)]
    for number in numbers:
        rows += [(0x15, 0, 1, number), (0x06, 0, 0, 0x00050000 | 1)]
    rows.append((0x06, 0, 0, 0x7FFF0000))
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *row) for row in rows))
    program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(rows), ctypes.addressof(code)))
    check(libc.prctl(38, 1, 0, 0, 0))  # PR_SET_NO_NEW_PRIVS
    check(libc.prctl(22, 2, program, 0, 0))  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER

class Said(logging.Handler):
    def emit(self, record):
        mark("said", record.getMessage())

logging.getLogger("forkpool").addHandler(Said())
import forkpool

def use(ex):
    mark("results", [f.result() for f in [ex.submit(pow, n, 2) for n in range(300)]] == [n * n for n in range(300)])
    mark("large", len(ex.submit(bytes, 1 << 20).result()))
    mark("large-call", ex.submit(len, bytes(1 << 20)).result())
    error = ex.submit(os._exit, 3).exception()
    mark("crash", f"{type(error).__name__} {error.exitcode}")
    error = ex.options(timeout=0.05).submit(sum, range(1 << 40)).exception()
    mark("timeout", type(error).__name__)
"""


def check_use(script: Script) -> None:
    assert script.value("results") == "True"
    assert script.value("large") == script.value("large-call") == str(1 << 20)
    assert script.value("crash") == "WorkerCrashedError 3"
    assert script.value("timeout") == "TaskTimeoutError"


WITHOUT_PROC = """
from tests.support import tasks
from tests.support.gate import GateInTask
mount(b"/proc", None)
gate, second = GateInTask(*sys.argv[1:3]), GateInTask(*sys.argv[3:5])
ex = forkpool.ForkPoolExecutor(2)
use(ex)
server = ex.submit(os.getppid).result()
running = ex.submit(tasks.enter, gate)
second.wait_go()
mark("behind", [f.result() for f in [ex.submit(abs, -n) for n in range(50)]] == list(range(50)))
from forkpool.doctor import examine
report = examine()
mark("doctor", f"{report['works']} {[one['present'] for one in report['kernel'] if one['name'] == '/proc']}")
view = ex.options(memory_limit=1 << 20)
mark("limit", [view.submit(tasks.grow_then, 8, abs, -n).result() for n in range(2)])
stuck = ex.submit(tasks.tell_then, gate, tasks.busy_in_c)
second.wait_go()
os.kill(server, 9)
os.kill(os.getpid(), 9)
"""


def test_without_proc(start: Start, gate: Gate, second_gate: Gate) -> None:
    """No worker could be started. At the end the server is killed before the host, with one worker waiting and one in C."""
    paths = [gate.inside_path, gate.go_path, second_gate.inside_path, second_gate.go_path]
    script = start(TAKE_AWAY + WITHOUT_PROC, args=paths)
    gate.wait_inside()
    second_gate.release()
    gate.wait_inside()
    second_gate.release()
    script.finish(status=-9)
    check_use(script)
    assert script.value("behind") == "True"
    assert script.value("doctor") == "True [False]"
    said = script.all("said")
    assert len(said) == 3, "once for this pool, once for the doctor's, once of what this pool cannot do"
    assert "/proc" in said[0]
    assert script.value("limit") == "[0, 1]"
    assert "memory_limit cannot be watched" in said[2]
    processes.wait_none_marked()


FOREIGN_PROC = """
import warnings
from forkpool import diagnostics
from tests.support import tasks
warnings.simplefilter("error")
with forkpool.ForkPoolExecutor(2, preload=("json",)) as ex:
    use(ex)
    view = ex.options(memory_limit=1 << 20)
    mark("limit", [view.submit(tasks.grow_then, 8, abs, -n).result() for n in range(2)])
    mark("processes", len(diagnostics.snapshot(ex).processes))
from forkpool.doctor import examine
report = examine()
mark("doctor", f"{report['works']} {[one['present'] for one in report['kernel'] if one['name'] == '/proc']}")
"""


def test_with_the_proc_of_another_pid_namespace(start: Start) -> None:
    """There our numbers are those of foreign processes: a task that slept was killed for what one of them held."""
    script = start(TAKE_AWAY + FOREIGN_PROC, prefix=["unshare", "--pid", "--fork"]).finish()
    check_use(script)
    assert script.value("limit") == "[0, 1]"
    assert script.value("processes") == "0"
    assert script.value("doctor") == "True [False]"
    said = script.all("said")
    assert len(said) == 3, "once for this pool, once of what it cannot do, once for the doctor's"
    assert "another pid namespace" in said[0]
    assert "memory_limit cannot be watched" in said[1]
    assert "another pid namespace" in said[2]


@pytest.mark.parametrize("where", ["missing", "full"])
def test_without_room_in_dev_shm(start: Start, where: str) -> None:
    take_away = 'mount(b"/dev/shm", b"size=4k")\nopen("/dev/shm/full", "wb").write(bytes(4096))'
    if where == "missing":
        take_away = 'mount(b"/dev", None)\nos.mknod("/dev/null", 0o20666, os.makedev(1, 3))'
    script = start(f"{TAKE_AWAY}\n{take_away}\nwith forkpool.ForkPoolExecutor(2, pin=False) as ex:\n    use(ex)\n").finish()
    check_use(script)
    assert script.all("said") == []


def test_without_pidfds(start: Start) -> None:
    script = start(f"""{TAKE_AWAY}
forbid(434)  # pidfd_open, the same on all machines
with forkpool.ForkPoolExecutor(2) as ex:
    use(ex)
from forkpool.doctor import examine
report = examine()
mark("doctor", f"{{report['works']}} {{[one['present'] for one in report['kernel'] if one['name'] == 'pidfd']}}")
""").finish()
    check_use(script)
    assert script.value("doctor") == "True [False]"
    said = script.all("said")
    assert len(said) == 2, "once for this pool, once for the doctor's"
    assert all("pidfd_open" in text for text in said)
    processes.wait_none_marked()


def test_without_signals_through_pidfds(start: Start) -> None:
    """The first kill ended the supervisor."""
    script = start(f"""{TAKE_AWAY}
forbid(424)  # pidfd_send_signal
with forkpool.ForkPoolExecutor(2) as ex:
    use(ex)
""").finish()
    check_use(script)
    processes.wait_none_marked()
