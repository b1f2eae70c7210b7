"""What the constructor and options() accept, and the exact words for what they do not.

Runs in: pytest; pure.
"""

import dataclasses
import math
import multiprocessing
import sys
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from forkpool.config import PoolConfig, TaskOptions, check_context, map_arguments, pool_config, task_options

GOOD: dict[str, Any] = {
    "max_workers": 2,
    "mp_context": None,
    "initializer": None,
    "initargs": (),
    "max_tasks_per_child": None,
    "max_tasks_jitter": 0,
    "env": None,
    "serializer": "auto",
    "grace_period": 5.0,
    "pin": "auto",
    "threads_per_worker": None,
}


def config(**changes: Any) -> PoolConfig:
    return pool_config(**{**GOOD, **changes}, mask={0, 1, 2, 3, 8}, count_cpus=lambda: 6)


class Index:
    """As numpy's integers: no int, but one can be had."""

    def __index__(self) -> int:
        return 3


FORK = (
    'mp_context "fork" means workers that inherit this process\'s state, and forkpool never forks your process. '
    "Leave mp_context out: functions, closures and globals are shipped by value; see 'Coming from fork' in the docs."
)
PIN = 'pin must be "auto", True, False, a list of CPU numbers or a list of such lists, not {}'
BAD = [
    ({"max_workers": 0}, ValueError, "max_workers must be greater than 0"),
    ({"max_workers": -1}, ValueError, "max_workers must be greater than 0"),
    ({"max_workers": 1.5}, TypeError, "max_workers must be an int or None, not float"),
    ({"max_workers": "2"}, TypeError, "max_workers must be an int or None, not str"),
    ({"max_workers": True}, TypeError, "max_workers must be an int or None, not bool"),
    ({"max_workers": int}, TypeError, "max_workers must be an int or None, not type"),
    ({"max_tasks_per_child": 0}, ValueError, "max_tasks_per_child must be greater than 0"),
    ({"max_tasks_per_child": 1.0}, TypeError, "max_tasks_per_child must be an int or None, not float"),
    ({"max_tasks_jitter": 1}, ValueError, "max_tasks_jitter varies max_tasks_per_child, which is not given"),
    ({"max_tasks_jitter": -1}, ValueError, "max_tasks_jitter must be 0 or more"),
    ({"max_tasks_jitter": 0.5}, TypeError, "max_tasks_jitter must be an int, not float"),
    ({"max_tasks_jitter": None}, TypeError, "max_tasks_jitter must be an int, not NoneType"),
    (
        {"max_tasks_per_child": 3, "max_tasks_jitter": 3},
        ValueError,
        "max_tasks_jitter must be less than max_tasks_per_child (3): a worker runs one at least",
    ),
    ({"max_workers": 65537}, ValueError, "max_workers must be at most 65536, not 65537"),
    ({"max_workers": 2**70}, ValueError, f"max_workers must be at most 65536, not {2**70}"),
    ({"initializer": 3}, TypeError, "initializer must be a callable"),
    ({"initargs": 3}, TypeError, "initargs must be a tuple, not int; one argument is written (x,)"),
    ({"initargs": "ab"}, TypeError, "initargs must be a tuple, not str; one argument is written initargs=('ab',)"),
    ({"initargs": b"ab"}, TypeError, "initargs must be a tuple, not bytes; one argument is written initargs=(b'ab',)"),
    ({"initargs": "a" * 99}, TypeError, "initargs must be a tuple, not str; one argument is written initargs=(...,)"),
    ({"initargs": {"a": 1}}, TypeError, "initargs must be a tuple, not dict; one argument is written initargs=({'a': 1},)"),
    ({"mp_context": "fork"}, ValueError, FORK),
    ({"mp_context": multiprocessing.get_context("fork")}, ValueError, FORK),
    ({"mp_context": "thread"}, ValueError, 'mp_context must be None, "forkserver" or "spawn", not \'thread\''),
    ({"preload": "numpy"}, TypeError, "preload must be a tuple of module names; one name is written ('numpy',)"),
    ({"preload": b"numpy"}, TypeError, "preload must be a tuple of module names; one name is written (b'numpy',)"),
    ({"preload": 3}, TypeError, "preload must be a tuple of module names, not int"),
    ({"preload": None}, TypeError, "preload must be a tuple of module names, not NoneType"),
    ({"preload": ("json", 3)}, TypeError, "preload must name modules by str; found 3"),
    ({"preload": ("",)}, ValueError, "preload must hold absolute module names such as 'package.module'; found ''"),
    ({"preload": (".mine",)}, ValueError, "preload must hold absolute module names such as 'package.module'; found '.mine'"),
    ({"preload": ("a b",)}, ValueError, "preload must hold absolute module names such as 'package.module'; found 'a b'"),
    ({"preload": ("a/b.py",)}, ValueError, "preload must hold absolute module names such as 'package.module'; found 'a/b.py'"),
    ({"mp_context": 3}, TypeError, "mp_context must be a multiprocessing context or None, not int"),
    ({"serializer": "dill"}, ValueError, "serializer must be one of 'auto', 'pickle', 'cloudpickle', not 'dill'"),
    ({"serializer": ["auto"]}, ValueError, "serializer must be one of 'auto', 'pickle', 'cloudpickle', not ['auto']"),
    ({"env": "A=1"}, TypeError, "env must be a mapping of str to str, not str"),
    ({"env": {"A": 1}}, TypeError, "env must be a mapping of str to str; found 'A': 1"),
    ({"env": {1: "A"}}, TypeError, "env must be a mapping of str to str; found 1: 'A'"),
    ({"env": {"A=B": "c"}}, ValueError, "env has an entry that no environment can hold: 'A=B': 'c'"),
    ({"env": {"": "c"}}, ValueError, "env has an entry that no environment can hold: '': 'c'"),
    ({"env": {"A": "\0"}}, ValueError, "env has an entry that no environment can hold: 'A': '\\x00'"),
    ({"env": {"A": "\ud800"}}, ValueError, "env has an entry that no environment can hold: 'A': '\\ud800'"),
    ({"env": {"\ud800": "a"}}, ValueError, "env has an entry that no environment can hold: '\\ud800': 'a'"),
    ({"grace_period": -0.1}, ValueError, "grace_period must be 0 or more seconds, not -0.1"),
    ({"grace_period": math.nan}, ValueError, "grace_period must be 0 or more seconds, not nan"),
    ({"grace_period": "5"}, TypeError, "grace_period must be a number of seconds, not str"),
    ({"grace_period": None}, TypeError, "grace_period must be a number of seconds, not NoneType"),
    ({"grace_period": True}, TypeError, "grace_period must be a number of seconds, not bool"),
    ({"pin": "yes"}, TypeError, PIN.format("'yes'")),
    ({"pin": 3}, TypeError, PIN.format(3)),
    ({"pin": None}, TypeError, PIN.format(None)),
    ({"pin": []}, ValueError, "pin must name at least one CPU for each worker"),
    ({"pin": [[0], []]}, ValueError, "pin must name at least one CPU for each worker"),
    ({"pin": [0, True]}, TypeError, "pin must hold CPU numbers, not True"),
    ({"pin": [0, "1"]}, TypeError, "pin must hold CPU numbers, not '1'"),
    ({"pin": [0, 1.0]}, TypeError, "pin must hold CPU numbers, not 1.0"),
    ({"pin": [[0], [[1]]]}, TypeError, "pin must hold CPU numbers, not [1]"),
    ({"pin": [0, 7]}, ValueError, "pin names CPU 7, which this process may not use; usable: 0-3,8"),
    ({"pin": [[0, 4], [5, -1]]}, ValueError, "pin names CPU -1,4-5, which this process may not use; usable: 0-3,8"),
    ({"pin": [0, 1, 2]}, ValueError, "pin has CPUs for 3 workers, and max_workers is 2: give as many, or leave it out"),
    ({"threads_per_worker": 0}, ValueError, "threads_per_worker must be greater than 0"),
    ({"threads_per_worker": True}, TypeError, "threads_per_worker must be an int or None, not bool"),
    ({"threads_per_worker": "all"}, ValueError, "threads_per_worker must be \"auto\", a number or None, not 'all'"),
    (
        {"grace_period": 10**400},
        ValueError,
        "grace_period must be seconds that a float can hold, not a number of 1329 bits; math.inf is no limit",
    ),
]


