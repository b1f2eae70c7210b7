"""Sockets and connections in calls: they arrive, as often as they are needed, and nothing of them is left.

Runs in: pytest and workers. The leak check of each test compares descriptors and threads.
"""

import errno
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import ExitStack
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from forkpool import ForkPoolExecutor, InlineExecutor, SerializationError, WorkerCrashedError, current_task
from tests.support.gate import Gate, GateInTask, Marks
from tests.support.leaks import open_fds
from tests.support.script import Script
from tests.support.shortage import descriptors_left

Pair = tuple[socket.socket, socket.socket]
Start = Callable[..., Script]


@pytest.fixture
def pair(leak_check: None) -> Iterator[Pair]:
    ours, theirs = socket.socketpair()
    ours.settimeout(30)
    with ours, theirs:
        yield ours, theirs


def say(sock: socket.socket) -> int:
    with sock:
        sock.sendall(b".")
    return os.getpid()


def echo(sock: socket.socket) -> tuple[str, float | None, bool]:
    with sock:
        sock.sendall(sock.recv(9).upper())
        return f"{sock.family.name} {sock.type.name}", sock.gettimeout(), os.get_inheritable(sock.fileno())


def accept(listening: socket.socket) -> None:
    with listening, listening.accept()[0] as link:
        link.sendall(b"accepted")


def answer(reader: Connection, writer: Connection) -> None:
    writer.send(reader.recv() + 1)


def abstract_names() -> set[str]:
    """Of the pools of this process."""
    words = Path("/proc/net/unix").read_text().split()
    return {word for word in words if word.startswith("@forkpool-") and word.endswith(f"-{os.getpid()}")}


def held(ex: ForkPoolExecutor, sock: socket.socket) -> int:
    """How many duplicates of this socket are in our process, when the pool has dealt with all that was told before."""
    ex.statistics()
    return list(open_fds().values()).count(os.readlink(f"/proc/self/fd/{sock.fileno()}")) - 1


@pytest.fixture(params=["auto", "pickle", "cloudpickle", "inline"])
def pool(request: pytest.FixtureRequest, leak_check: None) -> Iterator[ForkPoolExecutor]:
    made = InlineExecutor(1) if request.param == "inline" else ForkPoolExecutor(1, serializer=request.param)
    with made as ex:
        yield ex
    assert not abstract_names()


def test_each_kind_arrives_and_stays_open_here(pool: ForkPoolExecutor, pair: Pair) -> None:
    ours, theirs = pair
    with ExitStack() as stack:
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        near = stack.enter_context(socket.create_connection(listening.getsockname()))
        far = stack.enter_context(listening.accept()[0])
        udp = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        udp.bind(("127.0.0.1", 0))
        other = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        other.connect(udp.getsockname())
        udp.connect(other.getsockname())
        theirs.settimeout(7.5)
        for here, there, said in (
            (ours, theirs, ("AF_UNIX SOCK_STREAM", 7.5, False)),
            (near, far, ("AF_INET SOCK_STREAM", None, False)),
            (other, udp, ("AF_INET SOCK_DGRAM", None, False)),
        ):
            for _ in range(2):
                here.send(b"text")
                assert pool.submit(echo, there).result() == said
                assert here.recv(9) == b"TEXT"
            assert there.fileno() >= 0
        with socket.create_connection(listening.getsockname()) as link:
            pool.submit(accept, listening).result()
            assert link.recv(9) == b"accepted"


def test_pipes_arrive_both_ends_both_ways(pool: ForkPoolExecutor) -> None:
    reader, our_writer = multiprocessing.Pipe(duplex=False)
    our_reader, writer = multiprocessing.Pipe(duplex=False)
    ours, theirs = multiprocessing.Pipe()
    with reader, our_writer, our_reader, writer, ours, theirs:
        our_writer.send(1)
        pool.submit(answer, reader, writer).result()
        assert our_reader.recv() == 2
        ours.send(3)
        pool.submit(answer, theirs, theirs).result()
        assert ours.recv() == 4
        our_writer.send(5)
        assert list(pool.map(answer, [reader], [theirs])) == [None]
        assert ours.recv() == 6


def give_back(sock: socket.socket) -> socket.socket:
    warnings.simplefilter("ignore", ResourceWarning)  # nobody closes it
    return sock


def give_back_through(sock: socket.socket, fd: int) -> None:
    with sock:
        socket.send_fds(sock, [b"one"], [fd])


def test_a_socket_as_result_gets_an_error_with_the_remedy(pair: Pair) -> None:
    with ForkPoolExecutor(1) as ex:
        with pytest.raises(SerializationError, match=r"is a socket, which a task can be given and cannot return; .*send_fds"):
            ex.submit(give_back, pair[1]).result()
        ex.submit(give_back_through, pair[1], 2).result()
    _, fds, _, _ = socket.recv_fds(pair[0], 9, 1)
    for fd in fds:
        os.close(fd)
    assert len(fds) == 1


