"""What a worker sees of `__main__`: its functions, classes and globals, however the program was started.

Runs in: pytest; each program is an interpreter of its own. None has an `if __name__ == "__main__"` guard.
"""

from collections.abc import Callable

import pytest

from tests.support.script import Script

Start = Callable[..., Script]

EVERY_WAY = pytest.mark.parametrize(
    ("how", "python"), [("file", ()), ("-c", ()), ("stdin", ()), ("stdin", ("-i",))], ids=["file", "-c", "stdin", "repl"]
)

pytestmark = pytest.mark.slow


@EVERY_WAY
def test_functions_and_classes_of_main(start: Start, how: str, python: tuple[str, ...]) -> None:
    program = start(
        """
        from forkpool import ForkPoolExecutor

        class Point:
            def __init__(self, x):
                self.x = x
            def moved(self, by):  # no empty line: it would end the class in a REPL
                return Point(self.x + by)

        def double(point):
            return point.moved(point.x)

        ex = ForkPoolExecutor(2)
        result = ex.submit(double, Point(21)).result()
        mark("x", result.x)
        mark("same_class", isinstance(result, Point))
        mark("lambda", ex.submit(lambda: "here").result())
        mark("map", list(ex.map(lambda n: n * n, range(3))))
        mark("bound", ex.submit(Point(1).moved, 1).result().x)
        ex.shutdown()
        mark("name", __name__)
        """,
        how,
        python=python,
    ).finish()
    assert program.value("x") == "42"
    assert program.value("same_class") == "True"
    assert program.value("lambda") == "here"
    assert program.value("map") == "[0, 1, 4]"
    assert program.value("bound") == "2"
    assert program.all("name") == ["__main__"]  # it ran once: no worker ran the program again


@EVERY_WAY
def test_globals_set_by_the_initializer_are_seen_by_every_function(start: Start, how: str, python: tuple[str, ...]) -> None:
    program = start(
        """
        from forkpool import ForkPoolExecutor

        def init(value):
            global G
            G = value

        def read():
            return G

        def read_in_another_way():
            return [G for _ in range(1)]

        ex = ForkPoolExecutor(1, initializer=init, initargs=(42,))
        mark("read", ex.submit(read).result())
        mark("other", ex.submit(read_in_another_way).result())
        mark("lambda", ex.submit(lambda: G).result())
        mark("host", "G" in globals())
        ex.shutdown()
        """,
        how,
        python=python,
    ).finish()
    assert (program.value("read"), program.value("other"), program.value("lambda")) == ("42", "[42]", "42")
    assert program.value("host") == "False"


def test_what_host_and_initializer_both_make_need_not_be_picklable(start: Start) -> None:
    program = start("""
        import functools, sqlite3, threading
        from forkpool import ForkPoolExecutor
        connection = lock = None
        other = threading.Lock()
        def connect(path):
            global connection
            connection = sqlite3.connect(path)
        class Setup:
            def run(self, path):
                global lock
                lock = threading.Lock()
                connect(path)
        class Service:
            def ask(self, n):
                with lock:
                    return connection.execute("select ?", (n,)).fetchone()[0]
        service = Service()
        held = [connection]
        def ask(n): return service.ask(n)
        def also_asks_other(n):
            with other: return ask(n)
        Setup().run(":memory:")
        for name, initializer in ("method", Setup().run), ("partial", functools.partial(connect)), ("function", connect):
            with ForkPoolExecutor(1, initializer=initializer, initargs=(":memory:",)) as ex:
                mark(name, ex.submit(lambda: connection.execute("select 7").fetchone()).result())
                if name == "method":
                    mark("asked", [ask(1), *ex.map(ask, range(2, 4))])
                mark(name, ex.submit(also_asks_other if name == "method" else ask, 1).exception())
        """).finish()
    assert program.value("asked") == "[1, 2, 3]"
    for name, culprit in ("method", "other"), ("partial", "lock"), ("function", "lock"):
        result, error = program.all(name)
        assert result == "(7,)"
        assert f"global {culprit!r} " in error


