"""Globals that hold each other keep what tasks make of them, whichever function brings them to the worker."""

from __future__ import annotations

import itertools
from contextlib import contextmanager

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.conftest import Notebook, loaded
from tests.unit.worker_process import Worker

pytestmark = pytest.mark.slow

APP = """
    class App:
        def __init__(self):
            self.extensions, self.hits = {}, 0
    class Db:
        def __init__(self, app):
            self.app, self.rows = app, []
            app.extensions["db"] = self
    app = App()
    db = Db(app)
"""
REGISTRY = """
    class App:
        def __init__(self):
            self.tasks, self.hits = {}, 0
        def task(self, function):
            def run():
                self.hits += 1
                return function()
            self.tasks[function.__name__] = run
            return run
    app = App()
    @app.task
    def job(): return "did it"
"""


def test_what_tasks_made_of_them_is_there_for_all_functions(notebook: Notebook, worker: Worker) -> None:
    notebook.cell(APP)
    notebook.cell("""
        def by_app():
            app.hits += 1
            app.extensions["db"].rows.append("app")
            return app.hits, len(db.rows)
        def by_db():
            db.app.hits += 1
            db.rows.append("db")
            return app.hits, len(db.rows)
        def only_app(): return app.hits, len(app.extensions["db"].rows)
        def only_db(): return db.app.hits, len(db.rows)
        def same(): return db.app is app, app.extensions["db"] is db
    """)
    calls = [notebook.by_app, notebook.by_db, notebook.by_db, notebook.by_app]
    assert [worker.call(fn) for fn in calls] == [(1, 1), (2, 2), (3, 3), (4, 4)]
    assert worker.call(notebook.only_db) == worker.call(notebook.only_app) == (4, 4)
    assert worker.call(notebook.same) == (True, True)


@pytest.mark.parametrize("order", list(itertools.permutations(["run", "look", "direct"])))
def test_a_function_that_its_registry_holds(order: tuple[str, ...], notebook: Notebook, worker: Worker) -> None:
    notebook.cell(REGISTRY)
    notebook.cell("""
        def run(): return job() and app.hits
        def look(): return app.tasks["job"]() and app.hits
        def direct(): return app.tasks["job"] is job and job() and app.hits
    """)
    calls = [getattr(notebook, name) for name in order * 2]
    assert [worker.call(fn) for fn in calls] == [1, 2, 3, 4, 5, 6]


def test_a_change_in_the_host_replaces_all_of_them(notebook: Notebook, worker: Worker) -> None:
    notebook.cell(APP)
    notebook.cell("""
        def hits(): return db.app.hits, db.app is app
        def bump():
            app.hits += 1
            return app.hits
    """)
    assert worker.call(notebook.bump) == 1
    notebook.cell("db.rows.append(1)")
    assert worker.call(notebook.hits) == (0, True)
    assert worker.call(notebook.bump) == 1
    assert worker.call(notebook.hits) == (1, True)


def test_a_function_that_names_what_it_closes_over(notebook: Notebook, worker: Worker) -> None:
    """While the ring is pickled, its code asks for what the ring is about to define."""
    notebook.cell("""
        class App: pass
        app, db = App(), App()
        app.db, db.app, app.hits = db, app, 0
        app.hook = lambda: (app, db)
        def make(held):
            def job():
                app.hits += 1
                return held.hits, held is app
            return job
        app.job = job = make(app)
        def by_name(): return job()
        def by_app(): return app.job(), app.job is job
        def by_hook(): return app.hook() == (app, db), app.hook()[1].app is app
        handlers = []
        def handle(held=handlers):
            handlers.append(1)
            return held is handlers, len(held)
        handlers.append(handle)
        def ask(): return handle(), handlers[0] is handle
    """)
    assert worker.call(notebook.by_name) == (1, True)
    assert worker.call(notebook.by_app) == ((2, True), True)
    assert worker.call(notebook.by_hook) == (True, True)
    assert worker.call(notebook.by_name) == (3, True)
    assert worker.call(notebook.ask) == ((True, 2), True)


