"""Draw how the memory of a pool's workers goes when every task leaks, with and without recycling: measured, then drawn as SVG.

Run by hand: `python tests/bench/plot_recycling.py docs/how-to/which-recycling.svg`. It takes some seconds and Linux.
The same tasks run on four pools, one after the other; each task keeps a mebibyte for ever in a global of its worker. The host
adds up what the workers hold each time that a few more tasks are done: their PSS (/proc/PID/smaps_rollup), in which a page that
processes share counts once, divided among them. So the figure is what the machine really has to give. What all share with the
fork server is in it too, in part. The horizontal axis is tasks done, not seconds: the same on a loaded machine.
The file is an SVG without any library: a viewer that prefers dark gets the dark colours of its style sheet.
Tests: tests/docs/test_plot_recycling.py
"""

import os
import platform
import sys
import time
from concurrent.futures import as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from forkpool import ForkPoolExecutor, diagnostics

WORKERS = 4
TASKS = 400
TASK_S = 0.02  # so that looking keeps up
STEP = 4  # tasks between two looks
MIB = 1 << 20
leaked: list[bytearray] = []  # in each worker


@dataclass
class Curve:
    """One pool: how it was asked to recycle, and what was seen."""

    label: str
    options: dict[str, Any]
    recycle_at: int | None = None  # call recycle_workers() when so many tasks are done
    points: list[tuple[int, float]] = field(default_factory=list)  # tasks done, MiB

    @property
    def peak(self) -> float:
        return max(mebibytes for _, mebibytes in self.points)


def curves(tasks: int) -> list[Curve]:
    limit = tasks // 16
    jitter = limit // 2
    return [
        Curve("never recycled", {}),
        Curve("recycle_workers(), once", {}, recycle_at=tasks // 2),
        Curve(f"max_tasks_per_child={limit}", {"max_tasks_per_child": limit}),
        Curve(f"the same, jitter {jitter}", {"max_tasks_per_child": limit, "max_tasks_jitter": jitter}),
    ]


# --- measuring -----------------------------------------------------------------------------------------


def leak() -> None:
    leaked.append(bytearray(os.urandom(4096)) * 256)  # written to, so it is memory and not only an address
    time.sleep(TASK_S)


def measure(curve: Curve, tasks: int) -> None:
    """Run the tasks and look at the memory after every few of them."""
    with ForkPoolExecutor(WORKERS, **curve.options) as pool:
        futures = [pool.submit(leak) for _ in range(tasks)]
        for count, future in enumerate(as_completed(futures), 1):
            future.result()
            if count == curve.recycle_at:
                pool.recycle_workers()
            if count % STEP == 0:
                curve.points.append((pool.statistics().done, memory_of_workers(pool)))


def memory_of_workers(pool: ForkPoolExecutor) -> float:
    """Mebibytes that the pool's workers hold together (PSS)."""
    workers = [process.pid for process in diagnostics.snapshot(pool).processes if process.role == "worker"]
    return sum(map(proportional_set_size, workers)) / MIB


def proportional_set_size(pid: int) -> int:
    """Bytes; 0 for a process that has ended meanwhile."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)


# --- drawing -------------------------------------------------------------------------------------------

WIDTH, HEIGHT = 720, 400
LEFT, RIGHT, TOP, BOTTOM = 60, 700, 50, 340  # of the field that has the curves
LIGHT = ("#ffffff", "#24292f", "#d0d7de", "#c0392b", "#8e6c00", "#0969da", "#1a7f37")  # back, text, grid, curves
DARK = ("#0d1117", "#e6edf3", "#30363d", "#ff7b72", "#e3b341", "#79c0ff", "#56d364")
DASHES = ("none", "7 3", "none", "2 2")  # who sees no colours sees these


def draw(curves: list[Curve], tasks: int, subtitle: str) -> str:
    """The picture as the text of an SVG file."""
    highest = max(curve.peak for curve in curves)
    grid = grid_step(highest)
    top = grid * -(-highest // grid)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img">',
        "<title>Memory of all workers together while every task leaks 1 MiB</title>",
        f"<style>{style()}</style>",
        f'<rect class="back" width="{WIDTH}" height="{HEIGHT}"/>',
        text(LEFT, 20, f"Memory of {WORKERS} workers together, MiB; every task leaks 1 MiB", "title"),
        text(LEFT, 37, subtitle, "small"),
        *axes(tasks, top, grid),
    ]
    for number, curve in enumerate(curves):
        points = " ".join(f"{across(done, tasks):.1f},{up(mebibytes, top):.1f}" for done, mebibytes in curve.points)
        parts.append(f'<polyline class="curve c{number}" points="{points}"/>')
        parts += legend(number, curve)
    return "\n".join([*parts, "</svg>", ""])


def style() -> str:
    rules = "text{font:13px sans-serif}.title{font-weight:bold}.small{font-size:11px}.right{text-anchor:end}"
    rules += ".middle{text-anchor:middle}.curve{fill:none;stroke-width:2;stroke-linejoin:round}"
    rules += "".join(f".c{number}{{stroke-dasharray:{dash}}}" for number, dash in enumerate(DASHES))
    return f"{rules}{colours(LIGHT)}@media(prefers-color-scheme:dark){{{colours(DARK)}}}"


def colours(scheme: tuple[str, ...]) -> str:
    back, ink, grid, *strokes = scheme
    rules = f".back{{fill:{back}}}text{{fill:{ink}}}.grid{{stroke:{grid}}}"
    return rules + "".join(f".c{number}{{stroke:{colour}}}" for number, colour in enumerate(strokes))


def axes(tasks: int, top: float, grid: int) -> list[str]:
    lines = []
    for value in range(0, int(top) + 1, grid):
        y = up(value, top)
        lines.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{RIGHT}"/>')
        lines.append(text(LEFT - 8, y + 4, str(value), "right"))
    for quarter in range(5):
        done = tasks * quarter // 4
        lines.append(text(across(done, tasks), BOTTOM + 20, str(done), "middle"))
    return [*lines, text((LEFT + RIGHT) / 2, BOTTOM + 42, "tasks done", "middle")]


def legend(number: int, curve: Curve) -> list[str]:
    """In the upper left, where a curve that grows from nothing leaves room."""
    y = TOP + 22 + 20 * number
    sample = f'<path class="curve c{number}" d="M{LEFT + 12} {y - 4}h30"/>'
    return [sample, text(LEFT + 50, y, f"{curve.label}: at most {curve.peak:.0f} MiB", "")]


def text(x: float, y: float, words: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{escape(words)}</text>'


def across(done: int, tasks: int) -> float:
    return LEFT + (RIGHT - LEFT) * done / tasks


def up(mebibytes: float, top: float) -> float:
    return BOTTOM - (BOTTOM - TOP) * mebibytes / top


def grid_step(highest: float) -> int:
    """A round number, so that there are few lines."""
    return next((step for step in (1, 2, 5, 10, 20, 50, 100, 200, 500) if highest / step <= 6), 1000)


def main(path: Path, tasks: int) -> None:
    measured = curves(tasks)
    for curve in measured:
        measure(curve, tasks)
        print(f"{curve.label:32} at most {curve.peak:6.1f} MiB")
    where = (
        f"measured as PSS with CPython {platform.python_version()} on {platform.system()} {platform.release().split('-')[0]}"
    )
    path.write_text(draw(measured, tasks, where))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else TASKS)