@pytest.mark.parametrize("preload", [(), ("__main__",)], ids=["alone", "preloaded"])
def test_methods_that_only_the_host_calls_may_use_what_belongs_to_it(start: Start, preload: tuple[str, ...]) -> None:
    program = start(f"""
        import threading
        from forkpool import ForkPoolExecutor
        class Crawler:
            def fetch(self, n): return n + 1
            def fetch_all(self): return list(ex.map(self.fetch, range(3)))
            def save(self, future):
                with lock: mark("saved", future.result())
            def submit_more(self): return ex.submit(self.fetch, 1).result()
            def go_deeper(self): return self.submit_more()
        if __name__ == "__main__":
            lock = threading.Lock()
            ex = ForkPoolExecutor(1, preload={preload})
            crawler = Crawler()
            with ex:
                mark("all", crawler.fetch_all())
                ex.submit(crawler.fetch, 6).add_done_callback(crawler.save)
                mark("deeper", ex.submit(crawler.go_deeper).exception())
                mark("after", ex.submit(crawler.fetch, 8).result())
        """).finish()
    assert program.value("all") == "[1, 2, 3]"
    assert program.value("saved") == "7"
    assert program.value("after") == "9"
    assert "global 'ex' is not in this worker: it " in program.value("deeper")


def test_what_the_initializer_is_bound_to_or_gets_is_the_global_that_tasks_see(start: Start) -> None:
    program = start("""
        import functools, operator
        from forkpool import ForkPoolExecutor
        from tests.process.test_inheritance_main import fill_first

        class Service:
            def __init__(self): self.connection, self.rows = None, []
            def connect(self, where): self.connection = where
            __call__ = connect

        service, cache = Service(), {}

        def fill(into): into["key"] = 1
        def set_up(parts, *, where):
            parts["service"].connect(where)
            parts["others"][0]["key"] = 1
        class Uses:
            def __init__(self): self.held = service
            def connect(self): self.held.rows.append(1)

        def see(): return service.connection, len(service.rows), sorted(cache)

        for name, initializer, *args in [
            ("method", service.connect, "there"),
            ("callable", service, "there"),
            ("argument", fill, cache),
            ("builtin", cache.setdefault, "key", 1),
            ("importable", operator.setitem, cache, "key", 1),
            ("inside", fill_first, [cache], "key"),
            ("partial", functools.partial(fill, cache)),
            ("nested", functools.partial(set_up, where="there"), {"service": service, "others": [cache]}),
            ("unbound", Service.connect, service, "there"),
            ("held", Uses().connect),
        ]:
            with ForkPoolExecutor(1, max_tasks_per_child=2, initializer=initializer, initargs=tuple(args)) as ex:
                for _ in range(3):
                    mark(name, ex.submit(see).result())
        mark("host", see())
        """).finish()
    for names, seen in {
        ("method", "callable", "unbound"): ("there", 0, []),
        ("argument", "builtin", "importable", "inside", "partial"): (None, 0, ["key"]),
        ("nested",): ("there", 0, ["key"]),
        ("held",): (None, 1, []),
    }.items():
        for name in names:
            assert program.all(name) == [str(seen)] * 3, name
    assert program.value("host") == "(None, 0, [])"


def fill_first(tables: list[dict[str, int]], key: str) -> None:
    """Can be imported by a worker."""
    tables[0][key] = 1


def test_an_argument_of_a_task_is_a_copy_all_the_same(start: Start) -> None:
    program = start("""
        from forkpool import ForkPoolExecutor

        cache = {}

        def fill(into):
            into["key"] = 1
            return into is cache

        with ForkPoolExecutor(1, initializer=len, initargs=(cache,)) as ex:
            mark("is", ex.submit(fill, cache).result())
            mark("is", ex.submit(fill, cache).result())
            mark("cache", ex.submit(lambda: cache).result())
        """).finish()
    assert program.all("is") == ["False", "False"]
    assert program.value("cache") == "{}"