def test_in_whichever_order_its_members_were_met(notebook: Notebook, worker: Worker) -> None:
    notebook.cell("""
        class App: hits = 0
        app, db = App(), App()
        app.db, db.app = db, app
        def hits(): return db.app.hits
        def first():
            app.hits += 1
            return hits()
        def second():
            found = hits()
            app.hits += 1
            return found + 1
    """)
    assert [worker.call(fn) for fn in (notebook.first, notebook.second, notebook.first)] == [1, 2, 3]


@pytest.mark.parametrize("gone", ["del a['b']", "del a", "a = {'hits': 0}", "b['more'] = 1; a['b'] = None"])
def test_one_that_comes_back_is_what_the_host_holds(gone: str, notebook: Notebook, worker: Worker) -> None:
    notebook.cell("""
        import weakref
        class Table(dict): pass
        a, b = Table(hits=0), Table()
        a["b"], b["a"] = b, a
        seen = []
        def bump():
            b["a"]["hits"] += 1
            return b["a"]["hits"], b["a"].get("b") is b
        def names(): return globals().get("a") is None, "a" in globals() and len(a), len(b)
        def note(): seen.append((weakref.ref(a), weakref.ref(b)))
        def live(): return [found() is not None for found in seen[0]]
    """)
    assert [worker.call(notebook.bump) for _ in range(2)] == [(1, True), (2, True)]
    worker.call(notebook.note)
    first = notebook.a
    notebook.cell(gone)
    worker.call(notebook.names)
    assert worker.call(notebook.bump)[0] == 1
    vars(notebook.module)["a"] = first
    notebook.cell("a['b'] = b; b.pop('more', None)")
    assert worker.call(notebook.bump) == (1, True)
    assert worker.call(lambda: __import__("gc").collect() and None) is None
    assert worker.call(notebook.live) == [False, False]


HOLDERS = {
    "object": "service = Service(); service.cache = cache\ndef held(): return service.cache",
    "default": "def held(it=cache): return it",
    "cell": "def make(it):\n    def held(): return it\n    return held\nheld = make(cache)",
    "class": "class Service: cache = cache\ndef held(): return Service.cache",
    "class with others": "class Service: caches = [cache]\ndef held(): return Service.caches[0]",
    "through another": "service = Service(); outer = [service]; service.cache = cache\ndef held(): return outer[0].cache",
}


@pytest.mark.parametrize("size", [0, 100_000])
@pytest.mark.parametrize("how", HOLDERS)
def test_a_change_that_a_worker_saw_a_part_of_and_that_is_taken_back(
    how: str, size: int, notebook: Notebook, worker: Worker
) -> None:
    """The holder is what the worker knows already; what it holds is not."""
    notebook.cell(f"class Cache: pass\nclass Service: pass\ncache = Cache()\ncache.rows, cache.data = [], bytes({size})")
    notebook.cell(HOLDERS[how])
    notebook.cell("def same(): return held() is cache\ndef rows(): return len(cache.rows)")
    assert worker.call(notebook.same) is True
    notebook.cell("cache.rows.append(1)")
    assert worker.call(notebook.rows) == 1
    notebook.cell("cache.rows.pop()")
    assert worker.call(notebook.same) is True
    assert worker.call(notebook.rows) == 0


def test_one_that_leaves_a_ring_and_comes_back(notebook: Notebook, worker: Worker) -> None:
    notebook.cell("""
        a, b, c = [], [], []
        a.append(b); b.append(a); b.append(c); c.append(a)
        def all_three(): return b[1] is c, c[0] is a, a[0] is b
        def only_a(): return len(a[0])
        def held(it=c): return it is c, b[1] is c, c[0] is a
    """)
    assert worker.call(notebook.all_three) == (True, True, True)
    notebook.cell("b.pop()")
    assert worker.call(notebook.only_a) == 1
    notebook.cell("b.append(c)")
    assert worker.call(notebook.held) == (True, True, True)


def test_a_ring_that_nothing_but_a_string_names_is_left_out_if_it_cannot_be_pickled(notebook: Notebook, worker: Worker) -> None:
    notebook.cell("""
        class Pair:
            def __reduce__(self): return make, (self.other,)
        def make(other):
            pair = Pair()
            pair.other = other
            return pair
        a, b = Pair(), Pair()
        a.other, b.other = b, a
        def look(): return "a" in globals()
    """)
    assert worker.call(notebook.look) is False


