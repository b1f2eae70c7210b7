"""Turn "cannot pickle '_thread.lock' object" into an error that names the part and the way out.

Runs in: host (the thread that submits) and worker (results), only after pickling failed, or when a payload is big.
Must not hide the original error: the caller raises ours from it.
Hard part: pickle does not say where it was. So the parts are tried one by one, from the outside in: the part that fails while
none of its own parts does is the culprit. That calls the user's reducers again, which is why it happens after a failure only.
Tests: tests/unit/test_payload_errors.py
"""

from __future__ import annotations

import functools
import io
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

from forkpool._shared.mp_support import is_of_fork_context

BIG = 1_000_000  # arbitrary: below a megabyte a copy costs less than a millisecond
REPEATS = 3
MAX_DEPTH = 12
MAX_PARTS = 200


class PayloadError(Exception):
    """A part of a call, or a result, cannot travel to the other process.

    Attributes:
        part: The attribute path (`Service.ex`) or the name of the argument or variable.
    """

    def __init__(self, message: str, part: str) -> None:
        super().__init__(message, part)
        self.part = part

    def __str__(self) -> str:
        return str(self.args[0])


def call_error(make_session: Callable[[], Any], fn: Any, args: Any, kwargs: Any, exc: Exception) -> PayloadError:
    """Return the error for a call that could not be pickled."""
    name = name_of(fn)
    roots = [("", fn)]
    roots += [(f"argument {position}", value) for position, value in enumerate(args, 1)]
    roots += [(f"keyword argument {key!r}", value) for key, value in kwargs.items()]
    for label, value in roots:
        if _fails(make_session, value):
            where = f"{label} of `{name}`" if label else f"`{name}`"
            return _error(make_session, f"cannot send {where} to a worker", label or name, value, exc)
    return PayloadError(f"cannot send the call of `{name}` to a worker: {_reason(exc)}", name)


def result_error(make_session: Callable[[], Any], value: Any, exc: Exception) -> PayloadError:
    """Return the error for a result that could not be pickled."""
    return _error(make_session, "the task is done, but its result cannot be sent back", "result", value, exc)


def _error(make_session: Callable[[], Any], intro: str, label: str, value: Any, exc: Exception) -> PayloadError:
    deep = isinstance(exc, RecursionError) or isinstance(exc.__cause__, RecursionError)
    path, culprit = (label, value) if deep else _find_culprit(make_session, label, value)
    why = advice_for(culprit, exc)
    if path == label:
        return PayloadError(f"{intro}: it {why}", label)
    return PayloadError(f"{intro}: {path} {why}", _bare(path))


def _bare(path: str) -> str:
    """Drop the quotes of a path that is nothing but quoted."""
    return path[1:-1] if path.startswith("`") and path.find("`", 1) == len(path) - 1 else path


def _find_culprit(make_session: Callable[[], Any], label: str, value: Any) -> tuple[str, Any]:
    path, visited = label, {id(value)}
    for _ in range(MAX_DEPTH):
        if kind_of(value) is not None:
            break
        parts = [part for part in _parts(path, value) if id(part[1]) not in visited and _fails(make_session, part[1])]
        if not parts:
            break
        # What fails by itself comes before what fails through the class or global that led here.
        path, value = next((part for part in parts if _fails_alone(make_session, part[1])), parts[0])
        visited.add(id(value))
    return path, value


def _fails(make_session: Callable[[], Any], value: Any) -> bool:
    return _raises(make_session().encode, value)


def _fails_alone(make_session: Callable[[], Any], value: Any) -> bool:
    return _raises(make_session().encode_alone, value)


def _raises(encode: Callable[[Any], bytes], value: Any) -> bool:
    try:
        encode(value)
    except Exception:
        return True
    return False


