"""Runs that never took place, read back as the report reads them."""

from collections.abc import Callable
from pathlib import Path

import pytest
from synthetic import Plan, write_run

from finetune.report.gallery import Gallery, choose_photos
from finetune.report.material import Material, read_material


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., tuple[Material, Gallery]]:
    """A function (values of a plan) -> what is read of its run, and the photos chosen of it."""

    def make(**values: object) -> tuple[Material, Gallery]:
        material = read_material(write_run(tmp_path / "run-001", Plan(**values)))  # type: ignore[arg-type]
        return material, choose_photos(material.main.answers)

    return make
