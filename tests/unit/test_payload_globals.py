"""Globals of modules shipped by value: one namespace per module in the worker, written again only when the host's changed."""

from __future__ import annotations

import pickle

import pytest

from tests.unit.conftest import Notebook
from tests.unit.worker_process import Worker


def test_a_global_set_by_an_initializer_is_there_for_tasks(notebook: Notebook, worker: Worker) -> None:
    notebook.cell("""
        G = None
        def init(value):
            global G
            G = value
        def read():
            return G
    """)
    worker.call(notebook.init, 42)
    assert worker.call(notebook.read) == 42


def test_so_is_one_that_was_set_past_the_compiler(notebook: Notebook, worker: Worker) -> None:
    notebook.cell("""
        G = None
        def init():
            globals()["G"] = 7
        def read():
            return G
    """)
    worker.call(notebook.init)
    assert worker.call(notebook.read) == 7


def test_counters_persist_and_the_hosts_new_value_wins(notebook: Notebook, worker: Worker) -> None:
    notebook.cell("""
        N = 0
        def bump():
            global N
            N += 1
            return N
    """)
    assert [worker.call(notebook.bump) for _ in range(3)] == [1, 2, 3]
    notebook.cell("N = 10")
    assert worker.call(notebook.bump) == 11
    assert notebook.N == 10


def test_what_runs_is_what_the_host_held_by_content(notebook: Notebook, worker: Worker) -> None:
    notebook.cell("""
        config = {"rate": 0.1}
        def read():
            return config["rate"]
    """)
    assert worker.call(notebook.read) == 0.1
    notebook.cell("config['rate'] = 0.2")
    assert worker.call(notebook.read) == 0.2


def test_a_default_that_only_changed_its_type_is_a_change(notebook: Notebook, worker: Worker) -> None:
    notebook.cell("def f(x=1): return x")
    assert worker.call(notebook.f) is not True
    notebook.cell("f.__defaults__ = (True,)")
    assert worker.call(notebook.f) is True


def test_functions_share_their_globals_whoever_was_sent_first(notebook: Notebook, worker: Worker) -> None:
    notebook.cell("""
        cache = {}
        def put(key): cache[key] = True
        def get(): return sorted(cache)
    """)
    worker.call(notebook.put, "a")
    worker.call(notebook.put, "b")
    assert worker.call(notebook.get) == ["a", "b"]


def test_identity_between_globals_survives(notebook: Notebook, worker: Worker) -> None:
    notebook.cell("""
        cache = {}
        alias = cache
        class Service: pass
        service = Service()
        service.cache = cache
        def same():
            return service.cache is cache, alias is cache, dict(cache)
    """)
    assert worker.call(notebook.same) == (True, True, {})
    notebook.cell("cache['a'] = 1")
    assert worker.call(notebook.same) == (True, True, {"a": 1})


def test_a_bytearray_has_its_identity_too(notebook: Notebook, worker: Worker) -> None:
    notebook.cell("""
        buffer = bytearray(3)
        alias, held = buffer, {"buffer": buffer}
        def put(into=buffer):
            into[0] += 1
            return alias is buffer is held["buffer"], alias[0]
        def fresh(into=bytearray(1)):
            into[0] += 1
            return into[0]
    """)
    assert [worker.call(notebook.put) for _ in range(2)] == [(True, 1), (True, 2)]
    assert [worker.call(notebook.fresh) for _ in range(2)] == [1, 1]


def test_a_function_redefined_in_the_host_is_new_wherever_it_is_held(notebook: Notebook, worker: Worker) -> None:
    notebook.cell("""
        def handler(): return "old"
        handlers = {"h": handler}
        def run(): return handlers["h"]()
    """)
    assert worker.call(notebook.run) == "old"
    notebook.cell("""
        def handler(): return "new"
        handlers["h"] = handler
    """)
    assert worker.call(notebook.run) == "new"


