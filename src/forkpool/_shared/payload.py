"""Turn calls and results into bytes; `parts` says which, and `decoding` is the way back.

Runs in: `CallEncoder` in the host, in any thread; `ResultEncoder` in a worker, in the task's thread.
Must not import cloudpickle before a call needs it, hold a lock while it pickles (user code runs inside, a signal handler or
finalizer may submit again), or catch what is not an `Exception`.

Hard part: what is *plain* (by reference, builtin data) must be recognised in a microsecond and never wrongly: the
decision is `plain`'s and `importable`'s. Everything else goes through `by_value`.
Tests: tests/unit/test_payload_*.py
"""

from __future__ import annotations

import functools
import pickle
from collections.abc import Callable
from types import FunctionType
from typing import TYPE_CHECKING, Any, Literal

from forkpool._shared import changed_meanwhile, explain, import_path
from forkpool._shared.explain import PayloadError
from forkpool._shared.importing import importing
from forkpool._shared.named_parts import name_of
from forkpool._shared.owning_payload import LARGE, OwningPayload, take_out
from forkpool._shared.parts import HOLDING, NAMED, PARTED, PATH, POINTING, RICH, TITLE, Call, with_length
from forkpool._shared.plain import IMMUTABLE, all_plain, is_plain, is_plain_callable

if TYPE_CHECKING:
    from forkpool._shared.import_path import PathLook
    from forkpool._shared.mp_support import Spawning
    from forkpool._shared.repeated_calls import RepeatedCall
    from forkpool._shared.session import ResultSession

__all__ = ["CallEncoder", "PayloadError", "ResultEncoder"]

Serializer = Literal["auto", "pickle", "cloudpickle"]

_PLAIN_TAG = b"\0"
PLAIN_RESULT_LIMIT = 65536  # arbitrary: what the supervisor thread may unpickle itself, tens of microseconds


