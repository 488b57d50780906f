"""The page of a check tells every finding, shows its photos, and no name in it runs."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from markup import Page
from PIL import Image

from finetune.data.check import examine_images
from finetune.data.findings import KINDS, find_problems
from finetune.data.index import index_source
from finetune.report.checkup import write_findings_page
from finetune.report.findings import findings_document
from finetune.report.photos import SIDE_PX

EVIL_CLASS = "<img src=x onerror=alert(1)>"
EVIL_FILE = "<script>alert(2)<|script>.png"
MAX_PIXELS = 1_000_000


@pytest.fixture
def photos(tiny_folder: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_folder, tmp_path / "photos")


@pytest.fixture
def page(photos: Path, tmp_path: Path) -> Callable[[], str]:
    """A function -> the page of what is found in the photos."""

    def make() -> str:
        examined = examine_images(index_source(photos), max_pixels=MAX_PIXELS)
        document = findings_document(find_problems(examined), examined, data=str(photos))
        path = tmp_path / "findings.html"
        write_findings_page(document, path, root=photos)
        return path.read_text(encoding="utf-8")

    return make


def section(text: str, key: str) -> str:
    """Cut a section out of a page."""
    return text.partition(f'<section id="{key}"')[2].partition('<section id="')[0]


def test_nothing_found_is_said(page: Callable[[], str]) -> None:
    text = page()
    assert "Nothing was found" in text
    assert text.count('<section id="') == 1


def test_each_kind_has_a_section_with_its_photos(photos: Path, page: Callable[[], str]) -> None:
    shutil.copy(photos / "red/red_00.png", photos / "blue/copy.png")
    (photos / "green/green_00.png").write_bytes(b"")
    text = page()
    conflict = section(text, "conflict")
    assert "red/red_00.png" in conflict
    assert "blue/copy.png" in conflict
    used = re.findall(r'<use href="#([\w-]+)"', conflict)
    assert len(used) == 2
    assert all(f'<image id="{key}"' in text for key in used)
    assert f"1: {KINDS['empty'].meaning}" in section(text, "empty")
    assert "green/green_00.png: empty file" in section(text, "empty")
    assert '<a href="#conflict">' in section(text, "summary")


def test_pictures_are_small(photos: Path, page: Callable[[], str]) -> None:
    large = Image.effect_noise((1600, 400), 80).convert("RGB")
    large.save(photos / "red/large.png")
    large.save(photos / "red/again.png")
    shown = [
        values
        for tag, values in Page(page()).tags
        if tag == "image" and values["width"] == str(SIDE_PX)
    ]
    assert len(shown) == 2
    assert {values["height"] for values in shown} == {str(SIDE_PX // 4)}


def test_names_are_told_and_never_run(photos: Path, page: Callable[[], str]) -> None:
    (photos / EVIL_CLASS).mkdir()
    shutil.copy(photos / "red/red_00.png", photos / EVIL_CLASS / EVIL_FILE)
    (photos / EVIL_CLASS / "<b>.png").write_bytes(b"")
    text = page()
    assert "&lt;img src=x onerror=alert(1)&gt;" in text
    assert "&lt;script&gt;alert(2)&lt;|script&gt;.png" in text
    tags = Page(text).tags
    assert [tag for tag, _ in tags if tag in ("img", "b") and "onerror" in _] == []
    assert [name for _, values in tags for name in values if name.startswith("on")] == []
    assert len([tag for tag, _ in tags if tag == "script"]) == 2


def test_many_findings_are_counted_not_all_shown(photos: Path, page: Callable[[], str]) -> None:
    for number in range(240):
        (photos / f"red/.{number}").touch()
    text = section(page(), "hidden")
    assert text.count("<li>") == 200
    assert "<p>40 more stand in the JSON file.</p>" in text
