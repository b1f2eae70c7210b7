"""Fixtures of the payload tests: a fresh interpreter that plays the worker, and a notebook whose cells nobody can import."""

from __future__ import annotations

import contextlib
import linecache
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from tests.unit.worker_process import Worker


class Notebook:
    """A module that exists in `sys.modules` only, filled cell by cell."""

    def __init__(self, name: str) -> None:
        self.module = types.ModuleType(name)
        self.cells = 0

    def cell(self, source: str) -> Notebook:
        """Run a cell in the module's namespace."""
        self.cells += 1
        name = f"<{self.module.__name__}-{self.cells}>"
        linecache.cache[name] = (len(source), None, source.splitlines(True), name)
        exec(compile(dedent(source), name, "exec", dont_inherit=True), self.module.__dict__)
        return self

    def __getattr__(self, name: str) -> Any:
        return getattr(self.module, name)


def loaded(name: str) -> Iterator[Notebook]:
    """For fixtures: a notebook that is a module of that name as long as a test runs."""
    made = Notebook(name)
    sys.modules[name] = made.module
    yield made
    del sys.modules[name]


@pytest.fixture
def notebook() -> Iterator[Notebook]:
    yield from loaded("notebook_for_tests")


@pytest.fixture
def plugin() -> Iterator[Notebook]:
    """Another module that nobody can import."""
    yield from loaded("plugin_for_tests")


@pytest.fixture
def worker() -> Iterator[Worker]:
    with Worker() as process:
        yield process


@contextlib.contextmanager
def worker_with_module(folder: Path, name: str, source: str) -> Iterator[Worker]:
    """A worker that can import a module of this name, as can this process. What is put into the module is gone afterwards."""
    (folder / f"{name}.py").write_text(source)
    with pytest.MonkeyPatch.context() as patch, Worker(path=[str(folder)]) as worker:
        patch.syspath_prepend(folder)
        yield worker
    sys.modules.pop(name, None)
