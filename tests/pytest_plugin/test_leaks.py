"""What fails a test: a task that has not ended with it, and what its pool left behind, by name."""

from collections.abc import Callable

import pytest

Run = Callable[..., pytest.RunResult]

pytestmark = [pytest.mark.slow, pytest.mark.alarm(150)]


def test_a_test_that_leaves_tasks_fails_with_their_names(run_suite: Run) -> None:
    result = run_suite(
        test_tasks="""
            import time, pytest

            def leave_three(pool):
                pool.submit(abs, -1).result()
                for _ in range(2):
                    pool.submit(time.sleep, 1000)
                pool.options(name="the third").submit(time.sleep, 1000)

            @pytest.mark.fork_pool(1)
            def test_fresh(fork_pool):
                leave_three(fork_pool)

            def test_shared(fork_pool_session):
                leave_three(fork_pool_session)

            def test_after_it_the_shared_pool_is_free(fork_pool_session):
                assert fork_pool_session.submit(abs, -2).result() == 2

            def test_factory(fork_pool_factory):
                leave_three(fork_pool_factory(max_workers=2))

            def test_that_fails_by_itself(fork_pool):
                leave_three(fork_pool)
                assert "its own" == "reason"

            def test_with_a_shutdown_that_does_not_wait(fork_pool):
                leave_three(fork_pool)
                fork_pool.shutdown(wait=False)
        """,
    )
    result.assert_outcomes(failed=5, passed=1)
    text = result.stdout.str()
    for fixture in ("fork_pool", "fork_pool_session", "fork_pool_factory"):
        result.stdout.re_match_lines(rf"{fixture}: task 'sleep' was still (running on slot 0 \(pid \d+\)|waiting)")
        assert f"{fixture}: task 'the third' was still waiting for a worker" in text
    assert "assert 'its own' == 'reason'" in text
    assert "Wait for the results of its tasks" in text
    assert "left behind" not in text


def test_what_is_no_fault_of_the_test(run_suite: Run) -> None:
    result = run_suite(
        test_fine="""
            import time, pytest
            from concurrent.futures import CancelledError

            @pytest.fixture
            def server(fork_pool):
                future = fork_pool.submit(time.sleep, 1000)
                yield future
                future.kill()

            def test_a_fixture_keeps_a_task_running(server, fork_pool):
                assert fork_pool.submit(abs, -1).result() == 1

            def test_killed_and_cancelled(fork_pool):
                futures = [fork_pool.submit(time.sleep, 1000) for _ in range(4)]
                for future in futures:
                    assert future.kill()

            def test_closed_by_the_test(fork_pool, fork_pool_factory):
                with fork_pool, fork_pool_factory() as other:
                    fork_pool.submit(abs, -1), other.submit(abs, -1)
                fork_pool.shutdown()

            @pytest.mark.fork_pool(task_grace=60)
            def test_grace(fork_pool):
                fork_pool.submit(time.sleep, 0.01)

            def test_crash(fork_pool):
                import os
                assert "SIGABRT" in str(fork_pool.submit(os.abort).exception())

            def test_broken(fork_pool_factory):
                pool = fork_pool_factory(initializer=divmod, initargs=(1, 0))
                assert pool.submit(abs, -1).exception() is not None

            def test_not_used(fork_pool): pass
        """,
    )
    result.assert_outcomes(passed=7)


def test_a_task_that_a_fixture_leaves_is_an_error_of_the_teardown(run_suite: Run) -> None:
    result = run_suite(
        test_fixture="""
            import time, pytest

            @pytest.fixture
            def server(fork_pool):
                return fork_pool.options(name="serve").submit(time.sleep, 1000)

            def test_it(server): pass
        """,
    )
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.re_match_lines([r"fork_pool: task 'serve' was still "])


def test_what_a_pool_leaves_behind_is_named(run_suite: Run) -> None:
    result = run_suite(
        test_left="""
            import os, signal, subprocess, threading, pytest
            from multiprocessing.shared_memory import SharedMemory

            def make_memory():
                memory = SharedMemory(create=True, size=10)
                memory.close()
                return memory.name

            def start_program(own_session):
                return subprocess.Popen(["sleep", "1000"], start_new_session=own_session).pid

            @pytest.fixture
            def started():
                pids = []
                yield pids
                for pid in pids:
                    os.kill(pid, signal.SIGKILL)

            @pytest.fixture
            def made():
                names = []
                yield names
                for name in names:
                    memory = SharedMemory(name)
                    memory.close()
                    memory.unlink()

            def test_program(started, fork_pool):
                started.append(fork_pool.submit(start_program, True).result())

            def test_memory(made, fork_pool):
                made.append(fork_pool.submit(make_memory).result())

            @pytest.fixture(scope="session")
            def made_in_session():
                names = []
                yield names
                for name in names:
                    memory = SharedMemory(name)
                    memory.close()
                    memory.unlink()

            def test_memory_of_the_session(made_in_session, fork_pool_session):
                made_in_session.append(fork_pool_session.submit(make_memory).result())

            def test_nothing_is_left(fork_pool, fork_pool_session):
                fork_pool.submit(start_program, False).result()  # dies with its worker
                memory = SharedMemory(fork_pool.submit(make_memory).result())
                memory.close()
                memory.unlink()
                mine = SharedMemory(create=True, size=10)
                assert fork_pool_session.submit(len, b"12").result() == 2
                mine.close()
                mine.unlink()
        """,
    )
    result.assert_outcomes(passed=4, errors=3)
    told, _ = result.stdout.str().split("short test summary info")  # cut at 80 columns unless CI is set
    assert told.count(" left behind: ") == 3
    result.stdout.re_match_lines([r"fork_pool left behind: process 'sleep' \(pid \d+\): a task on slot 0 started it"])
    result.stdout.re_match_lines([r"fork_pool left behind: shared memory '/psm_\w+'.*\(during test_left.py::test_memory\)"])
    result.stdout.re_match_lines([r"fork_pool_session left behind: .*\(during test_left.py::test_memory_of_the_session\)"])


def test_a_callback_that_does_not_return_is_a_thread_left_behind(run_suite: Run, pytester: pytest.Pytester) -> None:
    result = run_suite(
        conftest="import forkpool.integrations.pytest_pools as pools\npools._END_PATIENCE_S = 0.2\n",
        test_callback="""
            import multiprocessing, threading, pytest

            @pytest.fixture
            def stop():
                event = threading.Event()
                yield event
                event.set()

            def test_callback(stop, fork_pool):
                receiver, sender = multiprocessing.Pipe(duplex=False)
                with receiver, sender:
                    future = fork_pool.submit(receiver.recv)
                    future.add_done_callback(lambda _: stop.wait())  # not over yet: else it is called right here
                    sender.send(1)
                    future.result()
        """,
    )
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.re_match_lines([r"fork_pool left behind: thread 'forkpool-callbacks'"])
