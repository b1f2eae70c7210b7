"""Modules are seen when they are imported, and look afterwards as if nobody had.

Runs in: pytest; modules are written for each test.
"""

import importlib
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from forkpool._shared.on_import import ImportWatch


@pytest.fixture
def watch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ImportWatch]:
    before = set(sys.modules)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    monkeypatch.syspath_prepend(tmp_path)
    watch = ImportWatch()
    watch.install()
    yield watch
    for name in set(sys.modules) - before:
        del sys.modules[name]


def write(folder: Path, name: str, source: str) -> str:
    (folder / f"{name}.py").write_text(source)
    importlib.invalidate_caches()
    return name


def test_an_action_runs_once_when_the_module_is_complete(watch: ImportWatch, tmp_path: Path) -> None:
    name = write(tmp_path, "seen_later", "value = 1\n")
    values: list[int] = []
    watch.when_imported(name, lambda module: values.append(module.value))
    assert values == []
    module = importlib.import_module(name)
    importlib.reload(module)
    assert values == [1]


def test_an_action_runs_at_once_when_the_module_is_there(watch: ImportWatch) -> None:
    seen: list[ModuleType] = []
    watch.when_imported("inspect", seen.append)
    assert seen == [inspect]


def test_the_module_shows_no_trace(watch: ImportWatch, tmp_path: Path) -> None:
    name = write(tmp_path, "without_trace", "def function():\n    return 1\n")
    watch.when_imported(name, lambda module: None)
    module = importlib.import_module(name)
    assert module.__spec__ is not None
    assert module.__loader__ is module.__spec__.loader
    assert "exec_module" not in vars(module.__loader__)
    assert "return 1" in inspect.getsource(module.function)


def test_other_modules_are_not_ours(watch: ImportWatch) -> None:
    watch.when_imported("wanted", lambda module: None)
    assert watch.find_spec("colorsys") is None


def test_a_module_that_nobody_finds(watch: ImportWatch) -> None:
    watch.when_imported("there_is_none", lambda module: None)
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("there_is_none")


def test_a_module_that_fails_may_be_imported_again(watch: ImportWatch, tmp_path: Path) -> None:
    name = write(tmp_path, "fails_once", "import fails_if_absent\n")
    seen: list[str] = []
    watch.when_imported(name, lambda module: seen.append(module.__name__))
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module(name)
    write(tmp_path, "fails_if_absent", "")
    importlib.import_module(name)
    assert seen == [name]


def test_an_action_that_fails_does_not_fail_the_import(watch: ImportWatch, tmp_path: Path) -> None:
    name = write(tmp_path, "imported_all_the_same", "")
    watch.when_imported(name, lambda module: module.no_such_thing)
    with pytest.warns(RuntimeWarning, match="could not set up imported_all_the_same: AttributeError"):
        importlib.import_module(name)