def test_many_calls_with_one_socket_hold_one_descriptor(pair: Pair, gate: Gate) -> None:
    """A long queue does not use up the descriptors, and what is cancelled in it, or done, holds none."""
    ours, theirs = pair
    with ForkPoolExecutor(2) as ex:
        running = [ex.submit(say_and_wait, theirs, gate) for _ in range(2)]
        gate.wait_inside()
        gate.wait_inside()
        assert held(ex, theirs) == 0
        queued = [ex.submit(say, theirs) for _ in range(200)]
        assert held(ex, theirs) == 1
        assert all(future.cancel() for future in queued[100:])
        gate.open_for_all()
        assert all(future.exception() is None for future in running + queued[:100])
        assert held(ex, theirs) == 0
        assert len(ours.recv(999)) == 102


def test_cancelled_and_killed_calls_hold_nothing(pair: Pair, gate: Gate) -> None:
    _, theirs = pair
    with ForkPoolExecutor(1) as ex:
        running = ex.submit(GateInTask.enter, gate)
        gate.wait_inside()
        queued = ex.submit(say, theirs)
        assert held(ex, theirs) == 1
        assert queued.cancel()
        assert held(ex, theirs) == 0
        gate.release()
        running.result()
        running = ex.options(retries=1).submit(say_and_wait, theirs, gate)
        gate.wait_inside()
        assert held(ex, theirs) == 1  # it may have to run again
        assert running.kill()
        with pytest.raises(CancelledError):
            running.result()
        assert held(ex, theirs) == 0
        queued = ex.submit(say, theirs)
        ex.shutdown(cancel_futures=True)
        assert held(ex, theirs) == 0
        assert queued.done()


def say_and_wait(sock: socket.socket, gate: GateInTask) -> None:
    with sock:
        sock.sendall(b".")
        gate.enter()


def test_the_other_end_sees_the_end_when_the_task_closes_it(pair: Pair, gate: Gate) -> None:
    """Not when the future is done: a task may wait for what the other end does then."""
    ours, theirs = pair
    with ForkPoolExecutor(1) as ex:
        future = ex.submit(close_and_wait, theirs, [theirs], gate)
        theirs.close()
        gate.wait_inside()
        assert ours.recv(1) == b"."
        assert ours.recv(1) == b""
        gate.release()
        future.result()


def close_and_wait(sock: socket.socket, same: list[socket.socket], gate: GateInTask) -> None:
    assert sock is same[0]
    say(sock)
    gate.enter()


class DieOnArrival:
    """Kills the worker that unpickles it for the first time."""

    def __init__(self, marks: Marks) -> None:
        self.marks = marks

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if not self.marks.words():
            self.marks.add("arrived")
            os.kill(os.getpid(), signal.SIGKILL)


def say_until(sock: socket.socket, last: int, _: object = None) -> int:
    with sock:
        sock.sendall(b".")
    task = current_task()
    assert task is not None
    if task.attempt < last:
        os.kill(os.getpid(), signal.SIGKILL)
    return task.attempt


def test_each_attempt_gets_it_also_after_sigkill(pair: Pair, marks: Marks) -> None:
    ours, theirs = pair
    with ForkPoolExecutor(1) as ex:
        assert ex.options(retries=3).submit(say_until, theirs, 3).result() == 3
        assert ex.options(retries=2).submit(say_until, theirs, 2, DieOnArrival(marks)).result() == 2
        assert ours.recv(9) == b"...."
        # A crash takes no call with it that waits behind, in the worker's pipe or in the queue.
        crash = ex.submit(say_until, theirs, 9)
        behind = [ex.submit(say, theirs) for _ in range(20)]
        assert type(crash.exception()) is WorkerCrashedError
        assert all(future.exception() is None for future in behind)
        assert ours.recv(99) == b"." * 21


def keep(sock: socket.socket, connection: Connection) -> None:
    global kept
    kept = sock, connection
    sock.sendall(b"i")


kept: tuple[socket.socket, Connection]


def use(how: str) -> int:
    sock, connection = kept
    connection.send(how)
    if how == "crash":
        os.kill(os.getpid(), signal.SIGKILL)
    sock.sendall(b".")
    return os.getpid()


def test_initargs_reach_each_worker_also_after_crash_and_recycling(pair: Pair) -> None:
    ours, theirs = pair
    near, far = multiprocessing.Pipe()
    with near, far:
        with ForkPoolExecutor(1, initializer=keep, initargs=(theirs, far), max_tasks_per_child=2) as ex:
            pids = {ex.submit(use, "run").result() for _ in range(4)}
            theirs.close()
            assert type(ex.submit(use, "crash").exception()) is WorkerCrashedError
            pids.add(ex.submit(use, "run").result())
            ex.restart_workers()
            pids.add(ex.submit(use, "run").result())
            assert len(pids) == 4
        assert [near.recv() for _ in range(7)] == [*["run"] * 4, "crash", "run", "run"]
        said = b"".join(iter(lambda: ours.recv(99), b""))  # the pool lets go of it with its end
        assert said.count(b".") == 6
        assert said.count(b"i") >= 5


