"""Hosts that others start: under gunicorn and celery, with the real libraries, and in a container.

Claims of docs/how-to/deploy.md. A container is made of its parts by `unshare`: PID 1, little /dev/shm, nothing to write to.
"""

import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import processes
from tests.support.script import Script

Start = Callable[..., Script]
pytestmark = pytest.mark.slow

# -- gunicorn

WEB_APP = """
import forkpool, os

def mark(name, value=""):
    os.write(1, f"MARK {name} {value}\\n".encode())

ex = forkpool.ForkPoolExecutor(1)

def app(environ, start_response):
    if environ["PATH_INFO"] == "/hold":
        mark("inside")
        open("go").close()
    try:
        text = f"{os.getpid()} {ex.submit(os.getppid).result()} {ex.submit(lambda: 6 * 7).result()}"
    except RuntimeError as error:
        text = str(error)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [text.encode()]
"""
GUNICORN = """
import pathlib, sys
pathlib.Path("web_app.py").write_text({app!r})
sys.argv = ["gunicorn", "--preload", "--bind=unix:socket", "--no-control-socket", "--workers={workers}", "web_app:app"]
pathlib.Path("gunicorn.conf.py").write_text({config!r})
os.mkfifo("go")
from gunicorn.app.wsgiapp import run
run()
"""
TELL = "import os\ndef when_ready(server): os.write(1, b'MARK ready\\n')\n"


def start_gunicorn(start: Start, folder: Path, *, app: str = WEB_APP, config: str = TELL, workers: int = 1) -> Script:
    script = start(GUNICORN.format(app=app, config=config, workers=workers), env={"HOME": str(folder)})
    script.wait_mark("ready")
    return script


def ask(folder: Path, path: str = "/") -> socket.socket:
    """Send a request; `answer` waits for what comes."""
    client = socket.socket(socket.AF_UNIX)
    directory = os.open(folder / "script0", os.O_PATH)  # the path itself may be too long for a socket
    client.connect(f"/proc/self/fd/{directory}/socket")
    os.close(directory)
    client.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
    return client


def answer(client: socket.socket) -> str:
    with client, client.makefile() as stream:
        return stream.read().partition("\n\n")[2]


def test_gunicorn_preloads_a_pool_that_was_not_used(start: Start, tmp_path: Path) -> None:
    """Each of gunicorn's workers has a fork server of its own."""
    script = start_gunicorn(start, tmp_path, workers=2)
    held = ask(tmp_path, "/hold")
    script.wait_mark("inside")
    other = answer(ask(tmp_path)).split()  # the other worker answers it: this one is held
    (tmp_path / "script0" / "go").write_text("")
    first = answer(held).split()
    assert first[2] == other[2] == "42"
    assert len({*first[:2], *other[:2]}) == 4
    stop(script)


def stop(script: Script) -> None:
    """A killed gunicorn would be noticed by its workers after some seconds only."""
    script.send(signal.SIGTERM)
    script.finish()
    processes.wait_none_marked()


USED = f"{WEB_APP}\nex.submit(abs, 1).result()\n"


def test_gunicorn_preloads_a_pool_that_was_used(start: Start, tmp_path: Path) -> None:
    script = start_gunicorn(start, tmp_path, app=USED)
    assert "post_fork" in answer(ask(tmp_path))
    stop(script)


MEND = f"{TELL}def post_fork(server, worker):\n    import forkpool, web_app\n    web_app.ex = forkpool.ForkPoolExecutor(1)\n"


def test_gunicorns_post_fork_makes_a_pool(start: Start, tmp_path: Path) -> None:
    script = start_gunicorn(start, tmp_path, app=USED, config=MEND)
    assert answer(ask(tmp_path)).split()[2] == "42"
    stop(script)


GREEN = """
import forkpool, os

ex = forkpool.ForkPoolExecutor(2)

def hold():
    os.write(1, b"MARK inside\\n")
    open("go").close()

def app(environ, start_response):
    if environ["PATH_INFO"] == "/hold":
        ex.submit(hold).result()
    text = f"{os.getpid()} {ex.submit(lambda: 6 * 7).result()}"
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [text.encode()]
"""


def test_gunicorns_gevent_worker_answers_others_while_a_call_runs(start: Start, tmp_path: Path) -> None:
    """It has patched the process before the pool's first submit."""
    script = start_gunicorn(start, tmp_path, app=GREEN, config=f"{TELL}worker_class = 'gevent'\n")
    held = ask(tmp_path, "/hold")
    script.wait_mark("inside")
    pid, other = answer(ask(tmp_path)).split()
    (tmp_path / "script0" / "go").write_text("")
    assert answer(held).split() == [pid, other] == [pid, "42"]
    stop(script)


# -- celery