def test_two_globals_that_close_over_one_variable_share_it(notebook: Notebook, worker: Worker) -> None:
    notebook.cell("""
        def make():
            count = 0
            def bump():
                nonlocal count
                count += 1
            def read():
                return count
            return bump, read
        bump, read = make()
        def step():
            bump()
        def look():
            return read()
    """)
    worker.call(notebook.step)
    worker.call(notebook.step)
    assert worker.call(notebook.look) == 2


def test_globals_that_hold_each_other_arrive(notebook: Notebook, worker: Worker) -> None:
    notebook.cell("""
        a, b = [], {}
        a.append(b)
        b["a"] = a
        def shape():
            return a[0]["a"][0] is not None, b["a"][0] is not None
    """)
    assert worker.call(notebook.shape) == (True, True)


def test_closures_defaults_and_arguments_are_fresh_for_each_task(notebook: Notebook, worker: Worker) -> None:
    notebook.cell("""
        def collect(x, into=[]):
            into.append(x)
            return into
        def make():
            seen = []
            def add(x):
                seen.append(x)
                return seen
            return add
        add = make()
    """)
    assert worker.call(notebook.collect, 1) == [1]
    assert worker.call(notebook.collect, 2) == [2]
    assert worker.call(notebook.add, 1) == [1]
    assert worker.call(notebook.add, 2) == [2]


def test_a_cache_filled_in_the_worker_persists(notebook: Notebook, worker: Worker) -> None:
    notebook.cell("""
        import functools
        @functools.lru_cache(maxsize=None)
        def fib(n):
            return n if n < 2 else fib(n - 1) + fib(n - 2)
        def misses():
            return fib.cache_info().misses
    """)
    assert worker.call(notebook.fib, 30) == 832040
    assert worker.call(notebook.misses) == 31


def test_names_that_the_host_does_not_have_are_not_touched(notebook: Notebook, worker: Worker) -> None:
    notebook.cell("""
        def keep():
            global made_here
            made_here = 5
        def read():
            return made_here
    """)
    worker.call(notebook.keep)
    assert worker.call(notebook.read) == 5
    assert not hasattr(notebook.module, "made_here")


def test_a_global_that_the_host_deletes_is_gone_in_every_worker(notebook: Notebook, worker: Worker) -> None:
    notebook.cell("""
        import sys
        Z = 1
        def read(): return Z
        def looks(): return globals().get("Z", "gone")
        def asks(): return hasattr(sys.modules[__name__], "Z")
        def through(): return notebook_for_tests.Z
        import notebook_for_tests
        def sets():
            global Z
            Z = 5
    """)
    for fn in (notebook.read, notebook.looks, notebook.through):
        assert worker.call(fn) == 1
    worker.call(notebook.sets)
    del notebook.module.Z  # type: ignore[attr-defined]
    with Worker() as another:
        for one in (worker, another):
            for _ in range(3):
                with pytest.raises(NameError, match="Z"):
                    one.call(notebook.read)
            assert (one.call(notebook.looks), one.call(notebook.asks)) == ("gone", False)
            with pytest.raises(AttributeError, match="Z"):
                one.call(notebook.through)
    notebook.cell("Z = 2")
    assert worker.call(notebook.read) == 2


def test_one_that_another_function_brought_and_that_hides_a_builtin(notebook: Notebook, worker: Worker) -> None:
    notebook.cell("""
        def first(): return len("abc")
        def second(): return len("abc")
    """)
    assert [worker.call(notebook.first) for _ in range(3)] == [3, 3, 3]
    notebook.cell("def len(_): return 0")
    assert worker.call(notebook.second) == 0
    del notebook.module.len  # type: ignore[attr-defined]
    assert [worker.call(notebook.first) for _ in range(3)] == [3, 3, 3]


