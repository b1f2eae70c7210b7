"""Arrays of numpy in memory that is shared with other processes stay in it: a worker gets a view of the same memory.

Runs in: host, the thread that submits (`reduce`), and worker, the task's thread (`make_array`). Imported with the first array
in a global, in what a function by value holds, or in an initializer's call. Must not import numpy: there is an array already.

A view of a RawArray, of a SharedMemory or of a mapped file is pickled like any other array: by content. Under fork, tasks write
into the memory that the host reads; into a copy they would write without a word, and the host would read what was there before.

Hard part: an array does not know where its memory comes from, and neither does an mmap object. The kernel does: /proc/self/maps
says for an address whether it is shared, and which file is there, at which offset; and each of these kinds of memory is a file,
with or without a name. What travels is its descriptor (`passed_fds`), so the worker maps the file that the host has mapped,
whatever is under its name by now. Which descriptor is of that file is seen by mapping it too: the kernel shows both alike then.
(`fstat` does not do: on overlayfs and btrfs it tells other numbers than /proc/self/maps.) Reading that takes milliseconds
where many libraries are loaded, so what was found is remembered as long as the memory is the same.
Tests: tests/unit/test_payload_shared_arrays.py, tests/process/test_shared_arrays.py
"""

from __future__ import annotations

import array
import contextlib
import copyreg
import errno
import os
import stat
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

from forkpool._shared import mp_support
from forkpool._shared.passed_fds import _FIRST_FD, PassedFd, serial_of

_PRIVATE = (type(None), bytes, bytearray, array.array)  # owners of memory that is surely no one else's
_KEPT_PLACES = 256  # arbitrary
_OF_MEMMAP = ("filename", "offset", "mode")
_places: dict[int, _Place] = {}  # by the number of an anchor, see `_anchor_of`


class _Place(NamedTuple):
    """Where memory is that other processes can map."""

    low: int  # its addresses in this process
    high: int
    writable: bool
    offset: int  # of `low` in the file
    file: tuple[int, int]  # device and inode, as `fstat` tells them
    source: int | str | None  # a descriptor of the file that somebody here holds, or its name; None: a copy is as good


class _Mapping(NamedTuple):
    """What /proc/self/maps says of an address, and of those behind it that belong to the same file."""

    start: int
    end: int
    offset: int
    is_shared: bool
    file: tuple[bytes, bytes]  # device and inode, as the kernel tells them there
    path: str  # with "\\012" for newlines, and a remark behind it if the file is gone


def reduce(value: Any) -> Any:
    """Return what an array in shared memory is pickled as; NotImplemented: a copy of its content is as good.

    Raises:
        UnsharedError: It is in shared memory, and a worker cannot be given that.
    """
    root, owner = _ends_of(value)
    if isinstance(owner, _PRIVATE) or not value.nbytes or value.dtype.hasobject or not mp_support.is_pickling_call():
        return NotImplemented
    if not _is_reduced_by_numpy(type(value)):
        return NotImplemented
    anchor = _anchor_of(root, owner)
    try:
        located = _locate(anchor, root, owner)
    except _Unreachable as exc:
        raise _unshared(value, str(exc)) from None
    if located is None:
        return NotImplemented
    place, fd = located
    try:
        if type(value).__reduce__ is sys.modules["numpy"].ndarray.__reduce__:
            return _reduced(value, place, mp_support.pass_file(fd, serial_of(anchor)))
        if not place.writable:
            return NotImplemented
        raise _unshared(value, "numpy pickles this kind of array by content")
    finally:
        os.close(fd)


def _reduced(value: Any, place: _Place, passed: PassedFd) -> tuple[Any, ...]:
    low, high = _bounds(value)
    shape = (value.dtype, value.shape, value.strides, value.ctypes.data - low, value.flags.writeable)
    own = {name: vars(value)[name] for name in _OF_MEMMAP if name in getattr(value, "__dict__", ())}
    return make_array, (type(value), passed, place.writable, place.offset + low - place.low, high - low, shape, own)


def refuse_view(view: memoryview) -> None:
    """Raise UnsharedError for what `SharedMemory.buf` is: it is easily taken from the SharedMemory again."""
    if mp_support.is_pickling_call() and (_is_mmap(view.obj) or _wrapper_of(view.obj) is not None):
        raise mp_support.UnsharedError(
            "a memoryview of memory that is shared with other processes: a worker would get a copy of the bytes; hand over the "
            "SharedMemory or RawArray itself, and take the view in the initializer or inside the task"
        )