def test_counters_and_lazy_caches_last_as_long_as_the_worker(start: Start) -> None:
    program = start("""
        from forkpool import ForkPoolExecutor

        counter = 0
        cache = {}
        connection = None

        def count():
            global counter
            counter += 1
            return counter

        def look_up(key):
            if key not in cache:
                cache[key] = object()
            return id(cache[key])

        def connect():
            global connection
            if connection is None:
                connection = object()
            return id(connection)

        with ForkPoolExecutor(1) as ex:
            mark("count", [ex.submit(count).result() for _ in range(3)])
            mark("cache", len({ex.submit(look_up, "a").result() for _ in range(3)}))
            mark("connection", len({ex.submit(connect).result() for _ in range(3)}))
            mark("seen_by_another", ex.submit(lambda: counter).result())
        mark("host", (counter, cache, connection))
        """).finish()
    assert program.value("count") == "[1, 2, 3]"
    assert program.value("cache") == "1"
    assert program.value("connection") == "1"
    assert program.value("seen_by_another") == "3"
    assert program.value("host") == "(0, {}, None)"


def test_a_global_is_written_again_only_when_it_changed_in_the_host(start: Start) -> None:
    program = start("""
        from forkpool import ForkPoolExecutor

        settings = {"rate": 1}
        other = 0

        def change_here(rate):
            settings["rate"] = rate

        def read():
            return settings["rate"], other

        with ForkPoolExecutor(1) as ex:
            mark("first", ex.submit(read).result())
            ex.submit(change_here, 50).result()
            mark("workers_own", ex.submit(read).result())
            other = 7
            mark("another_changed", ex.submit(read).result())
            settings["rate"] = 2
            mark("hosts_new", ex.submit(read).result())
        """).finish()
    assert program.value("first") == "(1, 0)"
    assert program.value("workers_own") == "(50, 0)"
    assert program.value("another_changed") == "(50, 7)"
    assert program.value("hosts_new") == "(2, 7)"


def test_what_the_host_deletes_is_gone_in_every_worker(start: Start) -> None:
    program = start("""
        from forkpool import ForkPoolExecutor

        setting = 1
        class Thing:
            setting = 2

        def read():
            return setting

        def read_attribute():
            return Thing.setting

        def meet(barrier, read):
            barrier.wait()
            return read()

        import multiprocessing
        with ForkPoolExecutor(2) as ex:
            for function in (read, read_attribute):
                ex.submit(function).result()  # one worker has it, the other has not
            del setting, Thing.setting
            for function in (read, read_attribute):
                barrier = multiprocessing.get_context("spawn").Barrier(2)
                futures = [ex.submit(meet, barrier, function) for _ in range(2)]
                mark(function.__name__, [type(future.exception()).__name__ for future in futures])
        """).finish()
    assert program.value("read") == "['NameError', 'NameError']"
    assert program.value("read_attribute") == "['AttributeError', 'AttributeError']"


def test_what_runs_is_what_the_host_held_at_submit(start: Start) -> None:
    program = start("""
        from forkpool import ForkPoolExecutor

        config = {"lr": 0.1}

        def make():
            inner = {"value": 1}
            def use():
                return inner["value"]
            return inner, use

        def with_default(items=[]):
            items.append(1)
            return len(items)

        def with_attribute():
            return with_attribute.factor

        def fills(items):
            items.append(1)
            return len(items)

        inner, use = make()
        with_attribute.factor = 1
        items = []
        with ForkPoolExecutor(1) as ex:
            mark("global", ex.submit(lambda: config["lr"]).result())
            config["lr"] = 0.2
            mark("global", ex.submit(lambda: config["lr"]).result())
            mark("cell", ex.submit(use).result())
            inner["value"] = 2
            mark("cell", ex.submit(use).result())
            mark("default", [ex.submit(with_default).result() for _ in range(2)])
            mark("attribute", ex.submit(with_attribute).result())
            with_attribute.factor = 2
            mark("attribute", ex.submit(with_attribute).result())
            mark("argument", [ex.submit(fills, items).result() for _ in range(2)])
            late = ex.submit(fills, items)
            items.extend("abc")
            mark("late", late.result())
        """).finish()
    assert program.all("global") == ["0.1", "0.2"]
    assert program.all("cell") == ["1", "2"]
    assert program.value("default") == "[1, 1]"
    assert program.all("attribute") == ["1", "2"]
    assert program.value("argument") == "[1, 1]"
    assert program.value("late") == "1"