@pytest.mark.parametrize(("arguments", "kind", "message"), BAD, ids=[str(bad[0])[:40] for bad in BAD])
def test_a_bad_argument_is_named(arguments: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind) as caught:
        config(**arguments)
    assert type(caught.value) is kind
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"timeout": 0}, ValueError, "timeout must be more than 0 seconds, not 0"),
        ({"timeout": -1}, ValueError, "timeout must be more than 0 seconds, not -1"),
        ({"timeout": math.nan}, ValueError, "timeout must be more than 0 seconds, not nan"),
        (
            {"timeout": 10**400},
            ValueError,
            "timeout must be seconds that a float can hold, not a number of 1329 bits; math.inf is no limit",
        ),
        ({"memory_limit": 0}, ValueError, "memory_limit must be more than 0 bytes, not 0"),
        ({"memory_limit": -1}, ValueError, "memory_limit must be more than 0 bytes, not -1"),
        ({"memory_limit": True}, TypeError, "memory_limit must be a number of bytes as an int, such as 512 << 20, not True"),
        (
            {"memory_limit": 1e9},
            TypeError,
            "memory_limit must be a number of bytes as an int, such as 512 << 20, not 1000000000.0",
        ),
        ({"memory_limit": "1G"}, TypeError, "memory_limit must be a number of bytes as an int, such as 512 << 20, not '1G'"),
        ({"timeout": "1"}, TypeError, "timeout must be a number of seconds, not str"),
        ({"name": 3}, TypeError, "name must be a str or None, not int"),
        ({"priority": 1.0}, TypeError, "priority must be an int, not float"),
        ({"priority": True}, TypeError, "priority must be an int, not bool"),
        ({"retries": -1}, ValueError, "retries must be 0 or more"),
        ({"retries": 2.0}, TypeError, "retries must be an int, not float"),
        (
            {"retry_on": ()},
            ValueError,
            "retry_on must name at least one exception class; leave it out to retry after a crash only",
        ),
        (
            {"retry_on": "ConnectionError"},
            TypeError,
            "retry_on must hold exception classes, as (ConnectionError, TimeoutError), not 'ConnectionError'",
        ),
        (
            {"retry_on": (OSError, 1)},
            TypeError,
            "retry_on must hold exception classes, as (ConnectionError, TimeoutError), not 1",
        ),
        (
            {"retry_on": int},
            TypeError,
            f"retry_on must hold exception classes, as (ConnectionError, TimeoutError), not {int!r}",
        ),
        ({"cancel_running": 1}, TypeError, "cancel_running must be True or False, not 1"),
    ],
)
def test_a_bad_option_is_named(arguments: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind) as caught:
        task_options(TaskOptions(), **arguments)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"chunksize": 2.5}, TypeError, "chunksize must be an int, not float"),
        ({"chunksize": "2"}, TypeError, "chunksize must be an int, not str"),
        ({"chunksize": None}, TypeError, "chunksize must be an int, not None"),
        ({"chunksize": 0}, ValueError, "chunksize must be >= 1, not 0"),
        ({"chunksize": False}, ValueError, "chunksize must be >= 1, not 0"),
        ({"chunksize": 2**70}, ValueError, f"chunksize must be >= 1 and at most {sys.maxsize}, not {2**70}"),
        ({"buffersize": 2.5}, TypeError, "buffersize must be an integer or None, not float"),
        ({"buffersize": "1"}, TypeError, "buffersize must be an integer or None, not str"),
        ({"buffersize": 0}, ValueError, "buffersize must be None or > 0, not 0"),
        ({"buffersize": 2**70}, ValueError, f"buffersize must be None or > 0 and at most {sys.maxsize}, not {2**70}"),
        ({"timeout": "1"}, TypeError, "timeout must be a number of seconds or None, not str"),
        ({"timeout": [1]}, TypeError, "timeout must be a number of seconds or None, not list"),
        ({"timeout": float}, TypeError, "timeout must be a number of seconds or None, not type"),
        ({"timeout": math.nan}, ValueError, "timeout must be a number of seconds or None, not nan"),
        (
            {"timeout": 10**400},
            ValueError,
            "timeout must be seconds that a float can hold, not a number of 1329 bits; math.inf is no limit",
        ),
    ],
)
def test_a_bad_argument_of_map_is_named(arguments: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind) as caught:
        map_arguments(**{"timeout": None, "chunksize": 1, "buffersize": None, **arguments})
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ((None, 1, None), (math.inf, 1, None)),
        ((3, Index(), Index()), (3.0, 3, 3)),
        ((-1.5, True, True), (-1.5, 1, 1)),
        ((Fraction(1, 2), sys.maxsize, sys.maxsize), (0.5, sys.maxsize, sys.maxsize)),
        ((Decimal("0.5"), 1, None), (0.5, 1, None)),
        ((math.inf, 1, None), (math.inf, 1, None)),
        ((Index(), 1, None), (3.0, 1, None)),
    ],
)
def test_what_map_takes(given: tuple[Any, Any, Any], taken: tuple[Any, Any, Any]) -> None:
    assert map_arguments(*given) == taken


