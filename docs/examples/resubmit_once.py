"""Convert many items; submit again, once, what a crash of its worker took away.

forkpool runs nothing twice on its own, because a task that crashed may have run partly: who submits it again says that this
does no harm. So `convert_all` resubmits after `WorkerCrashedError`, and only once: an item that crashes its worker each time
is reported at the end. An exception that the task itself raises is no crash, and no reason to try again.
Item 3 is unlucky (it crashes its worker the first time), item 5 has a defect (each time), item 7 is no number.
Tests: tests/docs/test_examples.py
"""

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from forkpool import ForkPoolExecutor, WorkerCrashedError

UNLUCKY, DEFECT, NO_NUMBER = "3", "5", "seven"


def convert(item: str, folder: Path) -> int:
    """The task: it runs in a worker."""
    flag = folder / item
    if item == DEFECT or (item == UNLUCKY and not flag.exists()):
        flag.touch()
        os.abort()  # what a C library does when it gives up
    return int(item) * 10


def convert_all(pool: ForkPoolExecutor, items: Iterable[str], folder: Path) -> dict[str, int | Exception]:
    """Return what became of each item."""
    futures = {item: pool.submit(convert, item, folder) for item in items}
    results: dict[str, int | Exception] = {}
    for item, future in futures.items():
        try:
            try:
                results[item] = future.result()
            except WorkerCrashedError:
                results[item] = pool.submit(convert, item, folder).result()
        except Exception as error:
            results[item] = error
    return results


def main() -> None:
    items = ["1", "2", UNLUCKY, "4", DEFECT, "6", NO_NUMBER, "8"]
    with tempfile.TemporaryDirectory() as folder, ForkPoolExecutor(max_workers=2) as pool:
        results = convert_all(pool, items, Path(folder))
        crashed = pool.statistics().crashed
    for item, result in results.items():
        failed = isinstance(result, Exception)
        print(f"{item}: {type(result).__name__} ({str(result).splitlines()[0]})" if failed else f"{item}: {result}")
    print(f"{crashed} crashes")


if __name__ == "__main__":
    main()
