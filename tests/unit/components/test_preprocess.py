"""Preprocessing equals timm's own evaluation transform, bit for bit."""

import json
import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from finetune.components.pixels import to_picture
from finetune.components.preprocess import InputSpec, Preprocessing
from finetune.errors import RecipeError
from finetune.torchvision_ops import register_missing_ops

register_missing_ops()

from timm import create_model  # noqa: E402
from timm.data import create_transform, resolve_input_data_config  # noqa: E402

SIZES = [(50, 40), (40, 50), (32, 32), (7, 90), (1, 1), (333, 211), (64, 64)]
CONFIGS = [
    {"input_size": (3, 32, 32), "crop_pct": 0.875},
    {"input_size": (3, 32, 32), "crop_pct": 1.0, "interpolation": "bilinear"},
    {"input_size": (3, 31, 45), "crop_pct": 0.9, "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)},
    {"input_size": (3, 48, 48), "crop_pct": 0.95, "interpolation": "lanczos"},
]


def picture(width: int, height: int) -> Image.Image:
    rng = np.random.default_rng(width * 1000 + height)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def banded(width: int, height: int, *, channels: int) -> Image.Image:
    rng = np.random.default_rng(width * 1000 + height)
    return to_picture(rng.integers(0, 256, (height, width, channels), dtype=np.uint8))


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("crop_mode", ["center", "border", "squash"])
@pytest.mark.parametrize("config", CONFIGS, ids=["default", "bilinear", "oblong", "lanczos"])
def test_transform_and_normalize_equal_timms_transform_bit_for_bit(config, crop_mode, size):
    preprocessing = Preprocessing(**config, crop_mode=crop_mode)
    expected = create_transform(**preprocessing.to_data_config(), is_training=False)(picture(*size))
    pixels = preprocessing.transform()(picture(*size))
    assert pixels.dtype == torch.uint8
    assert torch.equal(preprocessing.normalize(pixels[None])[0], expected)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("crop_mode", ["center", "border", "squash"])
@pytest.mark.parametrize(
    ("mean", "std"),
    [((0.25,), (0.5,)), ((0.1, 0.3, 0.5, 0.7), (0.2, 0.3, 0.4, 0.5))],
    ids=["grey", "bands"],
)
def test_grey_and_four_bands_equal_timms_transform_bit_for_bit(mean, std, crop_mode, size):
    preprocessing = Preprocessing(
        input_size=(len(mean), 32, 48), mean=mean, std=std, crop_mode=crop_mode, crop_pct=0.9
    )
    image = banded(*size, channels=len(mean))
    expected = create_transform(**preprocessing.to_data_config(), is_training=False)(image)
    pixels = preprocessing.transform()(image)
    assert pixels.dtype == torch.uint8
    assert pixels.shape == (len(mean), 32, 48)
    assert torch.equal(preprocessing.normalize(pixels[None])[0], expected)


@pytest.mark.parametrize("crop_mode", ["center", "border", "squash"])
def test_each_of_four_bands_is_resized_on_its_own(crop_mode):
    sizes = {"crop_mode": crop_mode, "crop_pct": 0.9, "mean": (0.5,)}
    image = banded(70, 50, channels=4)
    together = Preprocessing(input_size=(4, 32, 48), **sizes).transform()(image)
    alone = Preprocessing(input_size=(1, 32, 48), **sizes).transform()
    assert torch.equal(together, torch.cat([alone(band) for band in image.split()]))


def test_normalize_keeps_the_memory_format():
    batch = torch.zeros(2, 3, 8, 8, dtype=torch.uint8).to(memory_format=torch.channels_last)
    result = Preprocessing().normalize(batch)
    assert result.dtype == torch.float32
    assert result.is_contiguous(memory_format=torch.channels_last)


def test_normalize_leaves_the_batch_alone():
    batch = torch.full((1, 3, 4, 4), 7, dtype=torch.uint8)
    Preprocessing().normalize(batch)
    assert int(batch.sum()) == 7 * 48


def test_a_data_config_of_timm_survives_the_round_trip():
    config = {
        "input_size": (3, 240, 200),
        "interpolation": "bicubic",
        "mean": (0.1, 0.2, 0.3),
        "std": (0.4, 0.5, 0.6),
        "crop_pct": 0.95,
        "crop_mode": "squash",
    }
    assert Preprocessing.from_data_config(config).to_data_config() == config


def test_one_mean_stands_for_three_channels():
    config = {"mean": (0.5,), "std": [0.25]}
    preprocessing = Preprocessing.from_data_config(config)
    assert preprocessing.mean == (0.5, 0.5, 0.5)
    assert preprocessing.std == (0.25, 0.25, 0.25)


@pytest.mark.parametrize("channels", [0, 2, 5, "3"])
def test_another_number_of_channels_is_refused(channels):
    with pytest.raises(ValidationError, match=r"input_size\.0\n  Input should be 1, 3 or 4 "):
        Preprocessing.from_data_config({"input_size": (channels, 32, 32)})


@pytest.mark.parametrize(("channels", "colour"), [(1, "grey"), (3, "rgb"), (4, "bands")])
def test_the_channels_say_what_the_colour_is(channels, colour):
    preprocessing = Preprocessing(input_size=(channels, 32, 32))
    assert (preprocessing.channels, preprocessing.colour) == (channels, colour)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_what_was_saved_is_read_again(channels):
    preprocessing = Preprocessing(input_size=(channels, 32, 48), crop_pct=0.9)
    document = json.loads(preprocessing.model_dump_json())
    assert Preprocessing.model_validate(document) == preprocessing


def test_a_colour_that_contradicts_the_channels_is_refused():
    with pytest.raises(RecipeError) as caught:
        Preprocessing(input_size=(1, 32, 32), colour="rgb")
    assert caught.value.problems[0].message == (
        "colour rgb contradicts input_size (1, 32, 32), which is grey"
    )


@pytest.mark.parametrize("name", ["mean", "std"])
def test_a_mean_or_std_of_another_number_of_values_is_refused(name):
    with pytest.raises(RecipeError) as caught:
        Preprocessing(input_size=(4, 32, 32), **{name: (0.5, 0.5, 0.5)})
    assert caught.value.problems[0].message == (
        f"{name} has 3 values, input_size (4, 32, 32) asks for 4"
    )


@pytest.mark.parametrize("channels", [1, 4])
def test_a_config_of_rgb_weights_gives_every_channel_their_mean_as_timm_does(channels):
    model = create_model("test_byobnet", in_chans=channels)
    expected = resolve_input_data_config(model)
    config = {**model.pretrained_cfg, "input_size": (channels, 160, 160)}
    found = Preprocessing.from_data_config(config).to_data_config()
    assert {name: found[name] for name in ("input_size", "mean", "std")} == {
        name: expected[name] for name in ("input_size", "mean", "std")
    }


def test_with_channels_spreads_the_mean_of_what_was_there():
    preprocessing = Preprocessing(crop_pct=0.9, mean=(0.1, 0.2, 0.6), std=(0.25, 0.25, 0.25))
    changed = preprocessing.with_channels(4)
    assert changed.mean == pytest.approx((0.3, 0.3, 0.3, 0.3))
    assert changed.std == (0.25, 0.25, 0.25, 0.25)
    assert (changed.input_size, changed.crop_pct) == ((4, 224, 224), 0.9)


def test_with_channels_leaves_alone_what_has_them():
    preprocessing = Preprocessing()
    assert preprocessing.with_channels(3) is preprocessing


def test_with_channels_refuses_another_number():
    with pytest.raises(ValidationError, match="Input should be 1, 3 or 4"):
        Preprocessing().with_channels(2)


def test_something_else_than_a_mapping_is_refused():
    with pytest.raises(ValidationError, match="dictionary"):
        Preprocessing.model_validate(3)


@pytest.mark.parametrize(
    ("mode", "width", "height", "lost"),
    [
        ("center", 200, 100, 0.5),
        ("center", 100, 100, 0.0),
        ("border", 200, 100, 0.0),
        ("squash", 200, 100, 0.0),
    ],
)
def test_lost_fraction_is_the_share_of_pixels_cut_off(mode, width, height, lost):
    preprocessing = Preprocessing(input_size=(3, 50, 50), crop_pct=1.0, crop_mode=mode)
    assert preprocessing.lost_fraction(width, height) == pytest.approx(lost)


def test_lost_fraction_counts_what_crop_pct_cuts():
    preprocessing = Preprocessing(input_size=(3, 80, 80), crop_pct=0.8, crop_mode="squash")
    assert preprocessing.lost_fraction(500, 200) == pytest.approx(1 - 0.8**2)


def test_lost_fraction_is_what_a_count_of_pixels_finds():
    marked = np.zeros((100, 250, 3), np.uint8)
    marked[:, 75:175] = 255
    preprocessing = Preprocessing(input_size=(3, 100, 100), crop_pct=1.0)
    assert int(preprocessing.transform()(Image.fromarray(marked)).min()) == 255
    assert preprocessing.lost_fraction(250, 100) == pytest.approx(0.6)


@pytest.mark.parametrize(
    ("mode", "crop_mode", "crop_pct"),
    [("crop", "center", 0.875), ("pad", "border", 1.0), ("squash", "squash", 1.0)],
)
def test_with_resize_changes_the_geometry_and_loses_nothing_where_asked(mode, crop_mode, crop_pct):
    changed = Preprocessing().with_resize(mode)
    assert (changed.crop_mode, changed.crop_pct) == (crop_mode, crop_pct)


@pytest.mark.parametrize("size", [(400, 400), (640, 401), (400, 643), (1000, 300)])
@pytest.mark.parametrize("input_size", [(3, 128, 128), (3, 96, 160)])
@pytest.mark.parametrize(
    ("crop_mode", "crop_pct"),
    [("center", 1.0), ("center", 0.8), ("border", 1.0), ("border", 0.9), ("squash", 0.9)],
)
def test_what_is_seen_is_where_the_transform_puts_a_spot(crop_mode, crop_pct, input_size, size):
    preprocessing = Preprocessing(input_size=input_size, crop_mode=crop_mode, crop_pct=crop_pct)
    column, row = round(0.45 * size[0]), round(0.6 * size[1])
    pixels = np.zeros((size[1], size[0], 3), dtype=np.uint8)
    pixels[row - 12 : row + 12, column - 12 : column + 12] = 255
    seen = preprocessing.transform()(Image.fromarray(pixels)).float().amin(0).numpy()
    weight = np.maximum(seen - 128, 0)  # padded borders are less bright
    rows, columns = np.indices(weight.shape) + 0.5
    found = [(weight * places).sum() / weight.sum() for places in (columns, rows)]
    left, top, width, height = preprocessing.seen(*size)
    across = (left + width * found[0] / input_size[2]) * size[0]
    down = (top + height * found[1] / input_size[1]) * size[1]
    pixel = max(size[0] * width / input_size[2], size[1] * height / input_size[1])
    assert (across, down) == pytest.approx((column, row), abs=pixel)  # one of the input


def test_with_resize_leaves_weights_alone_that_work_that_way():
    preprocessing = Preprocessing(crop_mode="squash", crop_pct=0.9)
    assert preprocessing.with_resize("squash") is preprocessing


def test_spec_has_a_fill_for_each_channel():
    preprocessing = Preprocessing(input_size=(4, 32, 48), mean=(0.0, 0.2, 0.4, 1.0))
    assert (preprocessing.spec.channels, preprocessing.spec.fill) == (4, (0, 51, 102, 255))


def test_one_fill_stands_for_every_channel():
    assert InputSpec(8, 8, "bicubic", channels=4, fill=(7,)).fill == (7, 7, 7, 7)


def test_spec_carries_what_augmentation_needs():
    preprocessing = Preprocessing(input_size=(3, 32, 48), crop_mode="border", crop_pct=1.0)
    assert preprocessing.spec == InputSpec(
        32, 48, "bicubic", crop_mode="border", crop_pct=1.0, fill=(124, 116, 104)
    )


@pytest.mark.parametrize("crop_mode", ["center", "border", "squash"])
@pytest.mark.parametrize("size", [(2000, 3), (3, 2000)], ids=str)
def test_an_image_that_is_nearly_a_line_gives_an_input(crop_mode, size):
    preprocessing = Preprocessing(input_size=(3, 64, 64), crop_mode=crop_mode, crop_pct=1.0)
    assert preprocessing.transform()(picture(*size)).shape == (3, 64, 64)


@pytest.mark.parametrize("size", [(60_000, 2), (2, 60_000)], ids=str)
def test_a_line_that_would_fill_the_memory_is_cut_to_its_middle_first(size):
    line = Image.new("RGB", size, (10, 20, 30))
    pixels = Preprocessing().transform()(line)
    assert pixels.shape == (3, 224, 224)
    assert pixels[:, 0, 0].tolist() == [10, 20, 30]


def test_the_transform_travels_to_another_process():
    transform = Preprocessing(input_size=(3, 32, 32)).transform()
    copy = pickle.loads(pickle.dumps(transform))
    assert torch.equal(copy(picture(50, 40)), transform(picture(50, 40)))


def test_what_an_image_becomes_is_said_in_a_line() -> None:
    preprocessing = Preprocessing(input_size=(3, 64, 96), crop_pct=0.9, mean=(0.5, 0.4, 0.25))
    assert preprocessing.describe() == (
        "64 x 96 px, bicubic, center 0.9, mean 0.5, 0.4, 0.25, std 0.229, 0.224, 0.225 "
        "(from the weights)"
    )


@pytest.mark.parametrize(("channels", "words"), [(1, "grey, bicubic"), (4, "4 bands, bicubic")])
def test_channels_other_than_three_are_said(channels, words) -> None:
    preprocessing = Preprocessing(input_size=(channels, 64, 96))
    assert preprocessing.describe().startswith(f"64 x 96 px, {words}, center 0.875, mean 0.449")


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("size", [(60_000, 2), (2, 60_000), (2000, 3)], ids=str)
def test_a_line_of_other_channels_gives_an_input(channels, size):
    preprocessing = Preprocessing(input_size=(channels, 64, 64))
    assert preprocessing.transform()(banded(*size, channels=channels)).shape == (channels, 64, 64)
