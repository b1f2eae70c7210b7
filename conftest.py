"""What every test gets, whatever it tests: an alarm instead of a hang, and signals as a terminal leaves them.

Runs in: the pytest process, main thread.
The plumbing lives in tests/support, fixtures for tests that start processes in tests/support/fixtures.py.
"""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.alarm import alarm

DEFAULT_ALARM_S = 40

# "pytester" is for tests/pytest_plugin: pytest takes this from the topmost conftest only.
pytest_plugins = ["tests.support.fixtures", "pytester"]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: takes more than a quarter of a second")
    config.addinivalue_line("markers", "alarm(seconds): patience before a test counts as hung")
    heed_signals_of_a_terminal()


def heed_signals_of_a_terminal() -> None:
    """Let the programs that tests start heed Ctrl-C and SIGHUP, also when pytest was started with `&` or `nohup`.

    A shell without job control starts what it puts in the background with SIGINT and SIGQUIT ignored, nohup adds SIGHUP. Both
    survive exec; a handler does not. Ours does nothing: pytest itself goes on ignoring them.
    """
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


@pytest.fixture(autouse=True)
def alarm_clock(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that hangs, with the stacks of all threads, instead of waiting for ever."""
    marker = request.node.get_closest_marker("alarm")
    with alarm(marker.args[0] if marker else DEFAULT_ALARM_S):
        yield


@pytest.fixture
def own_claims(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file for claims on CPUs that only this test's pools look at: nobody else's take part."""
    path = tmp_path / "cpu-claims"
    path.touch()
    monkeypatch.setenv("FORKPOOL_CPU_CLAIMS", str(path))
    return path
