"""The short way through the serializer: what is plain, and that nothing else takes it."""

from __future__ import annotations

import collections
import math
import os.path
import sys
from typing import Any

import pytest

from forkpool._shared import import_path
from forkpool._shared.decoding import CallDecoder, load_value
from forkpool._shared.payload import CallEncoder, ResultEncoder
from forkpool._shared.plain import MAX_ITEMS, is_plain, is_plain_callable

PLAIN_TAG = 0


class Text(str):
    pass


@pytest.mark.parametrize("value", [None, True, 1, 2.5, 1j, "a", b"b", [1, "a"], (1, (2,)), {"a": [1]}, {1, 2}, frozenset()])
def test_builtin_data_is_plain(value: Any) -> None:
    assert is_plain(value)


@pytest.mark.parametrize("value", [Text("a"), [Text("a")], {Text("a"): 1}, {1: len}, [[[[1]]]], [0] * (MAX_ITEMS + 1), len])
def test_subclasses_deep_long_and_other_values_are_not(value: Any) -> None:
    assert not is_plain(value)


@pytest.mark.parametrize("fn", [len, math.sqrt, int, os.path.join, collections.OrderedDict])
def test_what_a_fresh_interpreter_finds_by_name_is_plain(fn: Any) -> None:
    assert is_plain_callable(fn)


def local() -> Any:
    return lambda: 1


@pytest.mark.parametrize("fn", [local(), "abc".upper, dict.fromkeys, [].append])
def test_lambdas_and_bound_methods_are_not(fn: Any) -> None:
    assert not is_plain_callable(fn)


def test_an_object_that_was_replaced_under_its_name_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    original = os.path.join
    monkeypatch.setattr(os.path, "join", lambda *parts: "patched")
    assert not is_plain_callable(original)


def test_a_plain_call_makes_the_round_trip() -> None:
    payload = CallEncoder().encode(int, ("ff",), {"base": 16})
    assert payload[0] == PLAIN_TAG
    fn, args, kwargs = CallDecoder().decode(memoryview(payload))
    assert fn(*args, **kwargs) == 255


@pytest.mark.parametrize("fn", [len, local()], ids=["plain", "by value"])
@pytest.mark.parametrize("path", [[], ["/added/later"]], ids=["same path", "another path"])
def test_a_name_travels_beside_the_call_and_only_if_one_is_given(
    fn: Any, path: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder, decoder = CallEncoder(), CallDecoder(import_path.look().path)
    encoder.path_of_calls()  # what it begins with
    monkeypatch.setattr(sys, "path", [*sys.path, *path])
    for name in ("thumb", None, "", "n\u00e4me\0\udc80"):
        assert decoder.decode(encoder.encode(fn, ("a",), {}, name))[1:] == (("a",), {})
        assert decoder.name == name
    assert len(encoder.encode(len, ("a",), {}, "thumb")) > len(encoder.encode(len, ("a",), {}))


def test_nested_names_are_looked_up_part_by_part() -> None:
    payload = CallEncoder().encode(pytest.MonkeyPatch.context, (), {})
    assert CallDecoder().decode(payload)[0] == pytest.MonkeyPatch.context


def test_serializer_cloudpickle_never_takes_the_short_way() -> None:
    payload = CallEncoder("cloudpickle").encode(len, ("abc",), {})
    assert payload[0] != PLAIN_TAG
    assert CallDecoder().decode(payload) == (len, ("abc",), {})


def test_entries_added_to_sys_path_travel_with_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = CallEncoder()
    before = import_path.look().path
    assert encoder.encode(len, ("abc",), {})[0] == PLAIN_TAG
    monkeypatch.setattr(sys, "path", [*before, "/added/later"])
    payload = encoder.encode(len, ("abc",), {})
    monkeypatch.setattr(sys, "path", list(before))
    assert CallDecoder(before).decode(payload) == (len, ("abc",), {})
    assert sys.path == [*before, "/added/later"]


def test_the_worker_searches_where_the_host_does_and_keeps_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the host's order; what a task or initializer of the worker has put in front stays there."""
    first, encoder = ["/a", "/lib"], CallEncoder()
    monkeypatch.setattr(sys, "path", first)
    calls = [encoder.encode(len, ("abc",), {})]
    monkeypatch.setattr(sys, "path", ["/b", "/lib"])
    calls.append(encoder.encode(len, ("abc",), {}))
    monkeypatch.setattr(sys, "path", ["/mine", "/a", "/lib", "/mine too"])
    decoder = CallDecoder(encoder.path_of_calls())
    shown = [(decoder.decode(call), list(sys.path))[1] for call in (*calls, calls[0])]
    kept = [entry for entry in encoder.path_of_calls() if entry not in first]
    assert shown[0] == ["/mine", "/a", "/lib", "/mine too"]
    assert shown[1] == ["/mine", "/b", "/lib", *kept, "/mine too"]
    assert shown[2] == ["/mine", "/a", "/lib", *kept, "/mine too"]


def test_the_worker_was_started_with_another_path_than_its_calls_are_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """As after `restart_workers()`: a call without a path is for that of the pool's first call."""
    monkeypatch.setattr(sys, "path", ["/new", "/lib"])
    assert CallDecoder(["/old", "/lib"], ["/new", "/lib"]).decode(CallEncoder().encode(len, ("abc",), {}))
    assert sys.path == ["/old", "/lib"]


def test_small_builtin_results_are_plain_and_others_are_not() -> None:
    encode = ResultEncoder().encode_value
    assert encode({"a": 1})[1]
    assert not encode("x" * 100_000)[1]
    assert not encode(Text("a"))[1]
    assert load_value(encode(Text("a"))[0]) == "a"


def test_cloudpickle_is_imported_when_a_call_needs_it_and_not_before() -> None:
    import subprocess

    program = (
        "import sys; from forkpool._shared.payload import CallEncoder; encoder = CallEncoder();"
        "encoder.encode(len, ('a',), {}); assert 'cloudpickle' not in sys.modules;"
        "encoder.encode(lambda: 1, (), {}); assert 'cloudpickle' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, env={"PYTHONPATH": os.pathsep.join(filter(None, sys.path))})
