"""preload=("__main__",): the program runs once in the fork server as `__mp_main__`, and its module is the workers' `__main__`.

Runs in: pytest; each program is an interpreter of its own. See docs/reference/what-a-worker-sees.md.
"""

import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.script import PRELUDE, Script, environment

Start = Callable[..., Script]

pytestmark = pytest.mark.slow


def test_set_up_at_the_top_is_seen_by_tasks(start: Start) -> None:
    program = start("""
        import decimal, threading
        from forkpool import ForkPoolExecutor

        mark("ran_as", __name__)
        decimal.getcontext().prec = 5
        made_in = os.getpid()
        lock = threading.Lock()
        connection = open(os.devnull)
        settings = {"pid": os.getpid()}

        def third():
            return str(decimal.Decimal(1) / 3)

        def locked():
            with lock:
                return connection.fileno() >= 0

        def id_of(name):
            return id(globals()[name])

        if __name__ == "__main__":
            with ForkPoolExecutor(2, max_tasks_per_child=1, preload=("__main__",)) as ex:
                mark("third", ex.submit(third).result())
                mark("locked", ex.submit(locked).result())
                mark("same", len({ex.submit(id_of, "lock").result() for _ in range(3)}))
                mark("main", ex.submit(lambda: sys.modules["__main__"] is sys.modules["__mp_main__"]).result())
        """).finish()
    assert program.all("ran_as") == ["__main__", "__mp_main__"]
    assert program.value("third") == "0.33333"
    assert program.value("locked") == "True"
    assert program.value("same") == "1"
    assert program.value("main") == "True"


def test_the_error_of_a_call_without_it_names_it_and_it_helps(start: Start) -> None:
    program = start("""
        import threading
        from http.cookiejar import CookieJar
        from forkpool import ForkPoolExecutor

        lock = threading.Lock()
        jar = CookieJar()

        class Runner:
            def other(self):
                with lock:
                    return len(jar)

            def step(self):
                return self.other()

        def look():
            return len(jar)

        if __name__ == "__main__":
            with ForkPoolExecutor(1) as ex:
                mark("step", ex.submit(Runner().other).exception())
                mark("look", ex.submit(look).exception())
            with ForkPoolExecutor(1, preload=("__main__",)) as ex:
                mark("helps", [ex.submit(Runner().other).result(), ex.submit(look).result()])
        """).finish()
    assert program.value("step").startswith(
        "cannot send `Runner.other` to a worker: global 'lock' used by `Runner.other` is a lock"
    )
    assert program.value("look").startswith(
        "cannot send `look` to a worker: global 'jar' used by `look`: `CookieJar._cookies_lock`"
    )
    for name in ("step", "look"):
        assert program.value(name).endswith(', or give each worker its own with preload=("__main__",) and a guard')
    assert program.value("helps") == "[0, 0]"


def test_what_runs_is_what_the_host_held_at_submit(start: Start) -> None:
    """What the host changed after the top of the program counts, as without preload; what it did not change is left alone."""
    program = start("""
        from forkpool import ForkPoolExecutor

        config = {"rate": 1}
        kept = {"rate": 1}
        also_kept = kept
        only_top = os.getpid()

        def rate():
            return config["rate"]

        def is_kept():
            return kept is also_kept

        def helper():
            return "top"

        def call_helper():
            return helper()

        def pid_at_top():
            return only_top

        def default(number=1):
            return number

        if __name__ == "__main__":
            config["rate"] = 2
            def helper():
                return "guarded"
            default.__defaults__ = (5,)
            late = "guarded"
            with ForkPoolExecutor(1, preload=("__main__",)) as ex:
                mark("rate", ex.submit(rate).result())
                config["rate"] = 3
                mark("rate", ex.submit(rate).result())
                mark("kept", ex.submit(is_kept).result())
                mark("helper", ex.submit(call_helper).result())
                mark("late", ex.submit(lambda: late).result())
                mark("default", ex.submit(default).result())
                mark("pid", ex.submit(pid_at_top).result() == os.getpid())
        """).finish()
    assert program.all("rate") == ["2", "3"]
    assert program.value("kept") == "True"
    assert program.value("helper") == "guarded"
    assert program.value("late") == "guarded"
    assert program.value("default") == "5"
    assert program.value("pid") == "True"


