"""What a check found stands in the page of a run; what is no check, or of other data, is said."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from synthetic import write_run

from finetune.data.check import Examined
from finetune.data.findings import Finding
from finetune.errors import DataError
from finetune.report import sections
from finetune.report.checked import NUM_NAMED, read_checked
from finetune.report.findings import findings_document, write_findings
from finetune.report.material import read_material
from finetune.report.report import write_report
from finetune.types import Index, Sample

PHOTO = "test/0/photo 0.jpg"  # of every run that never took place
EVIL = "test/<img src=x onerror=alert(1)>.jpg"
Write = Callable[..., Path]
Health = Callable[[Path], str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """A function (findings, backbone) -> the document that a check would have written of them."""

    def make(*findings: Finding, backbone: str | None = "test_vit", label: str = "ants") -> Path:
        names = dict.fromkeys(name for finding in findings for name in finding.names)
        samples = tuple(Sample(tmp_path / "x", name, label) for name in [*names, "another.jpg"])
        examined = Examined(Index(tmp_path, samples, (label,)), (), {}, (), True)
        document = findings_document(findings, examined, data="elsewhere/photos", backbone=backbone)
        write_findings(document, tmp_path / "findings.json")
        return tmp_path / "findings.json"

    return make


@pytest.fixture
def health(render: Callable[..., str], tmp_path: Path) -> Health:
    """A function (document of a check) -> data health on the page of a run."""
    return lambda check: render(write_run(tmp_path / "run"), sections.health, read_checked(check))


def test_findings_are_counted_and_the_first_are_told(write: Write, health: Health) -> None:
    suspects = [Finding("suspect_label", (f"{n}.jpg",), f"like {n}") for n in range(NUM_NAMED + 2)]
    leaks = [Finding("near_leak", (PHOTO, EVIL), "one"), Finding("leak", (EVIL,), f"{EVIL} = x")]
    text = health(write(*leaks, *suspects, Finding("turned", ("x.jpg",), "")))
    assert "<h4>Leaks across parts: 2</h4>" in text
    assert f"<li>{PHOTO}, test/&lt;img src=x onerror=alert(1)&gt;.jpg: one</li>" in text
    assert text.index("&gt;.jpg = x") < text.index("&gt;.jpg: one")
    assert f"<h4>Suspected labels: {NUM_NAMED + 2}</h4>" in text
    assert "<li>0.jpg: like 0</li>" in text
    assert "<li>and 2 more</li>" in text
    assert "Not found: conflicting labels, near-duplicates." in text
    assert "<img" not in text


def test_what_was_not_looked_for_is_not_called_absent(write: Write, health: Health) -> None:
    text = health(write(Finding("conflict", (PHOTO,), "two"), backbone=None))
    assert "Labels were not judged: that takes <code>--backbone</code>." in text
    assert "Not found: leaks across parts, near-duplicates." in text


def test_a_check_of_other_data_is_a_warning(write: Write, health: Health) -> None:
    text = health(write(Finding("conflict", ("cats/1.jpg",), "two")))
    assert "None of the photos that <code>findings.json</code> names is one of these" in text
    assert "elsewhere/photos" in text
    assert "<h4>" not in text


def test_a_photo_that_was_trained_on_is_one_of_the_run(write: Write, tmp_path: Path) -> None:
    checked = read_checked(write(Finding("conflict", ("train/1.jpg",), "two")))
    run = write_run(tmp_path / "run")
    assert not checked.is_of(read_material(run))
    (run / "split.csv").write_text("path,label,split,group,digest\ntrain/1.jpg,ants,train,,\n")
    assert checked.is_of(read_material(run))


def test_where_nothing_was_found_the_classes_tell_whose_check_it_is(
    write: Write, tmp_path: Path
) -> None:
    material = read_material(write_run(tmp_path / "run"))
    assert read_checked(write(label="ants")).is_of(material)
    assert not read_checked(write(label="cats")).is_of(material)


def test_the_page_says_what_it_was_made_of(write: Write, tmp_path: Path) -> None:
    text = write_report(write_run(tmp_path / "run"), check=write()).path.read_text("utf-8")
    assert "from the files of the run and findings.json" in text
    assert "What the check found" in text


def test_without_a_check_nothing_is_said_of_one(render: Callable[..., str], tmp_path: Path) -> None:
    assert "check found" not in render(write_run(tmp_path / "run"), sections.health)


def document_without(key: str) -> dict[str, Any]:
    """A document that lacks a key."""
    whole: dict[str, Any] = {
        "schema_version": 1,
        "data": "photos",
        "backbone": None,
        "num_images": 3,
        "are_near_duplicates_searched": True,
        "counts": {},
        "findings": [],
    }
    return {name: value for name, value in whole.items() if name != key}


@pytest.mark.parametrize(
    "text",
    [
        "path,finding,action,reason",
        "[]",
        "3",
        "\udcff",
        "[" * 100_000,
        json.dumps(document_without("findings")),
        json.dumps(document_without("schema_version")),
        json.dumps({**document_without(""), "findings": [3]}),
        json.dumps({**document_without(""), "findings": [{"kind": "leak", "files": [3]}]}),
        json.dumps({**document_without(""), "num_images": float("inf")}),
        json.dumps({**document_without(""), "counts": [1]}),
        json.dumps({**document_without(""), "schema_version": 2}),
    ],
)
def test_what_is_no_document_of_a_check_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError, match=r"other\.json is no document of finetune check") as caught:
        read_checked(path)
    assert caught.value.hint == "finetune check DIR --out FILE.json writes one"


def test_a_document_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.json cannot be read: No such file"):
        read_checked(tmp_path / "none.json")
