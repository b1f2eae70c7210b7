"""Imports go one way, and a process imports what it needs and no more.

The arrows, and why some are not in the first design, are in docs/design/tour.md, section "Who may import whom".
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
    "__init__": (),  # when imported; for what it hands out see `test_public_names_come_from_public_modules`
    "errors": (),
    "events": (),
    "config": ("_callables",),
    "_callables": (),
    "_lazy_future": (),
    "_unpickling": (),
    "future": ("_lazy_future", "_unpickling"),
    "_core": ("_core", "errors", "events", "config"),
    "_shared": ("_shared", "_core.wire", "errors"),
    "_child": ("_child", "_shared", "_core.wire", "_core.control"),
    "_host": ("_host", "_core", "_shared", "_unpickling", "future", "errors", "events", "config"),
    "diagnostics": ("executor", "_host.inventory", "_host.ledger", "_host.shared_names", "_shared.clock"),
    "pytest_plugin": ("executor", "diagnostics", "integrations"),
    "integrations": ("executor", "diagnostics", "integrations", "_shared.clock"),
    "cli": ("",),  # it imports commands by name, and asks the package for its version
    "__main__": ("cli",),
    "doctor": ("executor", "diagnostics", "_host", "config", "_shared.clock"),
    "_run": ("_run", "executor", "_host.ledger", "_shared.on_import"),
    "executor": ("_views", "_host", "config", "events"),
    "_views": ("_host", "_callables", "config", "future", "_shared.calls", "_shared.clock"),
}
# Beyond the first design. Each is in use, or it goes.
LATER_ARROWS = [
    ("_child", "_core.control"),
    ("_shared", "errors"),
    ("_run", "_shared.on_import"),
    ("_run", "_host.ledger"),
    *(("executor", name) for name in ("_views", "config", "events")),
    *((name, "_shared.clock") for name in ("_views", "diagnostics", "doctor", "integrations")),
    *(("_views", name) for name in ("_callables", "config", "future", "_shared.calls")),
]

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


def test_arrows_beyond_the_design_are_in_use() -> None:
    used = {(module_of(path).split(".")[0], target) for path in FILES for target in imports_of(path)}
    assert set(LATER_ARROWS) <= used


def test_public_names_come_from_public_modules() -> None:
    homes = {forkpool._HOMES.get(name, "errors") for name in forkpool.__all__}
    assert homes == {"executor", "future", "errors", "events", "_shared.current_task"}


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


# A `sitecustomize` of the fork server and, forked from it, the worker: each tells what it has imported.
TELLS = """
import os, sys
os.register_at_fork(before=lambda: open({path!r}, "w").write("\\n".join(sys.modules)))
"""
NEVER_IN_CHILDREN = {
    "asyncio", "concurrent", "ctypes", "email", "http", "json", "numpy", "psutil", "random", "shutil", "sqlite3", "ssl",
    "subprocess", "tempfile", "unittest", "urllib",
}  # fmt: skip
MULTIPROCESSING = {"context", "process", "reduction"}  # docs/reference/what-a-worker-sees.md, row `multiprocessing`


@pytest.fixture(scope="module")
def in_children(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """What a fork server has imported before its fork, and the worker after tasks of each kind, beyond a bare interpreter."""
    folder = tmp_path_factory.mktemp("tells")
    (folder / "sitecustomize.py").write_text(TELLS.format(path=str(folder / "server")))
    worker = modules_after(f"""
import os, sys, forkpool
path = os.pathsep.join([{str(folder)!r}, os.environ["PYTHONPATH"]])
with forkpool.ForkPoolExecutor(pin=[min(os.sched_getaffinity(0))], env={{"PYTHONPATH": path}}) as ex:
    assert type(ex.submit(lambda: 1 / 0).exception()) is ZeroDivisionError
    assert ex.submit(lambda: (lambda: 7)).result()() == 7
    LIST = ex.submit(eval, "list(__import__('sys').modules)").result()
""")
    bare = modules_after("import sys; LIST = list(sys.modules)") | {"sitecustomize"}
    return {"server": set((folder / "server").read_text().split()) - bare, "worker": worker - bare}


@pytest.mark.parametrize("who", ["server", "worker"])
def test_children_are_light(who: str, in_children: dict[str, set[str]]) -> None:
    modules = in_children[who]
    heavy = {name for name in modules if name.split(".")[0] in NEVER_IN_CHILDREN}
    assert heavy == {"psutil._psutil_linux"}  # its compiled part binds the worker; the package is not needed
    ours = {name for name in modules if name.startswith("forkpool.")}
    assert {"forkpool._child.fork_server", "forkpool._child.worker"} <= ours
    allowed = ("forkpool._child", "forkpool._shared", "forkpool._core.wire", "forkpool._core.control")
    assert {name for name in ours if not name.startswith(allowed) and name != "forkpool._core"} == set()
    of_family = {name.partition(".")[2] for name in modules if name.startswith("multiprocessing.")}
    assert of_family == MULTIPROCESSING


def test_a_worker_imports_nothing_that_its_fork_server_could_have(in_children: dict[str, set[str]]) -> None:
    assert in_children["worker"] - in_children["server"] == set()


def test_what_a_host_has_imported_after_its_tasks() -> None:
    modules = modules_after(f"""
import sys; before = set(sys.modules)
import forkpool
with forkpool.ForkPoolExecutor(1) as ex:
    assert ex.submit(abs, -7).result() == 7
{LIST}""")
    assert modules & {"asyncio", "concurrent.futures.process", "multiprocessing.pool", "multiprocessing.connection"} == set()