class CallEncoder:
    """Pickle calls in the host. Any thread; re-entrant; may be interrupted by an exception at any point.

    Args:
        serializer: "auto" takes the standard pickle where that is provably safe, else by-value pickling;
            "pickle" never ships anything by value; "cloudpickle" always takes the by-value path. Results are not bound by it.
        warn: Called with a text, in the caller's thread, once per call site that ships the same megabytes again and again.
        preloads_main: The workers are forked from a process that ran the program; see `forkpool._child.preload_main`.
        initializer: Of the pool. What it sets each worker has, so of that nothing needs to travel.
        pool_name: Unique; sockets and connections in the calls are fetched from the pool of that name, see `passed_fds`.
    """

    def __init__(
        self,
        serializer: Serializer = "auto",
        warn: Callable[[str], None] | None = None,
        *,
        preloads_main: bool = False,
        initializer: Callable[..., object] | None = None,
        pool_name: str = "",
    ) -> None:
        self._pool_name = pool_name
        self._initializer = initializer
        self._preloads_main = preloads_main
        if preloads_main:
            from forkpool._shared import tracking

            tracking.name_classes_of_main()
        self._auto = serializer == "auto"
        self._standard = serializer == "pickle"
        self._begun: dict[str, list[str]] = {}  # "path": what calls without one are for, from the first call on
        self._path: tuple[PathLook, bytes | None] = (import_path.NEVER, None)  # where modules are found; what calls bring along
        self._sizes = explain.SizeWatch(warn) if warn is not None else None

    def encode(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], name: str | None = None) -> bytes:
        """Return the payload of one call.

        Args:
            name: What the task is to be called; None: `calls.name_of(fn)`, which does not travel.
        Raises:
            PayloadError: The user's: a part of the call cannot travel. Nothing was changed.
        """
        try:
            is_short = self._auto and all_plain(args) and (not kwargs or all_plain(kwargs.values()))
        except RuntimeError:  # another thread changes an argument just now
            is_short = False
        if is_short:
            look, path = self._path
            if not look.holds():
                path = self._look_again()
            if is_plain_callable(fn):
                head = _PLAIN_TAG if name is None and path is None else _head(path, 0, name)
                payload = head + pickle.dumps((fn.__module__, fn.__qualname__, args, kwargs), 5)
                if len(payload) >= explain.BIG and self._sizes is not None:
                    self._sizes.look(_by_value()[1].Session, fn, args, kwargs, [])
                return payload
            if type(fn) is FunctionType and not self._preloads_main:
                return self._encode_repeated(fn, args, kwargs, path, name)
        return self._encode_rich(fn, args, kwargs, name)

    def encode_initializer(self, fn: Callable[..., Any], args: tuple[Any, ...]) -> bytes:
        """Return the payload of the call that comes before all others in each worker.

        What is a global's value in the program is that global there (`initializer=service.connect`): tasks are to find it so.

        Raises:
            PayloadError: As `encode`.
        """
        if is_plain_callable(fn) and all(type(arg) in IMMUTABLE for arg in args):
            return self.encode(fn, args, {})
        return self._encode_rich(fn, args, {}, None, POINTING)

    def path_of_calls(self) -> list[str]:
        """Return the `sys.path` that calls are for if they bring none along."""
        return self._begun.get("path") or self._begun.setdefault("path", import_path.look().path)

    def _encode_repeated(
        self, fn: FunctionType, args: tuple[Any, ...], kwargs: dict[str, Any], path: bytes | None, name: str | None
    ) -> bytes:
        """Encode a function that goes by value, with plain arguments: it may have been sent before."""
        repeated = _repeated_calls()
        known = repeated.find(fn)
        if known is None:
            return self._encode_rich(fn, args, kwargs, name, repeated=repeated.begin(fn))
        body = pickle.dumps((known.space, known.name, args, kwargs), 5)
        if len(body) >= explain.BIG:
            return self._encode_rich(fn, args, kwargs, name)  # which may have something to say about that
        return _join_bytes(body, known.table, path, NAMED, name)

    def _encode_rich(
        self,
        fn: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        name: str | None,
        flags: int = 0,
        *,
        repeated: RepeatedCall | None = None,
    ) -> bytes:
        mp_support, sessions = _by_value()
        spawning = mp_support.Spawning(self._pool_name)
        try:
            try:
                spawning.begin()
                session = self._new_session(sessions)
                session.points = bool(flags & POINTING)
                return self._encode_in(session, spawning, (fn, args, kwargs), name, flags, repeated)
            finally:
                spawning.end()
        finally:
            spawning.end()  # a second time: Ctrl-C may have hit the first one

    def _encode_in(
        self, session: Any, spawning: Spawning, call: Call, name: str | None, flags: int, repeated: RepeatedCall | None
    ) -> bytes:
        try:
            body, named = session.encode_call(*call)
        except Exception as exc:
            session, (body, named) = self._try_again(session, call, exc)
        entries = session.table()
        # Of a call that is large without them they stay: it would be copied once more for nothing.
        rest, contents = take_out(entries) if len(body) < LARGE else (entries, {})
        holding, kept = spawning.take_holding(), spawning.take_kept()
        flags |= (HOLDING if holding else 0) | (NAMED if named else 0) | (PARTED if contents else 0)
        table = pickle.dumps(rest, 5)
        payload = _join_bytes(body, table, self._look_again(), flags, name)
        if self._sizes is not None and len(payload) + sum(len(each.data) for each in contents.values()) >= explain.BIG:
            self._sizes.look(session.anew, *call, entries)
        if holding is None and not contents:
            if repeated is not None and named:
                repeated.keep(table, session.entries())
            if kept is None:
                return payload
        owner = OwningPayload(payload)
        owner.holding, owner.contents, owner.kept = holding, contents, kept
        return owner

    def _try_again(self, session: Any, call: Call, exc: Exception) -> tuple[Any, tuple[bytes, bool]]:
        """Encode a call that failed once more, if that is because another thread changed a part of it meanwhile.

        Raises:
            PayloadError: It is not, or it did so each time.
        """
        for _ in range(changed_meanwhile.MOST_TRIES - 1):
            if not changed_meanwhile.is_change(exc):
                raise explain.call_error(session.anew, *call, exc) from _cause_of(exc)
            session = session.anew()
            session.quieten = changed_meanwhile.quiet
            encoded = _attempt(session, call)
            if not isinstance(encoded, Exception):
                return session, encoded
            exc = encoded
        key = exc.args[0] if type(exc).__name__ == "EntryError" else None
        raise explain.changed_error(name_of(call[0]), key) from _cause_of(exc)

    def _new_session(self, sessions: Any) -> Any:
        if self._preloads_main:
            session = sessions.PreloadedStandardSession() if self._standard else sessions.PreloadedSession()
        else:
            session = sessions.StandardSession() if self._standard else sessions.Session()
        session.initializer = self._initializer
        return session

    def _look_again(self) -> bytes | None:
        """Return what the call brings along to say where modules are found; None: where they were for the first call of all."""
        look = import_path.look()
        part = None if look.path == self.path_of_calls() else pickle.dumps(look.path, 5)
        self._path = look, part
        return part


