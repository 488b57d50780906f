"""`finetune check` on sets as they were found: what is wrong there, and nothing else."""

import json
from pathlib import Path
from typing import Any

import pytest

from finetune.cli.app import main

pytestmark = pytest.mark.real


def found(data: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, list[list[str]]]:
    """Check a set; give the names of files by kind of finding."""
    assert main(["check", str(data), "--json"]) == 0
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    kinds: dict[str, list[list[str]]] = {}
    for row in document["findings"]:
        names = [Path(file["path"]).name for file in row["files"]] or row["classes"]
        kinds.setdefault(row["kind"], []).append(names)
    return kinds


def test_odd_and_broken_files_are_told_apart(
    assets: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kinds = found(assets / "messy", capsys)
    listed = json.loads((assets / "messy" / "LISTING.json").read_text())["files"]
    named = {name for kind in ("empty", "truncated", "unreadable") for (name,) in kinds[kind]}
    broken = {file["file"] for file in listed if not file["pil_decodes"]}
    hidden = {name for (name,) in kinds["hidden"]}
    assert broken - hidden <= named
    assert kinds["empty"] == [["zero_bytes.jpg"]]
    assert ["trunc_half.jpg"] in kinds["truncated"]
    assert kinds["duplicate"] == [["duplicate_a.jpg", "duplicate_b.jpg"]]
    turned = {name for (name,) in kinds["turned"]}
    assert {f"exif_Landscape_{number}.jpg" for number in range(2, 9)} <= turned
    (scene,) = (names for names in kinds["near_duplicate"] if "exif_Landscape_1.jpg" in names)
    assert len(scene) == 9


def test_copies_under_two_labels_are_found(
    assets: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert found(assets / "datasets" / "trash", capsys) == {
        "leak": [["glass389.jpg", "plastic332.jpg"]],
        "conflict": [["glass115.jpg", "metal91.jpg"], ["glass389.jpg", "plastic332.jpg"]],
    }


def test_a_test_part_of_training_photos_is_found(
    assets: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kinds = found(assets / "datasets" / "food-leaky", capsys)
    assert list(kinds) == ["leak"]
    assert len(kinds["leak"]) == 14


def test_textures_are_not_taken_for_each_other(
    assets: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert found(assets / "datasets" / "textures", capsys) == {
        "near_leak": [
            ["bubbly_0147.jpg", "bubbly_0106.jpg"],
            ["crystalline_0178.jpg", "crystalline_0142.jpg"],
        ],
        "near_duplicate": [
            ["cobwebbed_0127.jpg", "cobwebbed_0156.jpg"],
            ["crystalline_0120.jpg", "crystalline_0126.jpg"],
        ],
    }
