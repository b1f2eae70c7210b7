"""Globals that hold each other are found, whatever leads to them."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from forkpool._shared.rings import find_rings
from forkpool._shared.tracking import Key

numbers = st.integers(0, 7)


def key(number: int) -> Key:
    return ("g", "m:__main__", f"name{number}")


@given(st.dictionaries(numbers, st.sets(numbers)), st.randoms())
def test_a_ring_is_all_that_lead_to_each_other(pointers: dict[int, set[int]], order: random.Random) -> None:
    pointers = {source: targets - {source} for source, targets in pointers.items()}
    reached: dict[int, set[int]] = {}
    for source in range(8):
        seen, todo = set(), [source]
        while todo:
            for target in pointers.get(todo.pop(), set()) - seen:
                seen.add(target)
                todo.append(target)
        reached[source] = seen
    expected = {frozenset(key(other) for other in reached[n] if n in reached[other]) for n in range(8) if n in reached[n]}

    sources = list(pointers)
    order.shuffle(sources)
    rings = find_rings({key(source): {key(target) for target in pointers[source]} for source in sources})
    assert len(rings) == len(expected)
    assert set(map(frozenset, rings)) == expected