def make_array(
    cls: Any, passed: PassedFd, writable: bool, start: int, size: int, shape: tuple[Any, ...], own: dict[str, Any]
) -> Any:
    """In a worker: map a part of a file, and return the array there.

    Args:
        passed: The descriptor of the file.
        writable: Whether the host may write there.
        start: Where in the file the memory of the array begins; `size`: how many bytes it spans.
        shape: dtype, shape, strides, position of the first element in that memory, and the array's flag `writeable`.
        own: Attributes.
    """
    import mmap

    dtype, lengths, strides, first, writeable = shape
    skipped = start % mmap.ALLOCATIONGRANULARITY
    access = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
    fd = passed.detach()
    try:
        mapped = mmap.mmap(fd, skipped + size, flags=mmap.MAP_SHARED, prot=access, offset=start - skipped)
    finally:
        os.close(fd)
    made = sys.modules["numpy"].ndarray.__new__(
        cls, lengths, dtype=dtype, buffer=mapped, offset=skipped + first, strides=strides
    )
    if own:  # of a memmap
        vars(made).update(own, _mmap=mapped)
    if not writeable:
        made.flags.writeable = False
    return made


def _unshared(value: Any, why: str) -> mp_support.UnsharedError:
    return mp_support.UnsharedError(
        f"an array ({type(value).__name__}) in memory that is shared with other processes, and {why}: a worker would get a "
        "copy, and what it writes there would be lost; hand over the SharedMemory or RawArray itself, or the name of the file, "
        "and make the array in the initializer or inside the task"
    )


# -- whose memory it is


def _is_reduced_by_numpy(cls: type) -> bool:
    """False: the program has its own way to pickle such an array."""
    definers = [next(base for base in cls.__mro__ if name in vars(base)) for name in ("__reduce__", "__reduce_ex__")]
    return cls not in copyreg.dispatch_table and all(base.__module__.partition(".")[0] == "numpy" for base in definers)


def _ends_of(value: Any) -> tuple[Any, Any]:
    """Return the last array in the chain of those that this one is a view of, and what that has its memory from."""
    ndarray = sys.modules["numpy"].ndarray
    root, owner = value, value.base
    while owner is not None:
        if isinstance(owner, ndarray):
            root, owner = owner, owner.base
        elif type(owner) is memoryview:
            owner = owner.obj
        else:
            break
    return root, owner


def _anchor_of(root: Any, owner: Any) -> Any:
    """Return an object that lives as long as the memory is mapped, and, if one is known, the same for all arrays there."""
    if _is_mmap(owner):
        return owner
    return root if (wrapper := _wrapper_of(owner)) is None else wrapper


def _is_mmap(owner: Any) -> bool:
    mmap = sys.modules.get("mmap")
    return mmap is not None and isinstance(owner, mmap.mmap)


def _wrapper_of(owner: Any) -> Any:
    """Return what holds the memory of an object that multiprocessing.sharedctypes made, or None. It runs no code of others."""
    try:
        wrapper = object.__getattribute__(owner, "__dict__").get("_wrapper")
    except AttributeError:
        return None
    return wrapper if type(wrapper).__module__ == "multiprocessing.heap" else None


def _memory_of(root: Any, owner: Any) -> tuple[int, int, bool]:
    """Return the addresses of all memory of the owner, or at least that of the array, and whether it can be written to."""
    low, high = _bounds(root)
    numpy = sys.modules["numpy"]
    with contextlib.suppress(TypeError, ValueError, BufferError):
        whole = numpy.frombuffer(owner, numpy.uint8)
        first, last = _bounds(whole)
        if first <= low and high <= last:
            return first, last, whole.flags.writeable
    return low, high, root.flags.writeable


def _bounds(value: Any) -> tuple[int, int]:
    """Return the addresses of the first byte of an array and of the one behind it."""
    low = high = value.ctypes.data
    for length, stride in zip(value.shape, value.strides, strict=True):
        reach = (length - 1) * stride
        low, high = low + min(reach, 0), high + max(reach, 0)
    return low, high + value.itemsize


# -- the file behind it


class _Unreachable(Exception):
    """The memory is shared, and there is no descriptor for it. Or nobody can tell."""


def _locate(anchor: Any, root: Any, owner: Any) -> tuple[_Place, int] | None:
    """Return the place of the memory and a descriptor of its file, which the caller owns; None: a copy is as good."""
    serial, memory = serial_of(anchor), _memory_of(root, owner)
    known = _places.get(serial)
    if known is not None and (known.low, known.high, known.writable) == memory:
        if known.source is None:
            return None
        if (fd := _open_again(known)) is not None:
            return known, fd
    place, fd = _find(*memory, is_shared=_is_known_as_shared(root, owner))
    if len(_places) >= _KEPT_PLACES:
        _places.clear()
    _places[serial] = place
    return None if fd is None else (place, fd)


