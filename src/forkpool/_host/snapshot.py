"""Read what workers are to inherit of this process, and how to start an interpreter like this one.

Runs in: host, supervisor thread, at the pool's first use. Reads only; it changes nothing in the process but the import
of `multiprocessing.process` (see `_multiprocessing`).
The snapshot is plain data (str, int, bytes, list, dict, tuple), so that unpickling it imports nothing. One snapshot
serves a pool for life: a fork server that replaces another starts from the same one, `snapshot["environ"]` included.
Hard part: what is read belongs to the user, who may have put anything there (a `Path` on `sys.path`, a warnings
category of a class that no worker can import, a deleted working directory): whatever cannot travel is left out.
Tests: tests/unit/test_snapshot.py, tests/process/test_inheritance_set_up.py
"""

from __future__ import annotations

import _locale
import _thread
import os
import sys
from collections.abc import Mapping
from typing import Any

from .._shared import import_path
from .main_program import main_program

_FLAGS = {
    "debug": "d",
    "optimize": "O",
    "dont_write_bytecode": "B",
    "no_site": "S",
    "verbose": "v",
    "bytes_warning": "b",
    "quiet": "q",
}
_PLATFORM_FLAGS = {"ignore_environment": "E", "no_user_site": "s", "safe_path": "P"}
_WARNING_BY_BYTES_FLAG = {1: "default::BytesWarning", 2: "error::BytesWarning"}
LOCALE_CATEGORIES = ("LC_CTYPE", "LC_COLLATE", "LC_MONETARY", "LC_NUMERIC", "LC_TIME", "LC_MESSAGES")


def interpreter_command() -> list[str]:
    """Return the interpreter and the options that make another one like this (`-O`, `-W`, `-X`, `-I` ...).

    What follows is the caller's (`-c` ...), and so is the empty entry that `-c` puts in front of `sys.path`.

    Raises:
        RuntimeError: This process cannot start another Python (embedded, frozen, uWSGI). Nothing was started.
    """
    return [_executable(), *_flags(), *_warning_options(), *_x_options()]


def _executable() -> str:
    path = _declared_executable() or sys.executable
    if not path:
        raise RuntimeError(_no_python("sys.executable is empty: this program embeds Python"))
    if getattr(sys, "frozen", False) and path == sys.executable:
        raise RuntimeError(_no_python(f"sys.executable ({path}) is a frozen program, not a Python interpreter"))
    if not os.access(path, os.X_OK):
        raise RuntimeError(_no_python(f"sys.executable ({path}) does not exist or cannot be run"))
    if not _has_name_of_python(path):
        raise RuntimeError(_no_python(f"sys.executable ({path}) is not a Python interpreter"))
    return path


def _no_python(what: str) -> str:
    return (
        f"forkpool cannot start its fork server: {what}. "
        "Name the interpreter with multiprocessing.set_executable(path) before the pool is first used."
    )


def _declared_executable() -> str | None:
    """What `multiprocessing.set_executable` was given: the standard library's means for programs that embed Python."""
    spawn = sys.modules.get("multiprocessing.spawn")
    path = spawn.get_executable() if spawn is not None else None
    return os.fsdecode(path) if path else None


def _has_name_of_python(path: str) -> bool:
    # By name, since a trial run of uWSGI or of somebody's program could do anything.
    names = {os.path.basename(path).lower(), os.path.basename(os.path.realpath(path)).lower()}
    return any("python" in name or "pypy" in name for name in names)


def _flags() -> list[str]:
    # Not -i: an interactive host does not mean an interactive server.
    options = [f"-{letter * int(getattr(sys.flags, name))}" for name, letter in _FLAGS.items()]
    if sys.flags.isolated:
        options.append("-I")
    else:
        options += [f"-{letter * int(getattr(sys.flags, name))}" for name, letter in _PLATFORM_FLAGS.items()]
    if getattr(sys.__stdout__, "write_through", False):
        options.append("-u")  # the only trace that -u leaves
    return [option for option in options if option != "-"]


def _warning_options() -> list[str]:
    # The interpreter itself adds one entry for -b and one for -X dev; the program may have taken them out again.
    implied = {_WARNING_BY_BYTES_FLAG.get(min(sys.flags.bytes_warning, 2))}
    if sys.flags.dev_mode:
        implied.add("default")
    return [f"-W{option}" for option in sys.warnoptions if option not in implied]


def _x_options() -> list[str]:
    # All of them, known or not: the standard library's own list lacks int_max_str_digits, pycache_prefix, perf ...
    options = {"dev": True} if sys.flags.dev_mode else {}
    options.update(sys._xoptions)
    return [f"-X{name}" if value is True else f"-X{name}={value}" for name, value in options.items()]


def _arguments() -> list[str]:
    argv = getattr(sys, "argv", None)  # a program that embeds Python may have none, or what it likes
    return [arg for arg in argv if isinstance(arg, str)] if isinstance(argv, list | tuple) else []


def take_snapshot(
    env: Mapping[str, str] | None,
    max_workers: int = 1,
    preload: tuple[str, ...] = (),
    path_of_calls: list[str] | None = None,
) -> dict[str, Any]:
    """Return what `forkpool._child.inherit` applies in the fork server and in each worker.

    Args:
        env: Variables to set on top of this process's environment.
        max_workers: Number of slots of the pool.
        preload: Modules that the fork server imports.
        path_of_calls: What `sys.path` is for a call that brings none along; None: what it is now.
    """
    path = import_path.look().path  # in absolute terms: a task that changes the cwd must not change what is imported
    return {
        "host_pid": os.getpid(),
        "max_workers": max_workers,
        "environ": environment(env),
        "cpu_sets": None,  # this and the next: see `pinning.Pinning.write_into`
        "thread_variables": None,
        "cwd": _cwd(),
        "umask": _umask(),
        "sys_path": path,
        "path_of_calls": path if path_of_calls is None else path_of_calls,
        "argv": _arguments(),
        "interpreter": _interpreter_settings(),
        "locale": _locale_names(),
        "warnings": _warnings_filters(),
        "logging": _logging_levels(),
        "multiprocessing": _multiprocessing(),
        "preload": list(preload),
        "main": main_program() if "__main__" in preload else None,
    }