def test_a_class_whose_name_stands_for_one_of_its_instances(notebook: Notebook, worker: Worker) -> None:
    notebook.cell("""
        class Registry: pass
        registry = Registry()
        def singleton(cls):
            registry.single = made = cls()
            return made
        @singleton
        class Settings:
            def __init__(self): self.registry = registry
        class Query: registry = registry
        registry.query = Query()
        def make(held):
            def use(): return Settings.registry is held is registry
            return use
        use = make(registry)
        def kind(): return type(registry).__name__
        def same(): return Query.registry is registry is Settings.registry, registry.single is Settings, use()
    """)
    for _ in range(2):
        assert worker.call(notebook.kind) == "Registry"
        assert worker.call(notebook.same) == (True, True, True)
    with Worker() as another:
        assert another.call(notebook.same) == (True, True, True)


def test_a_generic_function_keeps_its_attributes(notebook: Notebook, worker: Worker) -> None:
    notebook.cell("""
        import functools
        class App: pass
        app = App()
        @functools.singledispatch
        def show(value): return "any"
        @show.register
        def _(value: int): return "int"
        show.app, app.show = app, show
        def look(): return show(1), show(""), show.app is app, app.show is show
    """)
    assert worker.call(notebook.look) == ("int", "any", True, True)


def test_they_may_let_go_of_each_other_and_meet_again(notebook: Notebook, worker: Worker) -> None:
    notebook.cell("""
        a, b, c = [], [], []
        def shape(): return [[x is a, x is b, x is c] for x in (*a, *b, *c)]
        def only_b(): return len(b)
    """)
    assert worker.call(notebook.shape) == []
    notebook.cell("a.append(b); b.append(a)")
    ring = [[False, True, False], [True, False, False]]
    assert worker.call(notebook.shape) == ring
    notebook.cell("a.clear(); b.clear()")
    assert worker.call(notebook.only_b) == 0
    assert worker.call(notebook.shape) == []
    notebook.cell("b.append(c); c.append(b)")
    assert worker.call(notebook.shape) == [[False, False, True], [False, True, False]]
    notebook.cell("a.append(b); b.append(a)")
    assert worker.call(notebook.shape) == [
        [False, True, False],
        [False, False, True],
        [True, False, False],
        [False, True, False],
    ]
    notebook.cell("c.clear(); b.remove(c)")
    assert worker.call(notebook.shape) == ring


def test_one_that_is_deleted_leaves_the_others(notebook: Notebook, worker: Worker) -> None:
    notebook.cell("""
        a, b = {}, {}
        a["b"], b["a"] = b, a
        def here(): return sorted({"a", "b"} & globals().keys()), b["a"]["b"] is b
        def names(): return a, b
    """)
    worker.call(notebook.names)
    assert worker.call(notebook.here) == (["a", "b"], True)
    notebook.cell("del a")
    assert worker.call(notebook.here) == (["b"], True)


def test_across_modules(notebook: Notebook, plugin: Notebook, worker: Worker) -> None:
    plugin.cell("""
        handlers = []
        def register(function):
            handlers.append(function)
            return function
    """)
    notebook.cell("""
        import plugin_for_tests as plugin
        count = []
        def make():
            held = plugin.handlers
            def handler():
                count.append(len(held))
                return len(count)
            handler.__qualname__ = "handler"
            return plugin.register(handler)
        handler = make()
        def by_name(): return handler()
        def by_plugin(): return plugin.handlers[0](), plugin.handlers[0] is handler
    """)
    assert worker.call(notebook.by_name) == 1
    assert worker.call(notebook.by_plugin) == (2, True)
    assert worker.call(notebook.by_name) == 3


def test_a_large_one_crosses_once(notebook: Notebook, worker: Worker) -> None:
    notebook.cell("""
        a, b = {"data": bytes(100_000)}, {}
        a["b"], b["a"] = b, a
        def through_a(): return len(a["b"]["a"]["data"])
        def through_b(): return len(b["a"]["data"])
    """)
    for fn in (notebook.through_a, notebook.through_b, notebook.through_a):
        assert worker.call(fn) == 100_000
    assert worker.times_whole == 1


