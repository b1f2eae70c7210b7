"""The picture of docs/how-to/which-recycling.md: what it claims is measured anew, on fewer tasks, and the file is an image.

Runs in: pytest, with real workers.
"""

import re
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest

from .markdown import ROOT

PAGE = ROOT / "docs" / "how-to" / "which-recycling.md"
SVG = "{http://www.w3.org/2000/svg}"
TASKS = 160  # 40 for each worker: one that is recycled after 10 never holds more than 10 MiB more than a fresh one


@pytest.fixture
def plot(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = spec_from_file_location("plot_recycling", ROOT / "tests" / "bench" / "plot_recycling.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "plot_recycling", module)  # dataclasses look for it there
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.alarm(100)
def test_recycling_bounds_the_memory_of_a_leak(plot: ModuleType, tmp_path: Path) -> None:
    plot.TASK_S = 0.002  # type: ignore[attr-defined]
    measured = plot.curves(TASKS)
    for curve in measured:
        plot.measure(curve, TASKS)
    never, by_hand, limited, spread = measured
    fresh = never.points[0][1]
    assert never.peak - fresh > TASKS * 0.8
    assert limited.peak - fresh < TASKS / 2
    assert spread.peak - fresh < TASKS / 2
    assert by_hand.points[-1][1] < never.points[-1][1]
    path = tmp_path / "plot.svg"
    path.write_text(plot.draw(measured, TASKS, "for a test"))
    assert len(curves_of(path)) == 4


def curves_of(path: Path) -> list[ElementTree.Element]:
    return list(ElementTree.parse(path).iter(f"{SVG}polyline"))


def test_the_page_shows_what_the_committed_picture_shows() -> None:
    picture = PAGE.with_suffix(".svg")
    assert f"]({picture.name})" in PAGE.read_text()
    assert picture.stat().st_size < 20_000
    assert len(curves_of(picture)) == 4
    assert "prefers-color-scheme:dark" in picture.read_text()
    peaks = re.findall(r"at most (\d+) MiB", picture.read_text())
    alternative = re.search(r"!\[(.*)\]", PAGE.read_text())
    assert alternative is not None
    assert [peak for peak in (peaks[0], *peaks[2:]) if peak not in alternative[1]] == []
