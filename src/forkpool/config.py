"""The pool's and the tasks' options: frozen, validated once, when the user gives them.

Runs in: host. Pure: what this process may use of the machine is an argument.
Tests: tests/unit/test_config.py
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Literal, cast

from ._callables import check_initializer

Serializer = Literal["auto", "pickle", "cloudpickle"]
_SERIALIZERS = ("auto", "pickle", "cloudpickle")
Pin = Literal["auto"] | bool | tuple[tuple[int, ...], ...]
Threads = Literal["auto"] | int | None
MOST_WORKERS = 1 << 16  # arbitrary: more than any machine can run; a slot costs the host some 150 bytes, used or not


@dataclass(frozen=True, slots=True)
class PoolConfig:
    """What a pool was asked to be. Build it with `pool_config`, which checks."""

    max_workers: int  # number of slots
    initializer: Callable[..., object] | None  # runs once in each worker before its first task
    initargs: tuple[Any, ...]
    max_tasks_per_child: int | None  # tasks; None: a worker is never replaced for age
    max_tasks_jitter: int  # tasks: each worker gets up to so many fewer, drawn anew for each
    env: Mapping[str, str] | None  # set in the workers' environment before anything is imported
    serializer: Serializer
    grace_period: float  # seconds
    pin: Pin  # True, "auto": one set of CPUs for each slot is looked for; a tuple has one for each slot
    threads_per_worker: Threads  # threads of BLAS, OpenMP and the like; "auto": as many as CPUs; None: the libraries decide
    preload: tuple[str, ...] = ()  # modules that the fork server imports before its first fork


@dataclass(frozen=True, slots=True)
class TaskOptions:
    """What an `options()` view adds to each call."""

    timeout: float | None = None  # seconds of running time; None: no limit
    name: str | None = None  # for messages; None: the callable's qualified name
    priority: int = 0  # higher ones are given to workers first
    cancel_running: bool = False  # whether `cancel()` stops a call that runs
    retries: int = 0  # how often it is run again at most
    retry_on: frozenset[str] = frozenset(("forkpool.errors.WorkerCrashedError",))  # full names of exception classes
    memory_limit: int | None = None  # bytes of private memory that the worker may grow by; None: no limit


DEFAULT_OPTIONS = TaskOptions()


def pool_config(
    *,
    max_workers: object,
    mp_context: object,
    initializer: object,
    initargs: object,
    max_tasks_per_child: object,
    max_tasks_jitter: object,
    env: object,
    serializer: object,
    grace_period: object,
    pin: object,
    threads_per_worker: object,
    mask: Collection[int],
    count_cpus: Callable[[], int],
    preload: object = (),
) -> PoolConfig:
    """Check the constructor's arguments.

    Args:
        mask: The CPUs that this process may use; empty: unknown.
        count_cpus: Asked for how many workers there are when `max_workers` is None.
    Raises:
        TypeError, ValueError: The caller's fault; the message names the argument, what came, and what is right.
    """
    if initializer is not None:
        check_initializer(initializer)
    check_context(mp_context)
    if serializer not in _SERIALIZERS:
        raise ValueError(f"serializer must be one of {', '.join(map(repr, _SERIALIZERS))}, not {serializer!r}")
    threads = _threads(threads_per_worker)
    chosen = _pin(pin, mask)
    max_tasks = None if max_tasks_per_child is None else _positive_int("max_tasks_per_child", max_tasks_per_child)
    return PoolConfig(
        max_workers=_workers(max_workers, chosen, threads, count_cpus),
        initializer=cast("Callable[..., object] | None", initializer),
        initargs=_initargs(initargs),
        max_tasks_per_child=max_tasks,
        max_tasks_jitter=_jitter(max_tasks_jitter, max_tasks),
        env=_env(env),
        serializer=serializer,  # type: ignore[arg-type]  # checked above; mypy cannot narrow `in`
        grace_period=_duration("grace_period", grace_period, zero=True),
        pin=chosen,
        threads_per_worker=threads,
        preload=_preload(preload),
    )


def task_options(
    before: TaskOptions,
    *,
    timeout: object = None,
    name: object = None,
    priority: object = None,
    cancel_running: object = None,
    retries: object = None,
    retry_on: object = None,
    memory_limit: object = None,
) -> TaskOptions:
    """Check the arguments of `options()`. What is None stays as it was before.

    Raises:
        TypeError, ValueError: The caller's fault.
    """
    given: dict[str, Any] = {}
    if timeout is not None:
        given["timeout"] = _duration("timeout", timeout, zero=False)
    if name is not None:
        given["name"] = _name(name)
    if priority is not None:
        given["priority"] = _plain_int("priority", priority)
    if cancel_running is not None:
        given["cancel_running"] = _flag("cancel_running", cancel_running)
    if retries is not None:
        given["retries"] = _retries(retries)
    if retry_on is not None:
        given["retry_on"] = frozenset(_class_names(retry_on))
    if memory_limit is not None:
        given["memory_limit"] = _memory_limit(memory_limit)
    return replace(before, **given)


def map_arguments(timeout: object, chunksize: object, buffersize: object) -> tuple[float, int, int | None]:
    """Check the arguments of `map()`. They may be what CPython 3.14 takes, which for numbers is also True and numpy's.

    Returns:
        Seconds (`math.inf`: no limit), items per task, results that are not yet yielded (None: no limit).
    Raises:
        TypeError, ValueError: The caller's fault.
    """
    chunk = _count_of_map("chunksize", chunksize, "an int", ">= 1")
    buffer = None if buffersize is None else _count_of_map("buffersize", buffersize, "an integer or None", "None or > 0")
    return _patience(timeout), chunk, buffer


def _count_of_map(name: str, value: object, kind: str, least: str) -> int:
    """A number of items, in CPython's words where it has some."""
    number = int(value) if isinstance(value, bool) else _integer(value)
    if number is None:
        raise TypeError(f"{name} must be {kind}, not {_kind_of(value)}")
    if number < 1:
        raise ValueError(f"{name} must be {least}, not {_shown(number)}")
    if number > sys.maxsize:
        raise ValueError(f"{name} must be {least} and at most {sys.maxsize}, not {_shown(number)}")
    return number


