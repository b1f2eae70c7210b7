"""Functions, closures and modules that no other process could import."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from forkpool._shared.payload import CallEncoder
from forkpool._shared.session import Session
from tests.unit.conftest import Notebook
from tests.unit.worker_process import Worker


def test_a_lambda_with_a_closure(worker: Worker) -> None:
    offset = 5
    assert worker.call(lambda x: x + offset, 2) == 7


def test_a_local_function_that_calls_itself(worker: Worker) -> None:
    def factorial(n: int) -> int:
        return 1 if n == 0 else n * factorial(n - 1)

    assert worker.call(factorial, 5) == 120


def test_two_closures_of_one_call_share_their_variable(worker: Worker) -> None:
    count = 0

    def bump() -> None:
        nonlocal count
        count += 1

    def read() -> int:
        return count

    def both(first: Any, second: Any) -> Any:
        first()
        return second()

    assert worker.call(both, bump, read) == 1
    assert count == 0


def test_an_empty_cell_stays_empty(worker: Worker) -> None:
    if sys.maxsize < 0:
        later = 1

    def read() -> int:
        return later

    with pytest.raises(NameError, match="later"):
        worker.call(read)


def test_attributes_annotations_and_names_of_a_function(notebook: Notebook, worker: Worker) -> None:
    notebook.cell("""
        def f(a: int, *, b: str = "x") -> bytes:
            "doc"
        f.tag = 3
        def facts():
            return f.tag, f.__annotations__, f.__kwdefaults__, f.__doc__, f.__qualname__, f.__module__
    """)
    expected = (3, {"a": int, "b": str, "return": bytes}, {"b": "x"}, "doc", "f", "notebook_for_tests")
    assert worker.call(notebook.facts) == expected


def test_a_function_that_comes_back_is_the_hosts(notebook: Notebook, worker: Worker) -> None:
    notebook.cell("""
        def f(): pass
        def give(): return f
    """)
    assert worker.call(notebook.give) is notebook.f


def test_a_lambda_made_in_the_worker_works_in_the_host(notebook: Notebook, worker: Worker) -> None:
    notebook.cell("""
        base = 10
        def make(n): return lambda x: x + n + base
    """)
    made = worker.call(notebook.make, 1)
    notebook.cell("base = 20")
    assert made(2) == 23


def test_a_wrapper_of_an_importable_decorator_runs_on_that_modules_globals(worker: Worker) -> None:
    from contextlib import contextmanager

    @contextmanager
    def manager() -> Any:
        yield 5

    def use() -> int:
        with manager() as value:
            return int(value)

    assert worker.call(use) == 5


def test_a_submodule_reached_as_an_attribute_is_imported(notebook: Notebook, worker: Worker) -> None:
    notebook.cell("""
        import xml.etree.ElementTree
        def tag(): return xml.etree.ElementTree.fromstring("<a/>").tag
    """)
    assert worker.call(notebook.tag) == "a"


@pytest.mark.skipif(sys.version_info < (3, 12), reason="the syntax of type parameters came with Python 3.12")
def test_globals_that_type_parameters_and_aliases_name(notebook: Notebook, worker: Worker) -> None:
    notebook.cell("""
        LIMIT = 3
        def alias():
            class Table:
                type Row = list[LIMIT]
            return str(Table.Row.__value__)
        def bound():
            class Table:
                def get[Row: (LIMIT, str)](self, row: Row) -> Row: ...
            return Table.get.__type_params__[0].__constraints__
    """)
    assert worker.call(notebook.alias) == "list[3]"
    assert worker.call(notebook.bound) == (3, str)


@pytest.mark.parametrize(
    "body",
    ["return notebook_for_tests.helper()", "from notebook_for_tests import helper; return helper()"],
    ids=["attribute", "from"],
)
def test_a_module_shipped_by_value_is_there_for_import_statements(notebook: Notebook, worker: Worker, body: str) -> None:
    notebook.cell("K = 5\ndef helper(): return K + 1")
    namespace: dict[str, Any] = {"__name__": "elsewhere"}
    exec(f"def f():\n    import notebook_for_tests\n    {body}\n", namespace)
    assert worker.call(namespace["f"]) == 6


def test_a_module_shipped_by_value_as_an_argument(notebook: Notebook, worker: Worker) -> None:
    notebook.cell("K = 5\ndef helper(): return K + 1")
    assert worker.call(lambda module: module.helper(), notebook.module) == 6
    assert worker.call(lambda module: module, notebook.module) is notebook.module


@pytest.mark.parametrize("name", ["partial", "singledispatch", "cached", "staticmethod", "classmethod", "bound", "callable"])
def test_special_callables(notebook: Notebook, worker: Worker, name: str) -> None:
    notebook.cell("""
        import functools
        def add(a, b): return a + b
        partial = functools.partial(add, 1)
        @functools.singledispatch
        def singledispatch(x): return "object"
        @singledispatch.register
        def _(x: int): return x + 1
        @functools.cache
        def cached(x): return x + 1
        class Adder:
            by = 1
            def bound(self, x): return x + self.by
            @classmethod
            def classmethod(cls, x): return x + cls.by
            @staticmethod
            def staticmethod(x): return x + Adder.by
            def __call__(self, x): return x + self.by
        bound, classmethod, staticmethod, callable = Adder().bound, Adder.classmethod, Adder.staticmethod, Adder()
    """)
    fn = getattr(notebook, name)
    assert worker.call(fn, 1) == 2
    assert worker.call(lambda f, x: f(x), fn, 1) == 2
    assert worker.call(lambda f: f, fn)(1) == 2


SCRIPT = """
import sys
sys.path[:0] = {path!r}
from tests.unit.worker_process import Worker
STATE = 1
class Point:
    def __init__(self, x): self.x = x
