"""Write what `--stats` tells when the program has ended.

Runs in: host, at the interpreter's end, after the program's own exit handlers. Pure.
Tests: tests/unit/test_run_report.py
"""

from __future__ import annotations

TYPE_CHECKING = False  # as typing's, whose import is not for free

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ..events import PoolStatistics

_ENDINGS = ("done", "failed", "crashed", "timed_out", "over_memory", "cancelled", "queued", "running")
_ALWAYS = ("done", "failed", "crashed")


def report(made: int, pools: list[PoolStatistics], seen_besides: list[str]) -> str:
    """Return the lines.

    Args:
        made: Number of pools, used or not.
        pools: The counts of those that were used.
        seen_besides: What else ran things in other processes, a phrase each.
    """
    lines = _no_pool(seen_besides) if not made else [*_pools(made, pools), *_besides(seen_besides)]
    return "\n".join([f"forkpool: {lines[0]}", *(f"    {line}" for line in lines[1:]), ""])


def _no_pool(seen: list[str]) -> list[str]:
    none = "no ProcessPoolExecutor was made"
    if not seen:
        return [f"{none}, nor anything else that is known to run things in other processes"]
    return [f"{none}; seen instead:", *seen]


def _pools(made: int, pools: list[PoolStatistics]) -> list[str]:
    unused = made - len(pools)
    head = f"{made} pool{'' if made == 1 else 's'}" + (f", {unused} of them never used" if unused else "")
    if not pools:
        return [head]
    replaced: dict[str, int] = {}
    for one in pools:
        for reason, number in one.workers_replaced.items():
            replaced[reason] = replaced.get(reason, 0) + number
    counts = {name: sum(getattr(one, name) for one in pools) for name in _ENDINGS}
    ended = ", ".join(f"{number} {name.replace('_', ' ')}" for name, number in counts.items() if number or name in _ALWAYS)
    return [
        head,
        f"tasks: {sum(one.submitted for one in pools)}: {ended}",
        f"workers: {sum(one.workers_started for one in pools)} started, {_replaced(replaced)}",
        f"time in tasks: {sum(sum(one.busy_time) for one in pools):.3g} s",
    ]


def _replaced(reasons: Mapping[str, int]) -> str:
    if not reasons:
        return "none replaced"
    return f"{sum(reasons.values())} replaced ({', '.join(f'{name}: {number}' for name, number in sorted(reasons.items()))})"


def _besides(seen: Iterable[str]) -> list[str]:
    return [f"also seen, not counted: {one}" for one in seen]