def _patience(value: object) -> float:
    """The `timeout` of a wait: no limit beyond what any clock can tell; what is negative has passed."""
    if value is None:
        return math.inf
    if isinstance(value, type) or not (hasattr(value, "__float__") or hasattr(value, "__index__")):
        raise TypeError(f"timeout must be a number of seconds or None, not {_kind_of(value)}")
    seconds = _as_float("timeout", cast("float", value))
    if math.isnan(seconds):
        raise ValueError("timeout must be a number of seconds or None, not nan")
    return seconds


def check_context(context: object) -> None:
    """Accept None, "forkserver", "spawn", and the contexts of those names; say why "fork" cannot be.

    Raises:
        TypeError, ValueError: The caller's fault.
    """
    method = context
    if context is not None and not isinstance(context, str):
        get_method = getattr(context, "get_start_method", None)
        if get_method is None:
            raise TypeError(f"mp_context must be a multiprocessing context or None, not {type(context).__name__}")
        method = get_method()
    if method == "fork":
        raise ValueError(
            'mp_context "fork" means workers that inherit this process\'s state, and forkpool never forks your process. '
            "Leave mp_context out: functions, closures and globals are shipped by value; see 'Coming from fork' in the docs."
        )
    if method not in (None, "forkserver", "spawn"):
        raise ValueError(f'mp_context must be None, "forkserver" or "spawn", not {method!r}')


def _name(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"name must be a str or None, not {type(value).__name__}")
    return value


def _integer(value: object) -> int | None:
    """The number, also numpy's; None for what is no integer, True and False included."""
    if isinstance(value, (bool, type)) or not hasattr(value, "__index__"):
        return None
    return int(value.__index__())


