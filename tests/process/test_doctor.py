"""`python -m forkpool doctor`: the pool that it tries, and what it finds on this machine.

Runs in: programs of their own.
"""

import json
import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from forkpool import ForkPoolExecutor
from tests.docs.markdown import ROOT
from tests.support import tasks
from tests.support.script import PACKAGE

pytestmark = pytest.mark.usefixtures("own_claims")
PAGE = ROOT / "docs" / "reference" / "doctor.md"


def doctor(*words: str, before: str = "", folder: Path | None = None, **environ: str) -> tuple[int, str]:
    """Exit status and output. `before` runs first in that process."""
    program = (
        f"{before}\nimport sys\nfrom forkpool.cli import main\nsys.argv = ['forkpool', 'doctor', *{list(words)!r}]\nmain()"
    )
    command = [sys.executable, "-c", program] if before else [sys.executable, "-m", "forkpool", "doctor", *words]
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(PACKAGE), **environ},
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""
    return done.returncode, done.stdout


def report(*words: str, status: int = 0, **more: Any) -> dict[str, Any]:
    code, text = doctor("--json", *words, **more)
    assert code == status, text
    found: dict[str, Any] = json.loads(text)
    return found


def test_a_pool_works_here() -> None:
    found = report()
    assert found["schema"] == 1
    assert found["works"] is True
    assert found["executable"] == sys.executable
    assert found["free_threaded"] is bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
    assert found["cpus"]["affinity"] == sorted(os.sched_getaffinity(0))
    first = found["first_result"]
    assert first["seconds"] > first["next"] > 0
    assert first["error"] is None
    assert found["limits"]["descriptors"]["soft"] is not None
    assert found["pin"]["reason"].startswith("pin='auto'")
    assert len(found["pin"]["slots"]) == found["cpus"]["usable"]


def test_the_text_is_made_of_the_same() -> None:
    code, text = doctor()
    assert code == 0
    assert re.search(r"^a pool  works: first result after \d", text, re.MULTILINE)
    assert re.search(r"^CPUs    \d+ usable: the affinity mask has", text, re.MULTILINE)


def test_who_holds_claims() -> None:
    cpu = min(os.sched_getaffinity(0))
    with ForkPoolExecutor(pin=[cpu]) as ex:
        ex.submit(tasks.pid).result()
        found = report()
    assert found["claims"]["cpus"][str(cpu)]["pid"] == os.getpid()
    assert found["claims"]["of_others"] == []


def test_threads_that_a_preloaded_module_leaves(tmp_path: Path) -> None:
    (tmp_path / "leaves_a_thread.py").write_text(
        "import threading\nthreading.Thread(target=threading.Event().wait, name='stays', daemon=True).start()\n"
    )
    found = report("--preload", "leaves_a_thread", folder=tmp_path)["preload"]
    assert found["modules"] == ["leaves_a_thread"]
    assert found["threads"] == 2
    assert "'stays', left by preload 'leaves_a_thread'" in found["warnings"][0]


def test_where_no_pool_works() -> None:
    found = report(before="import os; del os.memfd_create", status=1)
    assert found["works"] is False
    assert "forkpool needs Linux" in found["first_result"]["error"]
    (memfd,) = [one for one in found["kernel"] if one["name"] == "memfd"]
    assert not memfd["present"]
    assert any("forkpool.InlineExecutor" in line for line in found["advice"])
    code, text = doctor("--preload", "no_such_module")
    assert code == 1
    assert "a pool  does not work here: ModuleNotFoundError" in text


def test_inline_does_not_deceive_it() -> None:
    found = report(FORKPOOL_INLINE="1")
    assert found["inline"] is True
    assert found["preload"]["threads"] == 1, "there was a fork server"
    assert any("FORKPOOL_INLINE=1 is set" in line for line in found["advice"])


def keys(value: Any) -> set[str]:
    if isinstance(value, list):
        return set().union(*map(keys, value)) if value else set()
    if not isinstance(value, dict):
        return set()
    return {key for key in value if not key.isdigit()}.union(*map(keys, value.values()))


def test_every_key_is_documented() -> None:
    with ForkPoolExecutor(pin=[min(os.sched_getaffinity(0))]) as ex:
        ex.submit(tasks.pid).result()
        found = report()
    text = PAGE.read_text()
    assert sorted(key for key in keys(found) if f"`{key}`" not in text) == []
