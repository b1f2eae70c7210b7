"""Payloads that own more than their bytes: large contents of globals, which cross to each worker once, descriptors, and locks.

Runs in: host (the thread that submits makes them; the supervisor sends them), worker (what is below `take_out`).
A worker compares digests, and never looks at the content of a global that it has already. So the table has nothing in place of
a large content, and all calls that wait share one. The host notes what each worker was sent (`Worker.has`), and sends the
`whole` call to one that lacks something.
Hard part: the note may be wrong. A worker may have failed to unpickle what it was sent, and a call that was pickled before
a global grew large changes it behind the host's back. So the worker decides: it looks before it unpickles anything, and says
that it is `Lacking`. The call did not begin then, and is sent again, whole.
Also hard: a lock of multiprocessing is a name, which the last who holds it in the host takes away: code of others, which talks
to their resource tracker and may wait for it. So a payload that goes, on the supervisor's thread or wherever, only puts down
what it `Kept`; who next submits such a thing, or waits for the end of a pool, lets it go (`let_go`).
Tests: tests/unit/test_payload_large_globals.py, tests/process/test_large_globals.py, tests/unit/test_machine_contents.py
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from forkpool._shared.parts import LENGTH, WHOLE, split, with_length

if TYPE_CHECKING:
    from forkpool._shared.passed_fds import Holding

LARGE = 1 << 14  # bytes; a call with less in its table may be known again (`repeated_calls`), which is worth more

Entry = tuple[Any, ...]
Key = tuple[str, ...]


class Lacking(Exception):
    """This worker lacks a content of the call: nothing of it was unpickled."""


class Content:
    """What a global is pickled to, shared by all calls that wait with it."""

    __slots__ = ("__weakref__", "data", "digest")

    def __init__(self, digest: bytes, data: bytes) -> None:
        self.digest = digest
        self.data = data


class Kept:
    """Locks of the program that a payload names: they are there until nobody can run the call any more."""

    __slots__ = ("_locks",)

    def __init__(self) -> None:
        self._locks: list[Any] = []

    def keep(self, lock: Any) -> None:
        self._locks.append(lock)

    def __del__(self) -> None:
        _put_down.append(self._locks)


def let_go() -> None:
    """Where code of others may run: let go of the locks of payloads that are gone."""
    with contextlib.suppress(IndexError):
        while True:
            _put_down.popleft()


class OwningPayload(bytes):
    """The payload of a call, without `contents`."""

    holding: Holding | None = None  # descriptors that the call needs
    kept: Kept | None = None
    contents: dict[Key, Content]  # by the key of the global; in the order of the table

    def whole(self) -> list[bytes | memoryview]:
        """Return the payload with all contents in it, as pieces that follow each other: nothing large is copied."""
        pieces: list[bytes | memoryview] = [bytes((self[0] | WHOLE,)), LENGTH.pack(len(self.contents))]
        for content in self.contents.values():
            pieces += with_length(content.data)
        return [*pieces, memoryview(self)[1:]]


def take_out(entries: Iterable[Entry]) -> tuple[list[Entry], dict[Key, Content]]:
    """Return the entries of a table without their large contents, and these."""
    rest, contents = [], {}
    for entry in entries:
        key, order, digest, data, *_ = entry
        if key[0] != "c" and len(data) >= LARGE:
            content = _contents.get(digest)
            if content is None:
                content = _contents[digest] = Content(digest, data)
            contents[key] = content
            entry = (key, order, digest, None)
        rest.append(entry)
    return rest, contents


def split_contents(view: memoryview) -> tuple[list[memoryview], memoryview]:
    """In a worker: return the contents that a whole payload has behind its flags, and what follows them."""
    (count,), view = LENGTH.unpack_from(view), view[LENGTH.size :]
    contents = []
    for _ in range(count):
        content, view = split(view)
        contents.append(content)
    return contents, view


def put_in(entries: Iterable[Entry], contents: Iterable[memoryview]) -> list[Entry]:
    """Return the entries with the contents that were taken out."""
    each = iter(contents)
    return [(*entry[:3], next(each)) if entry[3] is None else entry for entry in entries]


def check_all_here(entries: Iterable[Entry], received: dict[Key, tuple[bytes, Any]]) -> None:
    """Raise Lacking if a content that was taken out is not in this worker either."""
    for entry in entries:
        if entry[3] is None:
            known = received.get(entry[0])
            if known is None or known[0] != entry[2]:
                raise Lacking


_put_down: deque[list[Any]] = deque()
_contents: WeakValueDictionary[bytes, Content] = WeakValueDictionary()
