"""Payloads that own more than their bytes: large contents of globals, which cross to each worker once, and descriptors.

Runs in: host (the thread that submits makes them; the supervisor sends them), worker (`check_all_here`).
A worker compares digests, and never looks at the content of a global that it has already. So the table has nothing in place of
a large content, and all calls that wait share one. The host notes what each worker was sent (`Worker.has`), and sends the
`whole` call to one that lacks something.
Hard part: the note may be wrong. A worker may have failed to unpickle what it was sent, and a call that was pickled before
a global grew large changes it behind the host's back. So the worker decides: it looks before it unpickles anything, and says
that it is `Lacking`. The call did not begin then, and is sent again, whole.
Tests: tests/unit/test_payload_large_globals.py, tests/process/test_large_globals.py, tests/unit/test_machine_contents.py
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

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


class OwningPayload(bytes):
    """The payload of a call, without `contents`."""

    holding: Holding | None = None  # descriptors that the call needs
    contents: dict[Key, Content]  # by the key of the global
    table_at: int  # where the length of the table stands

    def whole(self) -> bytes:
        """Return the payload with all contents in it."""
        if not self.contents:
            return self
        begin = self.table_at + _LENGTH.size
        end = begin + _LENGTH.unpack_from(self, self.table_at)[0]
        table = pickle.dumps([self._filled(entry) for entry in pickle.loads(self[begin:end])], 5)
        return b"".join((self[: self.table_at], _LENGTH.pack(len(table)), table, self[end:]))

    def _filled(self, entry: Entry) -> Entry:
        content = self.contents.get(entry[0])
        return entry if content is None else (*entry[:3], content.data)


def take_out(entries: Iterable[Entry]) -> tuple[list[Entry], dict[Key, Content]]:
    """Return the entries of a table without their large contents, and these."""
    rest, contents = [], {}
    for entry in entries:
        key, order, digest, data, *_ = entry
        if key[0] == "g" and len(data) >= LARGE:
            content = _contents.get(digest)
            if content is None:
                content = _contents[digest] = Content(digest, data)
            contents[key] = content
            entry = (key, order, digest, None)
        rest.append(entry)
    return rest, contents


def check_all_here(entries: Iterable[Entry], received: dict[Key, tuple[bytes, Any]]) -> None:
    """In a worker: raise Lacking if a content that is not in the table is not here either."""
    for entry in entries:
        if entry[3] is None:
            known = received.get(entry[0])
            if known is None or known[0] != entry[2]:
                raise Lacking


_LENGTH = struct.Struct("<Q")
_contents: WeakValueDictionary[bytes, Content] = WeakValueDictionary()