def test_what_the_worker_made_for_itself_after_that_stays(notebook: Notebook, worker: Worker) -> None:
    notebook.cell("""
        Z = 1
        def sets():
            global Z
            Z = 5
        def read(): return Z
    """)
    assert worker.call(notebook.read) == 1
    del notebook.module.Z  # type: ignore[attr-defined]
    worker.call(notebook.sets)
    assert [worker.call(notebook.read) for _ in range(3)] == [5, 5, 5]


def test_globals_of_exec_without_a_module_have_one_namespace_too(worker: Worker) -> None:
    namespace: dict[str, object] = {"__name__": "nowhere"}
    exec("n = 3\ndef bump():\n    global n\n    n += 1\n    return n\n", namespace)
    assert [worker.call(namespace["bump"]) for _ in range(2)] == [4, 5]


MADE_AT_THE_TOP = """
import random, struct, weakref
class Thing:
    def __init__(self, name): self.name = name
header, dice, kept = struct.Struct("<I"), random.SystemRandom(), Thing("kept")
by_name = weakref.WeakValueDictionary(kept=kept, lost=Thing("lost"))
sizes = weakref.WeakKeyDictionary({kept: 3})
def packs(): return header.pack(1), header.format
def draws(): return dice.random()
def finds(): return by_name["kept"] is kept, by_name.get("lost"), sizes[kept]
def fills():
    new = Thing("new")
    by_name["new"] = new
    return sorted(by_name), header.size
def give(value): return value
"""


def test_what_the_standard_pickle_refuses_and_is_easily_made_again(notebook: Notebook, worker: Worker) -> None:
    notebook.cell(MADE_AT_THE_TOP)
    assert worker.call(notebook.packs) == (b"\1\0\0\0", "<I")
    assert 0 <= worker.call(notebook.draws) < 1
    sent = worker.call(notebook.give, [notebook.header, notebook.dice])
    assert [type(each) for each in sent] == [type(notebook.header), type(notebook.dice)]


def test_a_weak_dictionary_arrives_with_what_is_held_there(notebook: Notebook, worker: Worker) -> None:
    notebook.cell(MADE_AT_THE_TOP)
    held = notebook.by_name["lost"] = notebook.Thing("lost")
    assert worker.call(notebook.finds) == (True, None, 3)
    assert worker.call(notebook.fills) == (["kept", "new"], 4)
    weak, same = worker.call(notebook.give, [notebook.by_name, held])
    assert dict(weak) == {"lost": same}


def test_a_global_that_fails_to_be_made_in_the_worker_is_named(notebook: Notebook, worker: Worker) -> None:
    notebook.cell("""
        class Template:
            def __new__(cls, source): return object.__new__(cls)
            def __reduce__(self): return Template, ()
        class Holder:
            def __init__(self, held): self.held = held
        template = Template("x")
        holder = Holder(template)
        class Page:
            default = Template("x")
        def in_class(): return Page.default
        def direct(): return template
        def through(): return holder
    """)
    for uses in (notebook.direct, notebook.through):
        with pytest.raises(TypeError, match="missing 1 required positional argument: 'source'") as info:
            worker.call(uses)
        assert info.value.__notes__ == [
            "This was raised while the worker made the global 'template' of notebook_for_tests from what the host had sent; "
            "if it cannot be sent, make it in the initializer, or inside the function, instead, or use it as an attribute of "
            "a module that workers can import"
        ]
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'source'") as info:
        worker.call(notebook.in_class)
    (note,) = info.value.__notes__
    assert note.startswith(
        "This was raised while the worker made the attribute 'default' of Page from what the host had sent; if"
    )
    notebook.cell("template = holder = Page.default = 3")
    assert worker.call(notebook.through) == worker.call(notebook.in_class) == 3