SPY = """
import socket, sys
for name in sys.argv[1:]:
    link = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    link.connect(name.replace("@", chr(0)))
    try:
        link.send(sys.stdin.readline().encode())
        print(*link.recvmsg(9, 1000)[:2])
    except ConnectionError:
        print(b"", [])
"""


def ask_for(name: str, key: str) -> list[int]:
    """What a task can do that looks for the descriptors of other calls."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as link:
        link.connect(name.replace("@", "\0"))
        link.send(key.encode())
        return list(socket.recv_fds(link, 9, 9)[1])


def test_nobody_else_gets_it(pair: Pair, gate: Gate) -> None:
    """Neither another process of the same user, nor a worker that was not sent the call."""
    _, theirs = pair
    status = os.fstat(theirs.fileno())
    key = f"{status.st_dev:x}.{status.st_ino:x}"
    with ForkPoolExecutor(2) as ex:
        running = ex.options(retries=1).submit(say_and_wait, theirs, gate)
        gate.wait_inside()
        (name,) = abstract_names()
        spy = subprocess.run([sys.executable, "-c", SPY, name], input=key, capture_output=True, text=True, check=True)
        assert spy.stdout == "b'' []\n"
        assert ex.submit(ask_for, name, key).result() == []
        gate.release()
        running.result()


def test_in_a_shortage_of_descriptors_one_call_fails(pair: Pair, gate: Gate) -> None:
    ours, theirs = pair
    with ForkPoolExecutor(1) as ex:
        assert ex.submit(say, theirs).result()
        ex.submit(GateInTask.enter, gate)
        failing = ex.submit(say, theirs)
        gate.wait_inside()
        with descriptors_left(0):
            gate.release()
            error = failing.exception()
        assert type(error) is ConnectionError
        assert "no file descriptors left" in str(error)
        ex.submit(say, theirs).result()
        assert ours.recv(9) == b".."


def test_in_a_shortage_of_descriptors_at_submit_the_call_fails(pair: Pair, gate: Gate) -> None:
    ours, theirs = pair
    with ForkPoolExecutor(1) as ex:
        pid = ex.submit(say, theirs).result()
        other = ex.submit(GateInTask.enter, gate)
        gate.wait_inside()
        with descriptors_left(0):
            failing = ex.submit(say, theirs)
            error = failing.exception(timeout=0)
        assert type(error) is SerializationError
        assert error.may_have_run == "no"
        assert os.strerror(errno.EMFILE) in str(error)
        assert not other.done()
        gate.release()
        assert other.result() is None
        assert ex.submit(say, theirs).result() == pid
        assert ours.recv(9) == b".."


def test_a_worker_without_descriptors(pair: Pair) -> None:
    ours, theirs = pair
    with ForkPoolExecutor(1) as ex:
        pid = ex.submit(say, theirs).result()
        for left in (0, 1):  # none to ask with; none for what comes
            with descriptors_left(left, pid):
                error = ex.submit(say, theirs).exception()
            assert isinstance(error, OSError)
            assert error.errno == errno.EMFILE
        assert ex.submit(say, theirs).result() == pid
        assert ours.recv(9) == b".."


def test_globals_of_the_program_and_a_fork_of_the_host(start: Start) -> None:
    """A global crosses once. What waits for a worker is not kept open by a fork of the host."""
    program = start("""
        import socket
        from forkpool import ForkPoolExecutor
        near, far = socket.socketpair()
        blocked, block = os.pipe()
        os.set_inheritable(blocked, True)

        def use():
            far.sendall(b"g")
            return id(far)

        def wait(path):
            open(path).read(1)

        os.mkfifo("block")
        with ForkPoolExecutor(1) as ex:
            mark("objects", len({ex.submit(use).result() for _ in range(3)}))
            mark("said", near.recv(9).decode())
            running = ex.submit(wait, os.path.abspath("block"))
            mine, yours = socket.socketpair()
            waiting = ex.submit(yours.sendall, b"waited")
            inode = os.fstat(yours.fileno()).st_ino
            yours.close()
            pid = os.fork()
            if not pid:
                links = []
                for fd in os.listdir("/proc/self/fd"):
                    try:
                        links.append(os.readlink(f"/proc/self/fd/{fd}"))
                    except OSError:
                        pass
                os._exit(links.count(f"socket:[{inode}]"))
            mark("kept", os.waitpid(pid, 0)[1])
            open("block", "w").close()
            waiting.result()
            mark("waited", mine.recv(9).decode())
        """).finish()
    assert program.value("objects") == "1"
    assert program.value("said") == "ggg"
    assert program.value("kept") == "0"
    assert program.value("waited") == "waited"
