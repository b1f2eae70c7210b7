"""Gates and marks: how a task and a test tell each other facts without a clock.

Runs in: tests and workers; imports os only. A worker inherits no fds of the host, so both go by path:
a Gate is a pair of FIFOs, Marks is a file that is only appended to. Both pickle by their path.
"""

import os
from pathlib import Path

RECORD_BYTES = 16


class GateInTask:
    """The side of the gate that runs in a task; all that pickles of a Gate."""

    def __init__(self, inside_path: str, go_path: str) -> None:
        self.inside_path = inside_path
        self.go_path = go_path

    def __reduce__(self) -> tuple[object, ...]:
        return GateInTask, (self.inside_path, self.go_path)

    def enter(self) -> None:
        """Say that we are inside, then wait to be let go."""
        self.tell()
        self.wait_go()

    def tell(self, pid: int | None = None) -> None:
        """Say that we (or this process) are inside and go on."""
        fd = os.open(self.inside_path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, b"%*d" % (RECORD_BYTES, os.getpid() if pid is None else pid))
        finally:
            os.close(fd)

    def wait_go(self) -> None:
        # O_NONBLOCK for the open alone: it would block for ever on a gate that the test has closed.
        fd = os.open(self.go_path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            os.set_blocking(fd, True)
            os.read(fd, 1)
        finally:
            os.close(fd)

    def wait_told(self) -> int:
        """Block until somebody tells; whose pid. For a task that waits for another task."""
        fd = os.open(self.inside_path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return int(os.read(fd, RECORD_BYTES))
        finally:
            os.close(fd)


class Marks:
    """A file of words that tasks append to: the proof of what ran, and how often."""

    def __init__(self, path: Path | str) -> None:
        self.path = str(path)

    def add(self, word: str) -> None:
        fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, f"{word}\n".encode())
        finally:
            os.close(fd)

    def words(self) -> list[str]:
        try:
            return Path(self.path).read_text().split()
        except FileNotFoundError:
            return []


class Gate(GateInTask):
    """The side of the test. A task says "I am inside" and waits until the test lets it go.

    The test owns both FIFO ends from the start, so a task never blocks in open(). A gate that the test
    closes lets everybody through: a failed test leaves no stuck worker.
    """

    def __init__(self, folder: Path | str, name: str = "gate") -> None:
        super().__init__(os.path.join(folder, f"{name}.inside"), os.path.join(folder, f"{name}.go"))
        os.mkfifo(self.inside_path)
        os.mkfifo(self.go_path)
        self._inside_fd = os.open(self.inside_path, os.O_RDWR | os.O_CLOEXEC)
        self._go_fd: int | None = os.open(self.go_path, os.O_RDWR | os.O_CLOEXEC)

    def wait_inside(self) -> int:
        """Block until one more task is inside; its pid."""
        record = os.read(self._inside_fd, RECORD_BYTES)
        assert len(record) == RECORD_BYTES
        return int(record)

    def was_told(self) -> bool:
        """Whether a task has said that it is inside, and `wait_inside` has not returned its pid yet."""
        import select

        return bool(select.select([self._inside_fd], [], [], 0)[0])

    def release(self, count: int = 1) -> None:
        assert self._go_fd is not None
        os.write(self._go_fd, b"." * count)

    def open_for_all(self) -> None:
        """Let through who waits and who comes later."""
        if self._go_fd is not None:
            os.close(self._go_fd)
            self._go_fd = None

    def close(self) -> None:
        self.open_for_all()
        os.close(self._inside_fd)
