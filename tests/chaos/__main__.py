"""`python -m tests.chaos --minutes M --seed S`: rounds until the time is over. Exit status 1: a promise was broken. 3: it hung.

Runs in: a process of its own. Its stdout and stderr are those of the workers too, who scribble on them, so both go into a file
of the run's folder; the report goes to where stdout was.
"""

from __future__ import annotations

import argparse
import gc
import os
import random
import statistics
import sys
import tempfile
import time
import traceback
from collections import Counter
from multiprocessing import resource_tracker
from pathlib import Path
from typing import TextIO

from tests.support import processes

from .accountant import audit
from .closes import DoubleCloses
from .history import History
from .marks import MarkReader
from .report import Violation, tell
from .rounds import Round, resident
from .watchdog import Watchdog
from .work import Numbers

WARM_UP = 30  # rounds until memory should be flat
GROWTH = 24 << 20  # bytes of the median that count as a leak; arbitrary, ten times what a run of 10 minutes was seen to wander
_SHOWN = 6


class Soak:
    """Rounds, one after the other."""

    def __init__(self, seed: int, out: TextIO, folder: Path) -> None:
        self.failed = 0
        self.rounds = 0
        self.outcomes: Counter[str] = Counter()
        self._seed = seed
        self._out = out
        self._folder = folder
        self._reader = MarkReader(str(folder / "marks"))
        self._numbers = Numbers()
        self._closes = DoubleCloses()
        self._closes.watch()
        self._round: Round | None = None
        self._memory: list[int] = []
        self._watchdog = Watchdog(out, self._describe)

    def run(self, seconds: float, only: int | None) -> None:
        end = time.monotonic() + seconds
        number = 0 if only is None else only
        while time.monotonic() < end:
            self._one(number, end)
            number += only is None
        self._watchdog.stop()
        if late := self._reader.late():
            self._fail(f"marks after the account: {late}")
        self._weigh()

    def _one(self, number: int, end: float) -> None:
        seed = random.Random(f"{self._seed}/{number}").randrange(1 << 48)
        self._round = Round(seed, self._folder, self._reader, self._numbers, self._closes)
        history = self._round.run(end, self._watchdog.tell)
        self._count(history)
        violations = audit(history)
        if violations:
            self._fail(f"round {number}: {self._round.plan}\n{_told(violations, history)}\n{self._last_words(violations)}")
        if late := self._reader.late():
            self._fail(f"marks after the account: {late}")
        del history
        gc.collect()
        self._memory.append(resident())
        self.rounds += 1

    def _last_words(self, violations: list[Violation]) -> str:
        """What workers wrote to stderr as they left. (What tasks wrote there is of no interest.)"""
        lines = (self._folder / "scribbles").read_text(errors="replace").splitlines()
        return "\n".join(line for line in lines if any(f"worker {one.pid} leaves" in line for one in violations))

    def _count(self, history: History) -> None:
        for story in history.stories.values():
            kind = "not watched" if story.outcome is None else story.outcome.error or "result"
            self.outcomes[kind if story.accepted else f"submit: {kind}"] += 1
        for act in history.acts:
            self.outcomes[act.harm.value] += 1

    def _weigh(self) -> None:
        after = self._memory[WARM_UP:]
        if len(after) < 2 * WARM_UP:
            return
        fifth = len(after) // 5
        first, last = statistics.median(after[:fifth]), statistics.median(after[-fifth:])
        print(f"memory: {first / 2**20:.1f} MiB, in the end {last / 2**20:.1f} MiB", file=self._out)
        if last - first > GROWTH:
            self._fail(f"memory grew by {(last - first) / 2**20:.1f} MiB in {len(after)} rounds")

    def _fail(self, text: str) -> None:
        self.failed += 1
        print(f"FAILED, seed {self._seed}: {text}", file=self._out, flush=True)

    def _describe(self) -> str:
        round_ = self._round
        if round_ is None:
            return f"seed {self._seed}, before the first round"
        lines = [f"seed {self._seed}, round {self.rounds}: {round_.plan}"]
        lines += [f"  {act}" for act in round_.acts.all[-30:]]
        for submitter in list(round_.submitters):
            open_ = [task for task, future in list(submitter.futures.items()) if not future.done()]
            lines += [f"  open: {story}" for story in list(submitter.stories) if story.task in open_[:20]]
        return "\n".join(lines)


def _told(violations: list[Violation], history: History) -> str:
    shown = [tell(violation, history) for violation in violations[:_SHOWN]]
    return "\n".join([*shown, f"{len(violations)} violations in this round"])


def _take_output(folder: Path) -> TextIO:
    """Workers write into a file from now on; the report goes where stdout was."""
    out = os.fdopen(os.dup(1), "w", buffering=1)
    scribbles = os.open(folder / "scribbles", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC)
    os.dup2(scribbles, 1)
    os.dup2(scribbles, 2)
    os.close(scribbles)
    return out


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="Random work, random harm, and the account.")
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=None, help="default: another one each time")
    parser.add_argument("--round", type=int, default=None, help="only this round of the seed, again and again")
    given = parser.parse_args()
    seed = random.SystemRandom().randrange(10**6) if given.seed is None else given.seed
    with tempfile.TemporaryDirectory(prefix="forkpool-chaos-") as name:
        return _run(seed, given.minutes * 60, given.round, Path(name))


def _run(seed: int, seconds: float, only: int | None, folder: Path) -> int:
    os.environ[processes.MARK_VARIABLE] = processes.new_mark()
    os.environ["FORKPOOL_CPU_CLAIMS"] = str(folder / "cpu-claims")
    (folder / "cpu-claims").touch()
    resource_tracker.ensure_running()  # it lives as long as we do, and is no leak of a round
    out = _take_output(folder)
    print(f"chaos: seed {seed}, Python {sys.version.split()[0]}, {seconds / 60:g} minutes", file=out)
    soak = Soak(seed, out, folder)
    try:
        soak.run(seconds, only)
    except BaseException:
        traceback.print_exc(file=out)  # stderr is the workers' too
        raise
    finally:
        processes.kill_marked()
    print(f"chaos: seed {seed}: {soak.rounds} rounds, {soak.failed} failures; {dict(soak.outcomes.most_common())}", file=out)
    return 1 if soak.failed else 0


if __name__ == "__main__":
    sys.exit(main())
