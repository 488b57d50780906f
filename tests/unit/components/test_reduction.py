"""Which scales are allowed: by evaluation's geometry, by a preset's smallest crop, by nothing."""

import pickle

import numpy as np
import pytest
from PIL import Image

from finetune.components.augment import (
    AlbumentationsAugment,
    LightAugment,
    NoAugment,
    PythonAugment,
    StandardAugment,
    StrongAugment,
)
from finetune.components.pipelines import CropReduction
from finetune.components.preprocess import InputSpec, Preprocessing

SIZES = [(50, 40), (40, 50), (32, 32), (7, 90), (333, 211), (211, 333), (64, 64), (129, 97)]
SPEC = InputSpec(224, 224, "bicubic", decode="reduced")
PHOTO = (4000, 3000)


def allowed(reduction, full: tuple[int, int]) -> int:
    """The smallest scale that is allowed, as its divisor."""
    scales = [(scale, tuple(-(-side // scale) for side in full)) for scale in (8, 4, 2)]
    return next((scale for scale, reduced in scales if reduction(full, reduced)), 1)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("crop_mode", ["center", "border", "squash"])
@pytest.mark.parametrize("input_size", [(3, 32, 32), (3, 31, 45)], ids=["square", "oblong"])
def test_the_resized_size_is_that_of_timms_own_transform(input_size, crop_mode, size):
    preprocessing = Preprocessing(input_size=input_size, crop_mode=crop_mode, crop_pct=0.9)
    resize = preprocessing.transform()._inner.transforms[0]
    assert preprocessing.resized_px(*size) == resize(Image.new("RGB", size)).size


def test_full_decoding_allows_no_scale():
    assert Preprocessing().reduction is None
    assert Preprocessing().spec.decode == "full"


@pytest.mark.parametrize(
    ("full", "scale"),
    [
        (PHOTO, 4),  # resized to 341 x 256, of 1000 x 750
        ((3000, 4000), 4),
        ((1024, 1024), 2),  # 512 x 512 is exactly twice 256
        ((1022, 1022), 1),
        ((384, 512), 1),
        ((20_000, 3000), 4),
    ],
)
def test_evaluation_keeps_twice_the_size_that_it_resizes_to(full, scale):
    assert allowed(Preprocessing(decode="reduced").reduction, full) == scale


def test_a_scale_that_would_change_the_resized_size_is_not_allowed():
    preprocessing = Preprocessing(decode="reduced")
    full, half = (1101, 1501), (551, 751)
    assert preprocessing.resized_px(*full) == (256, 349)
    assert preprocessing.resized_px(*half) == (256, 348)
    assert allowed(preprocessing.reduction, full) == 1


@pytest.mark.parametrize("crop_mode", ["center", "border", "squash"])
def test_whatever_is_allowed_keeps_the_resized_size(crop_mode):
    preprocessing = Preprocessing(
        input_size=(3, 64, 64), crop_mode=crop_mode, crop_pct=0.9, decode="reduced"
    )
    rng = np.random.default_rng(0)
    num_allowed = num_refused = 0
    for full in rng.integers(300, 3000, (500, 2)).tolist():
        half = tuple(-(-side // 2) for side in full)
        is_equal = preprocessing.resized_px(*half) == preprocessing.resized_px(*full)
        is_allowed = preprocessing.reduction(tuple(full), half)
        assert is_equal or not is_allowed
        num_allowed += is_allowed
        num_refused += not is_equal
    assert num_allowed > 350
    assert crop_mode == "squash" or num_refused > 5


def test_the_nearest_pixel_is_always_of_the_whole_image():
    reduction = Preprocessing(decode="reduced", interpolation="nearest").reduction
    assert allowed(reduction, PHOTO) == 1


def test_other_channels_keep_the_setting():
    assert Preprocessing(decode="reduced").with_channels(1).decode == "reduced"


def test_timm_is_not_told_of_the_setting():
    assert "decode" not in Preprocessing(decode="reduced").to_data_config()


def test_the_setting_is_said_in_the_line_of_the_input():
    full, reduced = Preprocessing(), Preprocessing(decode="reduced")
    assert reduced.describe() == f"{full.describe()}; large JPEGs at reduced scale"


def test_what_was_saved_before_the_setting_existed_is_decoded_in_full():
    saved = Preprocessing(decode="reduced").model_dump(mode="json")
    assert saved.pop("decode") == "reduced"
    assert Preprocessing.model_validate(saved) == Preprocessing()


@pytest.mark.parametrize(
    ("augment", "scale"),
    [(LightAugment(), 8), (StandardAugment(), 4), (StrongAugment(), 2), (NoAugment(), 4)],
    ids=lambda value: getattr(value, "kind", value),
)
def test_a_preset_allows_what_leaves_its_smallest_crop_the_size_of_the_input(augment, scale):
    assert allowed(augment.reduction(SPEC), PHOTO) == scale


@pytest.mark.parametrize("preset", [LightAugment(), StandardAugment(), StrongAugment()])
def test_no_crop_of_a_reduced_photo_is_smaller_than_the_input(preset):
    spec = InputSpec(64, 96, "bicubic", decode="reduced")
    full = (1600, 1200)
    scale = allowed(preset.reduction(spec), full)
    assert scale > 1
    crop = preset.compose(spec).transforms[0]
    shape = {"shape": (full[1] // scale, full[0] // scale, 3)}
    for _ in range(300):
        left, top, right, bottom = crop.get_params_dependent_on_data(shape, {})["crop_coords"]
        assert right - left >= 96
        assert bottom - top >= 64


def test_a_panorama_keeps_its_short_side():
    assert not CropReduction(224, 224, 0.35)((20_000, 400), (10_000, 200))


@pytest.mark.parametrize(
    "augment",
    [
        AlbumentationsAugment(transforms=["HorizontalFlip"]),
        PythonAugment(function=lambda image: image),
    ],
    ids=["albumentations", "python"],
)
def test_what_cannot_be_known_is_given_every_pixel(augment):
    assert augment.reduction(SPEC) is None


@pytest.mark.parametrize("augment", [LightAugment(), NoAugment()])
def test_full_decoding_gives_an_augmentation_every_pixel(augment):
    assert augment.reduction(InputSpec(224, 224, "bicubic")) is None


@pytest.mark.parametrize(
    "reduction", [Preprocessing(decode="reduced").reduction, StandardAugment().reduction(SPEC)]
)
def test_a_reduction_travels_to_worker_processes(reduction):
    assert allowed(pickle.loads(pickle.dumps(reduction)), PHOTO) == 4
