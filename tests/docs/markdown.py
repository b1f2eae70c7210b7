"""Read the project's Markdown pages: their code blocks, links and prose.

A fence's first word is its language; the second word says how the tests treat the block:
    ```python             a whole program; it must run, and print the `text output` block that follows, if there is one
    ```python fragment    a part of one; not run
    ```text output        what the program above prints; a line `...` stands for any lines
    ```console            `$ command` lines, which are run by bash, and what they print
    ```bash install       a command that makes a virtual environment; run by .ci/run, word for word
    ```{toctree}          and other names in braces: what Sphinx puts there (docs/conf.py)
Other languages (diff, text) are pictures.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
FENCE = re.compile(r"^```(?P<info>[^\n`]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    page: Path
    line: int
    language: str
    mark: str
    text: str
    output: str | None  # of the `text output` block right below it

    def __str__(self) -> str:
        return f"{name_of(self.page)}:{self.line}"


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks_of(page: Path) -> Iterator[Block]:
    content = page.read_text()
    found = list(FENCE.finditer(content))
    for match, after in zip(found, [*found[1:], None], strict=False):
        language, _, mark = match["info"].partition(" ")
        is_output = after is not None and after["info"] == "text output"
        adjacent = after is not None and not content[match.end() : after.start()].strip()
        output = after["text"] if after is not None and is_output and adjacent else None
        yield Block(page, content.count("\n", 0, match.start()) + 1, language, mark, match["text"], output)


def all_blocks(language: str, mark: str) -> list[Block]:
    return [block for page in PAGES for block in blocks_of(page) if (block.language, block.mark) == (language, mark)]


def prose_of(page: Path) -> list[tuple[int, str]]:
    """Return (line number, line) of everything outside code blocks."""
    content = FENCE.sub(lambda match: "\n" * match[0].count("\n"), page.read_text())
    return list(enumerate(content.splitlines(), 1))
