"""A piece that holds what is being made is unpickled once more, and goes on with what was known before it."""

from __future__ import annotations

import io
import pickle
from typing import Any

import pytest

from forkpool._shared.pieces import InTheMaking, Pieces
from forkpool._shared.tracking import Key

MAKING = ("g", "m:__main__", "making")


class Pointing(pickle.Pickler):
    def persistent_id(self, obj: Any) -> Any:
        return MAKING[1:] if obj is MAKING else None


@pytest.mark.parametrize("large", [10, 100_000])
def test_a_piece_is_asked_for_again(large: int) -> None:
    shared, text = ["shared"], "x" * large
    pieces = [[shared, text], [shared, {"inner": [text, MAKING, text]}, "after"], [shared, "last"]]
    with io.BytesIO() as file:
        pickler = Pointing(file, 5)
        for piece in pieces:
            pickler.dump(piece)
        data = file.getvalue()

    made: dict[Key, object] = {}

    def look_up(key: Key) -> object:
        if key not in made:
            raise InTheMaking(key)
        return made[key]

    loaded = Pieces(data, look_up)
    first = loaded.load_or_again()
    for _ in range(2):
        with pytest.raises(InTheMaking) as raised:
            loaded.load_or_again()
        assert raised.value.key == MAKING
    made[MAKING] = there = object()
    second = loaded.load_or_again()
    third = loaded.load()
    assert second[1]["inner"][1] is there
    assert first == [["shared"], text]
    assert second[2] == "after"
    assert third == [["shared"], "last"]
    assert first[0] is second[0] is third[0]
    assert second[1]["inner"][0] is first[1]
