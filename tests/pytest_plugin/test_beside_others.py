"""The plugin in all kinds of suites: import modes, strict warnings, and beside other plugins, the real ones."""

import re
import sys
from collections.abc import Callable

import pytest

Run = Callable[..., pytest.RunResult]

pytestmark = [pytest.mark.slow, pytest.mark.alarm(150)]

SAME_NAME = """
    from {conftest} import helper

    def double(n):
        assert n != 3, "no threes"
        return 2 * n

    class Local:
        def __init__(self, n): self.n = n

    def make(n):
        return Local(helper(n))

    def where(n):
        return {where!r}

    def test_functions_of_this_file(fork_pool):
        assert list(fork_pool.map(double, [1, 2])) == [2, 4]
        assert isinstance(fork_pool.submit(double, 3).exception(), AssertionError)
        assert fork_pool.submit(lambda n: where(n), 1).result() == {where!r}
        assert fork_pool.submit(where, 1).result() == {where!r}

    def test_helper_of_the_conftest(fork_pool, fork_pool_session, conftest_helper):
        for pool in (fork_pool, fork_pool_session):
            assert pool.submit(conftest_helper, 1).result() == [{where!r}, 1]
            made = pool.submit(make, 1).result()
            assert type(made) is Local and made.n == ["top", 1]
"""
CONFTEST = """
import pytest

def helper(n):
    return [{where!r}, n]

@pytest.fixture
def conftest_helper():
    return helper
"""


@pytest.mark.parametrize("mode", ["prepend", "append", "importlib"])
def test_import_modes_with_two_files_of_one_name_and_helpers_in_conftests(
    run_suite: Run, pytester: pytest.Pytester, mode: str
) -> None:
    """Beside each other without packages where pytest allows that, else in packages."""
    pytester.makeconftest(CONFTEST.format(where="top"))
    pytester.makepyfile(top_helper="def helper(n): return ['top', n]")
    pytester.makeini("[pytest]\npythonpath = .\n")
    for where in ("one", "two"):
        folder = pytester.mkdir(where) if mode == "importlib" else pytester.mkpydir(where)
        (folder / "conftest.py").write_text(CONFTEST.format(where=where))
        text = SAME_NAME.format(where=where, conftest="top_helper")
        (folder / "test_same.py").write_text("\n".join(line[4:] for line in text.splitlines()))
    result = run_suite(f"--import-mode={mode}", "-W", "error")
    result.assert_outcomes(passed=4)


def test_errors_as_warnings_and_doctests(run_suite: Run, pytester: pytest.Pytester) -> None:
    result = run_suite(
        "-W",
        "error",
        "--doctest-modules",
        "--strict-markers",
        "--strict-config",
        module='''
            def twice(n):
                """
                >>> pool = getfixture("fork_pool")
                >>> list(pool.map(twice, [1, 2]))
                [2, 4]
                >>> def thrice(n):
                ...     return 3 * n
                >>> pool.submit(thrice, 2).result()
                6
                """
                return 2 * n
        ''',
        test_warnings="""
            import warnings, pytest

            def warn():
                warnings.warn("from a task")

            def test_a_warning_in_a_task_is_an_error_there(fork_pool):
                assert isinstance(fork_pool.submit(warn).exception(), UserWarning)

            @pytest.mark.filterwarnings("ignore:from a task")
            def test_unless_the_test_says_otherwise(fork_pool):
                assert fork_pool.submit(warn).exception() is None
        """,
    )
    result.assert_outcomes(passed=3)


def test_xdist(run_suite: Run) -> None:
    result = run_suite(
        "-n2",
        test_spread="""
            import os, time, pytest

            @pytest.mark.parametrize("n", range(6))
            def test_both(fork_pool, fork_pool_session, n):
                assert fork_pool.submit(abs, -n).result() == n
                assert fork_pool_session.submit(os.getenv, "PYTEST_XDIST_WORKER").result() in ("gw0", "gw1")

            def test_leaves(fork_pool):
                fork_pool.submit(time.sleep, 1000)
        """,
    )
    result.assert_outcomes(passed=6, failed=1)
    result.stdout.re_match_lines([r".*fork_pool: task 'sleep' was still "])


