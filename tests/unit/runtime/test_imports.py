"""Modules are imported beside a piece of work, and nothing of it is left behind."""

import sys
import threading
import warnings
from pathlib import Path

import pytest

from finetune.runtime.imports import importing


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module that sets a filter of warnings when it is imported."""
    (tmp_path / "needed_later.py").write_text("import warnings\nwarnings.simplefilter('ignore')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "needed_later", raising=False)
    return "needed_later"


def test_a_module_is_there_when_the_block_is_left(module: str) -> None:
    with importing([module]):
        pass
    assert module in sys.modules


def test_an_import_that_fails_is_left_to_where_it_is_needed(module: str) -> None:
    with importing(["no_module_of_this_name", module]):
        pass
    assert module in sys.modules


def test_an_error_of_the_block_passes_and_no_thread_outlives_it(module: str) -> None:
    before = threading.enumerate()
    with pytest.raises(KeyboardInterrupt), importing([module]):
        raise KeyboardInterrupt
    assert threading.enumerate() == before


def test_filters_of_warnings_are_those_from_before(module: str) -> None:
    before = list(warnings.filters)
    with importing([module]):
        pass
    assert warnings.filters == before


def test_nothing_is_imported_where_nothing_is_named() -> None:
    before = threading.enumerate()
    with importing(()):
        assert threading.enumerate() == before
