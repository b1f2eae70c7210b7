"""Arrays of numpy that are views of shared memory: what functions hold of them is the host's memory, an argument is a copy."""

from __future__ import annotations

import ctypes
import dataclasses
import gc
import mmap
import multiprocessing
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from forkpool._shared import shared_arrays
from forkpool._shared.owning_payload import OwningPayload
from forkpool._shared.payload import CallEncoder, PayloadError
from tests.unit.conftest import Notebook
from tests.unit.worker_process import SOURCE, Worker

Make = Callable[[Path], Any]
COUNT = 2000  # doubles: more than a page


def of_raw_array(_: Path) -> Any:
    return np.frombuffer(multiprocessing.RawArray("d", COUNT))


def of_synchronized_array(_: Path) -> Any:
    return np.ctypeslib.as_array(multiprocessing.Array("d", COUNT).get_obj())


def of_pointer(_: Path) -> Any:
    """numpy sees a ctypes object that says nothing of whose memory it is."""
    shared = multiprocessing.RawArray("d", COUNT)
    array = np.ctypeslib.as_array(ctypes.cast(shared, ctypes.POINTER(ctypes.c_double)), (COUNT,))
    kept.append(shared)
    return array


def of_structures(_: Path) -> Any:
    return np.frombuffer(multiprocessing.RawArray(ctypes.c_double * 4, COUNT // 4))  # type: ignore[call-overload]


def of_file(path: Path) -> Any:
    return np.memmap(path / "file", dtype=float, mode="w+", shape=(COUNT,))


def of_part_of_file(path: Path) -> Any:
    (path / "file").write_bytes(bytes(9000 + 8 * COUNT))
    return np.memmap(path / "file", dtype=float, mode="r+", offset=9000, shape=(COUNT,))


def of_file_that_is_gone(path: Path) -> Any:
    array = of_file(path)
    (path / "file").unlink()
    return array


def of_file_that_was_replaced(path: Path) -> Any:
    array = of_file(path)
    (path / "file").rename(path / "old")
    (path / "file").write_bytes(bytes(8 * COUNT))
    return array


def of_plain_array_of_file(path: Path) -> Any:
    return np.asarray(of_file(path))


def of_odd_name(path: Path) -> Any:
    (path / "a\nb \\012 (deleted)").mkdir()
    return of_file(path / "a\nb \\012 (deleted)")


KINDS: list[Make] = [
    of_raw_array,
    of_synchronized_array,
    of_pointer,
    of_structures,
    of_file,
    of_part_of_file,
    of_file_that_is_gone,
    of_file_that_was_replaced,
    of_plain_array_of_file,
    of_odd_name,
]
kept: list[Any] = []


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    yield
    kept.clear()


@pytest.fixture
def memory() -> Iterator[SharedMemory]:
    made = SharedMemory(create=True, size=8 * COUNT)
    yield made
    made.unlink()
    gc.collect()
    made.close()


def write(notebook: Notebook) -> Any:
    notebook.cell("""
        def put(place, value):
            ARRAY[place] = value
            return type(ARRAY).__name__, float(ARRAY[0])
        """)
    return notebook.put


@pytest.mark.parametrize("make", KINDS)
def test_what_a_task_writes_into_a_global_is_seen_here_and_the_other_way_round(
    make: Make, notebook: Notebook, worker: Worker, tmp_path: Path
) -> None:
    array = notebook.module.ARRAY = make(tmp_path)  # type: ignore[attr-defined]
    put = write(notebook)
    array[0] = 4.5
    assert worker.call(put, COUNT - 1, 7.25) == (type(array).__name__, 4.5)
    array[0] = 5.5
    assert worker.call(put, 1, 8.25)[1] == 5.5
    assert list(array[[1, COUNT - 1]]) == [8.25, 7.25]


def test_a_view_of_shared_memory(notebook: Notebook, worker: Worker, memory: SharedMemory) -> None:
    array = notebook.module.ARRAY = np.ndarray((COUNT,), dtype=float, buffer=memory.buf)  # type: ignore[attr-defined]
    worker.call(write(notebook), 3, 1.5)
    assert array[3] == 1.5
    del notebook.module.ARRAY


VIEWS: dict[str, Callable[[Any], Any]] = {
    "a part": lambda array: array[700:1400],
    "backwards": lambda array: array[::-3],
    "a matrix, transposed": lambda array: array.reshape(50, 40).T,
    "other elements": lambda array: array.view("i4")[5:],
    "fields": lambda array: array.view([("a", "i4"), ("b", "f4")])["b"],
    "no axes": lambda array: array[8:9].reshape(()),
    "broadcast": lambda array: np.lib.stride_tricks.as_strided(array[4:5], (3, 3), (0, 0)),
    "a record array": lambda array: array.view([("a", "i4"), ("b", "f4")]).view(np.recarray),
    "a matrix": lambda array: array.reshape(50, 40).view(np.matrix),
}


@pytest.mark.parametrize("kind", VIEWS)
@pytest.mark.filterwarnings("ignore:the matrix subclass")
def test_views_have_their_shape_and_their_memory(kind: str, notebook: Notebook, worker: Worker, tmp_path: Path) -> None:
    whole = of_part_of_file(tmp_path)
    whole[:] = range(COUNT)
    array = notebook.module.ARRAY = VIEWS[kind](whole)  # type: ignore[attr-defined]
    notebook.cell("""
        def look():
            return type(ARRAY).__name__, ARRAY.dtype, ARRAY.shape, ARRAY.strides, ARRAY.tobytes()
        def change():
            ARRAY[...] = 1
        """)
    assert worker.call(notebook.look) == (type(array).__name__, array.dtype, array.shape, array.strides, array.tobytes())
    if array.dtype.names is None:
        worker.call(notebook.change)
        assert (np.asarray(array) == 1).all()


def test_two_views_of_one_memory_overlap_in_the_worker_too(notebook: Notebook, worker: Worker) -> None:
    shared = multiprocessing.RawArray("d", COUNT)
    notebook.module.WHOLE = np.frombuffer(shared)  # type: ignore[attr-defined]
    notebook.module.PART = notebook.module.WHOLE[10:]  # type: ignore[attr-defined]
    notebook.cell("""
        def overlap():
            PART[0] = 3
            return float(WHOLE[10])
        """)
    assert worker.call(notebook.overlap) == 3
    assert shared[10] == 3


def test_what_objects_hold_and_closures_and_defaults(notebook: Notebook, worker: Worker) -> None:
    @dataclasses.dataclass
    class Box:
        array: Any

    def made(count: int) -> Any:
        return np.frombuffer(multiprocessing.RawArray("d", count))

    box, table, first, second = Box(made(4)), {"key": [made(4)]}, made(4), made(4)
    notebook.module.TABLE = table  # type: ignore[attr-defined]
    notebook.cell("def of_table(): TABLE['key'][0][0] = 1")

    def held(value: Any = second) -> None:
        box.array[0] = first[0] = value[0] = 1

    worker.call(notebook.of_table)
    worker.call(held)
    worker.call(lambda function: function(), lambda: first.__setitem__(1, 2))
    assert (table["key"][0][0], box.array[0], first[0], second[0]) == (1, 1, 1, 1)
    assert first[1] == 2


def test_an_attribute_of_a_class(notebook: Notebook, worker: Worker) -> None:
    notebook.cell("""
        class Holder:
            array = None
            @classmethod
            def put(cls): cls.array[0] = 6
        """)
    array = notebook.Holder.array = np.frombuffer(multiprocessing.RawArray("d", 4))
    worker.call(notebook.Holder.put)
    assert array[0] == 6


@pytest.mark.parametrize("serializer", ["auto", "cloudpickle", "pickle"])
@pytest.mark.parametrize("make", KINDS)
def test_arguments_are_copies(make: Make, serializer: Any, tmp_path: Path) -> None:
    """As with the standard pool; also beside a function that holds others, and inside what is called."""
    (tmp_path / "other").mkdir()
    array, other = make(tmp_path), make(tmp_path / "other")
    array[:] = other[:] = 0
    with Worker(CallEncoder(serializer)) as worker:
        worker.call(np.ndarray.fill, array, 3.0)
        worker.call(array.fill, 3.0)
        if serializer != "pickle":
            worker.call(lambda value: (value.fill(3.0), other.fill(2.0)), array)
            assert other[0] == 2
    assert not array.any()


def test_results_are_copies(notebook: Notebook, worker: Worker, tmp_path: Path) -> None:
    array = notebook.module.ARRAY = of_file(tmp_path)  # type: ignore[attr-defined]
    notebook.cell("def give(): return ARRAY")
    given = worker.call(notebook.give)
    given[0] = 1
    assert array[0] == 0


@pytest.mark.parametrize("serializer", ["auto", "cloudpickle", "pickle"])
def test_what_an_initializer_gets(serializer: Any, tmp_path: Path) -> None:
    array, other = of_file(tmp_path), of_raw_array(tmp_path)
    encoder = CallEncoder(serializer)
    with Worker() as worker:
        worker.run(encoder.encode_initializer(np.ndarray.fill, (array, 3.0)))
        worker.run(encoder.encode_initializer(np.copyto, (other, 2.0)))
    assert (array[-1], other[-1]) == (3, 2)


def test_a_file_that_is_mapped_to_be_read(notebook: Notebook, worker: Worker, tmp_path: Path) -> None:
    """It is not copied, and may be larger than the memory."""
    (tmp_path / "file").write_bytes(b"a")
    os.truncate(tmp_path / "file", 1 << 36)
    array = notebook.module.ARRAY = np.memmap(tmp_path / "file", dtype="u1", mode="r")  # type: ignore[attr-defined]
    notebook.cell("""
        def look():
            return ARRAY[0], ARRAY[-1], len(ARRAY), ARRAY.flags.writeable, ARRAY.mode, ARRAY.filename
        """)
    assert worker.call(notebook.look) == (97, 0, 1 << 36, False, "r", array.filename)


def test_a_memmap_is_one_in_the_worker(notebook: Notebook, worker: Worker, tmp_path: Path) -> None:
    array = notebook.module.ARRAY = of_part_of_file(tmp_path)  # type: ignore[attr-defined]
    notebook.cell("""
        def look():
            ARRAY[0] = 1
            ARRAY.flush()
            ARRAY[1:].flush()
            return ARRAY.filename, ARRAY.offset, ARRAY.mode, type(ARRAY._mmap).__name__
        """)
    assert worker.call(notebook.look) == (array.filename, array.offset, "r+", "mmap")


def test_a_view_that_may_not_write_may_not_there(notebook: Notebook, worker: Worker) -> None:
    shared = multiprocessing.RawArray("d", COUNT)
    array = notebook.module.ARRAY = np.frombuffer(shared)  # type: ignore[attr-defined]
    array.flags.writeable = False
    notebook.cell("def look(): return ARRAY.flags.writeable, float(ARRAY[0])")
    assert worker.call(notebook.look) == (False, 0)
    shared[0] = 2
    assert worker.call(notebook.look) == (False, 2)


class Own(np.ndarray[Any, Any]):
    def __reduce__(self) -> Any:
        return str, ("as the program says",)


def copy_on_write(path: Path) -> Any:
    (path / "file").write_bytes(bytes(8 * COUNT))
    return np.memmap(path / "file", dtype=float, mode="c")


PRIVATE: dict[str, Make] = {
    "mode c": copy_on_write,
    "of its own": lambda _: np.zeros(COUNT),
    "of bytes": lambda _: np.frombuffer(bytearray(8 * COUNT)),
    "of a private ctypes array": lambda _: np.frombuffer((ctypes.c_double * COUNT)()),  # type: ignore[call-overload]
    "of a private mmap": lambda _: np.frombuffer(mmap.mmap(-1, 8 * COUNT, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)),
    "a copy of a memmap": lambda path: of_file(path).copy(),
}


@pytest.mark.parametrize("kind", PRIVATE)
def test_private_memory_is_copied(kind: str, notebook: Notebook, worker: Worker, tmp_path: Path) -> None:
    array = notebook.module.ARRAY = PRIVATE[kind](tmp_path)  # type: ignore[attr-defined]
    payload = CallEncoder().encode(write(notebook), (0, 1.0), {})
    assert getattr(payload, "holding", None) is None
    assert worker.run(payload)[1] == 1
    assert array[0] == 0


def test_arrays_of_the_programs_own_kind_are_pickled_as_it_says(notebook: Notebook, worker: Worker, tmp_path: Path) -> None:
    notebook.module.ARRAY = of_file(tmp_path).view(Own)  # type: ignore[attr-defined]
    notebook.cell("def look(): return ARRAY")
    assert worker.call(notebook.look) == "as the program says"


def test_others_that_the_program_derived(notebook: Notebook, worker: Worker, tmp_path: Path) -> None:
    notebook.cell("""
        import numpy
        class Derived(numpy.ndarray): pass
        def put(): ARRAY[0] = 1; return type(ARRAY) is Derived
        """)
    array = of_file(tmp_path)
    notebook.module.ARRAY = array.view(notebook.Derived)  # type: ignore[attr-defined]
    assert worker.call(notebook.put)
    assert array[0] == 1


def test_memory_without_a_file_is_refused_by_the_name_of_its_global(notebook: Notebook) -> None:
    notebook.module.ARRAY = np.frombuffer(mmap.mmap(-1, 8 * COUNT))  # type: ignore[attr-defined]
    with pytest.raises(PayloadError) as info:
        CallEncoder().encode(write(notebook), (0, 1), {})
    assert info.value.part == "ARRAY"
    assert str(info.value) == (
        "cannot send `put` to a worker: global 'ARRAY' used by `put` is, or has, an array (ndarray) in memory that is "
        "shared with other processes, and no descriptor of it can be had (/dev/zero (deleted)): a worker would get a "
        "copy, and what it writes there would be lost; hand over the SharedMemory or RawArray itself, or the name of the "
        "file, and make the array in the initializer or inside the task"
    )


def test_it_is_refused_wherever_a_function_holds_it_and_not_as_an_argument(notebook: Notebook) -> None:
    array = np.frombuffer(mmap.mmap(-1, 8 * COUNT))
    notebook.cell("class Holder: pass\ndef of_class(): Holder")
    notebook.Holder.array = array
    for function in (lambda: array, notebook.of_class, lambda value=array: value):
        for encoder in (CallEncoder(), CallEncoder(preloads_main=True)):
            with pytest.raises(PayloadError, match=r"what it holds .* is, or has, an array"):
                encoder.encode(function, (), {})
    with pytest.raises(PayloadError, match="an initializer's argument"):
        CallEncoder("pickle").encode_initializer(len, (array,))
    CallEncoder().encode(len, (array,), {})


def test_the_programs_own_of_a_preloaded_program_is_no_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be other memory than the host's."""
    main = sys.modules["__main__"]
    monkeypatch.setattr(main, "ARRAY_OF_MAIN", np.frombuffer(mmap.mmap(-1, 80)), raising=False)
    exec("def used(): return ARRAY_OF_MAIN", vars(main))
    function = vars(main).pop("used")
    with pytest.raises(PayloadError, match="global 'ARRAY_OF_MAIN'"):
        CallEncoder(preloads_main=True).encode(function, (), {})


def test_a_memoryview_of_shared_memory_is_refused(notebook: Notebook, worker: Worker, memory: SharedMemory) -> None:
    """It became bytes: a task that waited for the host to write there waited for ever."""
    notebook.module.BUFFER = notebook.module.PART = None  # type: ignore[attr-defined]
    notebook.cell("def first(): return BUFFER[0]")
    raw = memoryview(multiprocessing.RawArray("B", 8))
    whole = memoryview(memory.buf or b"")
    for view in (whole, whole[2:], raw):
        notebook.module.BUFFER = view  # type: ignore[attr-defined]
        with pytest.raises(PayloadError, match="global 'BUFFER' used by `first` is, or has, a memoryview of memory"):
            CallEncoder().encode(notebook.first, (), {})
        with pytest.raises(PayloadError, match="take the view in the initializer or inside the task"):
            CallEncoder().encode(lambda view=view: view[0], (), {})
    notebook.module.BUFFER = memoryview(b"own")  # type: ignore[attr-defined]
    assert worker.call(notebook.first) == ord("o")
    assert worker.call(lambda view: view[0], raw) == 0


def test_what_else_cannot_be_sent_is_found_beside_a_file_larger_than_the_memory(notebook: Notebook, tmp_path: Path) -> None:
    """What is to blame is found by trying one part after the other: none is copied for that which the call would not copy."""
    (tmp_path / "file").touch()
    os.truncate(tmp_path / "file", 1 << 40)
    large = notebook.module.ARRAY = np.memmap(tmp_path / "file", dtype="u1", mode="r+")  # type: ignore[attr-defined]
    notebook.cell("""
        import threading
        LOCK = threading.Lock()
        def use(): return ARRAY, LOCK
        """)
    lock = notebook.LOCK
    with pytest.raises(PayloadError, match=r"global 'LOCK' used by `use` is a lock"):
        CallEncoder().encode(notebook.use, (), {})
    with pytest.raises(PayloadError, match=r"closure variable 'lock' of .* is a lock"):
        CallEncoder().encode(lambda: (large, lock), (), {})
    said: list[str] = []
    encoder = CallEncoder(warn=said.append)
    for _ in range(3):
        encoder.encode(lambda value: large, (bytes(1_100_000),), {})
    assert len(said) == 1


def test_masked_arrays_that_nobody_writes_are_copies(notebook: Notebook, worker: Worker, tmp_path: Path) -> None:
    of_file(tmp_path)[:] = 2
    read_only = np.memmap(tmp_path / "file", dtype=float, mode="r")
    notebook.module.ARRAY = np.ma.MaskedArray(read_only)  # type: ignore[attr-defined]
    notebook.cell("def total(): return float(ARRAY.sum())")
    assert worker.call(notebook.total) == 2 * COUNT


def test_masked_arrays_are_refused(notebook: Notebook, tmp_path: Path) -> None:
    notebook.module.ARRAY = np.ma.MaskedArray(of_file(tmp_path))  # type: ignore[attr-defined]
    with pytest.raises(PayloadError, match=r"an array \(MaskedArray\) .* by content"):
        CallEncoder().encode(write(notebook), (0, 1), {})


def test_without_proc(notebook: Notebook, worker: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is surely shared, and may be written to, is refused; what is mapped to be read is copied."""
    monkeypatch.setattr(shared_arrays, "_mapping_at", lambda low, high: None)
    for make in (of_raw_array, of_file):
        notebook.module.ARRAY = make(tmp_path)  # type: ignore[attr-defined]
        with pytest.raises(PayloadError, match="/proc/self/maps does not tell"):
            CallEncoder().encode(write(notebook), (0, 1), {})
    notebook.module.ARRAY = np.memmap(tmp_path / "file", dtype=float, mode="r")  # type: ignore[attr-defined]
    notebook.cell("def look(): return float(ARRAY[0])")
    assert worker.call(notebook.look) == 0
    notebook.module.ARRAY = copy_on_write(tmp_path)  # type: ignore[attr-defined]
    assert worker.call(notebook.look) == 0


def test_a_descriptor_that_became_another_file_is_not_taken(notebook: Notebook, worker: Worker, tmp_path: Path) -> None:
    """What was found is remembered, with the number of a descriptor. It is the program's, which may close it."""
    file = open(tmp_path / "file", "w+b")  # noqa: SIM115
    file.truncate(8 * COUNT)
    array = notebook.module.ARRAY = np.memmap(file, dtype=float, mode="r+")  # type: ignore[attr-defined]
    put = write(notebook)
    worker.call(put, 0, 1.0)
    number = file.fileno()
    other = os.open(tmp_path / "other", os.O_RDWR | os.O_CREAT)
    os.truncate(other, 8 * COUNT)
    os.dup2(other, number)
    os.close(other)
    with Worker() as second:
        second.call(put, 1, 2.0)
    file.close()
    assert list(array[:2]) == [1, 2]


def test_a_file_with_the_same_number_as_one_that_is_gone_is_another(
    notebook: Notebook, worker: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """File systems give the inode of a file that was deleted to the next one. A worker may have let go of the old one."""
    notebook.cell("""
        def put(value):
            HOLDER.setdefault("array", None)[0] = value
        def let_go():
            HOLDER["array"] = None
        """)
    monkeypatch.setattr(os, "fstat", lambda fd, fstat=os.fstat: _with_inode(fstat(fd), 7))
    for value in (1.0, 2.0):
        array = of_file(tmp_path)
        notebook.module.HOLDER = {"array": array}  # type: ignore[attr-defined]
        worker.call(notebook.put, value)
        assert array[0] == value
        worker.call(notebook.let_go)
        (tmp_path / "file").unlink()


def _with_inode(status: os.stat_result, inode: int) -> os.stat_result:
    return os.stat_result((status.st_mode, inode, *status[2:]))


def test_an_unchanged_one_is_not_sent_again_and_holds_one_descriptor(notebook: Notebook, tmp_path: Path) -> None:
    notebook.module.ARRAY = of_file(tmp_path)  # type: ignore[attr-defined]
    put, encoder = write(notebook), CallEncoder()
    before = count_open(tmp_path / "file")
    payloads = [encoder.encode(put, (0, 1), {}) for _ in range(20)]
    assert len(set(payloads)) == 1
    assert count_open(tmp_path / "file") == before + 1
    assert isinstance(payloads[0], OwningPayload)
    assert len(payloads[0]) < 2000
    payloads.clear()
    assert count_open(tmp_path / "file") == before


def count_open(path: Path) -> int:
    """How many descriptors there are of a file. Of other tests' files some are closed at any time, with their garbage."""
    links = [f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd")]
    return sum(os.path.realpath(link) == str(path) for link in links)


def test_the_kernel_is_asked_once_for_each_memory(notebook: Notebook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    array = of_file(tmp_path)
    notebook.module.ARRAY = array  # type: ignore[attr-defined]
    put = write(notebook)
    CallEncoder().encode(put, (0, 1), {})
    monkeypatch.setattr(shared_arrays, "_mapping_at", None)
    CallEncoder().encode(put, (0, 1), {})
    notebook.module.ARRAY = array[5:]  # type: ignore[attr-defined]
    CallEncoder().encode(put, (0, 1), {})


def test_want_of_descriptors_is_not_taken_for_private_memory(notebook: Notebook, tmp_path: Path) -> None:
    """And it is not remembered as that."""
    array = notebook.module.ARRAY = of_pointer(tmp_path)  # type: ignore[attr-defined]
    put = write(notebook)
    CallEncoder().encode(put, (0, 1), {})  # imports what it needs
    notebook.module.ARRAY = array = of_pointer(tmp_path)  # type: ignore[attr-defined]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        with pytest.raises(PayloadError, match="Too many open files"):
            CallEncoder().encode(put, (0, 1), {})
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    with Worker() as worker:
        worker.call(put, 0, 1.0)
    assert array[0] == 1


def test_many_memories_are_not_all_remembered(notebook: Notebook, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shared_arrays, "_KEPT_PLACES", 2)
    put = write(notebook)
    for _ in range(4):
        notebook.module.ARRAY = of_raw_array(tmp_path)  # type: ignore[attr-defined]
        CallEncoder().encode(put, (0, 1), {})
    assert len(shared_arrays._places) <= 2


def test_a_mapping_in_several_parts(notebook: Notebook, worker: Worker, tmp_path: Path) -> None:
    """`madvise` divides what is one file into several lines of /proc/self/maps."""
    (tmp_path / "file").write_bytes(bytes(1 << 16))
    with open(tmp_path / "file", "r+b") as file:
        mapped = mmap.mmap(file.fileno(), 0)
    mapped.madvise(mmap.MADV_DONTFORK, 1 << 14, 1 << 14)
    array = notebook.module.ARRAY = np.frombuffer(mapped)  # type: ignore[attr-defined]
    worker.call(write(notebook), -1, 3.5)
    assert array[-1] == 3.5


def test_numpy_is_not_imported_for_this() -> None:
    program = """
import sys
sys.path.insert(0, sys.argv[1])
from forkpool._shared.payload import CallEncoder
CallEncoder().encode(lambda: None, ([object()],), {})
CallEncoder().encode_initializer(sorted, ([object()],))
assert "numpy" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program, SOURCE], check=True)