@pytest.mark.parametrize("source", ["file", "importlib"])
def test_coverage_from_inside_workers(run_suite: Run, pytester: pytest.Pytester, source: str) -> None:
    pytester.makefile(".toml", pyproject="""
        [tool.coverage.run]
        patch = ["subprocess"]
        [tool.coverage.report]
        show_missing = true
    """)  # fmt: skip
    pytester.makepyfile(
        measured="""
            def in_worker(n):
                if n:
                    return "in a worker"
                return "not run"

            def in_initializer():
                return 1
        """
    )
    result = run_suite(
        "--cov=measured",
        "--cov-report=term-missing",
        *(["--import-mode=importlib", "-o", "pythonpath=."] if source == "importlib" else []),
        test_measured="""
            import measured, pytest

            @pytest.mark.fork_pool(initializer=measured.in_initializer)
            def test_it(fork_pool):
                assert fork_pool.submit(measured.in_worker, 1).result() == "in a worker"

            def test_shared(fork_pool_session):
                assert fork_pool_session.submit(measured.in_worker, 1).result() == "in a worker"
        """,
    )
    result.assert_outcomes(passed=2)
    (line,) = [line for line in result.outlines if line.startswith("measured.py")]
    assert line.split()[1:] == ["6", "1", "83%", "4"], result.stdout.str()
    assert not list(pytester.path.glob(".coverage.*")), "written too late to be combined"


@pytest.mark.parametrize("method", ["signal", "thread"])
def test_timeout(run_suite: Run, method: str) -> None:
    result = run_suite(
        f"--timeout-method={method}",
        test_hangs="""
            import time, pytest

            @pytest.mark.timeout(3)
            def test_hangs(fork_pool):
                fork_pool.options(name="endless").submit(time.sleep, 1000).result()

            def test_after_it(fork_pool):
                assert fork_pool.submit(abs, -1).result() == 1
        """,
    )
    assert re.search(r"Timeout", result.stdout.str() + result.stderr.str())
    if method == "signal":
        result.assert_outcomes(passed=1, failed=1)
        result.stdout.re_match_lines([r".*fork_pool: task 'endless' was still running on slot 0 \(pid \d+\)"])


def test_capfd_and_capture(run_suite: Run) -> None:
    result = run_suite(
        test_capture="""
            import sys

            def speak(word):
                print(word)
                print(word.upper(), file=sys.stderr)

            def test_capfd(fork_pool, capfd):
                fork_pool.submit(speak, "word").result()
                assert capfd.readouterr() == ("word\\n", "WORD\\n")

            def test_capsys_cannot(fork_pool, capsys):
                fork_pool.submit(speak, "unseen").result()
                assert capsys.readouterr() == ("", "")

            def test_shown_with_a_failure(fork_pool, fork_pool_session):
                fork_pool.submit(speak, "shown").result()
                fork_pool_session.submit(speak, "shared").result()
                assert 0
        """,
    )
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["*Captured stdout call*", "shown", "shared", "*Captured stderr call*", "SHOWN", "SHARED"])


def test_without_the_plugin_nothing_of_it_is_there(run_suite: Run) -> None:
    result = run_suite("-p", "no:forkpool", test_none="def test_it(fork_pool): pass")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines("*fixture 'fork_pool' not found*")


@pytest.mark.parametrize("module", ["forkpool", "forkpool.executor", "forkpool.pytest_plugin"])
def test_a_program_that_imports_forkpool_and_then_runs_pytest(pytester: pytest.Pytester, module: str) -> None:
    """pytest used to warn that it could not rewrite the assertions of the package, which -W error made fatal."""
    pytester.makepyfile("def test_it(fork_pool): assert fork_pool.submit(abs, -1).result() == 1")
    program = f"import {module}, pytest, sys; sys.exit(pytest.main(['-W', 'error']))"
    result = pytester.run(sys.executable, "-c", program)
    assert result.ret == 0
    result.stdout.fnmatch_lines("*1 passed*")
    result.stdout.no_fnmatch_line("*arning*")
