"""Say what an object that cannot travel is, and what to do instead.

Runs in: host (the thread that submits) and worker (results), after pickling failed.
Must not call code of the user's that may fail: a class may lie about itself (`__class__`, `__getattr__`), so kinds are told by
the real type.
Hard part: the way out depends on where the object is. What an attribute's owner can leave out of its state, a global cannot:
that is made elsewhere instead. And nobody edits a library: of what its objects hold, what the program calls its own is told of.
Tests: tests/unit/test_payload_advice.py, tests/unit/test_payload_errors.py
"""

from __future__ import annotations

import enum
import io
import sys
import types
from typing import Any, NamedTuple

from forkpool._shared.calls import attribute_of
from forkpool._shared.mp_support import is_of_fork_context


class Place(enum.Enum):
    """Where in a call or result an object is."""

    ALONE = "it is an argument, a result, or in a list or the like"
    ATTRIBUTE = "an object holds it, which may leave it out of its state"
    GLOBAL = "a global, or an attribute of a class"
    RESULT = "as ALONE, in a result"


class Holder(NamedTuple):
    """What the program calls its own of an object of a library's that holds what cannot travel."""

    path: str
    type_name: str


class Failure(NamedTuple):
    """What is to be known of a failed pickling. Not the exception, whose frames hold what was pickled, sockets too."""

    text: str
    is_too_deep: bool
    is_os_error: bool


def failure_of(exc: BaseException) -> Failure:
    """Take from an exception what is to be known of it."""
    if type(exc).__name__ == "EntryError" and exc.__cause__ is not None:
        exc = exc.__cause__
    too_deep = isinstance(exc, RecursionError) or isinstance(exc.__cause__, RecursionError)
    return Failure(_TOO_DEEP if too_deep else _text_of(exc), too_deep, isinstance(exc, OSError))


def _text_of(exc: BaseException) -> str:
    try:
        return f"{type(exc).__name__}: {exc}"
    except Exception:  # it has a `__str__` of the user's
        return type(exc).__name__


def advice_for(value: Any, failure: Failure, place: Place, holder: Holder | None = None, *, preload: bool = False) -> str:
    """Return the second half of the message: what the culprit is and the way out.

    Args:
        place: Of the culprit, or of its holder.
        holder: None: the program itself put it where it is.
        preload: Workers that were forked from the program would have it.
    """
    kind = kind_of(value)
    type_name = f"{type(value).__module__}.{type(value).__qualname__}"
    if kind == "fork-context":
        return _advice_for_fork_context(value)
    if kind == "socket" and failure.is_os_error:
        kind = None  # there is no descriptor for a duplicate
    is_told = not failure.is_too_deep and not failure.is_os_error and (holder or preload or place is Place.GLOBAL)
    what = _what_it_is(kind, value, type_name, failure)
    if kind is None and not is_told:
        return what
    ways = [_way_out(kind, value, place) if holder is None else _way_out_of_a_library(holder, place)]
    if preload and kind in _MADE_BY_PRELOADING:
        ways.append(_PRELOAD)
    return f"{what}; {', or '.join(filter(None, ways))}"


def _what_it_is(kind: str | None, value: Any, type_name: str, failure: Failure) -> str:
    if kind is None:
        return f"(a {type_name}) cannot be pickled: {failure.text}"
    name = f"{value.__module__}.{value.__qualname__}" if issubclass(type(value), type) else ""
    return _WHAT[kind].format(type=type_name, name=name, repr=shorten(attribute_of(value, "name") or type_name))


def note_of(what: str) -> str:
    """What an error is told that a worker gets while it makes a global, or an attribute of a class, that goes by value."""
    return f"{NOTE_INTRO}{what} from what the host had sent; if it cannot be sent, {_ELSEWHERE}"


def shorten(value: Any) -> str:
    """A text for any object."""
    try:
        text = repr(value)
    except Exception:
        text = f"<{type(value).__name__}>"
    return text if len(text) <= 40 else text[:37] + "..."


_TOO_DEEP = (
    "it is nested too deeply for pickle (recursion depth); flatten it (a linked list or tree as a list of rows), "
    "or raise sys.setrecursionlimit()"
)

# -- what it is


def kind_of(value: Any) -> str | None:
    """Return what a well-known object that cannot travel is, or None."""
    cls = type(value)
    if issubclass(cls, type) and _has_no_name_and_no_body(value):
        return "class-of-c"
    if issubclass(cls, type) and (kind := _kind_of_ctypes_class(value)) is not None:
        return kind
    for kind, kinds in _PLAIN_KINDS.items():
        if issubclass(cls, kinds):
            return kind
    for kind, (module, name) in _LOADED_KINDS.items():
        if issubclass(cls, loaded_class(module, name)):
            return kind
    if issubclass(cls, io.IOBase) and not issubclass(cls, (io.BytesIO, io.StringIO)):
        return "file"
    if issubclass(cls, loaded_class("_socket", "socket")):
        return _kind_of_socket(value)
    return _kind_by_module(value, cls.__module__, cls.__name__)


