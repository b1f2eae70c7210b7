"""Be the worker of one call that runs inline: decode it, run it, encode its answer.

Runs in: host, the thread that submits. Must not change anything that the user did not ask for: what is set for the call
(`current_task()`, environment variables) is taken back after it.
Hard part: the environment belongs to all threads. One call at a time has it (and those inside of it, in the same thread): the
others see the slot of that one, and nothing is left behind, in whatever order they end.
Tests: tests/process/test_inline.py
"""

from __future__ import annotations

import _thread
import os
import pickle
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from .._core.wire import Kind
from .._shared import clock
from .._shared.current_task import INLINE, SLOT_VARIABLE
from .._shared.decoding import CallDecoder, load_with
from .._shared.parts import Buffer, Call
from .._shared.payload import PayloadError, ResultEncoder, encode_rich_result
from ..future import ForkFuture
from .answers import decode_exception
from .retries import kind_of
from .verdicts import initializer_error, result_error

if TYPE_CHECKING:
    from .._shared.applier import Applier
    from ..config import TaskOptions


class Running:
    """One call while it runs. Its thread holds `lock` from before the first line that counts it to after the last."""

    __slots__ = ("began", "future", "lock", "name", "options", "since", "slot", "thread")

    def __init__(self, future: ForkFuture[Any], name: str, options: TaskOptions) -> None:
        self.future = future
        self.name = name
        self.options = options
        self.since = self.began = clock.now()  # seconds: of all of it, and of the present attempt
        self.lock = _thread.allocate_lock()
        self.thread = _thread.get_ident()
        self.slot = 0

    def begin_again(self) -> None:
        """Another attempt begins."""
        self.future._attempt += 1
        self.began = clock.now()

    def note_end(self) -> None:
        """The attempt has ended."""
        self.future._run = (os.getpid(), self.slot), round(self.began * 1e9), clock.now() - self.began


class Answer(NamedTuple):
    """What a worker would send."""

    data: bytes
    decode: Callable[[Buffer], Any]
    is_error: bool
    is_plain: bool = False
    kind: Kind = Kind.VALUE
    error: tuple[str, ...] = ()  # full names of its class and base classes


class LocalDecoder(CallDecoder):
    """Gives a call copies of its arguments, and the process's own functions and classes."""

    def decode(self, data: Buffer) -> Call:
        if type(data) is bytes:  # most calls: no socket or connection is in them
            return super().decode(data)
        from .._shared.passed_fds import lent_by

        with lent_by(data):
            return super().decode(data)

    def _open_table(self, table: memoryview, contents: list[memoryview], *, parted: bool) -> Applier:
        from .inline_payload import LocalApplier

        return LocalApplier({})


class LocalEncoder(ResultEncoder):
    """Pickles the answer of one call. `load` is how it is unpickled later."""

    def __init__(self) -> None:
        kept: dict[str, Any] = {}
        self._kept = kept
        self._interrupted = False
        self.load = partial(load_with, open_table=partial(_open_kept, kept))

    def encode_rich(self, value: Any) -> bytes:
        from .inline_payload import LocalResultSession

        try:
            return encode_rich_result(value, LocalResultSession(self._kept))
        except KeyboardInterrupt:
            self._interrupted = True
            raise

    def encode_exception(self, exc: BaseException) -> bytes:
        """As in a worker; but Ctrl-C while it is pickled is the user's."""
        data = super().encode_exception(exc)
        if self._interrupted:
            raise KeyboardInterrupt
        return data


def work(call: Running, payload: bytes, slots: int) -> Answer:
    """Run a call. Raises KeyboardInterrupt only: that is the user's, or cannot be told from it."""
    decoder, encoder, outer = LocalDecoder(), LocalEncoder(), INLINE.task
    try:
        fn, args, kwargs = decoder.decode(payload)
        INLINE.task = fn, decoder.name, call.slot, slots, call.future.attempt, call.lock.locked
        return _encode(fn(*args, **kwargs), encoder)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        data = encoder.encode_exception(error)
        return _error(Kind.EXCEPTION, data, partial(decode_exception, load=encoder.load))
    finally:
        INLINE.task = outer


def _error(kind: Kind, data: bytes, decode: Callable[[Buffer], Any]) -> Answer:
    return Answer(data, decode, is_error=True, kind=kind, error=kind_of(kind, data))


def _encode(value: object, encoder: LocalEncoder) -> Answer:
    try:
        data, is_plain = encoder.encode_value(value)
    except PayloadError as error:
        cause = encoder.encode_exception(error.__cause__ or error)
        data = pickle.dumps((str(error), error.part, cause))
        return _error(Kind.RESULT_ERROR, data, partial(result_error, load=encoder.load))
    return Answer(data, encoder.load, is_error=False, is_plain=is_plain)


def initialize(payload: bytes) -> Callable[[], BaseException] | None:
    """Run the initializer's call; None, or what makes the error of a pool that is broken. Raises as `work`."""
    encoder = LocalEncoder()
    try:
        fn, args, kwargs = LocalDecoder().decode(payload)
        fn(*args, **kwargs)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return partial(initializer_error, encoder.encode_exception(error), encoder.load)
    return None


class EnvironmentOf:
    """Set the variables of a worker while a call runs, and then what was there before."""

    __slots__ = ("_before", "_call", "_new", "_outermost")

    def __init__(self, call: Running, env: Mapping[str, str] | None) -> None:
        self._call = call
        self._new = {**(env or {}), SLOT_VARIABLE: str(call.slot)}
        self._before: dict[str, str | None] = {}

    def __enter__(self) -> None:
        call = self._call
        holder = _holders.setdefault("environment", call)
        if not holder.lock.locked():  # an exception ended it before it could let go
            holder = _holders["environment"] = call
        self._outermost = holder is call
        if holder.thread == call.thread:
            for name in self._new:
                self._before[name] = os.environ.get(name)
                _originals.setdefault(name, self._before[name])
            os.environ.update(self._new)

    def __exit__(self, *exc_info: object) -> None:
        if not self._outermost:
            _restore(self._before)
            return
        _restore(_originals)  # with what calls inside could not take back because they were interrupted
        _originals.clear()
        _holders.pop("environment", None)


def _restore(variables: Mapping[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _open_kept(kept: dict[str, Any], table: memoryview) -> Applier:
    from .inline_payload import LocalApplier

    return LocalApplier(kept)


_holders: dict[str, Running] = {}  # "environment": the call that has it
_originals: dict[str, str | None] = {}  # what was set before the outermost of these calls
