"""What distributions declare to need is read from their metadata."""

from pathlib import Path

import pytest

from finetune.doctor.facts import Extra, Need
from finetune.doctor.needs import installed_version, python_range, read_extras, read_needs


@pytest.fixture(autouse=True)
def _installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three distributions: apple needs pear, pear needs fig."""
    declare(
        tmp_path,
        "apple",
        "1.0",
        "Requires-Python: <3.14,>=3.11",
        "Requires-Dist: Pear_Tree<3,>=2",
        "Requires-Dist: nowhere>=1",
        'Requires-Dist: windows>=1; sys_platform == "none"',
        'Requires-Dist: fig>=5; extra == "sweet"',
        'Requires-Dist: pytest>=8; extra == "dev"',
        "Provides-Extra: sweet",
        "Provides-Extra: dev",
    )
    declare(tmp_path, "pear_tree", "2.5+cpu", "Requires-Dist: fig==4.1", "Requires-Dist: a b c")
    declare(tmp_path, "fig", "4.0", "Requires-Dist: apple")
    monkeypatch.syspath_prepend(str(tmp_path))


def declare(folder: Path, name: str, version: str, *lines: str) -> None:
    metadata = folder / f"{name}-{version}.dist-info"
    metadata.mkdir()
    head = ("Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}")
    (metadata / "METADATA").write_text("\n".join((*head, *lines)) + "\n")


def test_needs_are_followed_and_those_of_other_systems_left_out() -> None:
    assert read_needs("apple") == (
        Need("apple", "pear-tree", ">=2,<3", "2.5+cpu"),
        Need("apple", "nowhere", ">=1", None),
        Need("pear-tree", "fig", "==4.1", "4.0"),
        Need("fig", "apple", "", "1.0"),
    )


def test_extras_are_those_that_a_user_installs() -> None:
    assert read_extras("apple") == (Extra("sweet", (Need("apple", "fig", ">=5", "4.0"),)),)


def test_the_range_of_python_begins_at_its_lower_end() -> None:
    assert python_range("apple") == ">=3.11,<3.14"
    assert python_range("fig") is None


def test_what_is_not_installed_needs_nothing() -> None:
    assert read_needs("nowhere") == ()
    assert read_extras("nowhere") == ()
    assert python_range("nowhere") is None
    assert installed_version("nowhere") is None
