"""The fixtures: which pool a test gets, and with which arguments."""

from collections.abc import Callable

import pytest

from tests.pytest_plugin.conftest import python

Run = Callable[..., pytest.RunResult]

pytestmark = [pytest.mark.slow, pytest.mark.alarm(150)]


def test_each_fixture_gives_the_pool_that_it_promises(run_suite: Run) -> None:
    result = run_suite(
        conftest="""
            import pytest

            @pytest.fixture(scope="module")
            def warm(fork_pool_session):
                fork_pool_session.submit(abs, -1).result()
                return fork_pool_session
        """,
        test_one="""
            import os, pytest
            from forkpool import ForkPoolExecutor

            seen, shared = [], []

            @pytest.mark.parametrize("n", range(2))
            def test_fresh(fork_pool, n):
                assert isinstance(fork_pool, ForkPoolExecutor)
                assert fork_pool._max_workers == 2
                seen.append((id(fork_pool), fork_pool.submit(os.getpid).result()))
                assert len(set(seen)) == n + 1

            @pytest.mark.parametrize("n", range(2))
            def test_shared(fork_pool_session, warm, n):
                assert warm is fork_pool_session
                shared.append((id(fork_pool_session), fork_pool_session.submit(os.getpid).result()))
                assert len(set(shared)) == 1

            def test_factory(fork_pool_factory):
                one, two = fork_pool_factory(), fork_pool_factory(max_workers=3)
                assert (one._max_workers, two._max_workers) == (2, 3)
                assert one.submit(os.getpid).result() != two.submit(os.getpid).result()

            def test_factory_without_a_pool(fork_pool_factory):
                pass

            class TestMarked:
                pytestmark = pytest.mark.fork_pool(max_workers=4, initializer=os.umask, initargs=(0o77,))

                @pytest.mark.fork_pool(1)
                def test_nearest_wins(self, fork_pool, fork_pool_factory):
                    assert fork_pool._max_workers == fork_pool_factory()._max_workers == 1
                    assert fork_pool.submit(os.umask, 0).result() == 0o77

                def test_outer(self, fork_pool, fork_pool_session):
                    assert (fork_pool._max_workers, fork_pool_session._max_workers) == (4, 2)
        """,
    )
    result.assert_outcomes(passed=8)


def test_ini_options_give_the_default_arguments(run_suite: Run, pytester: pytest.Pytester) -> None:
    pytester.makeini("""
        [pytest]
        fork_pool_arguments =
            max_workers = 3
            serializer = pickle
            env = {"FROM_INI": "yes"}
    """)
    result = run_suite(
        "--strict-markers",
        "--strict-config",
        test_ini="""
            import os, pytest

            def test_ini(fork_pool, fork_pool_session, fork_pool_factory):
                for pool in (fork_pool, fork_pool_session, fork_pool_factory()):
                    assert pool._max_workers == 3
                    assert pool.submit(os.getenv, "FROM_INI").result() == "yes"
                with pytest.raises(Exception, match="serializer='pickle'"):
                    fork_pool.submit(lambda: 1).result()

            @pytest.mark.fork_pool(max_workers=1)
            def test_mark_wins(fork_pool, fork_pool_factory):
                assert fork_pool._max_workers == 1
                assert fork_pool_factory(max_workers=2)._max_workers == 2
        """,
    )
    result.assert_outcomes(passed=2)


def test_wrong_arguments_are_told_where_they_stand(run_suite: Run, pytester: pytest.Pytester) -> None:
    source = """
        import pytest

        @pytest.mark.fork_pool(max_workers=0)
        def test_value(fork_pool): pass

        @pytest.mark.fork_pool(workers=1)
        def test_name(fork_pool): pass

        @pytest.mark.fork_pool(1, 2)
        def test_positional(fork_pool): pass

        @pytest.mark.fork_pool(task_grace="long")
        def test_grace(fork_pool): pass
    """
    result = run_suite(test_wrong=source)
    result.assert_outcomes(errors=4)
    for words in (
        "fork_pool: max_workers must be greater than 0",
        "fork_pool:*unexpected keyword argument 'workers'",
        "marker fork_pool: all arguments but max_workers are named",
        "fork_pool_task_grace must be a number of seconds, not 'long'",
    ):
        result.stdout.fnmatch_lines(f"*{words}*")
    pytester.makeini("[pytest]\nfork_pool_arguments = max_workers 3")
    result = run_suite(test_wrong="def test_it(fork_pool): pass")
    result.stdout.fnmatch_lines("*ini option fork_pool_arguments: 'max_workers 3' is not name=value*")


def test_where_forkpool_cannot_work_the_tests_are_skipped_with_a_reason(run_suite: Run) -> None:
    result = run_suite(
        conftest="""
            import sys, pytest

            @pytest.fixture(autouse=True, scope="session")
            def windows():
                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr(sys, "platform", "win32")
                    yield
        """,
        test_skips="""
            def test_one(fork_pool): assert False
            def test_two(fork_pool_session): assert False
            def test_three(fork_pool_factory): assert False
            def test_four(): pass
        """,
    )
    result.assert_outcomes(skipped=3, passed=1)
    result.stdout.fnmatch_lines("SKIPPED*forkpool needs fork, which Windows does not have*")


def test_inline_works_where_forkpool_cannot(run_suite: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORKPOOL_INLINE", "1")
    result = run_suite(
        conftest="import os; del os.memfd_create",
        test_runs="""
            import os
            def test_one(fork_pool): assert fork_pool.submit(os.getpid).result() == os.getpid()
            def test_two(fork_pool_factory): assert fork_pool_factory().submit(os.getpid).result() == os.getpid()
        """,
    )
    result.assert_outcomes(passed=2)


def test_without_the_means_of_linux_the_tests_are_skipped_too(run_suite: Run) -> None:
    result = run_suite(
        conftest="import os; del os.memfd_create",
        test_skips="def test_one(fork_pool): assert False\ndef test_two(fork_pool_session): assert False",
    )
    result.assert_outcomes(skipped=2)
    result.stdout.fnmatch_lines("SKIPPED*forkpool needs Linux with memfd_create*")


def test_the_plugin_is_light_until_a_fixture_is_used(run_suite: Run) -> None:
    heavy = "{'psutil', 'cloudpickle', 'multiprocessing', 'concurrent.futures.process'}"
    printed = python(f"""
import pytest, sys
before = set(sys.modules)
import forkpool.pytest_plugin
print(sorted(set(sys.modules) - before), {heavy} & set(sys.modules))
""")
    assert printed == "['forkpool', 'forkpool.pytest_plugin'] set()\n"
    result = run_suite(
        test_light=f"""
            import sys

            def test_light(pytestconfig):
                assert pytestconfig.pluginmanager.hasplugin("forkpool")
                assert not {heavy} & set(sys.modules)
                assert [name for name in sys.modules if name.startswith("forkpool")] == ["forkpool", "forkpool.pytest_plugin"]
        """,
    )
    result.assert_outcomes(passed=1)


def test_fixtures_marker_and_options_are_listed(run_suite: Run) -> None:
    result = run_suite("--fixtures", "-p", "no:cacheprovider", test_none="def test_nothing(): pass")
    result.stdout.fnmatch_lines_random(["fork_pool -- *", "fork_pool_session *-- *", "fork_pool_factory -- *"])
    run_suite("--markers").stdout.fnmatch_lines("@pytest.mark.fork_pool(*")
    run_suite("--help").stdout.fnmatch_lines_random(["*fork_pool_arguments (linelist)*", "*fork_pool_task_grace (string)*"])
