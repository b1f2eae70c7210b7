"""A program: run CPython's own tests of process pools, on whatever `concurrent.futures.ProcessPoolExecutor` is here.

Runs in: a process of its own, under `forkpool run`, so that the suite finds our pool where it looks for the standard one.
    python -m forkpool run tests/support/cpython_runner.py RESULTS.json SHARD SHARDS
Only the classes of one start method run, "forkserver": all start methods are the same to us, and "fork" is refused. Most of the
suite's time is sleep, so its classes are dealt out to several such programs, which run side by side.
Hard part: programs that the suite starts (`assert_python_ok("-c", ...)`) must find our pool as well, so they are started under
`forkpool run`, too. The suite is one file up to 3.11.4 and a package after it; unittest loads both by the same name.
Tests: it is a part of tests/contract/test_cpython_suite.py
"""

import json
import os
import sys
import tempfile
import unittest
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SUITE = "test.test_concurrent_futures"
START_METHOD = "forkserver"


class Outcomes(unittest.TestResult):
    """What became of each test: {"Class.method": ["passed" | "skipped" | "failed", why]}."""

    def __init__(self) -> None:
        super().__init__()
        self.all: dict[str, tuple[str, str]] = {}

    def startTest(self, test: unittest.TestCase) -> None:
        super().startTest(test)
        self.all[name_of(test)] = ("passed", "")

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        self.all[name_of(test)] = ("skipped", reason)

    def addFailure(self, test: unittest.TestCase, err: Any) -> None:
        self.all[name_of(test)] = ("failed", self._exc_info_to_string(err, test))  # type: ignore[attr-defined]
        executor = getattr(test, "executor", None)
        if executor is not None:  # a test that failed before it let its calls go would wait for them in tearDown
            executor.kill_workers()

    def addError(self, test: unittest.TestCase, err: Any) -> None:
        self.addFailure(test, err)  # setUpModule and its like come here, too, with a name of their own

    def addSubTest(self, test: unittest.TestCase, subtest: unittest.TestCase, err: Any) -> None:
        if err is not None:
            self.addFailure(test, err)


def name_of(test: unittest.TestCase) -> str:
    """Return "Class.method", without what names the start method in the class's name."""
    return ".".join(test.id().split(".")[-2:]).removeprefix("ProcessPoolForkserver")


def tests_in(suite: unittest.TestSuite) -> Iterator[unittest.TestCase]:
    for one in suite:
        if isinstance(one, unittest.TestSuite):
            yield from tests_in(one)
        else:
            yield one


def classes_of_this_start_method(suite: unittest.TestSuite) -> list[list[unittest.TestCase]]:
    classes: dict[type, list[unittest.TestCase]] = {}
    for test in tests_in(suite):
        if START_METHOD in test.id().lower():
            classes.setdefault(type(test), []).append(test)
    return sorted(classes.values(), key=len)  # the long ones come last, and so to different shards


def swap_in_programs(suite_module: Any) -> None:
    """What the suite starts as a program finds the same pool as it does itself."""
    plain = suite_module.assert_python_ok

    def assert_python_ok(option: str, code: str) -> Any:
        assert option == "-c"
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "program.py")
            path.write_text(code)
            return plain("-m", "forkpool", "run", str(path), __isolated=False, PYTHONPATH=os.environ.get("PYTHONPATH", ""))

    suite_module.assert_python_ok = assert_python_ok


def main(results: str, shard: str, shards: str) -> None:
    suite = unittest.defaultTestLoader.loadTestsFromName(SUITE)
    for module in [module for name, module in sys.modules.items() if name.startswith(SUITE)]:
        if hasattr(module, "assert_python_ok"):
            swap_in_programs(module)
    outcomes = Outcomes()
    mine = classes_of_this_start_method(suite)[int(shard) :: int(shards)]
    unittest.TestSuite(test for tests in mine for test in tests).run(outcomes)
    Path(results).write_text(json.dumps(outcomes.all))


if __name__ == "__main__":
    main(*sys.argv[1:])