def environment(env: Mapping[str, str] | None) -> dict[str, str]:
    """Return this process's environment with `env` on top: for exec, so that it holds before anything is imported."""
    return {**os.environ, **(env or {})}


def _cwd() -> str | None:
    try:
        return os.getcwd()
    except OSError:  # deleted
        return None


def _umask() -> int | None:
    # os.umask() can only read by writing, and another thread could create a file in between.
    try:
        with open("/proc/self/status", "rb") as status:
            for line in status:
                if line.startswith(b"Umask:"):
                    return int(line.split()[1], 8)
    except OSError:
        pass
    return None


def _interpreter_settings() -> dict[str, Any]:
    return {
        "switch_interval": sys.getswitchinterval(),
        "recursion_limit": sys.getrecursionlimit(),
        "int_max_str_digits": sys.get_int_max_str_digits(),
        "dont_write_bytecode": bool(sys.dont_write_bytecode),
        "pycache_prefix": sys.pycache_prefix,
        "thread_stack_size": _thread.stack_size(),
    }


def _locale_names() -> dict[str, str]:
    names = {}
    for category in LOCALE_CATEGORIES:
        try:
            names[category] = str(_locale.setlocale(getattr(_locale, category), None))
        except (AttributeError, _locale.Error):  # type: ignore[attr-defined]  # not in typeshed
            continue
    return names


def _warnings_filters() -> list[tuple[Any, ...]]:
    """The filters as (action, message, category, module, lineno), without those that no worker could name."""
    module = sys.modules.get("warnings")
    if module is None:
        return []
    described = (_describe_filter(one) for one in list(module.filters))
    return [one for one in described if one is not None]


def _describe_filter(one: Any) -> tuple[Any, ...] | None:
    action, message, category, module, line = one
    where = _reference(category)
    return None if where is None else (str(action), _pattern(message), where, _pattern(module), int(line))


def _reference(category: Any) -> tuple[str, str] | None:
    """Module and qualified name of a class, if they lead to it."""
    module, name = getattr(category, "__module__", None), getattr(category, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str) or module == "__main__":
        return None
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return (module, name) if found is category else None


def _pattern(regex: Any) -> tuple[str, int] | str | None:
    """A compiled pattern as text and flags; None and plain text (the interpreter's own filters) as they are."""
    return regex if regex is None or isinstance(regex, str) else (str(regex.pattern), int(regex.flags))


def _logging_levels() -> dict[str, Any] | None:
    logging = sys.modules.get("logging")
    if logging is None:
        return None
    root = logging.getLogger()
    return {
        "root": root.level,
        "disable": root.manager.disable,
        "loggers": {
            name: (one.level, bool(one.disabled))
            for name, one in root.manager.loggerDict.copy().items()
            if isinstance(one, logging.Logger) and (one.level or one.disabled)
        },
        "handlers": [found for found in map(_try_describe_handler, list(root.handlers)) if found is not None],
    }


def _try_describe_handler(handler: Any) -> dict[str, Any] | None:
    try:
        return _describe_handler(handler)
    except Exception:  # its class may do anything when it is asked for its stream
        return None


def _describe_handler(handler: Any) -> dict[str, Any] | None:
    """A handler of the root logger that writes to our stderr or stdout; files and sockets stay here."""
    stream = getattr(handler, "stream", None)
    for name, fd in (("stderr", 2), ("stdout", 1)):
        if stream is not None and (stream is getattr(sys, name) or _fileno(stream) == fd):
            return {"stream": name, "level": handler.level, "format": _describe_format(handler.formatter)}
    return None


def _fileno(stream: Any) -> int:
    try:
        return int(stream.fileno())
    except Exception:  # StringIO, pytest's capture, None
        return -1


def _describe_format(formatter: Any) -> tuple[str, str | None, str] | None:
    import logging  # as the handler's module has already

    style = getattr(formatter, "_style", None)
    if style is None or type(formatter).__module__ != "logging":
        return None
    by_class = {"PercentStyle": "%", "StrFormatStyle": "{", "StringTemplateStyle": "$"}
    described = str(style._fmt), formatter.datefmt, by_class.get(type(style).__name__, "%")
    try:
        plain = logging.Formatter(*described)  # type: ignore[arg-type]  # a Literal is wanted; `by_class` has only its three
        plain.format(logging.LogRecord("", 0, "", 0, "", None, None))
    except Exception:  # it needs what a record has here only: defaults, or fields of the program's record factory
        return None
    return described


def _multiprocessing() -> dict[str, Any]:
    """What makes a worker part of the host's family for `multiprocessing`.

    The authkey is drawn when `multiprocessing.process` is imported. Were that left until the program needs it, it
    would be another than the workers', and a Manager's or a Queue's connection would be refused. So import it now,
    which takes 10 to 20 ms.
    """
    from multiprocessing import context, process

    chosen = context._default_context._actual_context  # type: ignore[attr-defined]
    current = process.current_process()
    return {
        "authkey": bytes(current.authkey),
        "start_method": None if chosen is None else chosen.get_start_method(),
        "host_name": current.name,
    }
