"""Build the site: `sphinx-build -W docs folder`, after `pip install -e '.[docs]'`.

Runs in: Sphinx. Pages are found by folder (index.md), so a new page needs no entry here or there.
Docstrings are written for a reader of the source, in the Google style, with Markdown's single backticks for code.
Tests: tests/docs/test_site.py
"""

from typing import Any

import forkpool

project = "forkpool"
author = "the forkpool developers"
version = release = forkpool.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["changes", "examples"]  # fragments of the next CHANGELOG; programs, which pages link to
myst_heading_anchors = 3  # links to headings, as GitHub makes them
default_role = "code"  # single backticks in docstrings

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_use_ivar = True  # "Attributes:" of a docstring stays a list: the annotations in the class are documented by it
napoleon_use_rtype = False  # "Returns: True: ..." begins with a value, not with a type

html_theme = "furo"
html_title = f"forkpool {version}"
html_show_copyright = False
html_copy_source = False


def leave_out_module_docstrings(app: Any, what: str, name: str, thing: object, options: Any, lines: list[str]) -> None:
    """They are for readers of the source; a page has its own words."""
    if what == "module":
        lines.clear()


def setup(app: Any) -> None:
    app.connect("autodoc-process-docstring", leave_out_module_docstrings)
