"""Unpickle what an entry of a payload consists of: one piece after the other, with one memo.

Runs in: worker and host, for `applier` and `class_applier`.
Hard part: a piece may point to a global that is being made just now, because the global holds an instance of the very class
that the piece is for. Then it is unpickled once more, when the global is there. The C unpickler cannot be set back: it reads
ahead, and given a memo it counts anew what it memoizes. The one in Python can go on from there.
Tests: tests/unit/test_pieces.py, test_payload_class_order.py
"""

from __future__ import annotations

import contextlib
import io
import pickle
from collections.abc import Callable, Iterator
from typing import Any

from forkpool._shared.tracking import Key

LookUp = Callable[[Key], Any]


class InTheMaking(Exception):
    """What a pointer means is being made: who is to hold it gets it afterwards."""

    def __init__(self, key: Key) -> None:
        self.key = key


class _Following:
    """The part of an unpickler that follows pointers."""

    look_up: LookUp

    def persistent_load(self, pid: Any) -> Any:
        return self.look_up(("g", *pid))


class _Unpickler(_Following, pickle.Unpickler):
    def __init__(self, file: io.BytesIO, look_up: LookUp) -> None:
        super().__init__(file)
        self.look_up = look_up


class _SlowUnpickler(_Following, pickle._Unpickler):
    def __init__(self, file: io.BytesIO, look_up: LookUp, memo: dict[int, Any]) -> None:
        super().__init__(file)
        self.look_up = look_up
        self.memo = memo


class Pieces:
    """The pieces of an entry.

    Args:
        data: One pickle behind the other.
        look_up: Returns what a pointer to a global means.
    """

    def __init__(self, data: Any, look_up: LookUp) -> None:
        self._file = io.BytesIO(data)
        self._look_up = look_up
        self._unpickler: _Unpickler | _SlowUnpickler = _Unpickler(self._file, look_up)

    def load(self) -> Any:
        """Return the next piece."""
        return self._unpickler.load()

    def load_or_again(self) -> Any:
        """Return the next piece. If what is raised may be cured (InTheMaking, NameError), the next piece is still this one."""
        place = self._file.tell()
        try:
            return self._unpickler.load()
        except (InTheMaking, NameError):
            memo, size = self._unpickler.memo.copy(), self._go_to(place)
            self._unpickler = _SlowUnpickler(self._file, self._look_up, {at: memo[at] for at in range(size)})
            raise

    def _go_to(self, place: int) -> int:
        """Return how many objects are memoized before it. (A copy of the memo before each piece would cost its square.)"""
        from pickletools import genops

        self._file.seek(0)
        count = 0
        while self._file.tell() < place:
            count += sum(opcode.name == "MEMOIZE" for opcode, _, _ in genops(self._file))
        return count


@contextlib.contextmanager
def noting(what: str) -> Iterator[None]:
    """Around the making of a part in a worker: an error says nothing of where it comes from, so a note does. "": not there."""
    try:
        yield
    except InTheMaking:
        raise
    except Exception as exc:
        if not what:
            raise
        with contextlib.suppress(Exception):  # no descriptor or memory to import them
            from forkpool._shared.advice import NOTE_INTRO, note_of
            from forkpool._shared.notes import add_note

            if not any(str(note).startswith(NOTE_INTRO) for note in getattr(exc, "__notes__", ())):  # one that this one needs
                add_note(exc, note_of(what))
        raise
