"""Survey every source file of the installed standard library, on two process pools side by side.

Each task reads one file, compiles it and measures the bytecode of each of its functions.
One task really segfaults: `DEFECT` stands for the C extension with a bug that this program does not have.
When its file comes up, the analyser reads address 0 through ctypes, and the kernel kills the worker with SIGSEGV.
The same `survey` runs on `concurrent.futures.ProcessPoolExecutor` first, then on `forkpool.ForkPoolExecutor`.
Tests: tests/docs/test_examples.py
"""

import ctypes
import platform
import sysconfig
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType

from forkpool import ForkPoolExecutor, WorkerCrashedError

STDLIB = Path(sysconfig.get_path("stdlib"))
DEFECT = "inspect.py"  # the one file on which the analyser crashes


@dataclass(frozen=True, slots=True)
class Report:
    """What the analyser found in one file."""

    path: str
    lines: int
    functions: int
    largest: tuple[int, str]  # bytes of bytecode, name of the function


@dataclass(slots=True)
class Outcome:
    """What one pool made of all files."""

    reports: list[Report] = field(default_factory=list)
    errors: dict[str, BaseException] = field(default_factory=dict)  # file -> its future's exception
    seconds: float = 0.0


def source_files() -> list[str]:
    """Return the path of each standard library source file, relative to the library; installed packages are left out."""
    found = (path.relative_to(STDLIB) for path in STDLIB.rglob("*.py"))
    return sorted(str(path) for path in found if not {"site-packages", "dist-packages"} & set(path.parts))


def analyse(path: str) -> Report:
    """Read, compile and measure one file. This is the task: it runs in a worker."""
    source = (STDLIB / path).read_bytes()
    if path == DEFECT:
        ctypes.string_at(0)  # reads address 0: a segmentation fault
    sizes = [(len(code.co_code), code.co_qualname) for code in functions_of(compiled(source, path))]
    return Report(path, source.count(b"\n"), len(sizes), max(sizes, default=(0, "")))


def compiled(source: bytes, path: str) -> CodeType:
    """Compile one file; a file that is meant not to compile (it tests the compiler) counts as empty."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return compile(source, path, "exec", dont_inherit=True)
        except (SyntaxError, ValueError):
            return compile("", path, "exec")


def functions_of(code: CodeType) -> Iterator[CodeType]:
    """Yield each function, lambda and comprehension inside this code, at any depth."""
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from functions_of(constant)


def survey(pool: Executor, files: list[str]) -> Outcome:
    """Analyse all files on this pool, whatever becomes of single tasks."""
    outcome = Outcome()
    started = time.perf_counter()
    with pool:
        futures: dict[Future[Report], str] = {}
        try:
            for path in files:
                futures[pool.submit(analyse, path)] = path
        except RuntimeError as error:  # a broken pool refuses the rest
            outcome.errors.update(dict.fromkeys(files[len(futures) :], error))
        for future in as_completed(futures):
            if (failure := future.exception()) is None:
                outcome.reports.append(future.result())
            else:
                outcome.errors[futures[future]] = failure
    outcome.seconds = time.perf_counter() - started
    return outcome


def show_standard(outcome: Outcome, files: list[str]) -> None:
    print("\nconcurrent.futures.ProcessPoolExecutor")
    print(f"  {len(outcome.reports):,} of {len(files):,} files, then all {len(outcome.errors):,} other futures failed alike:")
    for text in {f"{type(error).__name__}: {error}" for error in outcome.errors.values()}:
        print(f"  {text}")
    print("  Which file was it? The error does not say.")


def show_forkpool(outcome: Outcome, files: list[str]) -> None:
    print("\nforkpool.ForkPoolExecutor")
    print(f"  {len(outcome.reports):,} of {len(files):,} files in {outcome.seconds:.1f} s; failed:")
    for path, error in outcome.errors.items():
        print(f"  {path}: {type(error).__name__}")
        print("".join(f"    {line}\n" for line in str(error).splitlines()), end="")
        if isinstance(error, WorkerCrashedError) and not error.pool_usable:
            raise SystemExit("the pool should have survived")
    size, name, path = max((*report.largest, report.path) for report in outcome.reports)
    lines, functions = (sum(getattr(report, what) for report in outcome.reports) for what in ("lines", "functions"))
    print(f"\nThose files hold {functions:,} functions in {lines:,} lines.")
    print(f"The largest is {name}() of {path}: {size:,} bytes of bytecode.")


def main() -> None:
    files = source_files()
    print(f"{len(files):,} source files of Python {platform.python_version()}'s standard library, a task for each.")
    print(f"On {DEFECT} the analyser reads address 0 on purpose: a real segmentation fault.")
    show_standard(survey(ProcessPoolExecutor(), files), files)
    show_forkpool(survey(ForkPoolExecutor(), files), files)


if __name__ == "__main__":  # the standard library's pool needs this guard, forkpool does not
    main()