class ResultEncoder:
    """Pickle results and exceptions in a worker. One thread."""

    def encode_value(self, value: Any) -> tuple[bytes, bool]:
        """Return the payload of a result, and whether it is plain: small, of builtin types, safe to unpickle anywhere.

        Raises:
            PayloadError: The user's: the result cannot travel. The message says what to return instead.
        """
        try:
            is_short = is_plain(value)
        except RuntimeError:  # a thread of the task changes it just now
            is_short = False
        if is_short:
            data = _PLAIN_TAG + pickle.dumps(value, 5)
            return data, len(data) <= PLAIN_RESULT_LIMIT
        return self.encode_rich(value), False

    def encode_exception(self, exc: BaseException) -> bytes:
        """Return everything that can be said about an exception. Never raises."""
        from forkpool._shared.remote_exceptions import describe

        return describe(exc, self.encode_rich)

    def encode_rich(self, value: Any) -> bytes:
        """Return the payload of a result of any type. Raises PayloadError."""
        from forkpool._shared.session import ResultSession

        return encode_rich_result(value, ResultSession())


def encode_rich_result(value: Any, session: ResultSession) -> bytes:
    """Return the payload of a result, of which the session collects what it refers to."""
    try:
        body = session.encode(value)
    except Exception as exc:
        raise explain.result_error(type(session), value, exc) from _cause_of(exc)
    return _join(body, session.table(), None, 0)


def _join(body: bytes, entries: list[Any], path: bytes | None, flags: int, name: str | None = None) -> bytes:
    return _join_bytes(body, pickle.dumps(entries, 5), path, flags, name)


def _join_bytes(body: bytes, table: bytes, path: bytes | None, flags: int, name: str | None) -> bytes:
    return b"".join((_head(path, flags | RICH, name), *with_length(table), body))


def _head(path: bytes | None, flags: int, name: str | None) -> bytes:
    parts = [b""]
    if name is not None:
        flags |= TITLE
        parts += with_length(_as_bytes(name))
    if path is not None:
        flags |= PATH
        parts += with_length(path)
    parts[0] = bytes((flags,))
    return b"".join(parts)


@functools.cache
def _repeated_calls() -> Any:
    with importing:
        from forkpool._shared import repeated_calls  # only for calls by value: it imports cloudpickle
    return repeated_calls


@functools.cache
def _by_value() -> Any:
    with importing:
        from forkpool._shared import mp_support, session  # likewise
    return mp_support, session


def _as_bytes(name: str) -> bytes:
    return name.encode("utf-8", "surrogatepass")


def _attempt(session: Any, call: Call) -> tuple[bytes, bool] | Exception:
    """What it returns or raises. Here, so that no frame in the error's traceback holds the error."""
    try:
        encoded: tuple[bytes, bool] = session.encode_call(*call)
    except Exception as error:
        return error
    return encoded


def _cause_of(exc: BaseException) -> BaseException:
    """Return the user's exception behind an entry that failed."""
    return exc.__cause__ if type(exc).__name__ == "EntryError" and exc.__cause__ is not None else exc
