"""Stand where a global, or an attribute of a class, would be that cannot be sent to a worker, and that a call may never need.

Runs in: worker, when a payload is applied; and where an object holds one of these, wherever that is looked at.
A class goes by value with all its methods, so with what they name: also the lock that a done-callback takes in the host, and
the pool itself. And with all its attributes, such as a lock. Which of them the task uses nobody can know beforehand. So it is
the touch that fails, in the task, with the error that `submit` has for what is needed for sure.
Hard part: special methods are looked up in the class, past `__getattribute__`. And who only looks around (`isinstance` of all
that a module holds, `repr` in a debugger) does not need it, and is not to fail.
Tests: tests/unit/test_not_sent.py, tests/process/test_inheritance_main.py
"""

from __future__ import annotations

from typing import Any, NoReturn

_BINARY = ("add", "sub", "mul", "matmul", "truediv", "floordiv", "mod", "divmod", "pow", "lshift", "rshift", "and", "xor", "or")
_UNARY = ("neg", "pos", "abs", "invert", "int", "float", "complex", "index", "round", "trunc", "floor", "ceil", "bytes", "bool")
_OTHERS = (  # of those that an operator, a statement or a builtin function looks up; without, the answer would be `object`'s
    *("call", "enter", "exit", "aenter", "aexit", "await", "iter", "next", "aiter", "anext", "reversed", "len", "contains"),
    *("getitem", "setitem", "delitem", "setattr", "delattr", "dir", "fspath", "format", "str", "buffer"),
    *("eq", "ne", "lt", "le", "gt", "ge", "hash", "instancecheck", "subclasscheck", "reduce", "reduce_ex", "mro_entries"),
)


class NotSent:
    """Something that is not here. All that is done with it raises `forkpool.errors.SerializationError`."""

    __slots__ = ("_what", "_why")

    def __init__(self, what: str, why: str) -> None:
        object.__setattr__(self, "_what", what)
        object.__setattr__(self, "_why", why)

    def __getattribute__(self, name: str) -> Any:
        if name == "__class__":
            return NotSent
        if name.startswith("__") and name not in vars(NotSent):  # who asks looks around: `abc` for `__isabstractmethod__`
            raise AttributeError(name)
        return _refuse(self)

    def __repr__(self) -> str:
        return f"<{_text(self)}>"


def _refuse(self: NotSent, *_: Any) -> NoReturn:
    from forkpool.errors import SerializationError

    raise SerializationError(_text(self), part=object.__getattribute__(self, "_what").strip("`"), may_have_run="yes")


def _text(self: NotSent) -> str:
    what, why = (object.__getattribute__(self, each) for each in NotSent.__slots__)
    return f"{what} is not in this worker: it {why}"


for _name in (*_BINARY, *(f"r{each}" for each in _BINARY), *_UNARY, *_OTHERS):
    setattr(NotSent, f"__{_name}__", _refuse)
