"""What `forkpool run --stats` writes."""

from forkpool import PoolStatistics
from forkpool._run.report import report


def counts(**given: object) -> PoolStatistics:
    names = ("queued", "running", "done", "failed", "crashed", "cancelled", "timed_out", "over_memory", "workers")
    numbers = dict.fromkeys(names, 0)
    default: dict[str, object] = {**numbers, "workers_started": 1, "workers_replaced": {}, "busy_time": (0.5,)}
    return PoolStatistics(**{**default, **given})  # type: ignore[arg-type]


def test_nothing_at_all() -> None:
    assert report(0, [], []) == (
        "forkpool: no ProcessPoolExecutor was made, nor anything else that is known to run things in other processes\n"
    )


def test_something_else() -> None:
    assert report(0, [], ["joblib (1)", "loky (2)"]) == (
        "forkpool: no ProcessPoolExecutor was made; seen instead:\n    joblib (1)\n    loky (2)\n"
    )


def test_one_pool() -> None:
    assert report(1, [counts(done=2)], []) == (
        "forkpool: 1 pool\n"
        "    tasks: 2: 2 done, 0 failed, 0 crashed\n"
        "    workers: 1 started, none replaced\n"
        "    time in tasks: 0.5 s\n"
    )


def test_several_pools_are_added_up() -> None:
    one = counts(done=2, timed_out=1, workers_replaced={"timed_out": 1, "crashed": 1})
    two = counts(done=1, crashed=1, cancelled=3, workers_replaced={"crashed": 1})
    assert report(3, [one, two], ["joblib (1)"]) == (
        "forkpool: 3 pools, 1 of them never used\n"
        "    tasks: 8: 3 done, 0 failed, 1 crashed, 1 timed out, 3 cancelled\n"
        "    workers: 2 started, 3 replaced (crashed: 2, timed_out: 1)\n"
        "    time in tasks: 1 s\n"
        "    also seen, not counted: joblib (1)\n"
    )


def test_a_pool_without_a_call() -> None:
    assert report(1, [], []) == "forkpool: 1 pool, 1 of them never used\n"
