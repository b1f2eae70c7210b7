"""What only a method names that the task may not call need not be picklable: who touches it in the worker is told."""

from __future__ import annotations

import copy
import operator
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from forkpool._shared.explain import PayloadError
from forkpool._shared.not_sent import NotSent
from forkpool.errors import SerializationError
from tests.unit.conftest import Notebook
from tests.unit.worker_process import Worker

CRAWLER = """
    import functools, threading
    lock, pool = threading.Lock(), threading.Thread()
    def store(value):
        with lock: return value
    class Held:
        def __init__(self): self.lock = lock
    held, count = Held(), 3
    def logged(function):
        @functools.wraps(function)
        def call(*args): return function(*args)
        return call
    class Crawler:
        @staticmethod
        def made(): return pool
        def fetch(self, value): return value * count
        def save(self, value): return store(value)
        @logged
        def decorated(self, value): return store(value)
        def calls_save(self, value): return self.save(value)
        def has_held(self): return type(held).__name__, held is not None
        def calls_has_held(self): return self.has_held()
        def look(self): return [type(value).__name__ for name, value in globals().items() if name == "lock"]
        @property
        def known(self): return store(1)
    class Child(Crawler):
        def fetch(self, value): return super().fetch(value) + 1
    def use(crawler, name, *args): return getattr(crawler, name)(*args)
    def set_lock():
        global lock
        lock = threading.Lock()
"""
WHY = (
    "global 'lock' is not in this worker: it is a lock (_thread.lock), which only works inside one process; make it in the "
    'initializer, or inside the function, instead, or use multiprocessing.get_context("spawn").Lock()'
)


def test_methods_that_are_not_called_may_name_anything(notebook: Notebook, worker: Worker) -> None:
    notebook.cell(CRAWLER)
    assert worker.call(notebook.Crawler().fetch, 2) == 6
    assert worker.call(notebook.Child().fetch, 2) == 7
    assert worker.call(notebook.use, notebook.Child(), "fetch", 3) == 10
    assert worker.call(notebook.use, notebook.Crawler, "fetch", notebook.Crawler(), 3) == 9


def test_what_is_called_is_refused_in_the_host(notebook: Notebook, worker: Worker) -> None:
    notebook.cell(CRAWLER)
    assert worker.call(notebook.Crawler().fetch, 2) == 6
    for call in (
        (notebook.Crawler().save, 1),
        (notebook.Crawler().decorated, 1),
        (map, notebook.Crawler().save, [1]),
        (notebook.store, 1),
    ):
        with pytest.raises(PayloadError, match="global 'lock' used by `store` is a lock"):
            worker.call(*call)


@pytest.mark.parametrize("way", [("calls_save", 1), ("known",)])
def test_who_touches_it_in_the_worker_is_told(notebook: Notebook, worker: Worker, way: tuple[Any, ...]) -> None:
    notebook.cell(CRAWLER)
    with pytest.raises(SerializationError) as info:
        worker.call(notebook.use, notebook.Crawler(), *way)
    assert str(info.value) == WHY


def test_who_only_looks_around_is_not(notebook: Notebook, worker: Worker) -> None:
    notebook.cell(CRAWLER)
    assert worker.call(notebook.use, notebook.Crawler(), "look") == ["NotSent"]


def test_an_object_that_holds_it_arrives_without(notebook: Notebook, worker: Worker) -> None:
    notebook.cell(CRAWLER)
    assert worker.call(notebook.Crawler().calls_has_held) == ("Held", True)


def test_what_the_worker_made_itself_stays(notebook: Notebook, worker: Worker) -> None:
    notebook.cell(CRAWLER)
    notebook.cell("def set_otherwise(): globals()['lock'] = threading.Lock()")
    worker.call(notebook.set_otherwise)
    assert worker.call(notebook.use, notebook.Crawler(), "save", 4) == 4


def test_the_hosts_new_value_wins_in_both_directions(notebook: Notebook, worker: Worker) -> None:
    notebook.cell(CRAWLER)
    notebook.cell("class Crawler(Crawler):\n    def name(self): return type(lock).__name__")
    for value, name in (notebook.lock, "NotSent"), ("text", "str"), (notebook.lock, "NotSent"), (1, "int"):
        notebook.module.lock = value
        assert worker.call(notebook.use, notebook.Crawler(), "name") == name


