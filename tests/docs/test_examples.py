"""Run the examples, which are real programs, and check what they show."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from .markdown import ROOT, all_blocks

EXAMPLES = ROOT / "docs" / "examples"


def run_example(name: str, *arguments: str, timeout: float) -> str:
    """Return what the example prints on stdout and stderr; it must end well."""
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout)
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.slow
@pytest.mark.alarm(220)
def test_survey_loses_one_file_and_names_it() -> None:
    text = run_example("survey.py", timeout=200)
    total = int(re.match(r"([\d,]+) source files", text)[1].replace(",", ""))  # type: ignore[index]
    standard, ours = (int(count.replace(",", "")) for count in re.findall(r"^  ([\d,]+) of ", text, re.MULTILINE))
    assert standard < ours == total - 1
    assert "BrokenProcessPool" in text
    assert "inspect.py: WorkerCrashedError" in text
    assert re.search(r'survey.py", line \d+ in analyse', text)
    assert "Traceback" not in text
    assert text.count("\n") <= 24, "one screen"
    assert max(map(len, text.splitlines())) < 160


def test_who_looks_at_the_output_of_a_probe_loses_none_of_it() -> None:
    """It is read while workers write to it, through one description of the file: a position that is moved is moved for all."""
    compare_pools = load_comparison()
    probe = compare_pools.Probe("lambda", "forkpool")  # the standard pool may hang on a call that cannot be pickled
    try:
        probe.process.wait()
        before = probe.text().count("\n")
        source = "import os\nfor _ in range(50_000): os.write(1, b'task started\\n')"
        with subprocess.Popen([sys.executable, "-c", source], stdout=probe.output) as writer:
            while writer.poll() is None:
                probe.text()
        assert probe.text().count("\n") == before + 50_000
    finally:
        probe.end()


@pytest.mark.parametrize(("pool_name", "tries"), [("forkpool", 1), ("standard", 3), ("loky", 3)])
def test_only_others_get_more_than_one_try(pool_name: str, tries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    compare_pools = load_comparison()
    asked = []

    def find_nothing(*probe: str) -> None:
        asked.append(probe)
        raise compare_pools.NoFacts

    monkeypatch.setattr(compare_pools, "run_once", find_nothing)
    with pytest.raises(compare_pools.NoFacts):
        compare_pools.run("lambda", pool_name)
    assert asked == [("lambda", pool_name)] * tries


def load_comparison() -> ModuleType:
    spec = importlib.util.spec_from_file_location("compare_pools", EXAMPLES / "compare_pools.py")
    assert spec is not None
    assert spec.loader is not None
    compare_pools = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(compare_pools)
    return compare_pools


def readme_table() -> list[list[str]]:
    lines = [line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]


@pytest.mark.slow
@pytest.mark.alarm(300)
def test_readme_table_is_what_the_script_prints() -> None:
    """Our column word for word; of the others, which differ between Pythons, the shape."""
    output = run_example("compare_pools.py", timeout=280)
    printed = [[cell.strip() for cell in line.split("|")[1:-1]] for line in output.splitlines()]
    in_readme = readme_table()
    assert [row[:2] for row in printed] == [row[:2] for row in in_readme]
    assert [len(row) for row in printed] == [len(row) for row in in_readme] == [4] * 8
    if sys.version_info[:2] == (3, 11) and os.cpu_count() != 1:
        assert [row[2:] for row in printed[2:]] == [row[2:] for row in in_readme[2:]]


@pytest.mark.slow
def test_each_slot_keeps_its_gpu_port_and_file_through_a_crash() -> None:
    text = run_example("one_per_slot.py", timeout=35)
    crashed = re.findall(r"^item 7 crashed the worker on slot (\d)$", text, re.MULTILINE)
    shown = re.findall(r"^slot-(\d).sqlite: (\d+) results, GPU (\S+), port (\S+), written by (\d) worker", text, re.MULTILINE)
    assert len(crashed) == 1
    assert sum(int(rows) for _, rows, *_ in shown) == 23
    assert all(gpu == slot and port.isdigit() for slot, _, gpu, port, _ in shown), text
    assert text.count("\n") == 1 + len(shown)


@pytest.mark.slow
def test_web_handler_limits_a_call_and_kills_it_when_its_client_leaves() -> None:
    """The counts tell the two apart: without the kill, the call of the client who left would time out too."""
    lines = run_example("web_handler.py", timeout=35).splitlines()
    assert lines[:2] == ["200 OK: True", "504 Gateway Timeout: no answer within 3 s"]
    assert sorted(lines[2:-1]) == ["200 OK: True", "client left, call killed", "left"]
    assert lines[-1] == "1 call timed out, 1 killed"


@pytest.mark.slow
def test_numpy_sweep_spreads_its_tasks_over_recycled_workers() -> None:
    """No worker may run more than 5 of the 20 tasks."""
    *shares, workers = run_example("numpy_sweep.py", timeout=35).splitlines()
    assert [line.split(":")[0] for line in shares] == [f"within {sigma} sigma" for sigma in range(4)]
    assert re.match(r"20 tasks on ([4-9]|1\d|20) workers$", workers)


@pytest.mark.slow
def test_the_migrated_script_differs_in_one_line_and_prints_the_same(tmp_path: Path) -> None:
    names = ["find_duplicates_before.py", "find_duplicates.py"]
    before, after = (code_of(name) for name in names)
    changed = [pair for pair in zip(before, after, strict=True) if pair[0] != pair[1]]
    diff = all_blocks("diff", "")[0].text.splitlines()
    assert changed == [(diff[0][1:], diff[1][1:])], "the lines that the README shows"
    for number in range(40):
        (tmp_path / f"{number:02}").write_text(str(number % 39))
    outputs = [run_example(name, str(tmp_path), timeout=35) for name in names]
    assert outputs[0] == outputs[1] == "00 = 39\n40 files, 39 of different content\n"


def code_of(name: str) -> list[str]:
    return (EXAMPLES / name).read_text().split('"""\n', 1)[1].splitlines()