def test_globals_that_hold_each_other(start: Start) -> None:
    """Nothing is made anew while the host holds what the program made; after a change all of them are."""
    program = start("""
        from forkpool import ForkPoolExecutor

        class App:
            def __init__(self, data):
                self.made_in, self.data, self.hits = os.getpid(), data, 0

        app, db = App(bytes(100_000)), App(b"")
        app.db, db.app = db, app
        app.made_in = db.made_in = 0
        ids = None

        def are_kept():
            return (id(app), id(db)) == ids, db.app is app, app.db is db

        def hit():
            app.hits += 1
            return db.app.hits

        if __name__ == "__main__":
            with ForkPoolExecutor(1, preload=("__main__",)) as ex:
                ids = ex.submit(lambda: (id(app), id(db))).result()
                mark("kept", ex.submit(are_kept).result())
                mark("hits", [ex.submit(hit).result() for _ in range(2)])
                mark("kept", ex.submit(are_kept).result())
                db.data = b"changed"
                mark("changed", (ex.submit(are_kept).result(), ex.submit(hit).result()))
        """).finish()
    assert program.all("kept") == ["(True, True, True)"] * 2
    assert program.value("hits") == "[1, 2]"
    assert program.value("changed") == "((False, True, True), 1)"


def test_a_change_that_is_taken_back_after_a_worker_saw_a_part_of_it(start: Start) -> None:
    program = start("""
        from forkpool import ForkPoolExecutor

        class Service: pass

        cache, service = [], Service()
        service.cache = cache

        def same():
            return service.cache is cache

        def rows():
            return len(cache)

        def unset():
            return globals().get("later")

        if __name__ == "__main__":
            import threading
            later = threading.Lock()
            with ForkPoolExecutor(1, preload=("__main__",)) as ex:
                mark("same", ex.submit(same).result())
                cache.append(1)
                mark("rows", ex.submit(rows).result())
                cache.pop()
                mark("same", ex.submit(same).result())
                mark("rows", ex.submit(rows).result())
                mark("unset", ex.submit(unset).result())
        """).finish()
    assert program.all("same") == ["True", "True"]
    assert program.all("rows") == ["1", "0"]
    assert program.value("unset") == "None"


def test_what_the_host_deletes_after_that_is_gone(start: Start) -> None:
    program = start("""
        from forkpool import ForkPoolExecutor

        MISSING = object()
        setting = 1

        class Thing:
            plain, other, empty = 1, MISSING, object()
            def method(self, default=MISSING):
                return default is MISSING

        def look(default=MISSING, empty=Thing.empty):
            assert default is MISSING and Thing().method() and empty is Thing.empty
            return globals().get("setting"), sorted({"plain", "other"} & vars(Thing).keys())

        if __name__ == "__main__":
            with ForkPoolExecutor(1, preload=("__main__",)) as ex:
                mark("before", ex.submit(look).result())
                del setting, Thing.plain
                mark("after", ex.submit(look).result())
                del Thing.other
                mark("last", ex.submit(look).result())
        """).finish()
    assert program.value("before") == "(1, ['other', 'plain'])"
    assert program.value("after") == "(None, ['other'])"
    assert program.value("last") == "(None, [])"


def test_counters_globals_of_the_initializer_and_caches(start: Start) -> None:
    program = start("""
        import functools
        from forkpool import ForkPoolExecutor

        counter = 0
        G = None
        cache = {}

        def init(value):
            global G
            G = value

        def count():
            global counter
            counter += 1
            return counter, G

        def fill(key):
            cache.setdefault(key, object())
            return len(cache)

        @functools.lru_cache
        def slow(n):
            return object()

        def twice():
            return slow(1) is slow(1)

        if __name__ == "__main__":
            with ForkPoolExecutor(1, initializer=init, initargs=(42,), preload=("__main__",)) as ex:
                mark("count", [ex.submit(count).result() for _ in range(3)])
                mark("fill", [ex.submit(fill, key).result() for key in "aab"])
                mark("cached", ex.submit(twice).result())
            mark("host", (counter, G, cache))
        """).finish()
    assert program.value("count") == "[(1, 42), (2, 42), (3, 42)]"
    assert program.value("fill") == "[1, 1, 2]"
    assert program.value("cached") == "True"
    assert program.value("host") == "(0, None, {})"


def test_classes_are_one_on_both_sides(start: Start) -> None:
    program = start("""
        import enum, pickle, threading
        from dataclasses import dataclass
        from forkpool import ForkPoolExecutor

        @dataclass
        class Point:
            x: int
            count = 0
            class Inner:
                pass

        class Color(enum.Enum):
            RED = 1

        class Locked:
            lock = threading.Lock()
            def work(self):
                with self.lock:
                    return "worked"

        origin = Point(0)
        registry = {Point: "point", Color.RED: "red"}

        def is_point(one):
            return isinstance(one, Point) and type(one) is type(origin), registry[type(one)]

        def red(color):
            return color is Color.RED, registry[color]

        def make():
            return Point(7)

        def get_origin():
            return sys.modules["__main__"].origin

        def work(one):
            return one.work()

        def count():
            return Point.count, type(origin).count

        if __name__ == "__main__":
            with ForkPoolExecutor(1, preload=("__main__",)) as ex:
                origin_of_worker = ex.submit(lambda: sys.modules["__main__"].origin).result()
                mark("never_shipped", type(origin_of_worker) is Point)
                mark("is_point", ex.submit(is_point, Point(3)).result())
                mark("red", ex.submit(red, Color.RED).result())
                mark("make", type(ex.submit(make).result()) is Point)
                mark("inner", type(ex.submit(Point.Inner).result()) is Point.Inner)
                mark("locked", ex.submit(work, Locked()).result())
                mark("color", ex.submit(lambda: Color.RED).result() is Color.RED)
                mark("plain_pickle", type(pickle.loads(ex.submit(lambda: pickle.dumps(Point(1))).result())) is Point)
                Point.count = 5
                mark("count", ex.submit(count).result())
        """).finish()
    assert program.value("never_shipped") == "True"
    assert program.value("is_point") == "(True, 'point')"
    assert program.value("red") == "(True, 'red')"
    assert program.value("make") == "True"
    assert program.value("inner") == "True"
    assert program.value("locked") == "worked"
    assert program.value("color") == "True"
    assert program.value("plain_pickle") == "True"
    assert program.value("count") == "(5, 5)"