def test_a_function_of_another_module_by_value_keeps_its_globals(notebook: Notebook, plugin: Notebook, worker: Worker) -> None:
    """Each time: the second call took them from the module that names the function, and wrote them there."""
    plugin.cell("value = 'of the plugin'\ndef get(): return value")
    vars(notebook.module)["get"] = plugin.get
    notebook.cell("""
        value = "of the notebook"
        def mine(): return value
        def both(): return get(), mine()
    """)
    for _ in range(3):
        assert worker.call(notebook.both) == ("of the plugin", "of the notebook")
    plugin.cell("value = 'changed'")
    assert [worker.call(notebook.both) for _ in range(2)] == [("changed", "of the notebook")] * 2
    with Worker() as another:
        assert another.call(notebook.both) == ("changed", "of the notebook")


def test_a_function_of_a_namespace_that_is_no_module_keeps_its_globals(notebook: Notebook, worker: Worker) -> None:
    notebook.cell("""
        settings = {"__name__": "settings"}
        exec("scale = 2\\ndef scaled(x): return x * scale", settings)
        scaled = settings["scaled"]
        def use(x): return scaled(x)
    """)
    assert [worker.call(notebook.use, 3) for _ in range(2)] == [6, 6]
    with Worker() as another:
        assert another.call(notebook.use, 3) == 6
    notebook.settings["scale"] = 10
    assert [worker.call(notebook.use, 3) for _ in range(2)] == [30, 30]


@pytest.mark.parametrize("task", ["pickle.dumps(model)", "eval(repr(model))", "getattr(sys.modules[__name__], 'Model')"])
def test_a_class_that_came_with_an_argument_has_its_name(task: str, notebook: Notebook, worker: Worker) -> None:
    """Whether a function that names it came before or not."""
    notebook.cell(f"""
        import pickle, sys
        from dataclasses import dataclass
        @dataclass
        class Model:
            weight: int
        def use(model): return {task} is not None
    """)
    assert worker.call(notebook.use, notebook.Model(1))


def test_so_has_one_that_nothing_but_the_argument_brings(notebook: Notebook, worker: Worker) -> None:
    notebook.cell("class Model: pass")
    assert type(pickle.loads(worker.call(pickle.dumps, notebook.Model()))) is notebook.Model


def test_a_name_that_the_class_has_no_more_is_not_taken_from_who_has_it(notebook: Notebook, worker: Worker) -> None:
    notebook.cell("class Model: pass\nold = Model()\nModel = 5\ndef use(model): return Model, type(model).__name__")
    assert worker.call(notebook.use, notebook.old) == (5, "Model")


def test_a_second_name_of_a_function_is_the_same_function(notebook: Notebook, worker: Worker) -> None:
    notebook.cell("""
        def first():
            first.calls = getattr(first, "calls", 0) + 1
            return first.calls
        second = first
        def same(): return second is first
        def both(): return first(), second()
    """)
    assert worker.call(notebook.same)
    assert worker.call(notebook.both) == (1, 2)
    assert worker.call(notebook.both) == (3, 4)


def test_a_function_by_reference_brings_nothing_of_its_module_along(notebook: Notebook, worker: Worker) -> None:
    notebook.cell("""
        from os.path import join
        seen = []  # so that the call is looked at each time
        def use(): return join("a", "b"), len(seen)
        def names(): return sorted(globals().keys() - {"__builtins__", "names"})
    """)
    for _ in range(3):
        assert worker.call(notebook.use) == ("a/b", 0)
    assert [name for name in worker.call(notebook.names) if not name.startswith("__")] == ["join", "seen", "use"]


@pytest.mark.parametrize("count", [9_000, 12_000])
@pytest.mark.parametrize(
    "column", ["[{} for n in range({})]", "dict(enumerate([{} for n in range({})]))", "{{{} for n in range({})}}"]
)
def test_a_sentinel_in_a_long_column_is_the_sentinel(column: str, count: int, notebook: Notebook, worker: Worker) -> None:
    notebook.cell(f"""
        MISSING = object()
        column = {column.format("MISSING if n % 3 else n", count)}
        def count():
            return sum(each is MISSING for each in (column.values() if type(column) is dict else column))
    """)
    assert worker.call(notebook.count) == notebook.count() > 0
