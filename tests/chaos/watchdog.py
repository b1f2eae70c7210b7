"""A hang is a finding: when a round takes too long, show everything and end.

Runs in: a thread of the soak's process; if even that cannot run, `faulthandler`'s own thread, which needs no interpreter lock.
"""

from __future__ import annotations

import faulthandler
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from tests.support import processes

PATIENCE_S = 120.0
_HUNG = 3  # the exit status


class Watchdog:
    """Barks when `feed` was not called for so long."""

    def __init__(self, out: TextIO, describe: Callable[[], str], patience_s: float = PATIENCE_S) -> None:
        self._out = out
        self._describe = describe
        self._patience_s = patience_s
        self._fed = threading.Event()
        threading.Thread(target=self._watch, name="chaos-watchdog", daemon=True).start()

    def feed(self) -> None:
        faulthandler.dump_traceback_later(self._patience_s + 30, exit=True, file=self._out)
        self._fed.set()

    def stop(self) -> None:
        faulthandler.cancel_dump_traceback_later()

    def _watch(self) -> None:
        while self._fed.wait(self._patience_s):
            self._fed.clear()
        print(f"HANG: nothing for {self._patience_s:g} s\n{self._describe()}", file=self._out, flush=True)
        faulthandler.dump_traceback(self._out, all_threads=True)
        pids = processes.marked()
        print(processes.describe(pids), file=self._out)
        for pid in sorted(pids):
            print(f"{pid}: {_of_kernel(pid)}", file=self._out)
        self._out.flush()
        processes.kill_marked()
        os._exit(_HUNG)


def _of_kernel(pid: int) -> str:
    """Signals and system call; for a look at who waits for whom."""
    try:
        status = Path(f"/proc/{pid}/status").read_text().splitlines()
        call = Path(f"/proc/{pid}/syscall").read_text().strip()
    except OSError:
        return "gone"
    lines = [line for line in status if line.startswith(("State", "SigPnd", "ShdPnd", "SigBlk", "SigIgn", "SigCgt"))]
    return " ".join([*lines, call])
