"""Give an exception of the user's a note (PEP 678), whatever its class forbids.

Runs in: every process; any thread.
Must not run code of the user's: `BaseException.add_note` sets an attribute, which a frozen dataclass answers with an error of
its own, and that would take the place of what went wrong.
Tests: tests/unit/test_payload_exceptions.py
"""

from __future__ import annotations


def add_note(exc: BaseException, text: str) -> None:
    """Add a note past any `__setattr__`; none where the class uses the attribute for something else."""
    notes = vars(exc).setdefault("__notes__", [])
    if type(notes) is list:
        notes.append(text)