def test_defaults() -> None:
    assert config(max_workers=None).max_workers == 6
    assert dataclasses.asdict(config()) == {
        "max_workers": 2,
        "initializer": None,
        "initargs": (),
        "max_tasks_per_child": None,
        "max_tasks_jitter": 0,
        "env": None,
        "serializer": "auto",
        "grace_period": 5.0,
        "pin": "auto",
        "threads_per_worker": None,
        "preload": (),
    }
    assert task_options(TaskOptions()) == TaskOptions()


def test_what_is_given_is_taken() -> None:
    made = config(max_workers=Index(), initializer=print, initargs=["a", 1], max_tasks_per_child=Index(), grace_period=0)
    assert (made.max_workers, made.initializer, made.initargs) == (3, print, ("a", 1))
    assert (made.max_tasks_per_child, made.grace_period) == (3, 0.0)
    assert type(made.max_workers) is int
    view = task_options(TaskOptions(), timeout=2, name="thumb")
    assert view == TaskOptions(2.0, "thumb")
    assert task_options(view, timeout=math.inf) == TaskOptions(math.inf, "thumb")
    limited = task_options(view, memory_limit=1 << 20)
    assert task_options(limited, memory_limit=None) == limited == TaskOptions(2, "thumb", memory_limit=1 << 20)
    assert task_options(limited, memory_limit=math.inf) == view
    more = task_options(view, priority=Index(), cancel_running=True)
    assert more == TaskOptions(2.0, "thumb", priority=3, cancel_running=True)
    assert task_options(more) == more, "what is left out stays"
    again = task_options(more, retries=Index(), retry_on=KeyError)
    assert (again.retries, again.retry_on, again.timeout) == (3, frozenset(("builtins.KeyError",)), 2.0)
    assert task_options(again, retry_on=[OSError, TimeoutError]).retries == 3
    assert task_options(more, priority=0, cancel_running=False) == view, "what is given replaces, also by a default"


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("auto", "auto"),
        (True, True),
        (False, False),
        ([1, 0], ((1,), (0,))),
        (range(2), ((0,), (1,))),
        ([[3, 2, 3], {8}], ((2, 3), (8,))),
        ([Index(), 0], ((3,), (0,))),
        ([[0], 1], ((0,), (1,))),
    ],
)
def test_what_pin_may_be(given: object, taken: object) -> None:
    assert config(pin=given).pin == taken


