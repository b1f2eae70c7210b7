"""What the table of a payload consists of, and how its entries are told apart: by digests of their content.

Runs in: host and worker. Pure; it imports nothing of what makes or applies entries.
Hard part: an entry may point to others, so its digest covers theirs: a change of `cache` is one of what points to it, too.
Tests: tests/unit/test_payload_globals.py, test_payload_rings.py
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

try:
    from _blake2 import blake2b  # what hashlib gives out, without its libcrypto: 3.4 MB in the host and in the fork server
except ImportError:
    from hashlib import blake2b

from forkpool._shared.tracking import Key

Roots = dict[Key, Any]  # the object behind a key; several for the members of a ring

GONE = b""  # stands where the value of a global would: the host has deleted it


class Round:
    """When an entry is applied. To make an instance may run code of its class, and that may look up any global."""

    FREE, CODE, VALUES = range(3)  # what holds no classes and no instances of such; classes and other code; other values


class EntryError(Exception):
    """An entry of the table cannot be pickled; the reason is the cause."""


@dataclass(slots=True)
class Draft:
    """A pickled portion of an entry, and the entries it points to."""

    data: bytes
    refs: frozenset[Key] = frozenset()
    holds_classes: bool = False


@dataclass(slots=True)
class Entry:
    """What a key stands for: one portion for a global or a ring; a skeleton and the attributes for a class."""

    key: Key
    round: int  # in which it is applied, see `Round`
    parts: list[tuple[str, Draft]] = field(default_factory=list)
    roots: Roots = field(default_factory=dict)  # of a global or a ring


class Table(dict[Key, Entry | None]):
    """The entries by their keys, in the order in which they were asked for. None: it is being made, or was left out."""

    def __init__(self) -> None:
        super().__init__()
        self._digests: dict[Key, bytes] = {}

    def as_sent(self) -> list[tuple[Any, ...]]:
        """Return the entries as they travel: key, round, digest, and the data or (skeleton, attributes)."""
        return [self._as_sent(entry) for entry in self.values() if entry is not None]

    def _as_sent(self, entry: Entry) -> tuple[Any, ...]:
        digest = self.digest_of(entry.key)
        if entry.key[0] != "c":
            return (entry.key, entry.round, digest, entry.parts[0][1].data)
        (_, skeleton), *attributes = entry.parts
        sent = [(name, self._digest_of_draft(draft), draft.data) for name, draft in attributes]
        return (entry.key, entry.round, digest, skeleton.data, sent)

    def digest_of(self, key: Key) -> bytes:
        """Return the digest of an entry. It is kept, so all entries have to be there."""
        digest = self._digests.get(key)
        if digest is None:
            entry = self.get(key)
            parts = entry.parts if entry is not None else ()
            digest = b"".join(self._digest_of_draft(draft) for _, draft in parts)
            digest = self._digests[key] = digest if len(parts) == 1 else _hash(digest)
        return digest

    def _digest_of_draft(self, draft: Draft) -> bytes:
        digest = _hash(draft.data)
        return digest if not draft.refs else _hash(digest + b"".join(map(self.digest_of, sorted(draft.refs))))

    def pointers(self) -> dict[Key, frozenset[Key]]:
        """Return the globals that each global points to, if any. Nothing points to a class."""
        return {
            key: entry.parts[0][1].refs
            for key, entry in self.items()
            if entry is not None and key[0] != "c" and entry.parts[0][1].refs
        }


def _hash(data: bytes) -> bytes:
    return blake2b(data, digest_size=16).digest()
