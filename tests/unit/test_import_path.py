"""Where modules are found: in absolute terms, as of now, and with what is gone from `sys.path`."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

from forkpool._shared import import_path
from forkpool._shared.decoding import CallDecoder
from forkpool._shared.importable import is_importable
from forkpool._shared.payload import CallEncoder
from tests.unit.worker_process import Worker


@pytest.fixture(autouse=True)
def _forget(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What these tests import is gone for the others."""
    kept, loaded = list(import_path._kept), set(sys.modules)
    yield
    import_path._kept[:] = kept
    for name in set(sys.modules) - loaded:
        del sys.modules[name]


def write(folder: Path, name: str) -> str:
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.py").write_text("def f(): return __file__\n")
    importlib.invalidate_caches()
    return str(folder)


def test_a_relative_entry_follows_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    monkeypatch.setattr(sys, "path", ["", "lib", *sys.path])
    for folder in ("a", "b", "a"):
        monkeypatch.chdir(tmp_path / folder)
        assert import_path.look().path[:2] == [str(tmp_path / folder), str(tmp_path / folder / "lib")]


def test_a_relative_entry_that_was_searched_means_what_the_interpreter_takes_it_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It keeps the finder that it made first, also after a change of the working directory."""
    write(tmp_path / "lib", "searched_once")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["lib", *sys.path])
    importlib.import_module("searched_once")
    monkeypatch.chdir("/")
    assert importlib.util.find_spec("searched_once") is not None
    assert import_path.look().path[0] == str(tmp_path / "lib")
    del sys.path_importer_cache["lib"]


def test_the_working_directory_is_asked_for_only_if_it_matters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if os.path.isabs(entry)])
    encoder = CallEncoder()
    encoder.encode(len, ("a",), {})
    monkeypatch.setattr(os, "getcwd", lambda: pytest.fail("asked"))
    encoder.encode(len, ("a",), {})


def test_a_working_directory_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    assert import_path.look().path[0] == ""


def test_an_entry_by_which_a_module_was_found_stays_behind_all_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The idiom: insert, import, remove. Nothing was gained by the entry that no module was taken from."""
    used, unused = write(tmp_path / "used", "taken_from_used"), write(tmp_path / "unused", "never_taken")
    before = import_path.look().path
    encoder = CallEncoder()
    encoder.path_of_calls()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "path", [used, unused, *before])
        module = importlib.import_module("taken_from_used")
        assert is_importable("taken_from_used")
    assert import_path.look().path == [*before, used]
    assert is_importable("taken_from_used")
    here = list(before)
    monkeypatch.setattr(sys, "path", here)
    payload = encoder.encode(module.f, (), {})
    CallDecoder(before).decode(payload)
    assert here == [*before, used]


def test_folders_of_a_namespace_package_stay_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder / "in_two_places").mkdir(parents=True)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "path", [str(tmp_path / "one"), str(tmp_path / "two"), *sys.path])
        importlib.import_module("in_two_places")
        assert is_importable("in_two_places")
    assert import_path.look().path[-2:] == [str(tmp_path / "one"), str(tmp_path / "two")]


def test_a_module_that_another_file_hides_now_goes_by_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = write(tmp_path / "old", "in_both"), write(tmp_path / "new", "in_both")
    monkeypatch.setattr(sys, "path", [old, *sys.path])
    importlib.import_module("in_both")
    assert is_importable("in_both")
    sys.path.insert(0, new)
    import_path.look()
    assert not is_importable("in_both")
    sys.path.remove(new)
    import_path.look()
    assert not is_importable("in_both")  # a worker may have it by value: it does not become another thing


def test_a_function_that_was_sent_before_does_not_find_the_other_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is reused of it says that the module is imported."""
    old, new = write(tmp_path / "old", "in_both_places"), write(tmp_path / "new", "in_both_places")
    monkeypatch.setattr(sys, "path", [old, *sys.path])
    module = types.ModuleType("uses_in_both_places")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec("import in_both_places\ndef f(): return in_both_places.f()", vars(module))
    with Worker(path=[old]) as worker:
        assert [worker.call(module.f) for _ in range(3)] == [f"{old}/in_both_places.py"] * 3
    sys.path.insert(0, new)
    with Worker(path=[new, old]) as worker:
        assert [worker.call(module.f) for _ in range(2)] == [f"{old}/in_both_places.py"] * 2


def test_an_entry_that_is_no_folder_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hook of setuptools takes such entries of packages that are installed in editable mode."""

    class Finder:
        def find_spec(self, name: str) -> None: ...

    entry = "__editable__.for_tests.finder.__path_hook__"
    monkeypatch.setattr(sys, "path", [*sys.path, entry])
    monkeypatch.setitem(sys.path_importer_cache, entry, Finder())
    assert entry in import_path.look().path


def test_a_module_whose_file_is_gone_stays_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path / "fleeting", "file_is_gone")
    monkeypatch.setattr(sys, "path", [folder, *sys.path])
    importlib.import_module("file_is_gone")
    assert is_importable("file_is_gone")
    (tmp_path / "fleeting" / "file_is_gone.py").unlink()
    sys.path.append("/added/later")
    import_path.look()
    assert is_importable("file_is_gone")