def test_a_default_that_is_a_global_is_that_global(start: Start) -> None:
    program = start("""
        import functools
        from forkpool import ForkPoolExecutor

        MISSING = object()
        REGISTRY = {}

        def get(key, default=MISSING):
            return "none given" if default is MISSING else default

        def decorate(function):
            @functools.wraps(function)
            def wrapper(*args, default=MISSING):
                return default is MISSING and function(*args)
            return wrapper

        @decorate
        def decorated(key, default=MISSING):
            return default is MISSING

        def add(key, registry=REGISTRY):
            registry[key] = 1
            return sorted(REGISTRY)

        with ForkPoolExecutor(1, initializer=add, initargs=("by the initializer",)) as ex:
            mark("get", (ex.submit(get, "a").result(), ex.submit(get, "a", 5).result()))
            mark("partial", ex.submit(functools.partial(get, "a")).result())
            mark("decorated", ex.submit(decorated, "a").result())
            mark("map", list(ex.map(get, "ab")))
            mark("add", ex.submit(add, "by a task").result())
        mark("host", REGISTRY)
        """).finish()
    assert program.value("get") == "('none given', 5)"
    assert program.value("partial") == "none given"
    assert program.value("decorated") == "True"
    assert program.value("map") == "['none given', 'none given']"
    assert program.value("add") == "['by a task', 'by the initializer']"
    assert program.value("host") == "{}"


def test_a_function_by_value_is_always_the_present_one(start: Start) -> None:
    program = start("""
        from forkpool import ForkPoolExecutor

        def helper():
            return "old"

        def task():
            return helper()

        class Thing:
            def name(self):
                return "old"

        with ForkPoolExecutor(1) as ex:
            mark("task", ex.submit(task).result())
            thing = ex.submit(Thing).result()
            def helper():
                return "new"
            mark("task", ex.submit(task).result())
            class Thing:
                def name(self):
                    return "new"
            mark("new_class", ex.submit(lambda: Thing().name()).result())
            mark("old_instance", ex.submit(lambda one: one.name(), thing).result())
        """).finish()
    assert program.all("task") == ["old", "new"]
    assert program.value("new_class") == "new"
    assert program.value("old_instance") == "old"


def test_cells_of_a_notebook(start: Start) -> None:
    """A notebook's kernel runs each cell by `exec` in the namespace of a `__main__` that it made itself."""
    program = start("""
        import linecache, types
        main = types.ModuleType("__main__")
        main.mark = mark
        sys.modules["__main__"] = main

        def cell(number, source):
            name = f"<ipython-input-{number}>"
            linecache.cache[name] = (len(source), None, source.splitlines(True), name)
            exec(compile(source, name, "exec"), main.__dict__)

        cell(1, "from forkpool import ForkPoolExecutor\\nscale = 2\\nex = ForkPoolExecutor(1)")
        cell(2, "def task(n):\\n    return n * scale")
        cell(3, "mark('first', ex.submit(task, 21).result())")
        cell(4, "scale = 3")
        cell(5, "mark('second', ex.submit(task, 21).result())")
        cell(6, "def task(n):\\n    return 'edited'")
        cell(7, "mark('third', ex.submit(task, 21).result())\\nex.shutdown()")
        """).finish()
    assert (program.value("first"), program.value("second"), program.value("third")) == ("42", "63", "edited")