def move(point):
    global STATE
    STATE += 1
    return Point(point.x + STATE)
with Worker() as worker:
    first, second = worker.call(move, Point(1)), worker.call(move, Point(1))
    print(type(first) is Point, first.x, second.x, STATE, worker.call(lambda: __name__))
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", ["file", "-c", "stdin"])
def test_functions_of_main_need_no_guard(how: str, tmp_path: Path) -> None:
    source = SCRIPT.format(path=[str(Path(__file__).parents[2]), str(Path(__file__).parents[2] / "src")])
    script = tmp_path / "script.py"
    script.write_text(source)
    command = {"file": [str(script)], "-c": ["-c", source], "stdin": ["-"]}[how]
    done = subprocess.run([sys.executable, *command], input=source, text=True, capture_output=True, check=False)
    assert (done.stdout.split(), done.stderr) == (["True", "3", "4", "1", "__main__"], "")


def test_pickling_may_be_reentered_from_user_code() -> None:
    encoder = CallEncoder()
    payloads = []

    class Reenters:
        def __reduce__(self) -> Any:
            payloads.append(encoder.encode(lambda: 1, (), {}))
            return int, (3,)

    payloads.append(encoder.encode(lambda x: x, (Reenters(),), {}))
    assert len(payloads) == 2


def test_threads_that_encode_at_the_same_time_agree_on_ids_and_digests(notebook: Notebook) -> None:
    notebook.cell("""
        cache = {"a": [1]}
        class Point: pass
        def f(): return cache, Point
    """)
    seen = set()

    def encode() -> None:
        for _ in range(50):
            session = Session()
            session.encode(notebook.f)
            seen.add(tuple((entry[0], entry[2]) for entry in session.table()))

    threads = [threading.Thread(target=encode) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 1


class Interrupted(BaseException):
    pass


def interrupt_at(line: int, run: Any) -> bool:
    """Run something and raise at the n-th line of our code; return whether it got that far."""
    left = line

    def trace(frame: Any, event: str, _: Any) -> Any:
        nonlocal left
        if "forkpool" not in frame.f_globals.get("__name__", ""):
            return None
        left -= event == "line"
        if left == 0:
            sys.settrace(None)
            raise Interrupted
        return trace

    gc.disable()  # what is raised in a weakref callback that runs meanwhile goes nowhere
    sys.settrace(trace)
    try:
        run()
    except Interrupted:
        return True
    finally:
        sys.settrace(None)
        gc.enable()
    return False


@pytest.mark.slow
def test_an_exception_at_any_line_of_encode_leaves_nothing_behind(notebook: Notebook, worker: Worker) -> None:
    from multiprocessing import context

    notebook.cell("""
        cache = {"a": [1]}
        class Point:
            def __init__(self): self.cache = cache
        def f(x): return Point().cache["a"], x
    """)

    def encode() -> None:
        worker.encoder.encode(notebook.f, ([{}],), {})

    lines = 1
    while interrupt_at(lines, encode):
        assert context.get_spawning_popen() is None  # type: ignore[attr-defined]
        lines += 1
    assert lines > 100
    assert worker.call(notebook.f, [{}]) == ([1], [{}])
