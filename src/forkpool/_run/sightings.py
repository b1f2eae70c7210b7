"""See what else a program uses to run things in other processes, for `--stats`.

Runs in: host, and forks of it: a fork tells through a file in memory that both have open.
Must not change what the program does: makers are counted, audit events read, no exception leaves here.
Hard part: that file's descriptor in a fork which closed all of its own: the number may be that of a file of the user's by
then, so it is looked at before each write.
What happens in programs that were started (and not forked) cannot be seen from here; they are named.
Tests: tests/process/test_run_stats.py
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections import Counter
from typing import Any

from .._shared.on_import import ImportWatch

# module, class, what it is called
_POOLS = (
    ("multiprocessing.pool", "Pool", "multiprocessing.Pool"),
    ("multiprocess.pool", "Pool", "multiprocess.Pool"),
    ("billiard.pool", "Pool", "billiard.Pool"),
    ("joblib.externals.loky.process_executor", "ProcessPoolExecutor", "joblib"),
    ("loky.process_executor", "ProcessPoolExecutor", "loky"),
    ("pebble.pool.process", "ProcessPool", "pebble.ProcessPool"),
)
_STARTS = {"subprocess.Popen": 1, "os.posix_spawn": 1}  # audit event: which argument is the command
_OURS = "forkpool._child"  # in the command of a fork server
_NAMED = 3  # arbitrary: programs that are named, the others are counted


class Sightings:
    """What was seen so far."""

    def __init__(self, watch: ImportWatch) -> None:
        self._host = os.getpid()
        self._pools: Counter[str] = Counter()
        self._programs: Counter[str] = Counter()
        self._fd = os.memfd_create("forkpool-run") if hasattr(os, "memfd_create") else -1
        self._identity = _identify(self._fd)
        for module, name, label in _POOLS:
            watch.when_imported(module, functools.partial(self._count_made, name, label))
        sys.addaudithook(self._on_event)

    def on_made_in_fork(self, label: str = "ProcessPoolExecutor") -> None:
        """A fork of the program has made a pool."""
        if self._fd >= 0 and _identify(self._fd) == self._identity:
            with contextlib.suppress(OSError):
                os.write(self._fd, f"{os.getpid()} {label}\n".encode())

    def described(self, *, by_itself: bool) -> list[str]:
        """A phrase for each kind of thing seen.

        Args:
            by_itself: Nothing else is told, so that single processes count, too. Beside a pool they serve it: a Manager, say.
        """
        seen = [f"{label} ({number})" for label, number in self._pools.items()]
        if told := self._told_by_forks():
            labels = ", ".join(sorted({label for _, label in told}))
            processes = len({pid for pid, _ in told})
            seen.append(f"{_many(len(told), 'pool')} in {_many(processes, 'forked process', 'es')} ({labels})")
        if by_itself and not seen and (processes := _processes_made()):
            seen.append(f"multiprocessing.Process ({processes})")
        if self._programs:
            named = ", ".join(f"`{command}`" for command in list(self._programs)[:_NAMED])
            more = ", ..." if len(self._programs) > _NAMED else ""
            seen.append(f"{_many(self._programs.total(), 'Python program')} started, whose pools are their own: {named}{more}")
        return seen

    def _told_by_forks(self) -> set[tuple[str, str]] | list[tuple[str, str]]:
        if self._fd < 0 or _identify(self._fd) != self._identity:
            return []
        data = os.pread(self._fd, os.fstat(self._fd).st_size, 0).decode()
        return [(pid, label) for pid, _, label in (line.partition(" ") for line in data.splitlines())]

    def _count_made(self, name: str, label: str, module: Any) -> None:
        cls = getattr(module, name)
        threads_only = getattr(module, "ThreadPool", ())  # a subclass of Pool
        make = cls.__init__

        @functools.wraps(make)
        def make_and_count(pool: Any, *args: Any, **kwargs: Any) -> None:
            if not isinstance(pool, threads_only):
                self._on_made("joblib" if type(pool).__module__.startswith("joblib.") else label)
            make(pool, *args, **kwargs)

        cls.__init__ = make_and_count

    def _on_made(self, label: str) -> None:
        if os.getpid() == self._host:
            self._pools[label] += 1
        else:
            self.on_made_in_fork(label)

    def _on_event(self, event: str, args: tuple[Any, ...]) -> None:
        if event in _STARTS:
            with contextlib.suppress(Exception):  # it would be raised where the program starts its own
                self._on_program(args[_STARTS[event]])

    def _on_program(self, command: Any) -> None:
        words = [os.fsdecode(command)] if isinstance(command, (str, bytes, os.PathLike)) else [*map(os.fsdecode, command)]
        text = " ".join([os.path.basename(words[0]), *words[1:]])
        if "python" in text and _OURS not in text and os.getpid() == self._host:
            self._programs[" ".join(text.split())[:60]] += 1


def _identify(fd: int) -> tuple[int, int]:
    try:
        status = os.fstat(fd)
    except OSError:
        return (-1, -1)
    return status.st_dev, status.st_ino


def _processes_made() -> int:
    """How many `multiprocessing.Process` objects there were: it numbers them, and its counter tells when printed."""
    counter = getattr(sys.modules.get("multiprocessing.process"), "_process_counter", None)
    digits = "".join(filter(str.isdigit, repr(counter)))
    return int(digits) - 1 if digits else 0


def _many(number: int, what: str, plural: str = "s") -> str:
    return f"{number} {what}{'' if number == 1 else plural}"