def _kind_of(value: object) -> str:
    return "None" if value is None else type(value).__name__


def _shown(number: int | float) -> str:
    """A number as text. Python refuses to write integers of some thousand digits."""
    if isinstance(number, int) and number.bit_length() > 128:
        return f"a number of {number.bit_length()} bits"
    return repr(number)


def _positive_int(name: str, value: object) -> int:
    number = _integer(value)
    if number is None:
        raise TypeError(f"{name} must be an int or None, not {type(value).__name__}")
    if number <= 0:
        raise ValueError(f"{name} must be greater than 0")
    return number


def _plain_int(name: str, value: object) -> int:
    number = _integer(value)
    if number is None:
        raise TypeError(f"{name} must be an int, not {type(value).__name__}")
    return number


def _flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, not {value!r}")
    return value


def _retries(value: object) -> int:
    number = _plain_int("retries", value)
    if number < 0:
        raise ValueError("retries must be 0 or more")
    return number


def _memory_limit(value: object) -> int | None:
    """Bytes; None for `math.inf`, which takes a limit away."""
    if isinstance(value, float) and value == math.inf:
        return None
    number = _integer(value)
    if number is None:
        raise TypeError(f"memory_limit must be a number of bytes as an int, such as 512 << 20, not {value!r}")
    if number <= 0:
        raise ValueError(f"memory_limit must be more than 0 bytes, not {_shown(number)}")
    return number


def _class_names(value: object) -> Iterable[str]:
    """Full names of exception classes: one, or several in a tuple or list."""
    classes: list[Any] = list(value) if isinstance(value, (tuple, list, set, frozenset)) else [value]
    if not classes:
        raise ValueError("retry_on must name at least one exception class; leave it out to retry after a crash only")
    for one in classes:
        if not isinstance(one, type) or not issubclass(one, BaseException):
            raise TypeError(f"retry_on must hold exception classes, as (ConnectionError, TimeoutError), not {one!r}")
        yield full_name(one)


def full_name(cls: type) -> str:
    """Module and name of a class, as a worker tells it too."""
    module = "__main__" if cls.__module__ == "__mp_main__" else cls.__module__
    return f"{module}.{cls.__qualname__}"


def _jitter(value: object, max_tasks: int | None) -> int:
    jitter = _plain_int("max_tasks_jitter", value)
    if jitter < 0:
        raise ValueError("max_tasks_jitter must be 0 or more")
    if jitter and max_tasks is None:
        raise ValueError("max_tasks_jitter varies max_tasks_per_child, which is not given")
    if max_tasks is not None and jitter >= max_tasks:
        raise ValueError(f"max_tasks_jitter must be less than max_tasks_per_child ({max_tasks}): a worker runs one at least")
    return jitter


def _duration(name: str, value: object, *, zero: bool) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number of seconds, not {type(value).__name__}")
    seconds = _as_float(name, value)
    if math.isnan(seconds) or seconds < 0 or (seconds == 0 and not zero):
        raise ValueError(f"{name} must be {'0 or more' if zero else 'more than 0'} seconds, not {_shown(value)}")
    return seconds


def _as_float(name: str, value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"{name} must be seconds that a float can hold, not {_shown(value)}; math.inf is no limit") from None


