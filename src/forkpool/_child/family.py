"""Make a worker a member of the host's family: `multiprocessing` and `logging` find what they would under the host.

Runs in: fork server and workers. `multiprocessing.process` is imported in the fork server (3 ms beyond what it imports
anyway), since `logging` takes `%(processName)s` from it only if it is there; the rest when somebody imports it (on_import).
`multiprocessing` has no public way to say who the current process is: names with an underscore are touched in
`adopt_*`, and nowhere else. tests/process/test_inheritance_multiprocessing.py fails where a Python has moved them.
Hard part: SharedMemory. Every process that makes one tells a tracker process, which unlinks what is left when its
tellers are gone. A tracker of the worker's own would unlink the user's memory with the worker, so ours is told to write
to the host's relay (forkpool._host.tracker_relay).
"""

from __future__ import annotations

import errno
import sys
from typing import Any

from .._shared.on_import import watch
from .._shared.pidfd import open_pidfd

SERVER_NAME = "ForkPoolServer"


class Family:
    """Who we are to `multiprocessing`; a worker gets another name after the fork."""

    def __init__(self, snapshot: dict[str, Any], tracker_fd: int) -> None:
        self._facts: dict[str, Any] = snapshot["multiprocessing"]
        self._host_pid: int = snapshot["host_pid"]
        self._cwd: str | None = snapshot["cwd"]
        self._tracker_fd = tracker_fd
        self._host_process: Any = None  # what parent_process() answers
        self._current_process: Any = None  # what current_process() answers

    def join(self) -> None:
        """In the fork server, once; on what is not imported yet, as soon as it is."""
        from multiprocessing import context, process

        self._host_process = _host_process(process, self._facts["host_name"], self._host_pid)
        self.adopt_process(process)
        self.adopt_context(context)
        if self._tracker_fd >= 0:
            watch.when_imported("multiprocessing.resource_tracker", self.adopt_tracker)

    def join_again(self) -> None:
        """In the fork server, when everything is preloaded: for the workers, who find it done."""
        process: Any = sys.modules["multiprocessing.process"]
        self.adopt_process(process)  # again: a module may have changed what it found
        process._parent_process = self._host_process
        self._current_process = process._current_process

    def become_worker(self, slot: int) -> None:
        """Take the seat's name, after the fork."""
        current = self._current_process  # has all else from `join_again`
        current._name = f"ForkPoolWorker-{slot}"
        current._identity = (slot + 1,)  # counted from 1, as the standard library's pools do
        util = sys.modules.get("multiprocessing.util")
        if util is not None:  # as multiprocessing does in its own children: the finalizers are the other process's
            util._finalizer_registry.clear()
            util._run_after_forkers()

    def adopt_process(self, process: Any) -> None:
        current = process._current_process
        current._name, current._identity = SERVER_NAME, ()
        current._parent_pid = self._host_pid
        current._parent_name = self._facts["host_name"]
        current.authkey = self._facts["authkey"]
        process.ORIGINAL_DIR = self._cwd or process.ORIGINAL_DIR

    def adopt_context(self, context: Any) -> None:
        method = self._facts["start_method"]
        if method is not None:
            context._default_context.set_start_method(method, force=True)

    def adopt_tracker(self, tracker: Any) -> None:
        if tracker._resource_tracker._fd is None:
            tracker._resource_tracker._fd = self._tracker_fd


def _host_process(process: Any, name: str, pid: int) -> Any:
    """Made in the fork server: a class made in each worker would be memory of its own."""

    class HostProcess(process._ParentProcess):  # type: ignore[misc]  # its base is known at run time only
        @property
        def _sentinel(self) -> int:
            # Opened on demand: most tasks never ask whether their parent lives, and a descriptor is dear.
            if "sentinel" not in self.__dict__:
                self.__dict__["sentinel"] = _pidfd_of_host(pid)
            return int(self.__dict__["sentinel"])

        @_sentinel.setter
        def _sentinel(self, value: None) -> None:
            """The base class sets it; ours comes from the pid."""

    return HostProcess(name, pid, None)


def _pidfd_of_host(pid: int) -> int:
    """Raises OSError where there is none: a task cannot ask whether the host lives, and it would not outlive it."""
    fd = open_pidfd(pid)
    if fd < 0:
        raise OSError(errno.ENOSYS, "this system has no pidfds, so a task cannot wait for the end of its parent process")
    return fd


def adopt_levels(levels: dict[str, Any]) -> None:
    """Give `logging`, now or when it is imported, the host's levels and its handlers for stderr and stdout."""

    def adopt(logging: Any) -> None:
        root = logging.getLogger()
        root.setLevel(levels["root"])
        logging.disable(levels["disable"])
        for name, (level, disabled) in levels["loggers"].items():
            logger = logging.getLogger(name)
            logger.setLevel(level)
            logger.disabled = disabled
        for described in levels["handlers"]:
            root.addHandler(_handler(logging, described))

    watch.when_imported("logging", adopt)


def _handler(logging: Any, described: dict[str, Any]) -> Any:
    handler = logging.StreamHandler(getattr(sys, described["stream"]))
    handler.setLevel(described["level"])
    if described["format"] is not None:
        text, dates, style = described["format"]
        handler.setFormatter(logging.Formatter(text, dates, style))
    return handler
