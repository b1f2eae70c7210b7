"""Find files of equal content below a folder: a program that was written for the standard library's pool.

`find_duplicates_before.py` is the same program before it was migrated; the two differ in the line that imports the pool.
So it keeps the guard at the bottom, which forkpool does not need, and `except BrokenProcessPool`, which goes on working.
Usage: `python find_duplicates.py FOLDER`.
Tests: tests/docs/test_examples.py
"""

import hashlib
import sys
from collections import defaultdict
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from forkpool import ForkPoolExecutor as Pool


def digest(path: Path) -> str:
    """The task: it runs in a worker."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main(folder: Path) -> int:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    groups: dict[str, list[Path]] = defaultdict(list)
    try:
        with Pool(max_workers=2) as pool:
            for path, found in zip(paths, pool.map(digest, paths, chunksize=16), strict=True):
                groups[found].append(path)
    except BrokenProcessPool as error:
        print(f"a worker died: {error}", file=sys.stderr)
        return 1
    for group in groups.values():
        if len(group) > 1:
            print(" = ".join(str(path.relative_to(folder)) for path in group))
    print(f"{len(paths)} files, {len(groups)} of different content")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
