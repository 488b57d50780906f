"""Data, ready for a run."""

import shutil
from pathlib import Path

from finetune.data.index import index_source
from finetune.data.prepare import describe_data, fingerprint, prepare_data
from finetune.recipe.schema import DataSection
from finetune.types import DataFacts, Index


def prepared(folder: Path) -> Index:
    return prepare_data(index_source(folder), DataSection())


def test_an_index_is_checked_and_split(tiny_folder):
    index = prepared(tiny_folder)
    assert [len(index.part(part)) for part in ("train", "val", "test")] == [24, 6, 6]
    assert all(sample.digest for sample in index.samples)
    assert describe_data(index) == DataFacts(24, 6, (8, 8, 8))


def test_the_fingerprint_is_of_content_and_not_of_names(tiny_folder, tmp_path):
    copy = shutil.copytree(tiny_folder, tmp_path / "copy")
    for number, path in enumerate(sorted(copy.rglob("*.png"))):
        path.rename(path.with_name(f"{99 - number}.png"))
    assert fingerprint(prepared(copy)) == fingerprint(prepared(tiny_folder))
    next(copy.rglob("*.png")).unlink()
    assert fingerprint(prepared(copy)) != fingerprint(prepared(tiny_folder))


def test_near_duplicates_are_drawn_into_one_part(tmp_path, draw_scene):
    for number in range(24):
        folder = tmp_path / "ab"[number % 2]
        folder.mkdir(exist_ok=True)
        scene = draw_scene(number // 4)  # of each, two files in either class
        scene.resize((60 + number, 50)).save(folder / f"{number}.png")
    index = prepared(tmp_path)
    parts = {
        one.picture: {other.split for other in index.samples if other.picture == one.picture}
        for one in index.samples
    }
    assert len(parts) == 6
    assert all(len(splits) == 1 for splits in parts.values())
    assert {part for splits in parts.values() for part in splits} == {"train", "val", "test"}


def test_leaks_between_given_parts_are_said(tmp_path, draw_scene):
    for part, first in (("train", 0), ("val", 10), ("test", 3)):
        for number in range(first, first + 4):
            folder = tmp_path / part / "ab"[number % 2]
            folder.mkdir(parents=True, exist_ok=True)
            side = 60 if part == "train" else 80
            draw_scene(number).resize((side, side)).save(folder / f"{number}.png")
    shutil.copy(tmp_path / "train/a/0.png", tmp_path / "test/a/copy.png")
    assert prepared(tmp_path).warnings == (
        "1 of 5 test images is a byte-for-byte copy of training images: "
        "the test figures are not to be trusted",
        "1 of 5 test images is a near-duplicate of training images: "
        "the test figures are not to be trusted",
    )
