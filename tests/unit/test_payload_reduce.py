"""Objects of a library whose own `__reduce__` gives the name of what they wrap, or looks them up in the class they belong to.

Pickle takes such a name for that of a global that another process can import, which holds for nothing of `__main__`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from forkpool._shared.payload import PayloadError
from tests.unit.conftest import Notebook, worker_with_module
from tests.unit.worker_process import Worker

LIBRARY = """
import functools

class Cached:
    def __init__(self, function):
        functools.update_wrapper(self, function)
        self.hits = {}
    def __call__(self, *args):
        self.hits[args] = self.hits.get(args, 0) + 1
        return self.__wrapped__(*args), self.hits[args]
    def __reduce__(self):
        return self.__qualname__

class Slotted:
    __slots__ = ("function", "__dict__")
    def __init__(self, function):
        self.function = function
        self.__module__ = function.__module__
        self.__name__ = function.__name__
        self.extra = 1
    def __call__(self, *args):
        return self.function(*args) + self.extra
    def __reduce_ex__(self, protocol):
        return self.__name__

class Bound:
    def __init__(self, function):
        self.function = function
    def __set_name__(self, owner, name):
        self.place = owner, name
    def __get__(self, instance, owner=None):
        return self if instance is None else functools.partial(self.function, instance)
    def __reduce__(self):
        return look_up, self.place

def look_up(owner, name):
    return vars(owner)[name]

class Only:
    def __init__(self, name): self.name = name
    def __reduce__(self): return self.name

ONLY = Only("ONLY")
hidden = Only("nowhere")
"""

PROGRAM = """
    import library
    @library.Cached
    def add(x): return x + 1
    again = add
    @library.Slotted
    def double(x): return x * 2
    def calls(x): return add(x), double(x), again is add
    only = library.ONLY
    def is_only(): return only is library.ONLY
    class Service:
        @library.Bound
        def bound(self, x): return x * 10
        @staticmethod
        @library.Cached
        def cached(x): return -x
        def plain(self): return "plain"
    class Single:
        def __reduce__(self): return getattr, (Single, "instance")
    Single.instance = Single()
    def single(): return type(Single.instance) is Single
    def returns(): return add
"""


@pytest.fixture(scope="module")
def library_worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    with worker_with_module(tmp_path_factory.mktemp("library"), "library", LIBRARY) as worker:
        yield worker


@pytest.fixture
def program(notebook: Notebook, library_worker: Worker) -> Notebook:
    return notebook.cell(PROGRAM)


def test_what_wraps_a_function_of_the_program_travels_with_it(program: Notebook, library_worker: Worker) -> None:
    assert library_worker.call(program.add, 1) == (2, 1)
    assert library_worker.call(program.double, 2) == 5
    assert library_worker.call(program.calls, 1) == ((2, 2), 3, True)
    assert library_worker.call(program.add, 1) == (2, 3)  # one object for the worker's life, as a function is
    assert library_worker.call(program.returns) is program.add


def test_what_a_class_holds_is_not_looked_up_in_the_class_that_is_being_made(program: Notebook, library_worker: Worker) -> None:
    service = program.Service()
    assert library_worker.call(service.plain) == "plain"
    assert library_worker.call(service.bound, 2) == 20
    assert library_worker.call(program.Service.cached, 2) == (-2, 1)
    assert library_worker.call(program.single) is True


def test_singletons_of_the_library_stay_the_librarys_own(program: Notebook, library_worker: Worker) -> None:
    assert library_worker.call(program.is_only) is True
    program.module.only = program.library.hidden  # type: ignore[attr-defined]
    with pytest.raises(PayloadError, match="'only' used by `is_only`"):
        library_worker.call(program.is_only)


CACHETOOLS = """
    import cachetools
    @cachetools.cached(cachetools.LRUCache(10))
    def add(x): return x + 1
    def calls(x): return add(x), add(x)
    class Service:
        def __init__(self): self.cache = {}
        @cachetools.cachedmethod(lambda self: self.cache)
        def double(self, x): return x * 2
        def plain(self): return "plain"
"""


def test_cachetools(notebook: Notebook, worker: Worker) -> None:
    notebook.cell(CACHETOOLS)
    calls: list[tuple[Any, ...]] = [(notebook.add, 1), (notebook.calls, 1)]
    assert [worker.call(*call) for call in calls] == [2, (2, 2)]
    service = notebook.Service()
    assert (worker.call(service.double, 2), worker.call(service.plain)) == (4, "plain")
