"""Dicts, lists and sets that the program imported from a module by name: one object with the module's, in a worker too."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from forkpool._shared import held_by_modules
from forkpool._shared.explain import PayloadError
from tests.unit.conftest import Notebook, worker_with_module
from tests.unit.worker_process import Worker

MODULE = """
settings, done, seen = {"from": "module"}, [], {"module"}

import threading

lock = threading.Lock()

def guarded(): return lock

class Counter:
    n = 0

MISSING, counter, parts = object(), Counter(), {"a": 1}
defaults = {"missing": MISSING, "counter": counter, "parts": parts, "n": 1}
in_turn = [counter, parts]

def count():
    defaults["counter"].n += 1
    return defaults["counter"].n

def put(key):
    settings[key] = True
    done.append(key)
    seen.add(key)

def look():
    return sorted(settings), done, sorted(seen)
"""

PROGRAM = """
    import holder
    from holder import done as finished, look, put, seen, settings
    def task(key):
        put(key)
        return sorted(settings), finished, sorted(seen)
    def are_one():
        return settings is holder.settings, finished is holder.done, seen is holder.seen
    def both(): return (sorted(settings), finished, sorted(seen)), look()
    def returns(): return lambda: settings
"""


@pytest.fixture
def holder_worker(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Worker]:
    """A module and a worker for one test: what the test puts into the module is gone with it."""
    folder = tmp_path_factory.getbasetemp() / "holder"  # the same for all: which file a module has is looked at once
    folder.mkdir(exist_ok=True)
    monkeypatch.setattr(held_by_modules, "_seen", held_by_modules._Seen({}))
    with worker_with_module(folder, "holder", MODULE) as worker:
        yield worker


@pytest.fixture
def program(notebook: Notebook, holder_worker: Worker) -> Notebook:
    return notebook.cell(PROGRAM)


def test_what_the_modules_functions_put_in_is_seen_by_the_programs(program: Notebook, holder_worker: Worker) -> None:
    assert holder_worker.call(program.task, "a") == (["a", "from"], ["a"], ["a", "module"])
    assert holder_worker.call(program.task, "b") == (["a", "b", "from"], ["a", "b"], ["a", "b", "module"])
    assert holder_worker.call(program.are_one) == (True, True, True)
    assert program.holder.settings == {"from": "module"}


def test_what_the_program_put_in_is_seen_by_the_modules_functions(program: Notebook, holder_worker: Worker) -> None:
    program.settings["more"] = True
    program.finished.append("done")
    program.seen.add("program")
    expected = (["from", "more"], ["done"], ["module", "program"])
    assert holder_worker.call(program.both) == (expected, expected)
    del program.settings["from"]
    program.finished.insert(0, "first")
    program.seen.discard("module")
    expected = (["more"], ["first", "done"], ["program"])
    assert holder_worker.call(program.both) == (expected, expected)
    assert holder_worker.call(program.are_one) == (True, True, True)


def test_what_the_workers_own_code_put_in_before_stays(program: Notebook, holder_worker: Worker) -> None:
    """As an initializer does that fills a cache of its module."""
    holder_worker.call(program.put, "init")
    expected = (["from", "init"], ["init"], ["init", "module"])
    assert holder_worker.call(program.both) == (expected, expected)
    assert holder_worker.call(program.look) == expected
    assert "init" not in program.settings


def test_what_cannot_be_compared_is_replaced(program: Notebook, holder_worker: Worker) -> None:
    np = pytest.importorskip("numpy")
    holder_worker.call(program.put, np.zeros(2).tobytes())
    program.finished.append(np.ones(2))
    program.cell("def total(): return float(sum(part.sum() for part in finished)), finished is holder.done")
    assert holder_worker.call(program.total) == (2.0, True)


def test_a_second_name_of_one(program: Notebook, holder_worker: Worker) -> None:
    program.cell("""
        also, numbers = settings, finished
        class Holds:
            def __init__(self): self.settings = settings
        holds = Holds()
        def second(): return dict(also), numbers, also is holder.settings, numbers is holder.done
        def held(): return dict(holds.settings), holds.settings is also
    """)
    program.finished.append(1)
    for name in ("second", "held", "second"):
        expected = {"second": ({"from": "module"}, [1], True, True), "held": ({"from": "module"}, True)}
        assert holder_worker.call(getattr(program, name)) == expected[name]


def test_objects_that_the_module_has_too_stay_its_own(program: Notebook, holder_worker: Worker) -> None:
    program.cell("""
        from holder import defaults, count, in_turn, parts, counter
        def named(): return len(defaults), len(in_turn)
        def resolve(): return count(), defaults["missing"] is holder.MISSING, in_turn == [holder.counter, holder.parts]
        def nested(): return defaults["parts"] is holder.parts, parts["a"]
    """)
    program.parts["a"] = 2
    for _ in range(2):
        assert holder_worker.call(program.named) == (4, 2)
        assert holder_worker.call(program.resolve)[1:] == (True, True)
        assert holder_worker.call(program.nested) == (True, 2)
    assert holder_worker.call(program.resolve)[0] == 3
    program.defaults["counter"] = program.holder.Counter()
    assert holder_worker.call(program.resolve)[0] == 1


def test_a_result_leaves_the_hosts_modules_alone(program: Notebook, holder_worker: Worker) -> None:
    holder_worker.call(program.task, "a")
    returned = holder_worker.call(program.returns)
    assert returned() is program.settings
    assert program.settings == program.holder.settings == {"from": "module"}


def test_what_the_module_does_not_hold_any_more_is_the_programs_alone(program: Notebook, holder_worker: Worker) -> None:
    assert holder_worker.call(program.are_one) == (True, True, True)
    program.holder.settings = {"another": 1}
    assert holder_worker.call(program.are_one) == (False, True, True)
    assert holder_worker.call(program.both)[0] == (["from"], [], ["module"])


def test_a_module_that_changed_its_mind_about_the_kind_keeps_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    import json

    for held in ("a string", [1]):
        monkeypatch.setattr(json, "kept", held, raising=False)
        content: dict[str, Any] = {"a": 1}
        assert held_by_modules.fill("json", "kept", content) is content
        assert json.kept == held  # type: ignore[attr-defined]
    assert held_by_modules.fill("json", "missing", content) is content


def test_what_is_imported_later_is_found(program: Notebook) -> None:
    assert held_by_modules.place_of(program.settings, "settings") == ("holder", "settings")
    assert held_by_modules.place_of({}, "settings") is None
    sys.modules["made_for_tests"] = type(sys)("made_for_tests")
    try:
        assert held_by_modules.place_of(program.finished, "finished") == ("holder", "done")
    finally:
        del sys.modules["made_for_tests"]


def test_what_a_reloaded_module_made_anew_is_found(program: Notebook, holder_worker: Worker) -> None:
    assert holder_worker.call(program.are_one) == (True, True, True)
    importlib.reload(program.holder)
    program.cell("from holder import look, put, seen, settings")
    program.settings["reloaded"] = True
    assert holder_worker.call(program.are_one) == (True, False, True)
    assert holder_worker.call(program.both)[1] == (["from", "reloaded"], [], ["module"])


def test_what_cannot_be_pickled_is_taken_from_the_module_that_has_it_too(program: Notebook, holder_worker: Worker) -> None:
    program.cell("""
        from holder import lock, guarded
        import threading
        mine = threading.Lock()
        def same(): return lock is holder.lock, guarded() is lock, lock.locked()
        def other(): return mine.locked()
    """)
    with program.lock:
        assert holder_worker.call(program.same) == (True, True, False)
    with pytest.raises(PayloadError, match="global 'mine' used by `other` is a lock"):
        holder_worker.call(program.other)
