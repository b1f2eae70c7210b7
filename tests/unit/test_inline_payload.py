"""What an answer refers to lives until somebody asks for it, whatever happens meanwhile."""

from __future__ import annotations

from typing import Any

from forkpool import InlineExecutor
from forkpool._shared import tracking


def make_local() -> Any:
    class Local:
        word = "local"

    return Local()


def make_function() -> Any:
    space: dict[str, Any] = {"value": 7}
    exec("def f(): return value", space)
    return space["f"]


def make_error() -> None:
    class LocalError(Exception): ...

    raise LocalError(make_local())


def test_results_outlive_what_is_remembered_of_other_processes() -> None:
    with InlineExecutor(1) as ex:
        local, function, error = (ex.submit(make) for make in (make_local, make_function, make_error))
        for number in range(tracking.KEPT_CLASSES + 1):
            tracking.uid_of(type(f"Other{number}", (), {}))
        for _ in range(tracking.KEPT_NAMESPACES + 1):
            tracking.key_of_globals({"__name__": "other"})
        assert local.result().word == "local"
        assert function.result()() == 7
        found = error.exception()
        assert type(found).__name__ == "LocalError"
        assert found is not None
        assert found.args[0].word == "local"


def test_what_the_process_remembers_of_its_own_host_does_not_matter() -> None:
    """In a worker an inline pool finds the functions of now, not those that the host once sent."""
    key = (f"m:{__name__}", "make_local")
    tracking.received[("g", *key)] = (b"old", len)
    try:
        with InlineExecutor(1, serializer="cloudpickle") as ex:
            assert ex.submit(lambda: make_local().word).result() == "local"
            assert ex.submit(make_local).result().word == "local"
    finally:
        del tracking.received[("g", *key)]