def _kind_by_module(value: Any, module: Any, name: str) -> str | None:
    if not isinstance(module, str):
        return None
    if module.startswith("asyncio.") and hasattr(value, "get_extra_info"):
        return "transport"
    if module in ("_thread", "threading") and name in _LOCKS:
        return "lock"
    if module in ("queue", "_queue") and name in _QUEUES:
        return "queue"
    if module.startswith("multiprocessing."):
        return "fork-context" if is_of_fork_context(value) or _holds_fork_lock(value) else None
    return "connection" if name in ("Connection", "connection") else None


def loaded_class(module: str, name: str) -> tuple[type, ...]:
    """A class of a module that may not have been imported; then there is no such object either."""
    cls = getattr(sys.modules.get(module), name, None)
    return (cls,) if isinstance(cls, type) else ()


def _has_no_name_and_no_body(cls: type) -> bool:
    from forkpool._shared.by_value_classes import is_made_in_c
    from forkpool._shared.importable import by_reference

    return is_made_in_c(cls) and not by_reference(cls)


def _kind_of_ctypes_class(cls: type) -> str | None:
    from forkpool._shared.importable import by_reference

    for kind, names in _CTYPES.items():
        if any(issubclass(cls, loaded_class("_ctypes", name)) for name in names) and not by_reference(cls):
            return kind
    return None


def _kind_of_socket(value: Any) -> str:
    if isinstance(value, loaded_class("ssl", "SSLSocket")):
        return "ssl-socket"
    if value.fileno() < 0:
        return "closed-socket"
    return "socket" if type(value) in loaded_class("socket", "socket") else "special-socket"


def _holds_fork_lock(value: Any) -> bool:
    return any(is_of_fork_context(part) or is_of_fork_context(getattr(part, "_lock", None))
               for part in vars(value).values()) if hasattr(value, "__dict__") else False  # fmt: skip


# What has its kind by its class; the order tells what comes first where a class is of two.
_PLAIN_KINDS: dict[str, tuple[type, ...]] = {
    "generator": (types.GeneratorType,),
    "async-generator": (types.AsyncGeneratorType,),
    "coroutine": (types.CoroutineType,),
}
_LOADED_KINDS = {
    "executor": ("concurrent.futures._base", "Executor"),
    "future": ("concurrent.futures._base", "Future"),
    "thread-local": ("_thread", "_local"),
    "thread": ("threading", "Thread"),
    "event-loop": ("asyncio.events", "AbstractEventLoop"),
    "c-library": ("ctypes", "CDLL"),
    "c-function": ("_ctypes", "CFuncPtr"),
}
# Classes with a body, whose fields are made in C, and those that ctypes makes without one, whose name is nowhere.
_CTYPES = {"c-structure": ("Structure", "Union"), "c-type": ("Array", "_Pointer", "CFuncPtr", "_SimpleCData")}
_LOCKS = {"lock": "Lock", "RLock": "RLock", "_RLock": "RLock"} | {
    name: name for name in ("Condition", "Event", "Semaphore", "BoundedSemaphore", "Barrier")
}
_QUEUES = ("Queue", "LifoQueue", "PriorityQueue", "SimpleQueue")
_WHAT = {
    "class-of-c": "is {name}, a class that C code made and that no module holds under that name",
    "c-structure": "is {name}, a class of ctypes, whose fields only its `class` statement can make",
    "c-type": "is {name}, a type that ctypes made and that no module holds under that name",
    "c-library": "is a library of C functions ({type}), which belongs to its process",
    "c-function": "is a C function ({type}), which belongs to its process",
    "generator": "is a generator, which cannot leave its process",
    "async-generator": "is an async generator, which cannot leave its event loop",
    "coroutine": "is a coroutine, which cannot leave its event loop",
    "executor": "is an executor ({type}), which belongs to its process",
    "future": "is a future ({type}), which belongs to its process",
    "file": "is an open file ({repr}), which belongs to its process",
    "socket": "is a socket, which a task can be given and cannot return",
    "closed-socket": "is a socket that is closed",
    "special-socket": "is a {type}, which is not a plain socket.socket",
    "ssl-socket": "is an SSL socket, whose keys and buffers are in the memory of its process",
    "transport": "is a stream or transport of asyncio ({type}), which belongs to its event loop",
    "lock": "is a lock ({type}), which only works inside one process",
    "event-loop": "is an event loop of asyncio ({type}), which belongs to its process",
    "queue": "is a queue ({type}), which only works inside one process",
    "thread": "is a thread ({type}), which belongs to its process",
    "thread-local": "is a threading.local, whose contents belong to a thread",
    "connection": "is an open connection ({type}), which belongs to its process",
}


# -- what to do


def _way_out(kind: str | None, value: Any, place: Place) -> str:
    if kind is None:
        return _ELSEWHERE if place is Place.GLOBAL else ""
    name = _LOCKS.get(type(value).__name__, "")
    ways = _WAYS[kind]
    return ways.get(place, ways[Place.ALONE]).format(lock=name)


