"""Hold the pages to what they refer to: files, tests, public names, and the house's way of writing."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

import forkpool
from forkpool.errors import TaskError
from tests.support import failure_table

from .markdown import PAGES, ROOT, name_of, prose_of

REFERENCE = ROOT / "docs" / "reference"
LINK = re.compile(r"\[[^\]]*\]\((?!https?:)([^)#\s]*)(?:#([^)]*))?\)")
TEST_NAME = re.compile(r"`((?:tests/)?[\w/]+\.py)::(\w+)`")
TWO_SENTENCES = re.compile(r"[a-z)`\]][.!?] +[A-Z]")
pages = pytest.mark.parametrize("page", PAGES, ids=name_of)


@cache
def functions_in(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


@pages
def test_links_lead_somewhere(page: Path) -> None:
    links = [link for _, line in prose_of(page) for link in LINK.findall(line)]
    assert not [(target, anchor) for target, anchor in links if not leads_somewhere(page, target, anchor)]


def leads_somewhere(page: Path, target: str, anchor: str) -> bool:
    path = page.parent / target if target else page
    return path.exists() and (not anchor or anchor in anchors_of(path))


@cache
def anchors_of(page: Path) -> set[str]:
    """Return the names that GitHub, and docs/conf.py, give to the page's headings."""
    headings = [line.lstrip("#").strip() for _, line in prose_of(page) if line.startswith("#")]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pages
def test_one_sentence_a_line(page: Path) -> None:
    lines = [(number, line) for number, line in prose_of(page) if not line.startswith(("|", "- ", "**", "#"))]
    assert not [line for line in lines if TWO_SENTENCES.search(line[1])]


@pages
def test_named_tests_exist(page: Path) -> None:
    named = TEST_NAME.findall(page.read_text())
    missing = [f"{path}::{name}" for path, name in named if not has_test(path, name)]
    assert not missing


def has_test(path: str, name: str) -> bool:
    file = ROOT / "tests" / path.removeprefix("tests/")
    return file.is_file() and name in functions_in(file)


@pytest.mark.parametrize("page", ["failure-semantics.md", "what-a-worker-sees.md"])
def test_every_row_of_the_tables_names_a_test(page: str) -> None:
    rows = [line for _, line in prose_of(REFERENCE / page) if line.startswith("| ")]
    rows = [row for row in rows if not row.startswith(("| what happens |", "| what |"))]
    assert len(rows) > 20
    assert not [row for row in rows if not TEST_NAME.search(row)]


def test_every_claim_about_deployment_names_a_test_or_a_source() -> None:
    rows = [line for _, line in prose_of(ROOT / "docs/how-to/deploy.md") if line.startswith("| ")]
    last_cells = [row.split(" | ")[-1] for row in rows if not row.startswith("| what |")]
    assert len(last_cells) > 20
    assert not [cell for cell in last_cells if not TEST_NAME.search(cell) and "](https://" not in cell]


def test_every_symptom_leads_to_a_row_of_the_contract() -> None:
    """The last cell of each row links to the section, with the first words of the row."""
    rows = [line for _, line in prose_of(ROOT / "docs/how-to/why-did-my-worker-die.md") if line.startswith("| ")]
    links = [(target, text) for row in rows for text, target, _ in CONTRACT_LINK.findall(row.split(" | ")[-1])]
    assert len(links) == len([row for row in rows if not row.startswith("| you see")])
    assert not [link for link in links if not any(line.startswith(f"| {link[1]}") for line in contract_lines(link[0]))]


CONTRACT_LINK = re.compile(r"\[([^\]]+)\]\(\.\./reference/([\w-]+\.md)(#[\w-]+)?\)")


@cache
def contract_lines(page: str) -> list[str]:
    return [line for _, line in prose_of(REFERENCE / page)]


def test_rows_are_tested_with_real_processes() -> None:
    """No unit test of a part stands for a promise of the whole."""
    named = [name for one in failure_table.rows() for name in TEST_NAME.findall(one.tests)]
    assert not [name for name in named if not name[0].startswith(("process/", "contract/")) or not name[1].startswith("test_")]


def test_rows_are_whole_and_each_is_there_once() -> None:
    found = failure_table.rows()
    assert not [one for one in found if not all(vars(one).values())]
    assert len({one.what for one in found}) == len(found)


def test_every_public_name_is_documented() -> None:
    text = (REFERENCE / "api.md").read_text() + (REFERENCE / "errors.md").read_text()
    assert not [name for name in forkpool.__all__ if f"`{name}" not in text]


def test_every_fact_of_an_error_is_documented() -> None:
    text = (REFERENCE / "errors.md").read_text()
    assert not [name for name in TaskError.__annotations__ if f"`{name}`" not in text]


def test_every_module_is_in_the_tour() -> None:
    tour = (ROOT / "docs/design/tour.md").read_text()
    modules = (ROOT / "src/forkpool").rglob("*.py")
    names = [str(path.relative_to(ROOT / "src/forkpool")) for path in modules if path.name != "__init__.py"]
    assert not [name for name in names if f"`{name}`" not in tour]
