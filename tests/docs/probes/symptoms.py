"""What the probe of docs/how-to/why-did-my-worker-die.md is made of: a row quotes words, and they must be in what a user sees.

Runs in: the probe.
"""

import re
import subprocess

from claims import claim
from tasks import invert

from forkpool import ForkPoolExecutor, WorkerCrashedError

pool = ForkPoolExecutor(1)


def symptom(row):
    """Register a function that returns what a user sees: errors and texts, which hold all that the row quotes."""

    def register(make):
        @claim(row)
        def _():
            seen = "\n".join(what if isinstance(what, str) else told(what) for what in make())
            missing = [quoted for quoted in re.findall("`([^`]+)`", row) if quoted not in seen]
            assert not missing, f"{missing} not in {seen}"

        return make

    return register


def told(error):
    """As the last lines of a traceback tell it."""
    return f"{type(error).__name__}: {error}"


def crash(task, *args, may_have_run="maybe"):
    """Return the error of a call that ends its worker; the pool goes on."""
    error = pool.submit(task, *args).exception()
    assert isinstance(error, WorkerCrashedError), repr(error)
    assert error.may_have_run == may_have_run
    assert error.pool_usable
    assert pool.submit(invert, 1).result() == 1
    return error


def run(command):
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
