"""When a worker's memory is looked at, and what its growth means. Runs in: pytest; pure."""

import pytest

from forkpool._core import memory_watch
from forkpool._core.memory_watch import FASTEST_GROWTH, LATEST_S, SOONEST_S
from tests.support.machine_host import Host

MIB = 1 << 20
LIMIT = {"memory_limit": 512 * MIB}
MEMORY_ERROR = frozenset(("builtins.MemoryError",))


def watched(private: int = 64 * MIB) -> Host:
    """Worker 1 runs "a", which has a limit, and had so much memory before."""
    host = Host()
    host.submit("a", **LIMIT)
    host.step()
    assert host.ready(1) == [("LOOK", 1), ("SEND", 1, "a")], "the base line comes first"
    host.memory(1, private)
    return host


def test_without_a_limit_nobody_is_looked_at() -> None:
    host = Host(2).busy("a", "b")
    assert host.next_time() is None
    assert host.later(3600) == []


def test_the_next_look_comes_before_the_limit_can_be_reached() -> None:
    host = watched()
    soonest = 512 * MIB / FASTEST_GROWTH
    assert host.next_time() == round(soonest, 6)
    assert host.later(soonest / 2) == []
    assert host.later(soonest / 2) == [("LOOK", 1)]
    assert host.next_time() is None, "the same look is asked for once"
    host.memory(1, (64 + 256) * MIB)
    assert host.next_time() == round(soonest / 2, 6)
    host.memory(1, (64 + 511) * MIB)
    assert host.next_time() == SOONEST_S
    host.memory(1, 0)
    assert host.next_time() == round((512 + 64) * MIB / FASTEST_GROWTH, 6)


def test_who_is_far_from_the_limit_is_looked_at_now_and_then() -> None:
    host = Host()
    host.submit("a", memory_limit=1 << 50)
    host.step()
    host.ready(1)
    host.memory(1, 1)
    assert host.next_time() == LATEST_S


def test_growth_beyond_the_limit_ends_the_task() -> None:
    host = watched()
    assert host.memory(1, (64 + 512) * MIB) == [], "as much as it may"
    assert host.memory(1, (64 + 512) * MIB + 1) == [("KILL", 1)]
    assert host.worker(1).grown == 512 * MIB + 1
    assert host.next_time() is None
    assert host.memory(1, 1 << 40) == [], "a look that was on its way"
    assert host.gone(1) == [("END", 1, "a", "OVER_MEMORY")]
    assert host.machine.replaced == {"over_memory": 1}


def test_what_the_worker_held_before_does_not_count() -> None:
    host = watched(private=4096 * MIB)
    assert host.memory(1, 4600 * MIB) == []
    host.answer(1)
    host.submit("b", **LIMIT)
    assert host.step() == [("LOOK", 1), ("SEND", 1, "b")]
    host.memory(1, 4600 * MIB)
    assert host.memory(1, 5000 * MIB) == [], "each task has a base line of its own"


def test_the_watch_ends_with_the_task() -> None:
    host = watched()
    host.answer(1)
    assert host.next_time() is None
    assert host.memory(1, 1 << 40) == []
    host.submit("b")
    assert host.step() == [("SEND", 1, "b")]
    assert host.next_time() is None
    assert host.memory(1, 1 << 40) == []


def test_an_answer_that_was_quicker_than_the_kill() -> None:
    host = watched()
    host.machine.on_memory(host.worker(1), host.now, 1 << 40)
    assert host.answer(1) == [("KILL", 1)]
    assert host.gone(1) == []


def test_neither_ahead_of_others_nor_others_behind_it() -> None:
    host = Host().idle()
    host.submit("x")
    host.step()
    host.submit("x", **LIMIT)
    assert host.step() == []
    assert host.answer(1, 0.00001) == [("LOOK", 1), ("SEND", 1, "x")]
    host.memory(1, 1)
    host.submit("x")
    assert host.step() == []


def test_a_worker_that_had_not_taken_it_gets_it_again_with_another_base_line() -> None:
    host = watched()
    host.machine.actions.clear()
    host.recalled(1, "a")
    assert host.worker(1).tasks
    host.memory(1, 900 * MIB)
    assert host.memory(1, 1000 * MIB) == []


def test_kill_and_timeout_end_the_watch() -> None:
    host = watched()
    assert host.kill("a") == [("KILL", 1)]
    assert host.next_time() is None
    assert host.gone(1) == [("END", 1, "a", "KILLED")]
    host = Host()
    host.submit("a", timeout=0.001, **LIMIT)
    host.step()
    host.ready(1)
    host.memory(1, 1)
    host.sent(1)
    assert host.next_time() == 0.001
    host.started["a"] = host.now
    assert host.later(0.001) == [("KILL", 1)]
    assert host.memory(1, 1 << 40) == []
    assert host.gone(1) == [("END", 1, "a", "TIMED_OUT")]


def test_it_is_tried_again_only_if_named() -> None:
    for retry_on, ends in ((MEMORY_ERROR, False), (frozenset(("builtins.TimeoutError",)), True)):
        host = Host()
        host.submit("a", retries=1, retry_on=retry_on, **LIMIT)
        host.step()
        host.ready(1)
        host.memory(1, 0)
        host.memory(1, 1 << 40)
        assert (("END", 1, "a", "OVER_MEMORY") in host.gone(1)) == ends
        if not ends:
            assert host.ready(2) == [("LOOK", 2), ("SEND", 2, "a")]


def test_where_memory_cannot_be_read_there_is_no_watch() -> None:
    host = Host()
    host.submit("a", **LIMIT)
    host.step()
    host.ready(1)
    assert host.memory(1, None) == []
    assert host.next_time() is None


def test_a_look_that_failed_is_made_again() -> None:
    host = watched()
    assert host.memory(1, None) == []
    assert host.next_time() == LATEST_S
    assert host.memory(1, 1 << 40) == [("KILL", 1)]


@pytest.mark.parametrize("workers", [1, 3])
def test_each_worker_has_its_own_time(workers: int) -> None:
    host = Host(workers)
    for number in range(workers):
        host.submit(str(number), memory_limit=(number + 1) * 256 * MIB)
    host.step()
    host.ready(*range(1, workers + 1))
    for generation in range(1, workers + 1):
        host.memory(generation, 0)
    limits = sorted(watched.limit for watched in host.machine._memory._watched.values())
    assert host.next_time() == round(limits[0] / memory_watch.FASTEST_GROWTH, 6)
    assert [verb for verb, _ in host.later(LATEST_S)] == ["LOOK"] * workers
