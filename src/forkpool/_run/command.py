"""The command `run`: its options, and what happens in which order.

Runs in: host, main thread, before the program; `_tell` at the interpreter's end. Imports little: see `cli`.
Hard part: the order. What tells the statistics is registered before anything of the program's, so that it runs after all
that the program registers; the program's own place on `sys.path` comes when all modules of ours that are needed are there.
Tests: tests/unit/test_cli.py, tests/process/test_run_stats.py
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import os
import sys
from collections.abc import Callable
from typing import Any

from .._shared.on_import import ImportWatch
from . import pool_options, program
from .pool_options import PoolOptions
from .report import report
from .swap import swap

_USAGE = """forkpool run [options] SCRIPT [args...]
       forkpool run [options] -m MODULE [args...]"""
_WITHOUT_VALUE = ("--stats", "-h", "--help")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """For `cli`."""
    parser.usage = _USAGE
    parser.epilog = "Options given here win over what the program asks for."
    parser.add_argument("--stats", action="store_true", help="tell on stderr, at the end, what became of all tasks and workers")
    option = parser.add_argument
    option("--max-workers", type=_checked(pool_options.count, "a number from 1"), metavar="N", help="workers of each pool")
    option(
        "--max-tasks-per-child",
        type=_checked(pool_options.count, "a number from 1"),
        metavar="N",
        help="tasks after which a worker is replaced",
    )
    option("--pin", type=_checked(pool_options.pin, pool_options.PIN_FORM), metavar="CPUS", help=pool_options.PIN_FORM)
    option(
        "--preload",
        type=_checked(pool_options.names, "module names, with commas"),
        action="extend",
        default=[],
        metavar="MODULES",
        help="imported once, before workers are forked; names with commas; may be given again",
    )
    option(
        "--timeout",
        type=_checked(pool_options.seconds, "seconds, more than 0"),
        metavar="SECONDS",
        help="how long each task may run before its worker is killed",
    )
    parser.set_defaults(complain=parser.error)


def split(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Divide the command line at the program: ours, and what `python` would be given.

    By hand, since argparse looks for our options among the program's, and drops a `--` of them.
    """
    position = 1  # after `run`
    while position < len(arguments):
        word = arguments[position]
        if word == "--":
            return arguments[:position], arguments[position + 1 :]
        if word.startswith("-m") or word == "-" or not word.startswith("-"):
            break
        position += 1 if word in _WITHOUT_VALUE or "=" in word else 2
    return arguments[:position], arguments[position:]


def run(options: argparse.Namespace, words: list[str]) -> None:
    """Become the program. Raises what it raises, its SystemExit above all."""
    by_name = bool(words) and words[0].startswith("-m")
    if by_name and words[0] != "-m":
        words = ["-m", words[0][2:], *words[1:]]
    if len(words) < 1 + by_name or words[0] == "-":
        options.complain("which program? Name a script, or -m and a module")
    watch = ImportWatch()
    if options.stats:
        _prepare_stats(watch)
    swap(watch, _pool_options(options))
    watch.install()
    if by_name:
        program.run_module(words[1], words[2:])
    else:
        program.run_script(words[0], words[1:])


def _checked(convert: Callable[[str], Any], form: str) -> Callable[[str], Any]:
    """Have argparse say what is right."""

    def converted(text: str) -> Any:
        try:
            return convert(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not {form}") from None

    return converted


def _pool_options(options: argparse.Namespace) -> PoolOptions:
    return PoolOptions(
        max_workers=options.max_workers,
        max_tasks_per_child=options.max_tasks_per_child,
        pin=options.pin,
        preload=tuple(options.preload),
        timeout=options.timeout,
    )


def _prepare_stats(watch: ImportWatch) -> None:
    from .._host.ledger import Ledger
    from .sightings import Sightings

    sightings = Sightings(watch)
    ledger = Ledger(sightings.on_made_in_fork)
    host = os.getpid()

    def tell() -> None:
        if os.getpid() == host:  # not a fork that ends as a program does
            _write(report(ledger.made, ledger.statistics(), sightings.described(by_itself=not ledger.made)))

    atexit.register(tell)


def _write(text: str) -> None:
    """To the standard error that the process has, whatever the program made of `sys.stderr`."""
    with contextlib.suppress(Exception):
        sys.stderr.flush()
    with contextlib.suppress(OSError):
        os.write(2, text.encode())
