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
