"""See descriptors that are closed twice: by then the number may be somebody else's.

Runs in: the soak's process, any thread. Once such a close took the descriptor from which marks are read. Most of the time it
does no harm and leaves no trace but EBADF, so that is looked for. Closes in C (sockets, epoll objects) know their own state.
"""

from __future__ import annotations

import errno
import os
import traceback

_close = os.close


class DoubleCloses:
    """Stands in for `os.close` from `watch` to the end of the process."""

    def __init__(self) -> None:
        self._seen: list[str] = []

    def watch(self) -> None:
        os.close = self._close

    def take(self) -> list[str]:
        seen, self._seen = self._seen, []
        return seen

    def _close(self, fd: int) -> None:
        try:
            _close(fd)
        except OSError as error:
            if error.errno == errno.EBADF:
                self._seen.append(f"descriptor {fd} was closed twice:\n{''.join(traceback.format_stack(limit=8))}")
            raise
