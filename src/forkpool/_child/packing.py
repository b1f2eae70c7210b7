"""Let what workers write to lie close together.

Runs in: fork server, main thread: before it imports what workers run, and once more when all is imported.

Hard part: a worker copies every page of 4 kB on which it writes one byte, and to Python everything is a write: each use of an
object counts a reference in it, each new one takes the first free place in a page half full of others. Imports leave such gaps
all over the memory. So they are filled with objects that nobody ever touches; what comes then begins on new pages, beside each
other. It takes as much memory as was free anyway, and a worker copies 40 to 60 pages less (of 800, with numpy).
CPython's allocator keeps objects of up to 512 bytes in pools of 16 KiB, each for one size, in steps of 16 bytes
(Objects/obmalloc.c, 3.10 and later). With another allocator (PYTHONMALLOC, free-threaded builds) nothing is found and
nothing kept.
Tests: tests/process/test_lean_worker.py
"""

from __future__ import annotations

_POOL_BYTES, _HEADER_BYTES, _STEP, _LARGEST = 1 << 14, 48, 16, 512
_MOST_BYTES = 1 << 16  # arbitrary, of gaps of one size: then there is no end to them
_RUN = 4  # so many beside each other are no coincidence
_EMPTY_BYTES = b"".__sizeof__()

_filling: list[object] = []


def begin_new_pages() -> None:
    """Fill the gaps: what is made from now on comes from pools that are empty."""
    for size in range(_STEP, _LARGEST + 1, _STEP):
        _filling.extend(_fill(size))


def _fill(size: int) -> list[object]:
    """Objects that fill all gaps of a size; none if a new pool was not found."""
    made: list[object] = []
    slack = 4 * size if size == 32 else size  # numbers of that size come and go while we look at addresses
    last, run = 0, 0
    for _ in range(_MOST_BYTES // size):
        made.append(_make(size))
        at = id(made[-1])
        if last < at <= last + slack:
            run += 1
        else:
            run = int(at % _POOL_BYTES <= _HEADER_BYTES + slack - size)
        last = at
        if run == _RUN:
            return made[: 1 - _RUN]  # the first one stays: it holds the pool
    return []


def _make(size: int) -> object:
    if size == 16:
        return object()
    if size == 32:
        return float(size)
    return bytes(size - _EMPTY_BYTES)
