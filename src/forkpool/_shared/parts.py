"""What a payload consists of: flags, and parts that stand one behind the other, each with its length before it.

Runs in: host and worker.
A payload starts with one byte of flags; lengths are 64 bits wide:
    flags  [WHOLE: count, each length and content]  [TITLE: length, name]  [PATH: length, pickled sys.path]
           [RICH: length, pickled table of entries]  pickled body
A call without PATH is for the `sys.path` that its encoder began with, whatever the worker was started with or did since.
HOLDING: it needs descriptors, which the worker fetches. PARTED: large contents are not in the table; in a
WHOLE one they follow the flags. In the host both are an `owning_payload.OwningPayload`.
POINTING: an initializer's, whose body points to entries of the table.
The body is (module, name, args, kwargs) of a plain call, (namespace, name, args, kwargs) of one that is NAMED, else
(function, args, kwargs); of a result the value. The name is there only if `options(name=)` gave one.
Tests: tests/unit/test_payload_*.py
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

Buffer = bytes | bytearray | memoryview
Call = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]

RICH, PATH, HOLDING, NAMED, TITLE, PARTED, WHOLE, POINTING = (1 << bit for bit in range(8))
LENGTH = struct.Struct("<Q")


def with_length(data: bytes) -> tuple[bytes, bytes]:
    """Return what stands for a part: its length, and the part itself, which is not copied."""
    return LENGTH.pack(len(data)), data


def split(view: memoryview) -> tuple[memoryview, memoryview]:
    """Return the part with which `view` begins, and what follows it."""
    end = LENGTH.size + LENGTH.unpack_from(view)[0]
    return view[LENGTH.size : end], view[end:]
