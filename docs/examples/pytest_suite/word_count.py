"""What the suite beside it tests: a small module that uses a pool. Runs in: whoever imports it, and workers."""

from collections import Counter
from collections.abc import Iterable
from concurrent.futures import Executor


def count(text: str) -> Counter[str]:
    """The task."""
    return Counter(text.lower().split())


def count_all(pool: Executor, texts: Iterable[str]) -> Counter[str]:
    """Count the words of all texts, each in a worker."""
    total: Counter[str] = Counter()
    for found in pool.map(count, texts):
        total += found
    return total
