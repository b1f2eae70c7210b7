"""Try what a page claims, row by row, with the real libraries.

A probe is a program: it registers a function for each row of its page's tables, by the text of the row's first cell, and runs
all of them. It is a process of its own because other pools leave processes, threads and handlers behind.
Tests: tests/docs/test_claims.py
"""

import faulthandler
import json
import os
import sys
import traceback
from collections.abc import Callable

PATIENCE_S = 60.0  # for one row, on a busy machine
MARK = "CLAIM "  # other lines are what tasks and libraries print
_claims: dict[str, Callable[[], None]] = {}


def claim(row: str) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """Register a function that fails unless the row with this first cell is true."""

    def register(check: Callable[[], None]) -> Callable[[], None]:
        assert row not in _claims, row
        _claims[row] = check
        return check

    return register


def try_all() -> None:
    """Print for each row how it went, and leave: some pools could not be left otherwise."""
    for row, check in _claims.items():
        if len(sys.argv) > 1 and sys.argv[1] not in row:
            continue
        faulthandler.dump_traceback_later(PATIENCE_S, exit=True)
        try:
            check()
            outcome = None
        except BaseException:
            outcome = traceback.format_exc()
        print("\n" + MARK + json.dumps([row, outcome]), flush=True)
    os._exit(0)


def error_of(call: Callable[[], object]) -> BaseException:
    """Return what the call raises; it must raise."""
    try:
        value = call()
    except BaseException as error:
        return error
    raise AssertionError(f"no error, but {value!r}")
