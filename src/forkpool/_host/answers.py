"""Turn the bytes of an answer back into a value or an exception.

Runs in: host. Plain values on the supervisor thread; everything else in the thread of the first caller that asks.
Must not run on the supervisor for payloads that are not plain: unpickling runs user code.
Hard part: an exception must come out even when its own unpickling fails; see `remote_exceptions` for the three forms.
Tests: tests/unit/test_payload_exceptions.py
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

from forkpool._shared.payload import Buffer, load_value


def decode_value(data: Buffer) -> Any:
    """Return the value of an answer. Raises whatever the user's unpickling raises."""
    return load_value(data)


def decode_exception(data: Buffer, load: Callable[[Buffer], Any] = load_value) -> BaseException:
    """Return the exception of an answer, its remote traceback as `__cause__`.

    It is the pickled exception if that can be loaded, else one of the same class made without `__init__`, else a `RemoteError`.
    `load` unpickles its parts. A KeyboardInterrupt in this thread passes through: the answer can be decoded again.
    """
    from forkpool import errors

    answer = pickle.loads(data)  # plain data, written by `remote_exceptions.describe`
    exc = _loaded(answer["pickled"], load)
    if exc is None:
        exc = _rebuilt(answer["parts"], load)
    if exc is None:
        exc = errors.RemoteError(
            f"{answer['type_name']}: {answer['message']}",
            type_name=answer["type_name"],
            remote_traceback=answer["traceback"],
        )
    exc.__cause__ = errors.RemoteTraceback(answer["traceback"])
    return exc


def _loaded(data: bytes | None, load: Callable[[Buffer], Any]) -> BaseException | None:
    value = _attempt(data, load)
    return value if isinstance(value, BaseException) else None


def _rebuilt(data: bytes | None, load: Callable[[Buffer], Any]) -> BaseException | None:
    try:
        cls, args, state = _attempt(data, load)
        exc = cls.__new__(cls, *args)
        exc.args = args
        exc.__dict__.update(state)
    except KeyboardInterrupt:
        raise
    except BaseException:
        return None
    return exc if isinstance(exc, BaseException) else None


def _attempt(data: bytes | None, load: Callable[[Buffer], Any]) -> Any:
    if data is None:
        return None
    try:
        return load(data)
    except KeyboardInterrupt:
        raise
    except BaseException:  # SystemExit in a __setstate__ must not end the caller
        return None