CELERY = """
import signal, threading, time
from concurrent.futures import ProcessPoolExecutor
from celery import Celery
from celery.exceptions import SoftTimeLimitExceeded
from celery.signals import worker_process_init, worker_ready
import forkpool

app = Celery("app", broker="memory://", backend=f"file://{os.getcwd()}/results")
app.conf.broker_transport_options = {"polling_interval": 0.02}
os.mkdir("results")
ex, used = forkpool.ForkPoolExecutor(1), forkpool.ForkPoolExecutor(1)
mine = None

@worker_process_init.connect
def make_mine(**_):
    global mine
    mine = forkpool.ForkPoolExecutor(1)

@app.task
def use():
    return ex.submit(lambda: 6 * 7).result()

@app.task
def standard():
    with ProcessPoolExecutor(1) as pool:
        return pool.submit(abs, -1).result()

@app.task
def crash():
    return type(ex.submit(os.abort).exception()).__name__

@app.task
def use_mine():
    return mine.submit(abs, -1).result()

@app.task
def use_used():
    return used.submit(abs, -1).result()

@app.task(soft_time_limit=1)
def soft_limit():
    future = ex.submit(time.sleep, 60)
    try:
        return future.result()
    except SoftTimeLimitExceeded:
        return [future.kill(), ex.submit(abs, -1).result()]

@app.task(time_limit=1)
def hard_limit():
    mark("stuck", ex.submit(os.getpid).result())
    return ex.submit(time.sleep, 60).result()

def client():
    mark("used", used.submit(abs, -1).result())  # in the main process, after its fork
    # The one that gets killed comes last: celery's own queue, whose lock all its processes share, may hang after that.
    tasks = [crash, standard, use_mine, use_used, use, soft_limit, hard_limit]
    for name, sent in [(task.__name__, task.delay()) for task in tasks]:
        try:
            mark(name, sent.get(timeout=30, interval=0.02, disable_sync_subtasks=False))
        except BaseException as error:
            mark(name, f"{type(error).__name__} {error}".replace(chr(10), " "))
    mark("end")

@worker_ready.connect
def begin(**_):
    threading.Thread(target=client, daemon=True).start()

USE_BEFORE_THE_FORK
app.worker_main(["worker", "-c2", "--loglevel=critical", "--without-gossip", "--without-mingle", "--without-heartbeat"])
"""


def test_celery_prefork(start: Start) -> None:
    """A pool of each process; the standard one is refused; limits, a crash, and the end of it all."""
    script = start(CELERY.replace("USE_BEFORE_THE_FORK", "used.submit(abs, -1).result()"))
    script.wait_mark("end")
    assert script.value("used") == "1"
    assert script.value("use") == "42"
    assert script.value("use_mine") == "1"
    assert script.value("crash") == "WorkerCrashedError"
    assert "daemonic processes are not allowed to have children" in script.value("standard")
    assert "worker_process_init" in script.value("use_used")
    assert script.value("soft_limit") == "[True, 1]"
    assert script.value("hard_limit").startswith("TimeLimitExceeded")
    processes.wait_exit(int(script.value("stuck")))  # celery killed the process that owned it
    script.send(signal.SIGKILL)
    script.finish(status=-signal.SIGKILL)
    processes.wait_none_marked()


LIMIT = """
import signal, time
import forkpool

class Limit(BaseException):
    pass

def on_alarm(*_):
    raise Limit

signal.signal(signal.SIGALRM, on_alarm)
try:
    with forkpool.ForkPoolExecutor(1) as ex:
        future = ex.submit(WORK)
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        try:
            future.result()
        finally:
            CLEAN_UP
except Limit:
    mark("left", future.cancelled())
"""


def test_a_limit_that_a_signal_handler_raises_waits_for_what_runs(start: Start) -> None:
    """airflow's execution_timeout, celery's soft limit: the `with` block waits, unless the call is killed."""
    script = start(LIMIT.replace("WORK", "time.sleep, 0.5").replace("CLEAN_UP", "pass")).finish()
    assert script.value("left") == "False"
    script = start(LIMIT.replace("WORK", "time.sleep, 60").replace("CLEAN_UP", "future.kill()")).finish()
    assert script.value("left") == "True"


# -- a container

CONTAINER = """
mount -t tmpfs -o size=64k tmpfs /dev/shm &&
mount -o remount,bind,ro / &&
mount -o remount,bind,ro "$(stat -c %m .)" &&
exec "$@"
"""
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="unshare --mount --pid wants root")


@needs_root
def test_in_a_container_without_shared_memory_and_without_an_init(start: Start) -> None:
    script = start(
        """
import forkpool, os, select, signal, subprocess
from multiprocessing.shared_memory import SharedMemory

def fill():
    shared = SharedMemory(create=True, size=1 << 20)
    shared.unlink()
    shared.buf[:] = bytes(1 << 20)

def leave_a_daemon():
    return int(subprocess.check_output(["sh", "-c", "setsid sleep 60 > /dev/null & echo $!"]))

assert os.getpid() == 1
try:
    open("written", "w")
except OSError as error:
    mark("read-only", error.strerror)
with forkpool.ForkPoolExecutor(2) as ex:
    mark("big", ex.submit(len, ex.submit(bytes, 10_000_000).result()).result())
    error = ex.submit(fill).exception()
    mark("shm", f"{type(error).__name__} {error.signal}")
    mark("after", ex.submit(abs, -1).result())
    daemon = ex.submit(leave_a_daemon).result()
    os.kill(daemon, signal.SIGKILL)
    select.select([os.pidfd_open(daemon)], [], [])  # it has ended, and nobody waits for it
    mark("daemon", open(f"/proc/{daemon}/stat").read().split()[2])
    os.kill(1, signal.SIGTERM)  # as `docker stop` does
    mark("ignored")
    signal.signal(signal.SIGTERM, lambda *_: exit(7))
    os.kill(1, signal.SIGTERM)
""",
        prefix=["unshare", "--mount", "--pid", "--fork", "--mount-proc", "bash", "-c", CONTAINER, "bash"],
    ).finish(status=7)
    assert script.value("read-only") == "Read-only file system"
    assert script.value("big") == "10000000"
    assert script.value("shm") == "WorkerCrashedError SIGBUS"
    assert script.value("after") == "1"
    assert script.value("daemon") == "Z"
    assert script.all("ignored") == [""]
