"""Names of shared memory that pass by on their way to the resource tracker."""

import base64
import json
from multiprocessing.shared_memory import SharedMemory

import pytest

from forkpool._host import shared_names
from forkpool._host.shared_names import SharedNames


def line(command: str, name: str, kind: str = "shared_memory") -> bytes:
    return f"{command}:{name}:{kind}\n".encode()


def json_line(command: str, name: str) -> bytes:
    encoded = base64.urlsafe_b64encode(name.encode()).decode()
    return json.dumps({"cmd": command, "rtype": "shared_memory", "base64_name": encoded}).encode() + b"\n"


@pytest.mark.parametrize("said", [line, json_line])
def test_what_was_made_and_is_there_is_known_until_it_is_unlinked(said) -> None:  # type: ignore[no-untyped-def]
    names = SharedNames()
    memory = SharedMemory(create=True, size=8)
    try:
        name = f"/{memory.name}"
        names.hear(said("REGISTER", name))
        names.hear(said("REGISTER", "/not-there"))
        assert names.existing() == [name]
        names.hear(said("UNREGISTER", name))
        assert names.existing() == []
    finally:
        memory.close()
        memory.unlink()


@pytest.mark.parametrize(
    "text", [b"", b"\n", b"{", b"{}", b"[1]", b"REGISTER", b"\xff:\xff:\xff\n", line("REGISTER", "/s", "semaphore")]
)
def test_what_is_something_else_is_passed_over(text: bytes) -> None:
    names = SharedNames()
    names.hear(text)
    assert names.existing() == []


def test_names_of_what_is_gone_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    looked = []
    monkeypatch.setattr(shared_names, "exists", lambda name: looked.append(name) or name == "/kept")
    names = SharedNames()
    names.hear(line("REGISTER", "/kept"))
    for number in range(10_000):
        names.hear(line("REGISTER", f"/gone{number}"))
    assert len(names._names) <= 65
    assert len(looked) < 20_000, "a constant for each name"
    assert names.existing() == ["/kept"]
