"""Find the globals that hold each other (`app.db is db` and `db.app is app`): such a *ring* travels as one.

Runs in: host and worker, while a session pickles. Pure.
Hard part: elsewhere a global that another one holds travels as a pointer to it. Pointers in a circle cannot be followed by who
makes one object after the other. One of them could become a copy, but which one would depend on the function that is called,
and what a task made of these globals would be lost with the call of another function. Which globals form a ring depends on
nothing but the objects: whichever function names one of them brings them all.
Tests: tests/unit/test_rings.py, test_payload_rings.py
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from graphlib import CycleError, TopologicalSorter

from forkpool._shared.tracking import Key

Pointers = Mapping[Key, Collection[Key]]


def find_rings(pointers: Pointers) -> list[set[Key]]:
    """Return the sets of keys that lead to each other, each as large as it can be (strongly connected components)."""
    if not any(target in pointers for targets in pointers.values() for target in targets):
        return []  # as in most programs
    rings: dict[Key, set[Key]] = {}
    while circle := _circle_in(pointers):
        first = min(circle)
        rings[first] = set().union(*(rings.pop(key, {key}) for key in circle))
        pointers = _contracted(pointers, circle, first)
    return list(rings.values())


def _circle_in(pointers: Pointers) -> set[Key]:
    try:
        TopologicalSorter(pointers).prepare()
    except CycleError as exc:
        return set(exc.args[1])
    return set()


def _contracted(pointers: Pointers, circle: set[Key], into: Key) -> Pointers:
    """Return the pointers with one key in place of those in a circle."""
    result: dict[Key, set[Key]] = {}
    for source, targets in pointers.items():
        found = result.setdefault(into if source in circle else source, set())
        found.update(into if target in circle else target for target in targets)
    result[into].discard(into)
    return result
