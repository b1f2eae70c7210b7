"""Parts of a payload that stand one behind the other, each with its length before it.

Runs in: host and worker.
Tests: tests/unit/test_payload_*.py
"""

from __future__ import annotations

import struct

LENGTH = struct.Struct("<Q")


def with_length(data: bytes) -> tuple[bytes, bytes]:
    """Return what stands for a part: its length, and the part itself, which is not copied."""
    return LENGTH.pack(len(data)), data


def split(view: memoryview) -> tuple[memoryview, memoryview]:
    """Return the part with which `view` begins, and what follows it."""
    end = LENGTH.size + LENGTH.unpack_from(view)[0]
    return view[LENGTH.size : end], view[end:]