@pytest.mark.slow
def test_one_resubmission_saves_what_crashes_once() -> None:
    lines = run_example("resubmit_once.py", timeout=35).splitlines()
    assert lines[:4] == ["1: 10", "2: 20", "3: 30", "4: 40"]
    assert re.match(r"5: WorkerCrashedError \(worker \d .* was killed by SIGABRT while running 'convert'", lines[4])
    assert lines[5:] == ["6: 60", "seven: ValueError (invalid literal for int() with base 10: 'seven')", "8: 80", "3 crashes"]


EXECUTE = """
import sys, nbclient, nbformat
notebook = nbformat.read(sys.argv[1], as_version=4)
nbclient.NotebookClient(notebook, timeout=30, kernel_name="python3").execute(cwd=sys.argv[2])
for cell in notebook.cells:
    for output in cell.get("outputs", ()):
        print(output["text"].strip() if output["output_type"] == "stream" else output["data"]["text/plain"])
"""


@pytest.mark.slow
@pytest.mark.alarm(110)
def test_notebook_runs_from_top_to_bottom(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-c", EXECUTE, str(EXAMPLES / "notebook.ipynb"), str(tmp_path)]
    env = {**os.environ, "JUPYTER_RUNTIME_DIR": str(tmp_path), "IPYTHONDIR": str(tmp_path)}
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, timeout=100)
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        "[Point(x=2, y=4), Point(x=6, y=8)]",
        "Point(x=10, y=20)",
        "True",
        "SIGSEGV in read_address_0",
        "'the pool goes on'",
        "'TaskTimeoutError'",
    ]


def test_notebook_holds_no_outputs() -> None:
    """They are made by who runs it; kept, they would grow old."""
    cells = json.loads((EXAMPLES / "notebook.ipynb").read_text())["cells"]
    assert not [cell for cell in cells if cell.get("outputs") or cell.get("execution_count")]


@pytest.mark.slow
@pytest.mark.alarm(110)
def test_suite_that_uses_the_fixtures(tmp_path: Path) -> None:
    """By itself, with its own configuration, as a user's would run."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(EXAMPLES / "pytest_suite")]
    done = subprocess.run(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=100)
    assert done.returncode == 0, done.stdout
    assert re.search(r"^8 passed in ", done.stdout, re.MULTILINE), done.stdout
