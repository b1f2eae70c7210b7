"""What is done to the pool: workers killed and stopped, the fork server killed, descriptors and forks taken away.

Runs in: a thread of the soak's process, which wakes with each fact (a task began, a future ended); when none comes for a while,
because everything stands still, it undoes what may be the reason.
Only processes that this run started are touched: a pid counts when its environment has the run's mark, seen through a pidfd.
"""

from __future__ import annotations

import contextlib
import os
import queue
import random
import signal
import threading
import time
from collections.abc import Iterator

from forkpool import ForkPoolExecutor, diagnostics
from tests.support import processes
from tests.support.shortage import ForkFails, descriptors_left

from .history import Act, Harm
from .marks import Mark
from .pools import Plan

STANDSTILL_S = 0.05  # without a fact: then nothing is held back any longer. Paces the harm, decides no outcome


class Acts:
    """What was done, in order. Thread safe: one append."""

    def __init__(self) -> None:
        self.all: list[Act] = []

    def note(self, harm: Harm, pid: int = 0) -> None:
        self.all.append(Act(time.monotonic(), harm, pid))


class Villain:
    """Harms one pool until told to stop; then all that it withheld is given back."""

    def __init__(self, ex: ForkPoolExecutor, plan: Plan, acts: Acts, forks: ForkFails | None) -> None:
        self.facts: queue.SimpleQueue[Mark | str | None] = queue.SimpleQueue()
        self.error: BaseException | None = None
        self._ex: ForkPoolExecutor | None = ex
        self._dice = random.Random(f"{plan.seed}/villain")
        self._plan = plan
        self._acts = acts
        self._forks = forks
        self._forks_fail = False
        self._stopped: set[int] = set()
        self._shortage = contextlib.ExitStack()
        self._short = False
        self._last_pid = 0
        self._left = threading.Event()
        self.thread = threading.Thread(target=self._run, name="chaos-villain", daemon=True)

    def leave_the_pool(self) -> None:
        """Forget the executor: it is to be collected. What is withheld is still given back."""
        self.facts.put("leave")
        self._left.wait()

    def stop(self) -> None:
        self.facts.put("stop")
        self.thread.join()

    def _run(self) -> None:
        try:
            while self._go_on():
                pass
        except BaseException as error:  # the round tells it
            self.error = error
        finally:
            self._ex = None
            self._left.set()
            self._give_back()

    def _go_on(self) -> bool:
        try:
            fact = self.facts.get(timeout=STANDSTILL_S)
        except queue.Empty:
            self._give_back()
            return True
        if fact == "stop":
            return False
        if fact == "leave":
            self._ex = None
            self._left.set()
        elif isinstance(fact, Mark):
            self._last_pid = fact.pid
        if self._dice.random() * 100 < self._plan.harms and self._ex is not None:
            self._harm(self._ex)
        return True

    def _harm(self, ex: ForkPoolExecutor) -> None:
        choice = self._dice.random()
        with contextlib.suppress(OSError):  # a shortage hits us as well
            if self._short or self._forks_fail:
                self._give_back()
            elif choice < 0.35:
                self._send(signal.SIGKILL, self._last_pid, Harm.KILL)
            elif choice < 0.50:
                self._stop_one()
            elif choice < 0.60:
                (self._kill_server if self._dice.random() < 0.7 else self._stop_server)(ex)
            elif choice < 0.65:
                for pid in list(ex._processes):
                    self._send(signal.SIGKILL, pid, Harm.KILL)
            elif choice < 0.75:
                self._kill_any(ex)
            elif choice < 0.80:
                self._send(signal.SIGTERM, self._last_pid, Harm.ASK_TO_END)  # a worker does not heed it: no explanation
            elif choice < 0.88:
                self._take_away(ex)
            else:
                self._use(ex, self._dice.random())

    # --- workers

    def _kill_any(self, ex: ForkPoolExecutor) -> None:
        """Also one that is idle."""
        pids = sorted(ex._processes)
        if pids:
            self._send(signal.SIGKILL, self._dice.choice(pids), Harm.KILL)

    def _stop_one(self) -> None:
        if self._send(signal.SIGSTOP, self._last_pid, Harm.STOP):
            self._stopped.add(self._last_pid)

    def _send(self, signum: signal.Signals, pid: int, harm: Harm) -> bool:
        """To a process of this run only. Noted before it is done, so that no effect comes before its cause."""
        with _pidfd(pid) as fd:
            if fd is None or not processes.is_marked(pid):
                return False
            self._acts.note(harm, pid)
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(fd, signum)
            return True

    def _kill_server(self, ex: ForkPoolExecutor) -> None:
        for pid in _servers(ex):
            self._send(signal.SIGKILL, pid, Harm.KILL_SERVER)

    def _stop_server(self, ex: ForkPoolExecutor) -> None:
        for pid in _servers(ex):
            if self._send(signal.SIGSTOP, pid, Harm.STOP_SERVER):
                self._stopped.add(pid)

    # --- what it needs

    def _take_away(self, ex: ForkPoolExecutor) -> None:
        if self._forks is not None and self._dice.random() < 0.5:
            self._acts.note(Harm.FORKS_FAIL)
            self._forks_fail = True
            self._forks.fail()
        elif self._plan.shortages:
            servers = _servers(ex)
            of = self._dice.choice([0, *servers])
            self._acts.note(Harm.SHORTAGE, of)
            self._shortage.enter_context(descriptors_left(self._dice.randrange(12), of))
            self._short = True

    def _give_back(self) -> None:
        for pid in list(self._stopped):
            with contextlib.suppress(OSError):
                self._send(signal.SIGCONT, pid, Harm.CONTINUE)
                self._stopped.discard(pid)
        if self._forks_fail and self._forks is not None:
            self._forks_fail = False
            self._forks.work_again()
            self._acts.note(Harm.FORKS_WORK)
        if self._short:
            self._short = False
            with contextlib.suppress(ProcessLookupError):  # the server's limits: it may have been replaced
                self._shortage.close()
            self._acts.note(Harm.SHORTAGE_OVER)

    # --- what its user may do at any moment

    def _use(self, ex: ForkPoolExecutor, choice: float) -> None:
        if choice < 0.3:
            self._acts.note(Harm.RECYCLE)
            ex.recycle_workers()
        elif choice < 0.5:
            self._acts.note(Harm.RESTART)
            with contextlib.suppress(RuntimeError):  # closed, or no server can be started
                ex.restart_workers()
        elif choice < 0.7:
            ex.statistics()
        elif choice < 0.9:
            diagnostics.snapshot(ex)
        else:
            ex.placement()


@contextlib.contextmanager
def _pidfd(pid: int) -> Iterator[int | None]:
    try:
        fd = os.pidfd_open(pid) if pid else None
    except ProcessLookupError:
        fd = None
    try:
        yield fd
    finally:
        if fd is not None:
            os.close(fd)


def _servers(ex: ForkPoolExecutor) -> list[int]:
    return [one.pid for one in diagnostics.snapshot(ex).processes if one.role == "fork server"]