def _way_out_of_a_library(holder: Holder, place: Place) -> str:
    """Whoever holds the object can do without it; the object itself is as it is."""
    if place is Place.GLOBAL:
        return _INSTEAD.replace("it", "the global" if holder.path.startswith("global ") else holder.path, 1)
    if place is Place.ATTRIBUTE:
        return f"drop {holder.path} in `__getstate__`, or make it inside the task"
    if place is Place.RESULT:
        return f"return data instead of the `{holder.type_name}`"
    return f"make the `{holder.type_name}` inside the task, or in an initializer that stores it in a global"


def _advice_for_fork_context(value: Any) -> str:
    name = type(value).__name__
    article = "an" if name[0] in "AEIOU" or name == "RLock" else "a"
    return f'is {article} {name} of a "fork" context, which no other start method can hand over; make it with ' \
           f'`multiprocessing.get_context("spawn").{_maker_of(value)}`'  # fmt: skip


def _maker_of(value: Any) -> str:
    """How a context makes such an object."""
    bases = {base.__name__ for base in type(value).__mro__}
    if "SynchronizedBase" in bases:
        return "Array(...)" if bases & {"SynchronizedArray", "SynchronizedString"} else "Value(...)"
    return f"{type(value).__name__}({'...' if 'Barrier' in bases else ''})"


_INSIDE = "create it inside the task, or in an initializer that stores it in a global"
_INSTEAD = "make it in the initializer, or inside the function, instead"
_ELSEWHERE = f"{_INSTEAD}, or use it as an attribute of a module that workers can import"
_PRELOAD = 'give each worker its own with preload=("__main__",) and a guard'
# What was opened, connected or started at the top of a program is not: the workers would share it with each other.
_MADE_BY_PRELOADING = (None, "lock", "thread-local", "c-library", "c-function", "c-type")
NOTE_INTRO = "This was raised while the worker made the "
_SPAWN = 'multiprocessing.get_context("spawn")'
_WAYS: dict[str, dict[Place, str]] = {
    "class-of-c": {Place.ALONE: "look it up inside the task"},
    "c-structure": {Place.ALONE: "put the class into a module that workers can import"},
    "c-type": {Place.ALONE: _ELSEWHERE},
    "c-library": {
        Place.ALONE: "load it inside the task, or in an initializer that stores it in a global",
        Place.GLOBAL: _ELSEWHERE.replace("make", "load", 1),
    },
    "c-function": {
        Place.ALONE: "look it up inside the task, or in an initializer that stores it in a global",
        Place.GLOBAL: _ELSEWHERE.replace("make it", "look it up", 1),
    },
    "event-loop": {Place.ALONE: "run what needs it inside the task, with asyncio.run(...)"},
    "generator": {Place.ALONE: "pass or return list(...) instead"},
    "async-generator": {
        Place.ALONE: "collect it inside the task: submit a function that returns asyncio.run(...) of an async one that returns "
        "[item async for item in ...]"
    },
    "coroutine": {Place.ALONE: "run it inside the task: submit a function that returns asyncio.run(...) of it"},
    "executor": {
        Place.ALONE: "make it inside the task, or submit to it here",
        Place.ATTRIBUTE: "make the function a plain function or a static method, or drop the attribute in `__getstate__`",
        Place.GLOBAL: _INSTEAD,
    },
    "future": {Place.ALONE: "pass its result() instead"},
    "file": {
        Place.ALONE: "pass the path and open it inside the task",
        Place.GLOBAL: "open it in the initializer, or inside the function, instead",
    },
    "socket": {
        Place.ALONE: "return data, or give the task one end of a socket.socketpair() to send it through with socket.send_fds()"
    },
    "closed-socket": {Place.ALONE: "submit the call before you close it"},
    "special-socket": {Place.ALONE: _INSIDE},
    "ssl-socket": {Place.ALONE: "pass the plain socket and wrap it inside the task, or connect there"},
    "transport": {Place.ALONE: "pass a socket that asyncio does not use, or connect inside the task"},
    "lock": {
        Place.ALONE: f"create it inside the task, or use {_SPAWN}.{{lock}}()",
        Place.ATTRIBUTE: f"drop it in `__getstate__`, create it inside the task, or use {_SPAWN}.{{lock}}()",
        Place.GLOBAL: f"{_INSTEAD}, or use {_SPAWN}.{{lock}}()",
    },
    "queue": {
        Place.ALONE: f"use {_SPAWN}.Queue() or multiprocessing.Manager().Queue()",
        Place.GLOBAL: f"{_INSTEAD}, or use {_SPAWN}.Queue() or multiprocessing.Manager().Queue()",
    },
    "thread": {
        Place.ALONE: "start it inside the task",
        Place.ATTRIBUTE: "drop it in `__getstate__`",
        Place.GLOBAL: "start it in the initializer, or inside the function, instead",
    },
    "thread-local": {Place.ALONE: _INSIDE, Place.GLOBAL: _INSTEAD},
    "connection": {Place.ALONE: _INSIDE, Place.GLOBAL: _INSTEAD},
}
