"""Large globals cross to each worker once: how long a call is, what waiting calls share, what a worker says that lacks one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from forkpool._shared import owning_payload
from forkpool._shared.owning_payload import LARGE, OwningPayload
from forkpool._shared.payload import CallEncoder
from tests.unit.conftest import Notebook
from tests.unit.worker_process import Worker


@pytest.fixture
def size(notebook: Notebook) -> Any:
    notebook.cell("""
        DATA = list(range(100_000))
        def size():
            return len(DATA)
    """)
    return notebook.size


def encode(fn: Callable[..., Any], *args: object) -> bytes:
    return CallEncoder().encode(fn, args, {})


def test_a_call_is_short_and_all_that_wait_share_one_content(size: Callable[[], int]) -> None:
    payloads = [encode(size) for _ in range(10)]
    contents = []
    for payload in payloads:
        assert isinstance(payload, OwningPayload)
        assert len(payload) < 1000
        assert payload.holding is None
        contents += payload.contents.values()
    assert len(contents) == 10
    assert len(set(map(id, contents))) == 1
    digest = contents[0].digest
    del payload
    payloads.clear()
    assert digest in owning_payload._contents
    contents.clear()
    assert digest not in owning_payload._contents


def test_it_crosses_once_and_again_when_it_changed(notebook: Notebook, size: Callable[[], int], worker: Worker) -> None:
    assert [worker.call(size) for _ in range(3)] == [100_000] * 3
    assert worker.times_whole == 1
    notebook.cell("DATA.append(1)")
    assert [worker.call(size) for _ in range(3)] == [100_001] * 3
    assert worker.times_whole == 2


def test_what_the_worker_made_of_it_stays(notebook: Notebook, size: Callable[[], int], worker: Worker) -> None:
    notebook.cell("def clear(): DATA.clear()")
    worker.call(notebook.clear)
    assert worker.call(size) == 0


def test_large_then_small_then_large_again(notebook: Notebook, size: Callable[[], int], worker: Worker) -> None:
    """Each time it is what the host holds, also where a content comes back that the worker had before."""
    for cell, length in (("", 100_000), ("DATA = [1]", 1), ("DATA = list(range(100_000))", 100_000), ("DATA = 'abc'", 3)):
        notebook.cell(cell)
        assert worker.call(size) == length
    assert worker.times_whole == 2


def test_a_deleted_one_comes_again(notebook: Notebook, size: Callable[[], int], worker: Worker) -> None:
    assert worker.call(size) == 100_000
    notebook.cell("old = DATA; del DATA")
    with pytest.raises(NameError):
        worker.call(size)
    notebook.cell("DATA = old")
    assert worker.call(size) == 100_000


def test_a_call_that_was_pickled_before_the_global_grew(notebook: Notebook, size: Callable[[], int], worker: Worker) -> None:
    """It may come later than one that was pickled after it, and nobody in the host sees what it carries."""
    notebook.cell("LARGE, DATA = DATA, [1]")
    early = encode(size)
    notebook.cell("DATA = LARGE")
    late = encode(size)
    assert [worker.run(payload) for payload in (late, early, late, early)] == [100_000, 1, 100_000, 1]


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


def test_one_that_fails_to_load_is_named_and_tried_again(notebook: Notebook, worker: Worker) -> None:
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
    assert worker.times_whole == 2


def test_nothing_is_unpickled_by_a_worker_that_lacks_something(notebook: Notebook, worker: Worker) -> None:
    """Else what the program does while its objects are made would be done twice."""
    notebook.cell("""
        import builtins
        class Counts:
            def __setstate__(self, state):
                builtins.made = getattr(builtins, "made", 0) + 1
        counts, large = Counts(), bytes(100_000)
        counts.some = "state"
        def use(): return counts, len(large)
        def count(): return builtins.made
    """)
    assert worker.call(notebook.use)[1] == 100_000
    assert worker.times_whole == 1
    assert worker.call(notebook.count) == 1


@pytest.mark.parametrize("length", [LARGE - 100, LARGE])
def test_sizes_beside_the_limit(length: int, notebook: Notebook, worker: Worker) -> None:
    notebook.cell(f"data = [bytes({length})]\ndef size(): return len(data[0])")
    assert worker.call(notebook.size) == length
    assert worker.times_whole == (length == LARGE)


def test_a_call_that_is_large_anyway_keeps_them(notebook: Notebook, size: Callable[[], int], worker: Worker) -> None:
    """It would be copied once more."""
    notebook.cell("def sizes(argument): return len(DATA), len(argument)")
    payload = encode(notebook.sizes, [bytes(LARGE)])
    assert type(payload) is bytes
    assert worker.run(payload) == (100_000, 1)


@pytest.mark.parametrize("name", [None, "named"])
def test_with_a_name_and_another_path(
    name: str | None, size: Callable[[], int], worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = CallEncoder()
    encoder.encode(len, ("",), {})
    monkeypatch.syspath_prepend("/nowhere")
    assert worker.run(encoder.encode(size, (), {}, name)) == 100_000
    assert worker.times_whole == 1
