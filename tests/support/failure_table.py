"""The failure table as data: what docs/reference/failure-semantics.md promises, read from the page itself.

Runs in: the pytest process. A test that takes its expectations from here cannot pass beside a page that says something else.
"""

import re
from dataclasses import dataclass
from functools import cache

from tests.docs.markdown import ROOT, prose_of

PAGE = ROOT / "docs" / "reference" / "failure-semantics.md"
TEST_NAME = re.compile(r"`((?:tests/)?[\w/]+\.py)::(\w+)`")


@dataclass(frozen=True)
class Row:
    """One promise. Cells as they are written."""

    what: str
    gets: str
    may_have_run: str
    others: str
    pool: str
    tests: str

    @property
    def error_name(self) -> str | None:
        """The first exception class that the future gets, if one is named."""
        found = re.search(r"`(\w+Error)`", self.gets)
        return found and found[1]


@cache
def rows() -> list[Row]:
    lines = [line for _, line in prose_of(PAGE) if line.startswith("| ")]
    cells = [
        [cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if not line.startswith("| what happens |")
    ]
    return [Row(*(cell.strip("| ") for cell in row)) for row in cells]


def row(beginning: str) -> Row:
    """The row that is called so, or the only one that begins so."""
    exact = [one for one in rows() if one.what == beginning]
    (found,) = exact or (one for one in rows() if one.what.startswith(beginning))
    return found
