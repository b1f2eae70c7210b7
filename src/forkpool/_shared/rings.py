"""Find the globals that hold each other (`app.db is db` and `db.app is app`): such a *ring* travels as one.

Runs in: host and worker, while a session pickles. Pure.
Hard part: elsewhere a global that another one holds travels as a pointer to it. Pointers in a circle cannot be followed by who
makes one object after the other. One of them could become a copy, but which one would depend on the function that is called,
and what a task made of these globals would be lost with the call of another function. Which globals form a ring depends on
nothing but the objects: whichever function names one of them brings them all.
Source: R. Tarjan, Depth-first search and linear graph algorithms, SIAM J. Comput. 1 (1972). The recursion is a list here.
Tests: tests/unit/test_rings.py, test_payload_rings.py
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from forkpool._shared.tracking import Key

Pointers = Mapping[Key, Collection[Key]]


def find_rings(pointers: Pointers) -> list[set[Key]]:
    """Return the sets of keys that lead to each other, each as large as it can be (strongly connected components)."""
    if not any(target in pointers for targets in pointers.values() for target in targets):
        return []  # as in most programs
    search = _Search(pointers)
    for key in pointers:
        search.go_from(key)
    return search.rings


class _Search:
    def __init__(self, pointers: Pointers) -> None:
        self.rings: list[set[Key]] = []
        self._pointers = pointers
        self._order: dict[Key, int] = {}  # of all that were met
        self._lowest: dict[Key, int] = {}  # the first of them that can be reached; only of those in no set yet
        self._open: list[Key] = []  # these, in order
        self._trail: list[tuple[Key, Iterator[Key]]] = []  # from where the search began to where it is, and what is left there

    def go_from(self, start: Key) -> None:
        if start not in self._order:
            self._enter(start)
        while self._trail:
            key, targets = self._trail[-1]
            target = next(targets, None)
            if target is None:
                self._leave(key)
            elif target not in self._order:
                if target in self._pointers:
                    self._enter(target)
            elif target in self._lowest:
                self._lowest[key] = min(self._lowest[key], self._lowest[target])

    def _enter(self, key: Key) -> None:
        self._order[key] = self._lowest[key] = len(self._order)
        self._open.append(key)
        self._trail.append((key, iter(self._pointers[key])))

    def _leave(self, key: Key) -> None:
        self._trail.pop()
        if self._trail:
            above = self._trail[-1][0]
            self._lowest[above] = min(self._lowest[above], self._lowest[key])
        if self._lowest[key] < self._order[key]:
            return
        ring: set[Key] = set()
        while key not in ring:
            ring.add(self._open.pop())
        for member in ring:
            del self._lowest[member]
        if len(ring) > 1:
            self.rings.append(ring)