def test_how_many_workers_there_are_by_default() -> None:
    assert config(max_workers=None, pin=[1, 0, 2]).max_workers == 3
    assert config(max_workers=None, threads_per_worker="auto").max_workers == 6
    assert config(max_workers=None, threads_per_worker=2).max_workers == 3
    assert config(max_workers=None, threads_per_worker=100).max_workers == 1


def test_a_system_without_affinity_says_so() -> None:
    with pytest.raises(ValueError, match="usable: none: this system cannot bind a process to CPUs"):
        pool_config(**{**GOOD, "pin": [0, 1]}, mask=(), count_cpus=lambda: 1)


def test_env_is_a_copy_that_nobody_changes() -> None:
    mine = {"A": "1"}
    made = config(env=mine)
    mine["A"] = "2"
    assert made.env == {"A": "1"}
    with pytest.raises(TypeError):
        made.env["A"] = "3"  # type: ignore[index]


def test_env_holds_what_any_process_can_read() -> None:
    class Text(str):
        pass

    env = config(env={Text("A"): Text("ä€𝄞"), "bytes": "\udc80"}).env
    assert env == {"A": "ä€𝄞", "bytes": "\udc80"}
    assert {type(text) for pair in env.items() for text in pair} == {str}


def test_options_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        config().max_workers = 3  # type: ignore[misc]


@pytest.mark.parametrize("context", [None, "spawn", "forkserver"])
def test_contexts_that_mean_our_own_server(context: str | None) -> None:
    check_context(context)
    if context is not None:
        check_context(multiprocessing.get_context(context))


def test_preload_is_a_tuple_of_names() -> None:
    names = ["json", "my-plugin.part", "__main__"]
    made = config(preload=iter(names))
    assert made.preload == tuple(names)
