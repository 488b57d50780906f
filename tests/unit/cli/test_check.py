"""`finetune check`: a table, a document, a fix list; findings are no error unless they shall be."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Call = Callable[..., Any]


@pytest.fixture
def photos(tiny_folder: Path, tmp_path: Path) -> Path:
    """A copy of the tiny folder."""
    return shutil.copytree(tiny_folder, tmp_path / "photos")


def test_a_clean_folder_has_nothing(photos: Path, call: Call) -> None:
    answer = call("check", str(photos), "--strict")
    assert answer.code == 0
    assert answer.out == "36 images, 3 classes\nnothing found\n"


def test_findings_are_a_table_and_no_error(photos: Path, call: Call) -> None:
    (photos / "blue/blue_00.png").write_bytes(b"")
    for name in "abcde":
        (photos / "red" / f".{name}").touch()
    answer = call("check", str(photos))
    assert answer.code == 0
    assert answer.out.splitlines() == [
        "35 images, 3 classes",
        "  finding  number  level    what it is",
        "  empty         1  warning  a file without a byte",
        "  hidden        5  note     a hidden file or folder, left out",
        "",
        "empty",
        "  blue/blue_00.png: empty file",
        "",
        "hidden",
        "  red/.a: hidden",
        "  red/.b: hidden",
        "  red/.c: hidden",
        "  and 2 more",
    ]


def test_strict_makes_warnings_an_error_but_not_notes(photos: Path, call: Call) -> None:
    (photos / "red/.hidden").touch()
    assert call("check", str(photos), "--strict").code == 0
    (photos / "blue/blue_00.png").write_bytes(b"")
    answer = call("check", str(photos), "--strict")
    assert answer.code == 3
    assert answer.err == (
        f"error: 1 warning in {photos}\nhint: without --strict this is no error\n"
    )


def test_the_document_and_the_fix_list_are_written(
    photos: Path, tmp_path: Path, call: Call
) -> None:
    shutil.copy(photos / "blue/blue_00.png", photos / "red/twin.png")
    out = tmp_path / "new" / "findings.json"
    answer = call("check", str(photos), "--out", str(out))
    assert answer.code == 0
    assert answer.err == (
        f"findings: {out}\n"
        f"page: {out.with_suffix('.html')}\n"
        f"fix list: {out.with_suffix('.csv')}: edit its column action, then\n"
        f"  finetune run --data {photos} --exclude {out.with_suffix('.csv')}\n"
    )
    document = json.loads(out.read_text(encoding="utf-8"))
    assert list(document) == [
        "schema_version", "data", "backbone", "num_images", "num_unreadable", "num_warnings",
        "num_notes", "are_near_duplicates_searched", "counts", "kinds", "findings",
    ]  # fmt: skip
    assert document["counts"] == {"all": {"blue": 12, "green": 12, "red": 13}}
    assert document["kinds"]["conflict"] == {
        "level": "warning",
        "meaning": "one file under several labels",
        "num_findings": 1,
    }
    assert document["findings"] == [
        {
            "kind": "conflict",
            "level": "warning",
            "files": [
                {"path": "blue/blue_00.png", "label": "blue", "split": None},
                {"path": "red/twin.png", "label": "red", "split": None},
            ],
            "classes": [],
            "detail": "blue/blue_00.png (blue) = red/twin.png (red)",
            "value": None,
        }
    ]
    rows = list(csv.DictReader(out.with_suffix(".csv").read_text(encoding="utf-8").splitlines()))
    assert [(row["path"], row["action"]) for row in rows] == [
        ("blue/blue_00.png", "keep"),
        ("red/twin.png", "keep"),
    ]


def test_json_is_alone_on_stdout(photos: Path, call: Call) -> None:
    document = json.loads(call("check", str(photos), "--json").out)
    assert (document["schema_version"], document["num_images"]) == (1, 36)


def test_a_file_name_cannot_act_on_the_terminal(photos: Path, call: Call) -> None:
    (photos / "red" / "a\x1b[2J.png").write_bytes(b"")
    assert r"red/a\x1b[2J.png: empty file" in call("check", str(photos)).out


def test_photos_without_classes_are_checked(photos: Path, call: Call) -> None:
    answer = call("check", str(photos / "red"))
    assert answer.out == "12 images, no classes\nnothing found\n"


def test_out_is_json(photos: Path, call: Call) -> None:
    answer = call("check", str(photos), "--out", "findings.csv")
    assert answer.code == 2
    assert answer.err == (
        "error: --out findings.csv must end in .json\nhint: --out findings.json\n"
    )


def test_a_folder_that_is_not_there_is_named(tmp_path: Path, call: Call) -> None:
    answer = call("check", str(tmp_path / "none"))
    assert answer.code == 3
    assert answer.err.startswith(f"error: there is no folder or file {tmp_path / 'none'}\n")


def test_the_list_of_the_photos_is_not_taken_for_a_fix_list(photos: Path, call: Call) -> None:
    source = photos / "photos.csv"
    source.write_text("path,label\nred/red_00.png,red\nblue/blue_00.png,blue\n")
    answer = call("check", str(source), "--out", str(source.with_suffix(".json")))
    assert answer.code == 2
    assert answer.err == (
        f"error: --out {photos / 'photos.json'} would write its fix list over {source}\n"
        f"hint: --out {photos / 'findings.json'}\n"
    )
