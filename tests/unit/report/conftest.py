"""Runs that never took place, read back as the report reads them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from synthetic import Plan, write_run

from finetune.report.checked import Checked
from finetune.report.gallery import Gallery, choose_photos
from finetune.report.maps import Maps
from finetune.report.material import Material, read_material
from finetune.report.page import Head, render_page
from finetune.report.photos import read_photos
from finetune.report.source import Section, Source


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., tuple[Material, Gallery]]:
    """A function (values of a plan) -> what is read of its run, and the photos chosen of it."""

    def make(**values: object) -> tuple[Material, Gallery]:
        material = read_material(write_run(tmp_path / "run-001", Plan(**values)))  # type: ignore[arg-type]
        return material, choose_photos(material.main.answers)

    return make


@pytest.fixture
def render() -> Callable[..., str]:
    """A function (run, section, check) -> the section on a page of its own, without charts."""

    def make(
        run: Path, build: Callable[[Source], Section | None], checked: Checked | None = None
    ) -> str:
        material = read_material(run)
        gallery = choose_photos(material.main.answers)
        photos = read_photos(None, material.main.answers.names)
        section = build(replace(Source.of(material, gallery, photos, Maps()), checked=checked))
        return render_page(Head("", "", ""), [section] if section else [], {})

    return make
