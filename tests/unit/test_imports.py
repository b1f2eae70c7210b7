"""Imports go one way, and a process imports what it needs and no more.

The arrows are those of docs/design: `errors, events, config` import nothing of ours; `_core` imports those; `_shared`
imports `_core.wire`; `_child` imports `_shared`, `_core.wire` and `_core.control`, never the exception classes; `_host`
imports `_core`, `_shared`, `future`, `errors`, `events`, `config`; `executor` imports `_host` and what its own job needs;
everything else uses public names only.
"""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import forkpool

PACKAGE = Path(forkpool.__file__).parent

# who: what it may import of ours (a prefix of a module path below forkpool)
ARROWS: dict[str, tuple[str, ...]] = {
    "__init__": ("executor", "future", "errors", "_shared.current_task"),
    "errors": (),
    "events": (),
    "config": (),
    "future": ("errors", "_host.answers", "_shared.payload", "_core"),
    "_core": ("_core", "errors", "events", "config"),
    "_shared": ("_shared", "_core.wire"),
    "_child": ("_child", "_shared", "_core.wire", "_core.control"),
    "_host": ("_host", "_core", "_shared", "future", "errors", "events", "config"),
    "diagnostics": ("executor", "_host.inventory", "_host.shared_names"),
    "pytest_plugin": ("executor", "diagnostics", "integrations"),
    "integrations": ("executor", "diagnostics", "integrations"),
    "executor": ("_host", "_core", "config", "future", "errors", "events", "_shared.payload", "_shared.calls"),
}

FILES = sorted(PACKAGE.rglob("*.py"))


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def imports_of(path: Path) -> Iterator[str]:
    """Modules of ours that the file imports, also inside functions; not what is for type checkers only."""
    tree = ast.parse(path.read_text())
    for_types = {id(inner) for node in ast.walk(tree) if is_for_types(node) for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.ImportFrom):
            yield from imported_from(path, node)
        if isinstance(node, ast.Import):
            yield from (name.name[9:] for name in node.names if name.name.startswith("forkpool."))


def is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


def imported_from(path: Path, node: ast.ImportFrom) -> Iterator[str]:
    if node.level == 0:
        base = (node.module or "").split(".")
        if base[0] != "forkpool":
            return
        parts = base[1:]
    else:
        folder = list(path.relative_to(PACKAGE).parts[:-1])
        parts = folder[: len(folder) - node.level + 1] + (node.module.split(".") if node.module else [])
    for name in node.names:
        whole = [*parts, name.name]
        is_module = PACKAGE.joinpath(*whole).with_suffix(".py").exists() or PACKAGE.joinpath(*whole).is_dir()
        yield ".".join(whole if is_module or not parts else parts)


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_arrows(path: Path) -> None:
    name = module_of(path)
    allowed = ARROWS[name.split(".")[0]]
    wrong = [one for one in imports_of(path) if not any(one == arrow or one.startswith(f"{arrow}.") for arrow in allowed)]
    assert wrong == [], f"{name} may import {allowed}"


@pytest.mark.parametrize("path", [path for path in FILES if path.parent.name == "_core"], ids=module_of)
def test_the_core_is_pure(path: Path) -> None:
    """No os, sockets, threads, logging or clock."""
    impure = {"os", "socket", "threading", "logging", "time", "select", "signal", "subprocess", "asyncio", "random"}
    names = {
        name.split(".")[0]
        for node in ast.walk(ast.parse(path.read_text()))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom) and node.level == 0
            else []
        )
    }
    assert names & impure == set()


def modules_after(source: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{source}\nprint(*LIST)"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(PACKAGE.parent), *sys.path]))},
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.split())


HEAVY = {"psutil", "cloudpickle", "multiprocessing", "concurrent.futures.process", "asyncio", "ctypes", "logging", "inspect"}
LIST = "import sys; LIST = sorted(set(sys.modules) - before)"


def test_import_of_the_package_is_light() -> None:
    modules = modules_after(f"import sys; before = set(sys.modules)\nimport forkpool\n{LIST}")
    assert modules & HEAVY == set()
    assert not any(name.startswith("forkpool._") for name in modules)


def test_making_a_pool_is_light() -> None:
    modules = modules_after(
        f"import sys; before = set(sys.modules)\nfrom forkpool import ForkPoolExecutor\nForkPoolExecutor(1)\n{LIST}"
    )
    assert modules & {"psutil", "cloudpickle", "multiprocessing", "concurrent.futures.process", "ctypes"} == set()


def test_a_worker_is_light() -> None:
    modules = modules_after("""
import sys, forkpool
with forkpool.ForkPoolExecutor(1) as ex:
    LIST = ex.submit(eval, "sorted(__import__('sys').modules)").result()
""")
    assert "forkpool._child.worker" in modules
    assert "forkpool._child.fork_server" in modules
    assert modules & {"psutil", "concurrent.futures.process", "asyncio", "forkpool.errors", "forkpool.executor"} == set()
    assert not any(name.startswith("forkpool._host") for name in modules)
