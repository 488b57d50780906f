"""Augmentation of grey images and of images of four bands."""

import numpy as np
import pytest

from finetune.components.augment import (
    AlbumentationsAugment,
    LightAugment,
    NoAugment,
    PythonAugment,
    StandardAugment,
    StrongAugment,
)
from finetune.components.pixels import to_picture
from finetune.components.preprocess import InputSpec, Preprocessing
from finetune.errors import DataError, RecipeError

PRESETS = [LightAugment(), NoAugment(), StandardAugment(), StrongAugment()]
PRESET_IDS = [preset.kind for preset in PRESETS]


def named(*transforms: object) -> AlbumentationsAugment:
    return AlbumentationsAugment.model_validate({"transforms": transforms})


def banded(channels: int, height: int = 60, width: int = 90) -> np.ndarray:
    rng = np.random.default_rng(height * width)
    return rng.integers(0, 256, (height, width, channels), dtype=np.uint8)


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("preset", PRESETS, ids=PRESET_IDS)
@pytest.mark.parametrize("crop_mode", ["center", "border", "squash"])
@pytest.mark.parametrize("size", [(60, 90), (1, 1), (3, 700), (20, 10)])
def test_a_preset_gives_the_channels_that_it_takes(preset, crop_mode, size, channels):
    spec = InputSpec(32, 48, "bicubic", crop_mode=crop_mode, channels=channels, fill=(7,))
    result = preset.build(spec)(banded(channels, *size), seed=5)
    assert result.shape == (32, 48, channels)
    assert result.dtype == np.uint8


@pytest.mark.parametrize("channels", [1, 4])
def test_every_part_of_a_preset_works_on_other_channels(channels):
    preset = StrongAugment(vertical_flip=1.0, blur=1.0, erase=1.0, colour=1.0, rotate_degrees=180)
    function = preset.build(InputSpec(32, 48, "bicubic", channels=channels, fill=(7,)))
    results = [function(banded(channels), seed=seed) for seed in range(20)]
    assert {result.shape for result in results} == {(32, 48, channels)}
    assert len({result.tobytes() for result in results}) == 20
    assert np.array_equal(function(banded(channels), seed=3), results[3])


@pytest.mark.parametrize("channels", [1, 4])
def test_the_colour_of_other_channels_changes_in_brightness(channels):
    flat = np.full((32, 48, channels), 100, np.uint8)
    function = StandardAugment().build(InputSpec(32, 48, "bicubic", channels=channels))
    levels = {int(function(flat, seed=seed).mean()) for seed in range(20)}
    assert len(levels) > 5
    assert min(levels) >= 60
    assert max(levels) <= 150


def test_four_bands_change_alike():
    flat = np.tile(np.array([40, 80, 120, 160], np.uint8), (32, 48, 1))
    function = StandardAugment().build(InputSpec(32, 48, "bicubic", channels=4))
    changed = [function(flat, seed=seed)[0, 0].astype(int) for seed in range(20)]
    steps = np.array([np.diff(levels) for levels in changed])
    assert np.abs(steps - steps.mean(axis=1, keepdims=True)).max() < 2  # rounding


@pytest.mark.parametrize("channels", [1, 4])
def test_none_is_what_evaluation_sees_of_other_channels(channels):
    preprocessing = Preprocessing(input_size=(channels, 32, 48), crop_mode="border", crop_pct=0.9)
    result = NoAugment().build(preprocessing.spec)(banded(channels), seed=0)
    expected = preprocessing.transform()(to_picture(banded(channels)))
    assert np.array_equal(result.transpose(2, 0, 1), expected.numpy())


@pytest.mark.parametrize("channels", [1, 4])
def test_steps_that_take_the_channels_make_a_pipeline(channels):
    pipeline = named("D4", {"name": "GaussNoise", "p": 1.0}, "CoarseDropout")
    result = pipeline.build(InputSpec(32, 48, "bicubic", channels=channels))(
        banded(channels), seed=1
    )
    assert result.shape == (32, 48, channels)


def test_steps_that_cannot_take_the_channels_are_all_named_before_training():
    pipeline = named(
        "HorizontalFlip", "ToSepia", {"name": "OneOf", "transforms": ["Blur", "CLAHE"]}
    )
    with pytest.raises(RecipeError) as caught:
        pipeline.build(InputSpec(32, 48, "bicubic", channels=4))
    assert [(found.path, found.message) for found in caught.value.problems] == [
        (
            "augment.transforms.1",
            "ToSepia cannot take 4-channel images: "
            "ToSepia transformation expects 1 or 3-channel images.",
        ),
        (
            "augment.transforms.2.transforms.1",
            "CLAHE cannot take 4-channel images: "
            "CLAHE transformation expects 1-channel or 3-channel images.",
        ),
    ]


def test_a_step_that_gives_other_channels_is_named_before_training():
    pipeline = named({"name": "ChannelDropout", "p": 0.1})
    with pytest.raises(RecipeError, match="ChannelDropout cannot take 1-channel images: "):
        pipeline.build(InputSpec(32, 48, "bicubic", channels=1))


def test_a_step_that_fails_on_every_image_of_the_size_is_left_to_the_images():
    pipeline = named({"name": "RandomCrop", "height": 50, "width": 50})
    function = pipeline.build(InputSpec(32, 48, "bicubic", channels=4))
    assert function(banded(4), seed=0).shape == (32, 48, 4)


def test_a_grey_function_from_python_may_leave_the_channels_away():
    augment = PythonAugment(function=lambda image: image[:, :, 0])
    function = augment.build(InputSpec(32, 48, "bicubic", channels=1))
    assert function(banded(1), seed=0).shape == (32, 48, 1)


def test_a_function_that_gives_other_channels_is_told_what_to_give():
    augment = PythonAugment(function=lambda image: image[:, :, :3])
    with pytest.raises(DataError) as caught:
        augment.build(InputSpec(32, 48, "bicubic", channels=4))(banded(4), seed=0)
    assert caught.value.message == (
        "the augmentation gave uint8 (60, 90, 3); it must give uint8 of shape (height, width, 4): "
        "normalisation comes from the weights, on the device"
    )
