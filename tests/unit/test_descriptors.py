"""Descriptors that are moved, passed, and lost for want of room.

Runs in: pytest. What needs a low limit runs in a Python of its own.
"""

import fcntl
import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from forkpool._shared.descriptors import close_all, move_high, recv_packet, send_packet


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    yield ours, theirs
    ours.close()
    theirs.close()


def open_fds() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def test_a_descriptor_is_moved_out_of_reach() -> None:
    read, write = os.pipe()
    os.set_inheritable(write, True)
    high = move_high(write)
    assert high >= 100
    assert not os.get_inheritable(high)
    with pytest.raises(OSError, match="Bad file descriptor"):
        fcntl.fcntl(write, fcntl.F_GETFD)
    os.write(high, b"x")
    assert os.read(read, 1) == b"x"
    close_all([read, high])


def test_closing_twice_is_no_error() -> None:
    read, write = os.pipe()
    close_all([read, write, read])


def test_descriptors_travel_with_a_packet(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    before = open_fds()
    read, write = os.pipe()
    send_packet(ours, b"two", (read, write))
    close_all([read, write])
    data, fds, lost = recv_packet(theirs, 64, 2)
    assert (data, len(fds), lost) == (b"two", 2, False)
    assert not any(os.get_inheritable(fd) for fd in fds)
    os.write(fds[1], b"x")
    assert os.read(fds[0], 1) == b"x"
    close_all(fds)
    assert open_fds() == before


def test_a_packet_without_descriptors_and_the_end(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    send_packet(ours, b"none")
    assert recv_packet(theirs, 64, 3) == (b"none", [], False)
    with pytest.raises(BlockingIOError):
        recv_packet(theirs, 64, 3, socket.MSG_DONTWAIT)
    ours.close()
    assert recv_packet(theirs, 64, 3) == (b"", [], False)


def test_more_descriptors_than_asked_for_are_told(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    fds = [os.open(os.devnull, os.O_RDONLY) for _ in range(8)]
    before = open_fds()
    send_packet(ours, b"many", tuple(fds))
    _, came, lost = recv_packet(theirs, 64, 1)
    assert lost
    close_all(came)
    assert open_fds() == before
    close_all(fds)


AT_THE_LIMIT = """
import os, resource, socket, sys
from forkpool._shared.descriptors import close_all, move_high, recv_packet, send_packet
room = int(sys.argv[1])
ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
fds = [os.open(os.devnull, os.O_RDONLY) for _ in range(3)]
send_packet(ours, b"three", tuple(fds))
# As many holes as there is to be room, and none else below the limit.
used = {int(name) for name in os.listdir("/proc/self/fd")}
used.discard(max(used))  # of the listing itself
limit = max(used) + 1
fill = [os.open(os.devnull, os.O_RDONLY) for _ in range(limit - len(used))]
resource.setrlimit(resource.RLIMIT_NOFILE, (max(used) + 1 + room, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
data, came, lost = recv_packet(theirs, 64, 3)
close_all(came)
try:
    again = [os.open(os.devnull, os.O_RDONLY) for _ in range(room)]
    kept = "room again"
    close_all(again)
except OSError:
    kept = "leak"
moved = move_high(fds[0])
os.fstat(moved)
print(data.decode(), len(came), lost, kept, os.get_inheritable(moved))
"""


@pytest.mark.parametrize("room", range(5))
def test_what_finds_no_room_is_told_and_what_came_is_ours_to_close(room: int) -> None:
    done = subprocess.run([sys.executable, "-c", AT_THE_LIMIT, str(room)], capture_output=True, text=True, check=True)
    assert done.stdout == f"three {min(room, 3)} {room < 3} room again False\n"
