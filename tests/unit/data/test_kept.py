"""What evaluation sees of each image, kept from the check on."""

import pickle
from pathlib import Path

import pytest
import torch
from PIL import Image

from finetune.components.preprocess import Preprocessing
from finetune.data.check import check_images
from finetune.data.decode import decode
from finetune.data.index import index_source
from finetune.data.kept import KeptViews
from finetune.data.loading import EvalImages

SMALL = Preprocessing(input_size=(3, 16, 16))
VIEW_BYTES = 3 * 16 * 16


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, colour in (("ant", "red"), ("bee", "blue")):
        (tmp_path / name).mkdir()
        for size in (20, 30):
            Image.new("RGB", (size, 24), colour).save(tmp_path / name / f"{size}.png")
    return tmp_path


def never(path: Path) -> Image.Image:
    raise AssertionError(f"{path} is decoded again")


def test_what_was_kept_is_what_would_be_decoded_and_is_not_decoded_again(folder: Path) -> None:
    kept = KeptViews(SMALL)
    index = check_images(index_source(folder), max_pixels=10**6, kept=kept)
    images = EvalImages(index.samples, SMALL.transform(), index.classes, never, kept=kept)
    assert len(kept) == len(images) == 4
    for position, sample in enumerate(index.samples):
        expected = SMALL.transform()(decode(sample.path, max_pixels=10**6))
        assert torch.equal(images[position][0], expected)


def test_what_does_not_fit_the_budget_is_decoded_again(folder: Path) -> None:
    kept = KeptViews(SMALL, budget_bytes=VIEW_BYTES)
    index = check_images(index_source(folder), max_pixels=10**6, kept=kept)
    assert len(kept) == 1
    assert sum(kept.find(sample.digest) is not None for sample in index.samples) == 1


def test_a_reduced_decode_is_another_picture_and_nothing_is_kept(folder: Path) -> None:
    kept = KeptViews(SMALL.model_copy(update={"decode": "reduced"}))
    check_images(index_source(folder), max_pixels=10**6, kept=kept)
    assert len(kept) == 0


def test_views_do_not_travel_to_a_process_that_is_spawned(folder: Path) -> None:
    kept = KeptViews(SMALL)
    index = check_images(index_source(folder), max_pixels=10**6, kept=kept)
    travelled = pickle.loads(pickle.dumps(kept))
    assert travelled.find(index.samples[0].digest) is None
    assert len(kept) == 4
