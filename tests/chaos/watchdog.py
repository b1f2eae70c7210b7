"""A hang is a finding: when no task begins and none ends for too long, show everything and end.

Runs in: a thread of the soak's process; if even that cannot run, `faulthandler`'s own thread, which needs no interpreter lock.
"""

from __future__ import annotations

import faulthandler
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from tests.support import leaks, processes

PATIENCE_S = 120.0
_LOOK_S = 10.0
_HUNG = 3  # the exit status


class Watchdog:
    """Barks when nothing was `told` for so long."""

    def __init__(self, out: TextIO, describe: Callable[[], str], patience_s: float = PATIENCE_S) -> None:
        self._out = out
        self._describe = describe
        self._patience_s = patience_s
        self._facts = 0
        self._ended = threading.Event()
        threading.Thread(target=self._watch, name="chaos-watchdog", daemon=True).start()

    def tell(self) -> None:
        """Something happened. Any thread; that two of them may count as one does no harm."""
        self._facts += 1

    def stop(self) -> None:
        self._ended.set()
        faulthandler.cancel_dump_traceback_later()

    def _watch(self) -> None:
        seen, silent = -1, 0.0
        while silent < self._patience_s:
            faulthandler.dump_traceback_later(self._patience_s + 60, exit=True, file=self._out)
            if self._ended.wait(_LOOK_S):
                faulthandler.cancel_dump_traceback_later()
                return
            silent = silent + _LOOK_S if self._facts == seen else 0.0
            seen = self._facts
        self._bark()

    def _bark(self) -> None:
        print(f"HANG: nothing for {self._patience_s:g} s\n{self._describe()}", file=self._out, flush=True)
        faulthandler.dump_traceback(self._out, all_threads=True)
        print(_of_ourselves(), file=self._out)
        pids = processes.marked()
        print(processes.describe(pids), file=self._out)
        for pid in sorted(pids):
            print(f"{pid}: {_of_kernel(pid)}", file=self._out)
        self._out.flush()
        processes.kill_marked()
        os._exit(_HUNG)


def _of_ourselves() -> str:
    """Where our threads are in the kernel, and what our descriptors lead to."""
    lines = []
    for thread in sorted(os.listdir("/proc/self/task")):
        folder = Path("/proc/self/task") / thread
        texts = [(folder / name).read_text().strip() for name in ("comm", "wchan", "syscall")]
        lines.append(f"thread {thread}: {' '.join(texts)}")
    return "\n".join([*lines, *(f"descriptor {fd}: {target}" for fd, target in leaks.open_fds().items())])


def _of_kernel(pid: int) -> str:
    """Signals and system call; for a look at who waits for whom."""
    try:
        status = Path(f"/proc/{pid}/status").read_text().splitlines()
        call = Path(f"/proc/{pid}/syscall").read_text().strip()
    except OSError:
        return "gone"
    lines = [line for line in status if line.startswith(("State", "SigPnd", "ShdPnd", "SigBlk", "SigIgn", "SigCgt"))]
    return " ".join([*lines, call])
