"""How much memory a process has for itself, as /proc tells it. Runs in: pytest; one real child."""

import os
from pathlib import Path

import pytest

from forkpool._host.private_memory import private_memory

STATUS = """Name:\tpython
VmPeak:\t  999999 kB
VmRSS:\t   52100 kB
RssAnon:\t   40000 kB
RssFile:\t   12000 kB
RssShmem:\t     100 kB
VmData:\t  888888 kB
VmSwap:\t     960 kB
Threads:\t1
"""


def write(root: Path, text: str) -> str:
    folder = root / "proc" / "4711"
    folder.mkdir(parents=True)
    (folder / "status").write_text(text)
    (root / "proc" / "self").symlink_to(str(os.getpid()))
    return str(root)


def test_anonymous_pages_in_memory_and_swapped_out(tmp_path: Path) -> None:
    assert private_memory(4711, write(tmp_path, STATUS)) == (40000 + 960) << 10


def test_a_process_that_is_ending(tmp_path: Path) -> None:
    assert private_memory(4711, write(tmp_path, "Name:\tpython\nState:\tZ (zombie)\n")) is None


def test_a_name_that_looks_like_a_line_of_the_file(tmp_path: Path) -> None:
    """The kernel writes a newline in a name as two characters."""
    assert private_memory(4711, write(tmp_path, STATUS.replace("python", "x\\nRssAnon:\\t7 kB"))) == (40000 + 960) << 10


def test_without_proc(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        private_memory(4711, str(tmp_path))


def test_where_proc_shows_other_processes(tmp_path: Path) -> None:
    root = write(tmp_path, STATUS)
    (tmp_path / "proc" / "self").unlink()
    (tmp_path / "proc" / "self").symlink_to("4711")
    with pytest.raises(FileNotFoundError, match="another pid namespace"):
        private_memory(4711, root)


def test_what_is_touched_counts_and_what_is_only_reserved_does_not() -> None:
    import mmap

    size = 32 << 20
    before = private_memory(os.getpid())
    assert before is not None
    with mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as pages, mmap.mmap(-1, size) as shared:
        shared.write(bytes(1) * size)
        reserved = private_memory(os.getpid())
        pages.write(b"x" * size)
        touched = private_memory(os.getpid())
        assert reserved is not None
        assert touched is not None
        assert reserved - before < size // 2
        assert touched - reserved > size // 2