def _open_again(place: _Place) -> int | None:
    fd = _open(place.source, writable=place.writable)
    if fd is None or _identity(fd) == place.file:
        return fd
    os.close(fd)
    return None


def _find(low: int, high: int, writable: bool, *, is_shared: bool) -> tuple[_Place, int | None]:
    """Ask the kernel; `is_shared` counts where it does not tell. Only to be read, a copy is better than nothing."""
    mapping = _mapping_at(low, high)
    if mapping is None and is_shared and writable:
        raise _Unreachable("/proc/self/maps does not tell of which file")
    if mapping is not None and mapping.is_shared:
        for source in _sources(mapping.path) if mapping.end >= high else ():
            fd = _open(source, writable=writable)
            if fd is None:
                continue
            if _is_mapped_there(fd, mapping):
                return _Place(low, high, writable, mapping.offset + low - mapping.start, _identity(fd), source), fd
            os.close(fd)
        if writable:
            raise _Unreachable(f"no descriptor of it can be had ({mapping.path})")
    return _Place(low, high, writable, 0, (0, 0), None), None


def _is_known_as_shared(root: Any, owner: Any) -> bool:
    if isinstance(root, sys.modules["numpy"].memmap) and root.mode == "c":
        return False
    return _is_mmap(owner) or _wrapper_of(owner) is not None


def _mapping_at(low: int, high: int) -> _Mapping | None:
    """Return what is mapped from an address on, as far as the other one if it is all of one file; None: nobody tells."""
    found: _Mapping | None = None
    with _passing_over(), open("/proc/self/maps", "rb") as lines:
        for here in map(_parse, lines):
            if here.end <= low:
                continue
            if found is None:
                found = here
            elif here.start == found.end and here.file == found.file and here.offset - found.offset == here.start - found.start:
                found = found._replace(end=here.end)
            else:
                break
            if found.end >= high:
                break
    return found if found is not None and found.start <= low else None


def _parse(line: bytes) -> _Mapping:
    addresses, rights, offset, device, inode, *path = line.rstrip(b"\n").split(maxsplit=5)
    start, end = (int(address, 16) for address in addresses.split(b"-"))
    return _Mapping(start, end, int(offset, 16), rights.endswith(b"s"), (device, inode), os.fsdecode(path[0]) if path else "")


def _sources(path: str) -> Iterator[int | str]:
    """Name what may be the file: descriptors that lead to this path (an mmap object holds one of its file), and the path."""
    numbers: list[str] = []
    with _passing_over():
        numbers = os.listdir("/proc/self/fd")
    for number in numbers:
        with contextlib.suppress(OSError):  # it is closed by now
            if os.readlink(f"/proc/self/fd/{number}").replace("\n", r"\012") == path:
                yield int(number)
    yield path


def _open(source: int | str | None, *, writable: bool) -> int | None:
    """Return a descriptor of one's own for a file that can be mapped with these rights, or None."""
    import fcntl

    fd = -1
    with _passing_over():
        if isinstance(source, int):
            fd = fcntl.fcntl(source, fcntl.F_DUPFD_CLOEXEC, _FIRST_FD)
        else:
            fd = os.open(source or "", (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC | os.O_NONBLOCK)
    if fd < 0:
        return None
    has = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE
    if stat.S_ISREG(os.fstat(fd).st_mode) and (has == os.O_RDWR or (not writable and has == os.O_RDONLY)):
        return fd
    os.close(fd)
    return None


@contextlib.contextmanager
def _passing_over() -> Iterator[None]:
    """Pass over what the system refuses, unless it is for want of descriptors or memory: then nothing was learnt."""
    try:
        yield
    except OSError as exc:
        if exc.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
            raise


def _identity(fd: int) -> tuple[int, int]:
    status = os.fstat(fd)
    return status.st_dev, status.st_ino


def _is_mapped_there(fd: int, mapping: _Mapping) -> bool:
    """Tell whether a file is the one that is mapped: map it too, and see whether the kernel calls it the same."""
    import mmap

    numpy = sys.modules["numpy"]
    with (
        _passing_over(),
        contextlib.suppress(ValueError),
        mmap.mmap(fd, 1, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ) as trial,
    ):
        same = _mapping_at(*_bounds(numpy.frombuffer(trial, numpy.uint8)))
        return same is not None and same.file == mapping.file
    return False
