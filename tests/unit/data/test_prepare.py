"""Data, ready for a run."""

import shutil
from pathlib import Path

from finetune.data.index import index_source
from finetune.data.prepare import describe_data, exclude_listed, fingerprint, prepare_data
from finetune.data.split import write_split
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


def test_a_recipe_may_exclude_photos_and_use_a_split_again(tiny_folder, tmp_path):
    first = prepared(tiny_folder)
    write_split(first, tmp_path / "split.csv")
    gone = next(one for one in first.samples if one.split == "train").name
    (tmp_path / "fixes.csv").write_text(f"path,action\n{gone},exclude\n")
    section = DataSection(
        exclude=str(tmp_path / "fixes.csv"), split=str(tmp_path / "split.csv"), val_fraction=0.4
    )
    index = prepare_data(exclude_listed(index_source(tiny_folder), section), section)
    assert [one for one in first.samples if one.name != gone] == list(index.samples)
    assert [one.name for one in index.left_out] == [gone]
    assert exclude_listed(first, DataSection()) is first


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
