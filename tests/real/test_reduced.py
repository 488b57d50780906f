"""Reduced decoding of real photos: how far pixels move, and files that are broken or turned."""

from functools import partial
from pathlib import Path

import pytest
import torch
from PIL import Image

from finetune.components.augment import LightAugment, StandardAugment, StrongAugment
from finetune.components.preprocess import Preprocessing
from finetune.data.decode import UnreadableImageError, decode
from finetune.data.loading import EvalImages, TrainImages
from finetune.data.walk import list_images
from finetune.types import Sample

pytestmark = pytest.mark.real

LIMIT = 178_956_970
READ = partial(decode, max_pixels=LIMIT)
CLASSES = ("cardboard", "glass", "metal", "paper", "plastic", "trash")


@pytest.fixture(scope="module")
def photos(assets: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    """One photo of each class of trash, enlarged to 12 megapixels."""
    folder = tmp_path_factory.mktemp("large")
    samples = []
    for name in CLASSES:
        source = min((assets / "datasets" / "trash" / "val" / name).iterdir())
        with Image.open(source) as image:
            large = image.resize((3000, 4000), Image.Resampling.BICUBIC)
        large.save(folder / f"{name}.jpg", quality=90)
        samples.append(Sample(path=folder / f"{name}.jpg", name=name, label=name))
    return samples


def anything(full: tuple[int, int], reduced: tuple[int, int]) -> bool:
    return True


def differences(one: object, other: object) -> torch.Tensor:
    """The differences of two data sets' pixels, of 255."""
    pairs = [(one[i][0].int(), other[i][0].int()) for i in range(len(one))]
    return torch.stack([(a - b).abs() for a, b in pairs]).float()


@pytest.mark.parametrize("crop_mode", ["center", "border", "squash"])
def test_evaluation_sees_nearly_the_same_pixels(photos, crop_mode):
    sets = []
    for setting in ("full", "reduced"):
        preprocessing = Preprocessing(crop_mode=crop_mode, decode=setting)
        read = partial(READ, reduction=preprocessing.reduction)
        assert read(photos[0].path).size == {"full": (3000, 4000), "reduced": (750, 1000)}[setting]
        sets.append(EvalImages(photos, preprocessing.transform(), CLASSES, read))
    found = differences(*sets)
    assert 0 < found.mean() < 0.3  # of 255; measured 0.11 to 0.15
    assert found.max() <= 6  # measured 2 to 3


@pytest.mark.parametrize(
    ("augment", "size"),
    [
        (LightAugment(), (375, 500)),
        (StandardAugment(), (750, 1000)),
        (StrongAugment(), (1500, 2000)),
    ],
    ids=["light", "standard", "strong"],
)
def test_training_sees_nearly_the_same_crops(photos, augment, size):
    sets = []
    for setting in ("full", "reduced"):
        spec = Preprocessing(decode=setting).spec
        read = partial(READ, reduction=augment.reduction(spec))
        assert read(photos[0].path).size == {"full": (3000, 4000), "reduced": size}[setting]
        sets.append(TrainImages(photos, augment.build(spec), CLASSES, 0, read))
    found = differences(*sets)
    # Corners of a crop are rounded to the pixels there are: edges move by a part of a pixel.
    assert 0 < found.mean() < 2.0  # of 255; measured 1.1 light, 0.6 standard, 0.5 strong


def test_broken_and_odd_files_end_as_they_do_in_full(assets):
    paths = list_images([assets / "messy"])
    pairs = [(_outcome(path, None), _outcome(path, anything)) for path in paths]
    assert len(pairs) == 62
    reasons = [(full, reduced) for full, reduced in pairs if str in (type(full), type(reduced))]
    assert len(reasons) == 13
    assert all(full == reduced for full, reduced in reasons)
    assert sum(full != reduced for full, reduced in pairs) == 25


def test_the_eight_orientations_are_one_picture_at_reduced_scale(assets):
    paths = sorted((assets / "messy").glob("exif_Landscape_*.jpg"))
    assert len(paths) == 9
    preprocessing = Preprocessing(input_size=(3, 64, 64), decode="reduced")
    images = [READ(path, reduction=preprocessing.reduction) for path in paths]
    assert len({image.size for image in images}) == 1
    assert images[0].size < READ(paths[0]).size
    first, *others = (preprocessing.transform()(image).int() for image in images)
    for other in others:
        # Each was compressed anew after turning; measured 0.4 to 1.0 of 255.
        assert (first - other).abs().float().mean() < 2.0


def _outcome(path: Path, reduction: object) -> tuple[int, int] | str:
    """The size that a file is decoded at, or the reason why it is not."""
    try:
        return READ(path, reduction=reduction).size
    except UnreadableImageError as error:
        return error.message
