"""An answer that nobody has unpickled yet, and whether it is to blame for what was raised while somebody did that.

Runs in: host; any thread. An answer is unpickled in the thread of the first caller that wants it.
Must not run code of the user's: it looks at an exception that has been raised, while others may be.
Hard part: what comes out of unpickling becomes the future's outcome for good, and not all that comes out is the answer's own.
Python runs a signal handler in the main thread, wherever that is; what the handler raises ends the unpickling there. It belongs
to the caller, now, and the answer to who asks next. A frame tells: Python calls a handler (and a tracer) with the frame that it
interrupts, which is the caller of the handler's own. Memory, descriptors and stack that were lacking say nothing of the answer.
Tests: tests/unit/test_future_results.py
"""

from __future__ import annotations

import errno
import functools
import threading
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any

_HAS_VARARGS = 4  # `inspect.CO_VARARGS`, whose module is not for free


class EncodedAnswer:
    """An answer that nobody has unpickled yet."""

    __slots__ = ("data", "decode", "is_error", "lock")

    def __init__(self, data: bytes | bytearray, decode: Callable[[bytes | bytearray], Any], is_error: bool) -> None:
        self.data = data
        self.decode = decode
        self.is_error = is_error
        # Unpickled once, however many threads ask. It knows by itself who has it: an interruption leaves nothing behind, and a
        # thread that asks in the middle of its own unpickling is told so instead of waiting for itself.
        self.lock = threading.RLock()

    def is_being_unpickled_here(self) -> bool:
        """Whether it is this very thread that is at it."""
        return self.lock._is_owned()  # type: ignore[attr-defined, no-any-return]


def is_of_the_moment(error: BaseException) -> bool:
    """Whether unpickling failed for a reason that has nothing to do with what was to be unpickled."""
    return is_shortage(error) or is_interruption(error)


def is_shortage(error: BaseException) -> bool:
    """Whether no memory, no stack (the caller may be deep in a recursion) or no descriptor (to import with) was left."""
    if isinstance(error, OSError):
        return error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
    return isinstance(error, (MemoryError, RecursionError))


def is_interruption(error: BaseException) -> bool:
    """Whether it was raised by a signal handler or a tracer that came in, further in than this function's caller.

    Ctrl-C without a handler of the user's leaves no frame. Nor does what another thread plants (`PyThreadState_SetAsyncExc`) or
    what a handler written in C raises: that is not told from what the answer raises.
    """
    if isinstance(error, KeyboardInterrupt):
        return True
    trace, handlers = error.__traceback__, _codes_of_handlers()
    while trace is not None:
        if trace.tb_frame.f_code in handlers or _interrupts_its_caller(trace.tb_frame):
            return True
        trace = trace.tb_next
    return False


def _interrupts_its_caller(frame: FrameType) -> bool:
    """Whether an argument of the function is the frame that called it."""
    code, caller = frame.f_code, frame.f_back
    count = code.co_argcount + code.co_kwonlyargcount + bool(code.co_flags & _HAS_VARARGS)
    if caller is None or count == 0:
        return False
    held = [frame.f_locals.get(name) for name in code.co_varnames[:count]]
    return any(one is caller or (type(one) is tuple and any(item is caller for item in one)) for one in held)


def _codes_of_handlers() -> set[CodeType | None]:
    """Of those that are installed: one that walks up the stack may hold another frame by now."""
    import signal

    codes = {_code_of(signal.getsignal(number)) for number in signal.valid_signals()}
    return codes - {None}


def _code_of(handler: Any) -> CodeType | None:
    while type(handler) is functools.partial:
        handler = handler.func
    if not callable(handler):  # the signal is ignored, or as in C
        return None
    for function in (handler, getattr(handler, "__func__", None), type(handler).__call__):
        code = getattr(function, "__code__", None)
        if isinstance(code, CodeType):
            return code
    return None
