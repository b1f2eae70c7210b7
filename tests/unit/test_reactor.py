"""The supervisor's one selector: who is called, and what is left when the kernel has no room for another watch.

Runs in: pytest; real pipes, no process.
"""

import errno
import os
from collections.abc import Iterator

import pytest

from forkpool._host.reactor import Reactor
from tests.support.shortage import FullEpoll


@pytest.fixture
def reactor() -> Iterator[Reactor]:
    reactor = Reactor()
    reactor.open()
    yield reactor
    reactor.close()


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def test_who_watches_is_called_until_he_does_not(reactor: Reactor, pipe: tuple[int, int]) -> None:
    calls: list[str] = []
    reactor.watch(pipe[0], lambda: calls.append("readable"))
    assert reactor.wait(0) == []
    os.write(pipe[1], b".")
    reactor.handle(reactor.wait(None))
    assert calls == ["readable"]
    reactor.unwatch(pipe[0])
    reactor.unwatch(pipe[0])
    assert reactor.wait(0) == []


def test_a_handler_that_is_gone_meanwhile_is_not_called(reactor: Reactor, pipe: tuple[int, int]) -> None:
    reactor.watch(pipe[0], lambda: pytest.fail("called"))
    os.write(pipe[1], b".")
    ready = reactor.wait(None)
    reactor.unwatch(pipe[0])
    reactor.handle(ready)


def test_who_got_the_number_of_one_that_was_ready_is_not_called(reactor: Reactor, pipe: tuple[int, int]) -> None:
    # 1. a fork server and another are ready; 2. the handler of the first closes the other, and a new worker's pidfd
    # gets its number; 3. that worker lives, and was taken for dead.
    first, other = os.pipe(), os.pipe()

    def replace_first() -> None:
        reactor.unwatch(first[0])
        os.dup2(other[0], first[0])
        reactor.watch(first[0], lambda: pytest.fail("called"))

    reactor.watch(pipe[0], replace_first)
    reactor.watch(first[0], lambda: pytest.fail("it comes behind the other"))
    for end in (pipe[1], first[1]):
        os.write(end, b".")
    reactor.handle(sorted(reactor.wait(None), key=lambda fd: fd == first[0]))
    assert reactor.wait(0) == [pipe[0]]
    for end in (*first, *other):
        os.close(end)


def test_a_reserved_one_is_silent_until_it_is_watched(reactor: Reactor, pipe: tuple[int, int]) -> None:
    reactor.reserve(pipe[1])
    for _ in range(2):
        assert reactor.wait(0) == []
        reactor.watch(pipe[1], lambda: None, writable=True)
        assert reactor.wait(0) == [pipe[1]]
        reactor.unwatch(pipe[1])
    reactor.watch(pipe[1], lambda: None, writable=True)
    reactor.release(pipe[1])
    reactor.release(pipe[1])
    assert reactor.wait(0) == []
    reactor.reserve(pipe[1])


def test_a_reserved_one_can_be_watched_when_there_is_no_room(monkeypatch: pytest.MonkeyPatch, pipe: tuple[int, int]) -> None:
    epoll = FullEpoll(monkeypatch)
    reactor = Reactor()
    reactor.open()
    reactor.reserve(pipe[1])
    epoll.room = 0
    reactor.watch(pipe[1], lambda: None, writable=True)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        reactor.watch(pipe[0], lambda: None)
    reactor.unwatch(pipe[0])
    assert reactor.wait(0) == [pipe[1]]
    reactor.close()
