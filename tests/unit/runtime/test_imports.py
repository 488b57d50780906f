"""Modules are imported beside a piece of work, and nothing of it is left behind."""

import gc
import subprocess
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


def test_a_command_searches_for_garbage_rarely_and_not_at_its_end() -> None:
    program = """
import gc
from finetune.runtime.imports import collect_rarely
collect_rarely()


print(gc.isenabled(), gc.get_threshold()[0], gc.get_freeze_count())
import atexit
atexit._run_exitfuncs()
print(gc.get_freeze_count() > 0)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.split() == ["True", "50000", "0", "True"]


def test_a_person_who_imports_the_package_keeps_the_own_rhythm() -> None:
    before = gc.get_threshold()
    import finetune  # noqa: F401

    assert gc.get_threshold() == before
