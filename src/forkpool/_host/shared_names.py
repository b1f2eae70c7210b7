"""Which shared memory did the tasks of a pool make, and is still there.

Runs in: host, supervisor thread (and `existing` for whoever asks). It reads along what workers tell the resource tracker.
Hard part: nobody tells us when the host itself unlinks a segment, so the names would grow for ever. Those that are gone are
looked for and dropped whenever their number has doubled.
Tests: tests/unit/test_shared_names.py, tests/process/test_diagnostics.py
"""

from __future__ import annotations

import os

_FOLDER = "/dev/shm"
_FIRST_LIMIT = 64  # arbitrary: names that are kept before the first look


class SharedNames:
    """Names of POSIX shared memory, as the tracker hears them: with a slash in front."""

    def __init__(self) -> None:
        self._names: dict[str, None] = {}  # in the order in which they were made
        self._limit = _FIRST_LIMIT

    def hear(self, line: bytes) -> None:
        """Take note of a line that a worker wrote for the resource tracker."""
        command, name, kind = _parse(line)
        if kind != "shared_memory":
            return
        if command == "REGISTER":
            self._names[name] = None
            if len(self._names) > self._limit:
                self._names = dict.fromkeys(self.existing())
                self._limit = max(_FIRST_LIMIT, 2 * len(self._names))
        elif command == "UNREGISTER":
            self._names.pop(name, None)

    def existing(self) -> list[str]:
        """Those that are still there."""
        return [name for name in list(self._names) if exists(name)]


def exists(name: str) -> bool:
    """Is there shared memory of this name?"""
    return os.path.exists(_FOLDER + name)


def _parse(line: bytes) -> tuple[str, str, str]:
    """Command, name and kind; empty where the line is something else."""
    try:
        if line.startswith(b"{"):  # newer Pythons, for names that a line could not hold
            return _parse_json(line)
        head, _, kind = line.decode().strip().rpartition(":")
        command, _, name = head.partition(":")
    except (ValueError, KeyError, TypeError):
        return "", "", ""
    return command, name, kind


def _parse_json(line: bytes) -> tuple[str, str, str]:
    import base64
    import json

    said = json.loads(line)
    name = base64.urlsafe_b64decode(said["base64_name"]).decode() if "base64_name" in said else said["name"]
    return str(said["cmd"]), str(name), str(said["rtype"])