def test_what_the_worker_made_later_stays_whatever_the_host_makes(notebook: Notebook, worker: Worker) -> None:
    """Also where the text of the error differs each time."""
    notebook.cell("""
        class Link:
            made = 0
            def __init__(self): Link.made += 1; self.number = Link.made
            def __reduce__(self): raise TypeError(f"cannot pickle link {self.number}")
            def ask(self): return "asked"
        link = Link()
        class Db:
            def open(self):
                global link
                link = Link()
            def query(self): return link.ask()
        def use(db, name): return getattr(db, name)()
    """)
    with pytest.raises(SerializationError, match="cannot pickle link 1"):
        worker.call(notebook.use, notebook.Db(), "query")
    worker.call(notebook.use, notebook.Db(), "open")
    for _ in range(2):
        assert worker.call(notebook.use, notebook.Db(), "query") == "asked"
        notebook.module.link = notebook.Link()


def test_where_nothing_lacks_the_order_is_as_ever(notebook: Notebook, worker: Worker) -> None:
    """What code needs that runs while a value is unpickled is there before it."""
    notebook.cell("""
        def norm(value): return value % 7
        class Point:
            def __init__(self, value): self.value = value
            def __hash__(self): return norm(self.value)
            def __eq__(self, other): return self.value == other.value
        class Other:
            def go(self): return norm(8)
        class Holds: CORNERS = {Point(1), Point(2)}
        def inner(): return len(Holds.CORNERS)
        def outer(): return inner()
        def task(): return Other().go(), outer()
    """)
    assert worker.call(notebook.task) == (1, 2)


def test_results_bring_no_globals_for_their_methods(notebook: Notebook, worker: Worker) -> None:
    notebook.cell("""
        class Job:
            def __init__(self): self.callback = self.handle
            def handle(self): return len(MODEL)
        def init():
            global MODEL
            MODEL = [1, 2, 3]
        def task(): return Job(), len(MODEL)
    """)
    worker.call(notebook.init)
    assert worker.call(notebook.task)[1] == 3
    assert "MODEL" not in vars(notebook.module)


CALLABLES = """
    import functools, threading
    lock = threading.Lock()
    def use(value):
        with lock: return value
    class Instance:
        def __call__(self, value): return use(value)
    class Made:
        def __init__(self, value): use(value)
    class MadeByNew:
        def __new__(cls, value): return use(value)
    class Harmless:
        def __init__(self, value): pass
        def later(self): return use(1)
    instance, partial = Instance(), functools.partial(Instance())
"""


@pytest.mark.parametrize("name", ["instance", "Made", "MadeByNew", "partial"])
def test_what_else_can_be_called_is_refused_in_the_host(notebook: Notebook, worker: Worker, name: str) -> None:
    notebook.cell(CALLABLES)
    assert type(worker.call(notebook.Harmless, 1)) is notebook.Harmless
    with pytest.raises(PayloadError, match=r"global 'lock'.* is a lock"):
        worker.call(getattr(notebook, name), 1)


@pytest.mark.parametrize("error", [OSError(24, "no descriptors"), MemoryError()], ids=["OSError", "MemoryError"])
def test_what_may_go_well_the_next_time_is_refused(notebook: Notebook, worker: Worker, error: Exception) -> None:
    notebook.cell("""
        class Short:
            def __reduce__(self): raise error
        short = Short()
        class User:
            def run(self): return 1
            def use(self): return short
    """)
    notebook.module.__dict__["error"] = error
    with pytest.raises(PayloadError, match="global 'short'"):
        worker.call(notebook.User().run)


REGISTRY = """
    import threading
    class Field:
        def __init__(self): self.lock = threading.Lock()
        def __set_name__(self, owner, name): self.name = name
    class Registry:
        _lock, _locks, count = threading.Lock(), {"a": threading.Lock()}, 3
        def add(self):
            with self._lock: return 1
        def adds(self): return self.add()
        def add_each(self):
            for each in self._locks.values(): each.acquire()
        def work(self, number): return self.count + number
        def kinds(self): return [type(vars(Registry)[name]).__name__ for name in ("_lo" + "ck", "_lo" + "cks")]
    class Special:
        __lock__ = threading.Lock()
        def work(self): return 1
    class WithField:
        field = Field()
        def work(self): return 1
    def use(registry, name, *args): return getattr(registry, name)(*args)
    def adds(registry): return registry.adds(), registry._lock
    def make_own(): setattr(Registry, "_lo" + "ck", threading.Lock())
"""


def test_attributes_of_classes_that_are_not_used(notebook: Notebook, worker: Worker) -> None:
    notebook.cell(REGISTRY)
    registry = notebook.Registry()
    assert worker.call(registry.work, 1) == 4
    assert worker.call(registry.kinds) == ["NotSent", "NotSent"]
    assert type(worker.call(notebook.use, registry, "work", 1)) is int
    notebook.Registry.count = 5
    assert worker.call(registry.work, 1) == 6


