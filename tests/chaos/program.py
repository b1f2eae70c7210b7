"""A program whose functions go by value, with a global that they read: often large, and changed between the calls.

Runs in: the soak's process, one for each thread that submits. What a call finds is what the global was at its submit.
"""

from __future__ import annotations

import random
import sys
import types
import zlib
from functools import partial
from typing import Any

_SIZES = [0, 1000, 20_000, 70_000, 400_000]  # bytes; from 16 KB on it crosses to each worker once
_SOURCE = """
import zlib
from tests.chaos import deeds

table = b""

def act(expected, *args):
    if zlib.crc32(table) != expected:
        raise AssertionError(f"the global is not the one of the submit: {len(table)} bytes")
    return deeds.act(*args)
"""


class Program:
    """A module that nobody can import."""

    def __init__(self, name: str, dice: random.Random) -> None:
        self._dice = dice
        self._module: Any = types.ModuleType(name)
        sys.modules[name] = self._module
        exec(_SOURCE, self._module.__dict__)

    def function(self) -> Any:
        """Return `deeds.act`, as a function that looks at the global first."""
        if self._dice.random() < 0.3:
            self._module.table = self._dice.randbytes(self._dice.choice(_SIZES))
        return partial(self._module.act, zlib.crc32(self._module.table))

    def close(self) -> None:
        """Nobody can look it up any more."""
        sys.modules.pop(self._module.__name__, None)
