"""The host's warnings filters in a worker, those of modules that come later included.

Runs in: pytest.
"""

import importlib
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from forkpool._child import filters
from forkpool._child.filters import HostFilters
from forkpool._shared.on_import import ImportWatch

LATE = "a_module_with_a_category"


@pytest.fixture(autouse=True)
def private_filters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    watch = ImportWatch()
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    watch.install()
    monkeypatch.setattr(filters, "watch", watch)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / f"{LATE}.py").write_text("class LateWarning(UserWarning): pass\n")
    with warnings.catch_warnings():
        yield
    sys.modules.pop(LATE, None)


def described(action: str, category: tuple[str, str] = ("builtins", "UserWarning"), message: object = None) -> object:
    return (action, message, category, None, 0)


def test_they_replace_what_was_there() -> None:
    HostFilters([described("error")]).install()
    assert [one[0] for one in warnings.filters] == ["error"]
    with pytest.raises(UserWarning):
        warnings.warn("x", stacklevel=1)


def test_a_message_is_a_pattern_again() -> None:
    HostFilters([described("error", message=("about (this)", 2)), described("ignore")]).install()
    warnings.warn("of something else", stacklevel=1)
    with pytest.raises(UserWarning):
        warnings.warn("About THIS one", stacklevel=1)


def test_a_category_of_a_later_import_takes_its_place_among_the_others() -> None:
    HostFilters(
        [described("error", message=("never", 0)), described("ignore", (LATE, "LateWarning")), described("error")]
    ).install()
    assert [one[0] for one in warnings.filters] == ["error", "error"]
    late = importlib.import_module(LATE)
    assert [one[0] for one in warnings.filters] == ["error", "ignore", "error"]
    warnings.warn("quiet", late.LateWarning, stacklevel=1)
    with pytest.raises(UserWarning):
        warnings.warn("loud", stacklevel=1)


def test_a_later_category_is_last_when_a_task_took_the_others_away() -> None:
    HostFilters([described("ignore", (LATE, "LateWarning")), described("error")]).install()
    warnings.resetwarnings()
    warnings.simplefilter("always")
    importlib.import_module(LATE)
    assert [one[0] for one in warnings.filters] == ["always", "ignore"]


def test_a_category_that_is_gone_is_left_out() -> None:
    HostFilters([described("ignore", (LATE, "NoSuchWarning"))]).install()
    importlib.import_module(LATE)
    assert list(warnings.filters) == []
