"""Which modules a fresh interpreter would find: asked of the finders, never of `sys.modules`."""

from __future__ import annotations

import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from forkpool._shared.importable import is_importable, resolves


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Any:
    def load(name: str, path: Path) -> types.ModuleType:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.mark.parametrize(
    "name",
    ["builtins", "sys", "os", "os.path", "collections.abc", "json.decoder", "pytest", "forkpool._shared.payload", "zipimport"],
)
def test_modules_that_are_found(name: str) -> None:
    importlib.import_module(name)
    assert is_importable(name)


@pytest.mark.parametrize("name", [None, "__main__", "__mp_main__", "never_imported_module"])
def test_names_that_never_are(name: str | None) -> None:
    assert not is_importable(name)


def test_a_module_from_a_file_off_the_path_is_not(tmp_path: Path, install: Any) -> None:
    (tmp_path / "plugin_a.py").write_text("def f(): pass\n")
    module = install("plugin_a", tmp_path / "plugin_a.py")
    assert not is_importable("plugin_a")
    assert not resolves(module.f, "plugin_a", "f")


def test_the_same_file_on_the_path_is(tmp_path: Path, install: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "plugin_b.py").write_text("def f(): pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    module = install("plugin_b", tmp_path / "plugin_b.py")
    assert resolves(module.f, "plugin_b", "f")


def test_another_file_of_that_name_is_not(tmp_path: Path, install: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "plugin_c.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path / "one")
    install("plugin_c", tmp_path / "two" / "plugin_c.py")
    assert not is_importable("plugin_c")


def test_a_module_that_replaces_another_gets_its_own_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    import json.scanner

    assert is_importable("json.scanner")
    monkeypatch.setitem(sys.modules, "json.scanner", types.ModuleType("json.scanner"))
    assert not is_importable("json.scanner")
    del json


def test_a_module_that_is_being_imported_is_not_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is what is in such a package. The verdict comes with the end of the import."""
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "unfinished" / "part.py").write_text("")
    (tmp_path / "unfinished" / "__init__.py").write_text(
        "import unfinished.part\nfrom forkpool._shared.importable import is_importable\n"
        "DURING = is_importable('unfinished'), is_importable('unfinished.part')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("unfinished")
    names = ("unfinished", "unfinished.part")
    assert module.DURING == (False, False)
    assert [is_importable(name) for name in names] == [True, True]
    importlib.reload(module)
    assert [is_importable(name) for name in names] == [True, True]
    for name in names:
        monkeypatch.delitem(sys.modules, name)


def test_namespace_packages_are_compared_by_their_search_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "spaced" / "inner").mkdir(parents=True)
    (tmp_path / "spaced" / "inner" / "leaf.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("spaced.inner.leaf")
    assert is_importable("spaced.inner.leaf")
    for name in ("spaced", "spaced.inner", "spaced.inner.leaf"):
        monkeypatch.delitem(sys.modules, name)
