"""What C and Cython made: it travels by the name under which its own module holds it, or is refused in the host.

The type of a Cython function lives in a pseudo-module (`_cython_3_2_4`); the function's module is a real one.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from scipy import stats
from scipy.stats import qmc

from forkpool._shared.payload import CallEncoder, PayloadError
from tests.unit.conftest import Notebook
from tests.unit.worker_process import Worker

OBJECTS: dict[str, Callable[[], Any]] = {
    "Generator": lambda: np.random.default_rng(5),
    "PCG64": lambda: np.random.PCG64(1),
    "MT19937": lambda: np.random.MT19937(1),
    "RandomState": lambda: np.random.RandomState(1),
    "SeedSequences": lambda: np.random.SeedSequence(1).spawn(2),
    "a function of Cython": lambda: np.random.default_rng,
    "a method of Cython": lambda: np.random.default_rng(5).random,
    "norm": lambda: stats.norm,
    "a frozen distribution": lambda: stats.norm(0, 1),
    "rv_histogram": lambda: stats.rv_histogram(np.histogram([1, 2, 2], bins=2)),
    "Sobol": lambda: qmc.Sobol(2, scramble=True, rng=1),
}


def give(value: Any) -> Any:
    return value


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    """One for all tests: what they send is imported once."""
    with Worker() as process:
        yield process


@pytest.fixture(params=["auto", "cloudpickle", "pickle"])
def its_worker(worker: Worker, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Worker:
    monkeypatch.setattr(worker, "encoder", CallEncoder(request.param))
    return worker


@pytest.mark.slow
@pytest.mark.parametrize("name", OBJECTS)
def test_as_argument_and_result(its_worker: Worker, name: str) -> None:
    value = OBJECTS[name]()
    assert type(its_worker.call(give, value)) is type(value)


@pytest.mark.slow
def test_as_callable(its_worker: Worker) -> None:
    assert its_worker.call(np.random.default_rng, 3).random() == np.random.default_rng(3).random()
    assert its_worker.call(np.random.default_rng(5).random) == np.random.default_rng(5).random()
    assert its_worker.call(stats.norm.pdf, 0.0) == stats.norm.pdf(0.0)
    assert its_worker.call(stats.norm(0, 1).cdf, 0.0) == 0.5


@pytest.mark.slow
@pytest.mark.parametrize("name", OBJECTS)
def test_as_global_and_in_a_closure(notebook: Notebook, worker: Worker, name: str) -> None:
    value = notebook.module.VALUE = OBJECTS[name]()  # type: ignore[attr-defined]
    notebook.cell("def of_global(): return type(VALUE).__name__")
    assert worker.call(notebook.of_global) == type(value).__name__
    assert worker.call(lambda: type(value).__name__) == type(value).__name__


def test_a_function_of_cython_is_the_hosts_own(worker: Worker) -> None:
    assert worker.call(give, np.random.default_rng) is np.random.default_rng


def test_a_name_that_a_worker_would_not_find_is_refused_in_the_host(
    notebook: Notebook, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A module of Cython that no other process can import, which a function stands for that says it is of one."""
    monkeypatch.setattr(np.random.default_rng, "__module__", notebook.module.__name__)
    notebook.module.make_rng = np.random.default_rng  # type: ignore[attr-defined]
    notebook.cell("def f(): return make_rng(3)")
    for fn in (notebook.f, np.random.default_rng):
        with pytest.raises(PayloadError, match=r"notebook_for_tests\.default_rng cannot be imported by a worker"):
            worker.call(fn)


@pytest.mark.parametrize("cls", [type({}.keys()), type(np.random.default_rng)], ids=["dict_keys", "cython_function"])
def test_a_class_of_c_without_a_name_is_refused_in_the_host(worker: Worker, cls: type) -> None:
    with pytest.raises(PayloadError, match=rf"{cls.__qualname__}, a class that C code made"):
        worker.call(give, cls)

    class Holds:
        kind = cls

    with pytest.raises(
        PayloadError, match=rf"`.*Holds\.kind` is {cls.__module__}\.{cls.__qualname__}, a class that C code made"
    ):
        worker.call(give, Holds())


def test_so_is_one_in_a_result(notebook: Notebook, worker: Worker) -> None:
    notebook.cell("def f(): return type({}.keys())")
    with pytest.raises(PayloadError, match="dict_keys, a class that C code made"):
        worker.call(notebook.f)


@pytest.mark.parametrize("name", ["version_info", "flags", "float_info", "int_info", "hash_info", "thread_info"])
def test_what_sys_tells_of_the_interpreter(notebook: Notebook, worker: Worker, name: str) -> None:
    notebook.cell(f"from sys import {name}\ndef f(): return {name}")
    assert worker.call(notebook.f) == getattr(sys, name)
    assert worker.call(give, getattr(sys, name)) is getattr(sys, name)


def test_classes_of_python_do_not_look_like_those_of_c(notebook: Notebook) -> None:
    from forkpool._shared.by_value_classes import is_made_in_c

    notebook.cell("""
        import abc, enum, typing, collections, dataclasses, ctypes
        class Plain: pass
        class Slots: __slots__ = ("a", "__weakref__")
        class Final(int, enum.Enum): A = 1
        class Error(Exception): pass
        class Meta(type): pass
        class Made(str, metaclass=Meta): __new__ = str.__new__; __eq__ = object.__eq__
        class Abstract(abc.ABC): pass
        class Tuple(typing.NamedTuple): a: int
        class Struct(ctypes.Structure): _fields_ = [("a", ctypes.c_int)]
        Old = collections.namedtuple("Old", "a")
        Data = dataclasses.make_dataclass("Data", ["a"], slots=True)
    """)
    classes = [value for value in vars(notebook.module).values() if isinstance(value, type)]
    assert len(classes) == 11
    assert not any(map(is_made_in_c, classes))
    of_c = [int, type, object, type(iter([])), type(np.random.default_rng), np.random.Generator, np.ndarray, np.float64]
    assert all(map(is_made_in_c, of_c))
