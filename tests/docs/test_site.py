"""Build the site as docs/conf.py says, where a warning is an error, and follow every link in what came out.

Sphinx is no part of the extra `test`: it is 83 MB that no other test needs. The extra `dev` has it, and .ci/run
runs this file with that. The links between the Markdown files are checked without it, in test_pages.py.
"""

import importlib.util
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import forkpool
from forkpool import diagnostics

from .markdown import ROOT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.alarm(200),
    pytest.mark.skipif(importlib.util.find_spec("sphinx") is None, reason="needs Sphinx: pip install -e '.[docs]'"),
]
NOT_PAGES = ("changes", "examples")


class Html(HTMLParser):
    """What a built page links to, and what in it can be linked to."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id":
                self.anchors.add(value or "")
            elif name in ("href", "src"):
                self.links.append(value or "")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-E", "-b", "html", str(ROOT / "docs"), str(folder)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=180)
    assert done.returncode == 0, done.stdout
    assert not done.stdout
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Html]:
    return {path: Html(path) for path in site.rglob("*.html")}


def test_every_page_is_built(site: Path) -> None:
    docs = ROOT / "docs"
    sources = [path.relative_to(docs) for path in docs.rglob("*.md")]
    sources = [path for path in sources if path.parts[0] not in NOT_PAGES]
    assert not [path for path in sources if not (site / path.with_suffix(".html")).is_file()]


def test_every_link_leads_somewhere(pages: dict[Path, Html]) -> None:
    broken = [f"{path.name}: {link}" for path, page in pages.items() for link in page.links if is_broken(link, path, pages)]
    assert not broken


def is_broken(link: str, source: Path, pages: dict[Path, Html]) -> bool:
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return False  # not ours; and a test must not depend on somebody's web server
    target = (source.parent / unquote(parts.path)).resolve() if parts.path else source
    if not target.is_file():
        return True
    return bool(parts.fragment) and target in pages and unquote(parts.fragment) not in pages[target].anchors


def test_every_public_name_has_its_docstring_there(site: Path, pages: dict[Path, Html]) -> None:
    anchors = pages[site / "reference/signatures.html"].anchors
    names = [f"forkpool.{name}" for name in forkpool.__all__ if name != "__version__"]
    names += [f"forkpool.diagnostics.{name}" for name in diagnostics.__all__]
    assert not [name for name in names if name not in anchors]
