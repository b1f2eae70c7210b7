"""A minute of the soak (tests/chaos): each task of a random program under random harm has one end, and the right one.

The seed is another one each time, and printed; `python -m tests.chaos --minutes 5 --seed S` draws the same program again.
"""

import subprocess
import sys

import pytest

from tests.support.script import ROOT, environment

MINUTES = 1


@pytest.mark.alarm(300)  # the soak's own watchdog barks after two minutes without a round's end, and shows all stacks
def test_a_minute_of_chaos() -> None:
    command = [sys.executable, "-m", "tests.chaos", "--minutes", str(MINUTES)]
    soak = subprocess.run(command, cwd=ROOT, env=environment({}), capture_output=True, text=True)
    print(soak.stdout)
    assert soak.returncode == 0, f"{soak.stdout}\n{soak.stderr}"
