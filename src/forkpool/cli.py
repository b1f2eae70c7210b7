"""The command line: `python -m forkpool COMMAND ...`, and the console script `forkpool`.

Runs in: host, main thread. Each command is a module with `add_arguments(parser)` and `run(options, others)`, which returns the
exit status or None; `others` is what its `split(arguments)`, if it has one, leaves for somebody else. Only the one that is
asked for is imported, so that this stays light: `forkpool run` starts programs, and each import of ours would be one that the
program did not ask for.
Hard part: Python has put a folder of ours in front of `sys.path` (the working directory for `-m`, the script's for the console
script). It goes before anything else is imported: an `argparse.py` there is the user's.
Tests: tests/unit/test_cli.py, tests/process/test_run_program.py
"""

from __future__ import annotations

import sys
from importlib import import_module

TYPE_CHECKING = False  # as typing's, whose import is not for free

if TYPE_CHECKING:
    import argparse
    from typing import Any

# name: module below forkpool, what it is for
_COMMANDS = {
    "run": ("_run.command", "run a program with concurrent.futures.ProcessPoolExecutor replaced by forkpool's"),
    "doctor": ("doctor", "tell what this machine gives a pool, what it lacks, and whether a pool works here"),
}


def main() -> None:
    """Do what the command line of this process says.

    Raises:
        SystemExit: There is a status to tell. A program that ran here and simply ended has none.
    """
    if not sys.flags.safe_path:
        del sys.path[0]
    status = command(sys.argv[1:])
    if status:
        sys.exit(status)


def command(arguments: list[str]) -> int | None:
    """Run a command; returns the exit status, None for success."""
    chosen = import_module(f"forkpool.{_COMMANDS[arguments[0]][0]}") if arguments and arguments[0] in _COMMANDS else None
    parser = _parser(arguments[0] if chosen is not None else "", chosen)
    if chosen is None:
        parser.parse_args(arguments)
        parser.print_help(sys.stderr)
        return 2
    split = getattr(chosen, "split", None)  # a command whose arguments are not all its own
    own, others = split(arguments) if split is not None else (arguments, [])
    status: int | None = chosen.run(parser.parse_args(own), others)
    return status


def _parser(name_of_chosen: str, chosen: Any) -> argparse.ArgumentParser:
    import argparse

    import forkpool

    parser = argparse.ArgumentParser(prog="forkpool", description="A process pool that loses one task, not the pool.")
    parser.add_argument("--version", action="version", version=f"forkpool {forkpool.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    for name, (_, purpose) in _COMMANDS.items():
        one = commands.add_parser(name, help=purpose, description=purpose, allow_abbrev=False)
        if name == name_of_chosen:
            chosen.add_arguments(one)
    return parser
