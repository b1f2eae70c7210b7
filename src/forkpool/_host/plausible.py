"""Say whether a report of a fork server can be true.

Runs in: host, supervisor thread; asks the kernel whether a worker has ended, nothing else.
A fork server is not trusted to say what is so: a module that it preloads may write into its socket. What cannot be true ends
that server, and another is started; the workers that it forked go on. A pid of 0 or 1 must never become a signal's target.
Tests: tests/process/test_hostile_server.py
"""

from __future__ import annotations

import os

from .._core.control import Report, Tell
from .server_link import ServerLink
from .worker_link import WorkerLink


def can_be_true(report: Report, server: ServerLink, link: WorkerLink | None) -> bool:
    """Whether this server could say so.

    Args:
        link: The worker that it tells of; None: none that we know, or know any more.
    """
    if link is not None and link.server is not server:
        return False
    match report.tell:
        case Tell.HELLO:
            return not server.ready
        case Tell.SPAWNED:
            return link is not None and link.pidfd < 0 and report.pid > 1
        case Tell.SPAWN_FAILED:
            return link is not None and link.pidfd < 0
        case Tell.EXITED:
            return _is_status(report.status) and (link is None or (link.pidfd >= 0 and link.ended()))
        case _:
            return True


def _is_status(status: int) -> bool:
    try:
        return status < 0 or os.waitstatus_to_exitcode(status) is not None
    except (ValueError, OverflowError):
        return False
