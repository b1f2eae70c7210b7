"""Large globals travel apart from the calls that use them: how long a call is, and what the host holds for it."""

from __future__ import annotations

import errno
import gc
import os
from collections.abc import Callable
from typing import Any

import pytest

from forkpool._shared.apart import LARGE, MOST
from forkpool._shared.passed_fds import HoldingPayload
from forkpool._shared.payload import CallEncoder
from tests.support.shortage import descriptors_left
from tests.unit.conftest import Notebook
from tests.unit.worker_process import Worker


def memory_files() -> int:
    """How many contents this process holds."""
    names = (f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd"))
    return sum("forkpool-content" in os.readlink(name) for name in names if os.path.lexists(name))


@pytest.fixture(autouse=True)
def nothing_left() -> None:
    """What an error of the last test holds is gone."""
    gc.collect()


@pytest.fixture
def size(notebook: Notebook) -> Callable[[], int]:
    notebook.cell("""
        DATA = list(range(100_000))
        def size():
            return len(DATA)
    """)
    return notebook.size  # type: ignore[no-any-return]


def encode(fn: Callable[[], Any]) -> bytes:
    return CallEncoder().encode(fn, (), {})


def test_a_call_is_short_and_all_that_wait_share_one_content(size: Callable[[], int]) -> None:
    before = memory_files()
    payloads = [encode(size) for _ in range(10)]
    assert max(map(len, payloads)) < 1000
    assert memory_files() == before + 1
    payloads.clear()
    assert memory_files() == before


def test_it_arrives_and_again_when_it_changed(notebook: Notebook, size: Callable[[], int], worker: Worker) -> None:
    assert worker.call(size) == 100_000
    assert worker.call(size) == 100_000
    notebook.cell("DATA.append(1)")
    assert worker.call(size) == 100_001


def test_what_the_worker_made_of_it_stays(notebook: Notebook, size: Callable[[], int], worker: Worker) -> None:
    notebook.cell("def clear(): DATA.clear()")
    worker.call(notebook.clear)
    assert worker.call(size) == 0


def test_large_then_small_then_large_again(notebook: Notebook, size: Callable[[], int], worker: Worker) -> None:
    """Each time it is what the host holds, also where a content comes back that the worker had before."""
    for cell, length in (("", 100_000), ("DATA = [1]", 1), ("DATA = list(range(100_000))", 100_000), ("DATA = 'abc'", 3)):
        notebook.cell(cell)
        assert worker.call(size) == length


def test_identity_between_large_globals_survives(notebook: Notebook, worker: Worker) -> None:
    notebook.cell("""
        big = [[n] for n in range(30_000)]
        index = {n: [n] * 3 for n in range(9_000)}
        both = [big, index]
        def same():
            return both[0] is big, both[1] is index, len(both[0]), len(both[1])
    """)
    assert worker.call(notebook.same) == (True, True, 30_000, 9_000)
    notebook.cell("big.append([1])")
    assert worker.call(notebook.same) == (True, True, 30_001, 9_000)


def test_large_attributes_of_classes(notebook: Notebook, worker: Worker) -> None:
    notebook.cell("""
        class Table:
            rows = list(range(100_000))
            def __init__(self): self.last = self.rows[-1]
        def last(): return Table().last
    """)
    assert len(encode(notebook.last)) < 4000
    assert [worker.call(notebook.last) for _ in range(2)] == [99_999] * 2
    notebook.cell("Table.rows = Table.rows[:-1]")
    assert worker.call(notebook.last) == 99_998


def test_a_content_that_fails_to_load_is_named(notebook: Notebook, worker: Worker) -> None:
    notebook.cell("""
        def fails(*_): raise ValueError("on purpose")
        class Odd:
            def __reduce__(self): return fails, (b"." * 100_000,)
        odd = Odd()
        def use(): return odd
    """)
    for _ in range(2):
        with pytest.raises(ValueError, match="on purpose") as info:
            worker.call(notebook.use)
        assert any("global 'odd' of notebook_for_tests" in note for note in info.value.__notes__)


def test_beyond_so_many_they_stay_in_the_table(notebook: Notebook, size: Callable[[], int], worker: Worker) -> None:
    """Each is a descriptor of the host, which has other uses for them."""
    before = memory_files()
    payloads = []
    for _ in range(MOST + 5):
        notebook.cell("DATA.append(0)")
        payloads.append(encode(size))
    assert memory_files() == before + MOST
    assert [len(payload) > LARGE for payload in payloads] == [False] * MOST + [True] * 5
    assert worker.call(size) == 100_000 + MOST + 5
    payloads.clear()
    assert memory_files() == before


def test_without_descriptors_they_stay_in_the_table(size: Callable[[], int], worker: Worker) -> None:
    worker.call(len, "")  # it lives before there are none
    with descriptors_left(0):
        payload = encode(size)
        assert worker.call(size) == 100_000
    assert len(payload) > LARGE
    assert not isinstance(payload, HoldingPayload)


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOSPC, errno.EACCES])
def test_where_memory_files_are_not_to_be_had(
    number: int, size: Callable[[], int], worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "memfd_create", refuse)
    assert len(encode(size)) > LARGE
    assert worker.call(size) == 100_000


@pytest.mark.parametrize("size_of", [LARGE - 1, LARGE])
def test_sizes_beside_the_limit(size_of: int, notebook: Notebook, worker: Worker) -> None:
    notebook.cell(f"data = bytes({size_of})\ndef size(): return len(data)")
    assert worker.call(notebook.size) == size_of


def test_nobody_can_write_to_it(size: Callable[[], int]) -> None:
    payload = encode(size)
    assert isinstance(payload, HoldingPayload)
    ((held, _),) = payload.holding._held.values()
    with pytest.raises(PermissionError):
        os.write(held.fd, b"x")
    with pytest.raises(PermissionError):
        os.ftruncate(held.fd, 1)