def test_one_that_fails_to_be_made_is_named(notebook: Notebook, worker: Worker) -> None:
    notebook.cell("""
        class Fails:
            def __setstate__(self, state): raise OSError("no device")
        a, b = Fails(), Fails()
        a.b, b.a = b, a
        def name(): return a, b
    """)
    with pytest.raises(OSError, match="no device") as raised:
        worker.call(notebook.name)
    assert "made the global 'a' of notebook_for_tests" in "\n".join(raised.value.__notes__)


def test_functions_that_call_each_other_through_their_cells(notebook: Notebook, worker: Worker) -> None:
    notebook.cell("""
        def make():
            calls = []
            def even(n):
                calls.append(n)
                return n == 0 or odd(n - 1)
            def odd(n):
                calls.append(n)
                return n != 0 and even(n - 1)
            return even, odd, calls
        even, odd, calls = make()
        def ask(n): return even(n), len(calls)
        def ask_odd(n): return odd(n), len(calls)
    """)
    assert worker.call(notebook.ask, 4) == (True, 5)
    assert worker.call(notebook.ask_odd, 4) == (False, 10)
    assert worker.call(notebook.ask, 3) == (False, 14)


COUNT = 4
FUNCTIONS = """
    class Node:
        def __init__(self): self.hits, self.others = 0, []
    def make():
        hits = 0
        def node():
            nonlocal hits
            hits += 1
        node.others, node.get = [], lambda: hits
        return node
    def hit(node):
        if type(node) is Node: node.hits += 1
        elif type(node) is dict: node["hits"] += 1
        elif type(node) is list: node[0] += 1
        else: node()
    def hits(node):
        if type(node) in (list, dict): return node[0] if type(node) is list else node["hits"]
        return node.hits if type(node) is Node else node.get()
    def others(node): return node[1:] if type(node) is list else node["others"] if type(node) is dict else node.others
    def walk(start):
        hit(start)
        seen, todo = [], [start]
        while todo:
            node = todo.pop(0)
            if not any(node is other for other in seen):
                seen.append(node)
                todo += others(node)
        return [hits(node) for node in seen]
"""
MAKE = {
    "list": ("[0]", "{}.append({})"),
    "dict": ("{'hits': 0, 'others': []}", "{}['others'].append({})"),
    "object": ("Node()", "{}.others.append({})"),
    "function": ("make()", "{}.others.append({})"),
}
nodes = st.integers(0, COUNT - 1)
edges = st.lists(st.tuples(nodes, nodes), max_size=12)
numbers = itertools.count()
new_notebook = contextmanager(loaded)


# What a function does: walk from a node, or call the function before it.
deeds = st.lists(st.one_of(nodes, st.just("before")), min_size=1, max_size=3)


@given(
    edges,
    st.lists(deeds, min_size=COUNT, max_size=COUNT),
    st.lists(nodes, min_size=1, max_size=8),
    st.lists(st.sampled_from(sorted(MAKE)), min_size=COUNT, max_size=COUNT),
)
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_shape_behaves_as_in_one_process(
    worker: Worker, edges: list[tuple[int, int]], deeds: list[list[int | str]], calls: list[int], kinds: list[str]
) -> None:
    """Each function counts up globals, and tells the counts of all that can be reached from them."""
    with new_notebook(f"notebook_for_tests_{next(numbers)}") as notebook:
        notebook.cell(FUNCTIONS)
        for number, kind in enumerate(kinds):
            notebook.cell(f"node{number} = {MAKE[kind][0]}")
        for source, target in edges:
            notebook.cell(MAKE[kinds[source]][1].format(f"node{source}", f"node{target}"))
        for number, todo in enumerate(deeds):
            parts = [f"do{number - 1}()" if deed == "before" else f"walk(node{deed})" for deed in todo]
            notebook.cell(f"def do{number}(): return [{', '.join(parts)}]".replace("do-1()", "()"))
        there = [worker.call(getattr(notebook, f"do{number}")) for number in calls]
        assert there == [getattr(notebook, f"do{number}")() for number in calls]