def test_the_standard_pickle_finds_what_is_in_main(start: Start) -> None:
    """With serializer="pickle" this is the standard library's forkserver: functions of `__main__` go by name."""
    program = start("""
        from forkpool import ForkPoolExecutor, SerializationError

        class Point:
            pass

        value = "top"

        def read(one):
            return value, type(one) is Point, one

        if __name__ == "__main__":
            value = "guarded"
            with ForkPoolExecutor(1, preload=("__main__",), serializer="pickle") as ex:
                got = ex.submit(read, Point()).result()
                mark("read", got[:2])
                mark("back", type(got[2]) is Point)
                try:
                    ex.submit(lambda: 1).result()
                except SerializationError:
                    mark("refused")
        """).finish()
    assert program.value("read") == "('top', True)"
    assert program.value("back") == "True"
    assert program.all("refused") == [""]


def test_what_cannot_be_pickled_and_is_not_there(start: Start) -> None:
    program = start("""
        import threading
        from forkpool import ForkPoolExecutor

        def use():
            return lock.locked()

        if __name__ == "__main__":
            lock = threading.Lock()
            with ForkPoolExecutor(1, preload=("__main__",)) as ex:
                mark("error", ex.submit(use).exception())
                mark("after", ex.submit(lambda: 1).result())
        """).finish()
    assert "global 'lock' is not in this worker: it (a lock) cannot be pickled" in program.value("error")
    assert program.value("after") == "1"


def test_without_a_guard_the_error_names_it(start: Start) -> None:
    program = start(
        """
        from forkpool import ForkPoolExecutor
        with ForkPoolExecutor(1, preload=("__main__",)) as ex:
            ex.submit(len, "x").result()
        """
    ).finish(status=1)
    assert "RuntimeError" in program.errors
    assert 'if __name__ == "__main__"' in program.errors


def test_a_program_that_fails(start: Start) -> None:
    program = start("""
        from forkpool import ForkPoolExecutor
        if __name__ == "__mp_main__":
            raise LookupError("not here")
        with ForkPoolExecutor(1, preload=("__main__",)) as ex:
            try:
                ex.submit(len, "x")
            except LookupError as error:
                mark("error", error)
                mark("where", "program.py" in str(error.__cause__))
        """).finish()
    assert program.value("error") == "not here"
    assert program.value("where") == "True"


@pytest.mark.parametrize("how", ["-c", "stdin"])
def test_a_program_that_is_no_file(start: Start, how: str) -> None:
    program = start(
        """
        from forkpool import ForkPoolExecutor
        try:
            ForkPoolExecutor(1, preload=("__main__",))
        except ValueError as error:
            mark("error", error)
        """,
        how,
    ).finish()
    assert "this one is no file" in program.value("error")


SIMPLE = """
from forkpool import ForkPoolExecutor
name_at_top = __name__

def read():
    return sys.modules["__main__"].name_at_top, __file__

if __name__ == "__main__":
    with ForkPoolExecutor(1, preload=("__main__",)) as ex:
        mark("read", ex.submit(read).result()[0])
"""


@pytest.mark.parametrize("how", ["module", "package", "folder", "zip", "relative file"])
def test_every_way_to_start_a_program(how: str, tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    for name in ("__main__.py", "program.py"):
        (package / name).write_text(PRELUDE + SIMPLE)
    with zipfile.ZipFile(tmp_path / "program.zip", "w") as archive:
        archive.write(package / "__main__.py", "__main__.py")
    arguments = {
        "module": ["-m", "package.program"],
        "package": ["-m", "package"],
        "folder": ["package"],
        "zip": ["program.zip"],
        "relative file": ["package/program.py"],
    }[how]
    done = subprocess.run([sys.executable, *arguments], cwd=tmp_path, env=environment({}), capture_output=True, text=True)
    assert done.stdout.split() == ["MARK", "read", "__mp_main__"], done.stderr
    assert not list(tmp_path.glob("package/__pycache__/program*")) or how == "module"
