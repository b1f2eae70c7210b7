"""Where /proc tells of a process, if it numbers processes as we do.

Runs in: host and fork server. Owns nothing.
Hard part: /proc belongs to the pid namespace in which it was mounted. After `unshare --pid --fork` without `--mount-proc` it
still shows the outer one, where our numbers are those of foreign processes: their memory was watched, and a task that slept
was killed for it. `/proc/self` is right even there, whoever mounted it, for the kernel looks up who asks: but what it leads to
is another number than `os.getpid()`, and that is how one can tell. Nothing is remembered, since a program may mount another
/proc at any time; it takes 5 µs on a loaded machine, a tenth of a look into `status`.
Tests: tests/unit/test_own_proc.py, tests/process/test_degraded.py
"""

from __future__ import annotations

import errno
import os


def numbers_as_we_do(root: str = "/") -> bool:
    """False also where there is no /proc.

    Args:
        root: Where /proc is looked for; tests have their own.
    """
    try:
        return os.readlink(os.path.join(root, "proc/self")) == str(os.getpid())
    except OSError:
        return False


def folder_of(pid: int, root: str = "/") -> str:
    """The folder of the process with that number.

    Raises:
        OSError: There is no /proc, or it shows another pid namespace. Not if only the process is gone.
    """
    if not numbers_as_we_do(root):
        raise FileNotFoundError(errno.ENOENT, "it is not mounted, or shows the processes of another pid namespace", "/proc")
    return os.path.join(root, "proc", str(pid))