def _workers(value: object, pin: Pin, threads: Threads, count_cpus: Callable[[], int]) -> int:
    """How many slots; by default one for each named set, or as many as can run at a time with their threads."""
    count = None if value is None else _positive_int("max_workers", value)
    if count is not None and count > MOST_WORKERS:
        raise ValueError(f"max_workers must be at most {MOST_WORKERS}, not {_shown(count)}")
    if isinstance(pin, tuple):
        if count not in (None, len(pin)):
            raise ValueError(f"pin has CPUs for {len(pin)} workers, and max_workers is {count}: give as many, or leave it out")
        return len(pin)
    return count or max(1, count_cpus() // (threads if isinstance(threads, int) else 1))


def _threads(value: object) -> Threads:
    if value is None or (isinstance(value, str) and value == "auto"):
        return cast("Threads", value)
    if isinstance(value, str):
        raise ValueError(f'threads_per_worker must be "auto", a number or None, not {value!r}')
    return _positive_int("threads_per_worker", value)


def _pin(value: object, mask: Collection[int]) -> Pin:
    """A list of numbers, or of lists of numbers, becomes a tuple of one ascending set for each slot."""
    if isinstance(value, bool) or (isinstance(value, str) and value == "auto"):
        return cast("Pin", value)
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise TypeError(f'pin must be "auto", True, False, a list of CPU numbers or a list of such lists, not {value!r}')
    sets = tuple(_cpu_set(one) for one in value)
    if not sets or not all(sets):
        raise ValueError("pin must name at least one CPU for each worker")
    wrong = sorted({cpu for one in sets for cpu in one if cpu not in mask})
    if wrong:
        usable = number_list(sorted(mask)) or "none: this system cannot bind a process to CPUs"
        raise ValueError(f"pin names CPU {number_list(wrong)}, which this process may not use; usable: {usable}")
    return sets


def _cpu_set(value: object) -> tuple[int, ...]:
    numbers: list[Any] = list(value) if isinstance(value, Iterable) and not isinstance(value, (str, bytes)) else [value]
    cpus = set()
    for number in numbers:
        cpu = _integer(number)
        if cpu is None:
            raise TypeError(f"pin must hold CPU numbers, not {number!r}")
        cpus.add(cpu)
    return tuple(sorted(cpus))


def number_list(numbers: Iterable[int]) -> str:
    """Write numbers as the kernel does: `0-3,8`."""
    spans: list[list[int]] = []
    for number in sorted(set(numbers)):
        if spans and spans[-1][1] == number - 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in spans)


def _initargs(value: object) -> tuple[Any, ...]:
    if isinstance(value, (str, bytes, bytearray, Mapping)):  # whose items nobody means
        shown = repr(value) if len(value) < 20 else "..."
        raise TypeError(f"initargs must be a tuple, not {type(value).__name__}; one argument is written initargs=({shown},)")
    try:
        return tuple(cast("tuple[Any, ...]", value))
    except TypeError:
        raise TypeError(f"initargs must be a tuple, not {type(value).__name__}; one argument is written (x,)") from None


def _preload(value: object) -> tuple[str, ...]:
    if isinstance(value, (str, bytes)):
        raise TypeError(f"preload must be a tuple of module names; one name is written ({value!r},)")
    try:
        names = tuple(cast("tuple[object, ...]", value))
    except TypeError:
        raise TypeError(f"preload must be a tuple of module names, not {type(value).__name__}") from None
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"preload must name modules by str; found {name!r}")
        # No test for identifiers: `import_module("my-plugin")` works. Whether a module exists is seen when it is imported:
        # `sys.path` may change until the first submit.
        if not all(name.split(".")) or any(char.isspace() or char in "/\\\0" for char in name):
            raise ValueError(f"preload must hold absolute module names such as 'package.module'; found {name!r}")
    return cast("tuple[str, ...]", names)


def _env(value: object) -> Mapping[str, str] | None:
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise TypeError(f"env must be a mapping of str to str, not {type(value).__name__}")
    for key, text in value.items():
        if not isinstance(key, str) or not isinstance(text, str):
            raise TypeError(f"env must be a mapping of str to str; found {key!r}: {text!r}")
        if not key or "=" in key or "\0" in key + text or not (_can_be_encoded(key) and _can_be_encoded(text)):
            raise ValueError(f"env has an entry that no environment can hold: {key!r}: {text!r}")
    # Exact strings: a class of the program's own could not be unpickled where nothing of it is imported yet.
    return MappingProxyType({str.__str__(key): str.__str__(text) for key, text in value.items()})


def _can_be_encoded(text: str) -> bool:
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        return False
    return True