def test_attributes_that_are_used_are_refused_in_the_host(notebook: Notebook, worker: Worker) -> None:
    notebook.cell(REGISTRY)
    registry = notebook.Registry()
    for call, part in ((registry.add,), "_lock"), ((registry.add_each,), "_locks['a']"), ((notebook.adds, registry), "_lock"):
        with pytest.raises(PayloadError) as info:
            worker.call(*call)
        assert info.value.part == f"Registry.{part}"


def test_who_touches_such_an_attribute_in_the_worker_is_told(notebook: Notebook, worker: Worker) -> None:
    notebook.cell(REGISTRY)
    with pytest.raises(SerializationError, match=r"^`Registry\._lock` is not in this worker: it is a lock") as info:
        worker.call(notebook.Registry().adds)
    assert info.value.part == "Registry._lock"


def test_an_attribute_that_the_worker_made_itself_stays(notebook: Notebook, worker: Worker) -> None:
    notebook.cell(REGISTRY)
    registry = notebook.Registry()
    assert worker.call(registry.work, 1) == 4
    worker.call(notebook.make_own)
    assert worker.call(registry.adds) == 1


def test_a_class_that_lacks_something_is_brought_up_to_date(notebook: Notebook, worker: Worker) -> None:
    notebook.cell("""
        import abc, threading
        class Base(abc.ABC):
            _lock, table = threading.Lock(), {1}
            @abc.abstractmethod
            def work(self): ...
        class Child(Base):
            def work(self): return sorted(self.table)
    """)
    child = notebook.Child()
    assert worker.call(child.work) == [1]
    notebook.Base.table = {1, 2}
    notebook.Base._other = frozenset({child})
    assert worker.call(child.work) == [1, 2]


@pytest.mark.parametrize("name", ["Special", "WithField"])
def test_what_python_asks_and_what_acts_by_itself_is_refused(notebook: Notebook, worker: Worker, name: str) -> None:
    notebook.cell(REGISTRY)
    with pytest.raises(PayloadError, match="is a lock"):
        worker.call(getattr(notebook, name)().work)


def test_of_a_result_nothing_may_lack(notebook: Notebook, worker: Worker) -> None:
    notebook.cell("""
        import threading
        def make():
            class Made:
                lock = threading.Lock()
            return Made()
    """)
    with pytest.raises(PayloadError, match="its result cannot be sent back"):
        worker.call(notebook.make)


TOUCHES: dict[str, Callable[[Any], object]] = {
    "an attribute": lambda it: it.acquire,
    "a new attribute": lambda it: setattr(it, "name", 1),
    "no attribute more": lambda it: delattr(it, "name"),
    "a call": lambda it: it(),
    "with": lambda it: it.__enter__ and operator.methodcaller("__enter__")(it),
    "truth": bool,
    "equality": lambda it: it == 1,
    "its place in a dict": lambda it: {it: 1},
    "a loop": list,
    "length": len,
    "an item": lambda it: it[0],
    "in": lambda it: 1 in it,
    "a sum": lambda it: it + 1,
    "a sum behind another": lambda it: 1 + it,
    "a number": int,
    "text": str,
    "a format": "{}".format,
    "isinstance": lambda it: isinstance(1, it),
    "a base": lambda it: type("Sub", (it,), {}),
    "pickle": pickle.dumps,
    "a copy": copy.copy,
    "a deep copy": copy.deepcopy,
    "a path": open,
}


@pytest.mark.parametrize("touch", TOUCHES.values(), ids=TOUCHES.keys())
def test_each_touch(touch: Callable[[Any], object]) -> None:
    with pytest.raises(SerializationError) as info:
        touch(NotSent("global 'lock'", "is a lock"))
    assert str(info.value) == "global 'lock' is not in this worker: it is a lock"
    assert (info.value.part, info.value.may_have_run) == ("global 'lock'", "yes")


def test_a_with_statement() -> None:
    lock: Any = NotSent("global 'lock'", "is a lock")
    with pytest.raises(SerializationError), lock:
        pytest.fail("entered")


def test_looking_around() -> None:
    lock = NotSent("global 'lock'", "is a lock")
    assert not isinstance(lock, int)
    assert not hasattr(lock, "__isabstractmethod__")
    assert repr(lock) == "<global 'lock' is not in this worker: it is a lock>"
