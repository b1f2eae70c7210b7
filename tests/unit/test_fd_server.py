"""Who gets a descriptor of the pool's, and who does not. Both ends are in this process: the worker is we."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from forkpool._host.fd_server import FdServer
from forkpool._host.reactor import Reactor
from forkpool._shared.descriptors import recv_packet
from forkpool._shared.owning_payload import OwningPayload
from forkpool._shared.passed_fds import Holding
from tests.support.shortage import descriptors_left

ADDRESS = f"\0forkpool-test-{os.getpid()}".encode()


class Counter:
    """A server, and what it may hand out to which pid."""

    def __init__(self) -> None:
        self.reactor = Reactor()
        self.reactor.open()
        self.holding = Holding()
        self.again = True
        self.pids = {os.getpid()}
        self.server = FdServer(ADDRESS, self.reactor, self.calls_of)
        self.server.open()

    def calls_of(self, pid: int) -> list[tuple[bytes, bool]] | None:
        payload = OwningPayload()
        payload.holding = self.holding
        calls = [(b"a plain call", False), (payload, self.again)]
        return calls if pid in self.pids else None

    def serve(self) -> None:
        """Handle all that has come."""
        while ready := self.reactor.wait(0):
            self.reactor.handle(ready)

    def ask(self, key: str) -> list[int]:
        """Be a worker that asks."""
        with connected() as link:
            link.send(key.encode())
            self.serve()
            return recv_packet(link, 1, 1)[1]


def connected() -> socket.socket:
    link = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    link.settimeout(10)
    link.connect(ADDRESS)
    return link


def gets_nothing(link: socket.socket, key: str) -> bool:
    """Whether the other end hangs up, without a word. Waits for that."""
    try:
        link.send(key.encode())
        return recv_packet(link, 1, 1)[:2] == (b"", [])
    except ConnectionError:
        return True


@pytest.fixture
def counter() -> Iterator[Counter]:
    made = Counter()
    yield made
    made.server.close()
    made.reactor.close()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def is_same(fd: int, sock: socket.socket) -> bool:
    """Whether it leads there. Closes it."""
    try:
        return os.path.sameopenfile(fd, sock.fileno())
    finally:
        os.close(fd)


def test_a_worker_gets_what_its_calls_need(counter: Counter, pair: tuple[socket.socket, socket.socket]) -> None:
    key = counter.holding.hold(pair[0].fileno())
    for _ in range(2):
        (fd,) = counter.ask(key)
        assert not os.get_inheritable(fd)
        assert is_same(fd, pair[0])
    counter.again = False
    (fd,) = counter.ask(key)
    os.close(fd)
    assert counter.ask(key) == []
    assert not counter.holding
    assert counter.ask("nonsense") == []
    assert len(counter.server.fds()) == 1


def test_a_stranger_gets_nothing(counter: Counter, pair: tuple[socket.socket, socket.socket]) -> None:
    key = counter.holding.hold(pair[0].fileno())
    counter.pids.clear()
    with connected() as link:
        counter.serve()
        assert len(counter.server.fds()) == 1
        assert gets_nothing(link, key)


def test_it_is_the_kernel_that_says_who_asks(counter: Counter, pair: tuple[socket.socket, socket.socket]) -> None:
    """A child of ours, with our rights and the right key."""
    key = counter.holding.hold(pair[0].fileno())
    program = (
        "import socket, sys\n"
        "link = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n"
        f"link.connect({ADDRESS!r})\n"
        "print(flush=True)\n"
        "try:\n"
        f"    link.send({key!r}.encode())\n"
        "    print(link.recvmsg(9, 1000)[:2])\n"
        "except ConnectionError: print((b'', []))\n"
    )
    child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    child.stdout.readline()
    counter.serve()
    said, _ = child.communicate()
    assert said == "(b'', [])\n"


def test_who_says_nothing_holds_one_descriptor_at_most(counter: Counter) -> None:
    silent = [connected() for _ in range(5)]
    counter.serve()
    assert len(counter.server.fds()) == 2
    silent[-1].close()
    counter.serve()
    assert len(counter.server.fds()) == 1
    silent.append(connected())
    counter.serve()
    counter.server.forget(os.getpid())
    assert len(counter.server.fds()) == 1
    for link in silent:
        link.close()


def test_without_descriptors_who_waits_is_told_and_nobody_spins(
    counter: Counter, pair: tuple[socket.socket, socket.socket]
) -> None:
    key = counter.holding.hold(pair[0].fileno())
    waiting = [connected() for _ in range(3)]
    with descriptors_left(0):
        counter.serve()  # comes to an end
    for link in waiting:
        with link:
            assert gets_nothing(link, key)
    (fd,) = counter.ask(key)
    assert is_same(fd, pair[0])


def test_it_listens_again_when_it_could_not(counter: Counter) -> None:
    counter.server.close()
    with descriptors_left(0):
        counter.server.open()
        assert counter.server.fds() == []
    counter.server.open()
    counter.server.open()
    assert len(counter.server.fds()) == 1


def test_no_file_is_left(counter: Counter) -> None:
    name = ADDRESS.decode().replace("\0", "@")
    assert name in Path("/proc/net/unix").read_text()
    counter.server.close()
    assert name not in Path("/proc/net/unix").read_text()


def test_a_fork_closes_without_touching_the_reactor(counter: Counter) -> None:
    links = [connected()]
    counter.serve()
    counter.server.close_in_fork()
    assert counter.server.fds() == []
    for link in links:
        link.close()