def _parts(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Name the parts that a value is pickled with."""
    if isinstance(value, types.MethodType):
        owner = value.__self__
        yield f"`{name_of(type(owner) if not isinstance(owner, type) else owner)}`", owner
    elif isinstance(value, types.FunctionType):
        yield from _function_parts(value)
    elif isinstance(value, functools.partial):
        yield f"the function of the partial {name_of(value)}", value.func
        yield from ((f"argument {i} of the partial", part) for i, part in enumerate(value.args, 1))
        yield from ((f"keyword argument {key!r} of the partial", part) for key, part in value.keywords.items())
    elif isinstance(value, dict):
        for key, part in list(value.items())[:MAX_PARTS]:
            yield _join(path, f"[{_short(key)}]"), part
    elif isinstance(value, (list, tuple)):
        for position, part in enumerate(value[:MAX_PARTS]):
            yield _join(path, f"[{position}]"), part
    elif isinstance(value, type):
        for name, part in list(vars(value).items())[:MAX_PARTS]:
            yield f"`{value.__qualname__}.{name}`", getattr(part, "__func__", part)
    else:
        for name, part in _attributes(value):
            base = path if path.startswith("`") else f"`{type(value).__qualname__}`"
            yield _join(base, f".{name}"), part


def _function_parts(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    name = function.__qualname__
    for variable, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False):
        try:
            yield f"closure variable {variable!r} of `{name}`", cell.cell_contents
        except ValueError:
            continue
    defaults = (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values())
    yield from ((f"a default value of `{name}`", value) for value in defaults)
    yield from ((f"attribute `{name}.{key}`", value) for key, value in vars(function).items())
    from forkpool._shared.code_names import names_of

    for variable in names_of(function.__code__).globals:
        if variable in function.__globals__ and function.__globals__[variable] is not function:
            yield f"global {variable!r} used by `{name}`", function.__globals__[variable]


def _attributes(value: Any) -> Iterator[tuple[str, Any]]:
    found = dict(getattr(value, "__dict__", None) or {})
    for cls in type(value).__mro__:
        slots = vars(cls).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if hasattr(value, name):
                found.setdefault(name, getattr(value, name))
    yield from list(found.items())[:MAX_PARTS]


def _join(path: str, more: str) -> str:
    return f"{path[:-1]}{more}`" if path.endswith("`") and path.startswith("`") else f"{path}{more}"


def _short(value: Any) -> str:
    try:
        text = repr(value)
    except Exception:
        text = f"<{type(value).__name__}>"
    return text if len(text) <= 40 else text[:37] + "..."


def name_of(fn: Any) -> str:
    """Return how the user calls a function."""
    if isinstance(fn, functools.partial):
        return name_of(fn.func)
    if isinstance(fn, types.MethodType):
        owner = fn.__self__ if isinstance(fn.__self__, type) else type(fn.__self__)
        return f"{owner.__qualname__}.{getattr(fn, '__name__', '?')}"
    name = getattr(fn, "__qualname__", None)
    return name if isinstance(name, str) else type(fn).__qualname__


# -- what the culprit is, and what to do


def _loaded_class(module: str, name: str) -> tuple[type, ...]:
    cls = getattr(sys.modules.get(module), name, None)
    return (cls,) if isinstance(cls, type) else ()


_LOCKS = ("lock", "RLock", "Condition", "Event", "Semaphore", "BoundedSemaphore", "Barrier", "_RLock")


def kind_of(value: Any) -> str | None:
    """Return what a well-known object that cannot travel is, or None."""
    cls = type(value)
    module = str(cls.__module__)  # types of C may have a descriptor there
    if isinstance(value, type) and _has_no_name_and_no_body(value):
        return "class-of-c"
    if isinstance(value, (types.GeneratorType, types.AsyncGeneratorType)):
        return "generator"
    if isinstance(value, types.CoroutineType):
        return "coroutine"
    if isinstance(value, _loaded_class("concurrent.futures._base", "Executor")):
        return "executor"
    if isinstance(value, _loaded_class("concurrent.futures._base", "Future")):
        return "future"
    if isinstance(value, io.IOBase) and not isinstance(value, (io.BytesIO, io.StringIO)):
        return "file"
    if isinstance(value, _loaded_class("_socket", "socket")):
        return _kind_of_socket(value)
    if module.startswith("asyncio.") and hasattr(value, "get_extra_info"):
        return "transport"
    if module in ("_thread", "threading") and cls.__name__ in _LOCKS:
        return "lock"
    if isinstance(value, _loaded_class("_thread", "_local")):
        return "thread-local"
    if isinstance(value, _loaded_class("threading", "Thread")):
        return "thread"
    if module.startswith("multiprocessing.") and is_of_fork_context(value):
        return "fork-context"
    if module.startswith("multiprocessing.") and _holds_fork_lock(value):
        return "fork-context"
    if cls.__name__ in ("Connection", "connection") and not module.startswith("multiprocessing."):
        return "connection"
    return None


def _has_no_name_and_no_body(cls: type) -> bool:
    from forkpool._shared.by_value_classes import is_made_in_c
    from forkpool._shared.importable import by_reference

    return is_made_in_c(cls) and not by_reference(cls)


def _kind_of_socket(value: Any) -> str:
    if isinstance(value, _loaded_class("ssl", "SSLSocket")):
        return "ssl-socket"
    if value.fileno() < 0:
        return "closed-socket"
    return "socket" if type(value) in _loaded_class("socket", "socket") else "special-socket"


def _holds_fork_lock(value: Any) -> bool:
    return any(is_of_fork_context(part) or is_of_fork_context(getattr(part, "_lock", None))
               for part in vars(value).values()) if hasattr(value, "__dict__") else False  # fmt: skip


_INSIDE = "create it inside the task, or in an initializer that stores it in a global"
_ADVICE = {
    "class-of-c": "is {name}, a class that C code made and that no module holds under that name; look it up inside the task",
    "generator": "is a generator, which cannot leave its process; pass or return list(...) instead",
    "coroutine": "is a coroutine, which cannot leave its event loop; run it inside the task with asyncio.run()",
    "executor": "is an executor ({type}), which belongs to its process; make the function a plain function or a "
    "static method, or drop the attribute in `__getstate__`",
    "future": "is a future ({type}), which belongs to its process; pass its result() instead",
    "file": "is an open file ({repr}), which belongs to its process; pass the path and open it inside the task",
    "socket": "is a socket, which a task can be given and cannot return; return data, or give the task one end of a "
    "socket.socketpair() to send it through with socket.send_fds()",
    "closed-socket": "is a socket that is closed; submit the call before you close it",
    "special-socket": f"is a {{type}}, which is not a plain socket.socket; {_INSIDE}",
    "ssl-socket": "is an SSL socket, whose keys and buffers are in the memory of its process; pass the plain socket and wrap "
    "it inside the task, or connect there",
    "transport": "is a stream or transport of asyncio ({type}), which belongs to its event loop; pass a socket that asyncio "
    "does not use, or connect inside the task",
    "lock": "is a lock ({type}), which only works inside one process; drop it in `__getstate__`, create it inside the "
    'task, or use multiprocessing.get_context("spawn").Lock()',
    "thread": "is a thread ({type}), which belongs to its process; drop it in `__getstate__`",
    "thread-local": f"is a threading.local, whose contents belong to a thread; {_INSIDE}",
    "connection": f"is an open connection ({{type}}), which belongs to its process; {_INSIDE}",
}


def advice_for(value: Any, exc: Exception) -> str:
    """Return the second half of the message: what the culprit is and the way out."""
    kind = kind_of(value)
    type_name = f"{type(value).__module__}.{type(value).__qualname__}"
    if kind == "fork-context":
        name = type(value).__name__
        return f'is a {name} of a "fork" context, which no other start method can hand over; make it with ' \
               f'`multiprocessing.get_context("spawn").{name}()`'  # fmt: skip
    if kind == "socket" and isinstance(exc, OSError):
        kind = None  # there is no descriptor for a duplicate
    if kind is not None:
        return _ADVICE[kind].format(type=type_name, name=_full_name(value), repr=_short(getattr(value, "name", type_name)))
    return f"(a {type_name}) cannot be pickled: {_reason(exc)}"


def _full_name(value: Any) -> str:
    return f"{value.__module__}.{value.__qualname__}" if isinstance(value, type) else name_of(value)


def _reason(exc: BaseException) -> str:
    if type(exc).__name__ == "EntryError" and exc.__cause__ is not None:
        exc = exc.__cause__
    if isinstance(exc, RecursionError) or isinstance(exc.__cause__, RecursionError):
        return (
            "it is nested too deeply for pickle (recursion depth); flatten it (a linked list or tree as a list of rows), "
            "or raise sys.setrecursionlimit()"
        )
    return f"{type(exc).__name__}: {exc}"


def add_path_note(exc: ModuleNotFoundError, host_path: list[str] | None) -> None:
    """Tell where the worker looked for a module, and where the host does."""
    note = f"The worker looked for {exc.name!r} in its sys.path: {sys.path}"
    if host_path is not None:
        note += f"\nThe host's sys.path when the call was submitted: {host_path}"
    exc.add_note(note)


# -- big payloads


class SizeWatch:
    """Warn once per call site that ships the same big object again and again."""

    def __init__(self, warn: Callable[[str], None]) -> None:
        self._warn = warn
        self._seen: dict[tuple[Any, ...], int] = {}
        self._looks: dict[tuple[Any, ...], int] = {}

    def look(self, make_session: Callable[[], Any], fn: Any, args: Any, kwargs: Any, entries: list[Any]) -> None:
        """Count the big parts of a call. The first few calls of a site are looked at, later ones cost nothing."""
        site = (*_call_site(), name_of(fn))
        looks = self._looks[site] = self._looks.get(site, 0) + 1
        if looks > REPEATS:
            return
        for part, size, content in self._big_parts(make_session, fn, args, kwargs, entries):
            key = (site, part, content)
            count = self._seen[key] = self._seen.get(key, 0) + 1
            if count == REPEATS:
                self._warn(
                    f"{part} is {size / 1e6:.1f} MB and was sent to a worker {REPEATS} times from {site[0]}:{site[1]}; "
                    "load it in an initializer, or pass a path or a smaller part of it"
                )

    def _big_parts(
        self, make_session: Callable[[], Any], fn: Any, args: Any, kwargs: Any, entries: list[Any]
    ) -> Iterator[tuple[str, int, int]]:
        for entry in entries:
            if len(entry[-1]) >= BIG and entry[0][0] == "g":
                yield f"global {entry[0][2]!r} used by `{name_of(fn)}`", len(entry[-1]), hash(entry[-1])
        roots = [(f"argument {position} of `{name_of(fn)}`", value) for position, value in enumerate(args, 1)]
        roots += [(f"keyword argument {key!r} of `{name_of(fn)}`", value) for key, value in kwargs.items()]
        if isinstance(fn, types.FunctionType):
            roots += [part for part in _function_parts(fn) if part[0].startswith("closure")]
        elif isinstance(fn, (functools.partial, types.MethodType)):
            roots += list(_parts(name_of(fn), fn))
        for label, value in roots:
            data = make_session().encode(value)
            if len(data) >= BIG:
                yield label, len(data), hash(data)


def _call_site() -> tuple[str, int]:
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None and str(frame.f_globals.get("__name__")).partition(".")[0] in ("forkpool", "concurrent"):
        frame = frame.f_back
    return (frame.f_code.co_filename, frame.f_lineno) if frame is not None else ("?", 0)
