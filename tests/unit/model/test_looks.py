"""Brightness and sharpness: of plain pictures, of blurred ones, and against SciPy."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from scipy.ndimage import convolve

from finetune.model.looks import measure_looks


def measure_brightness(images: torch.Tensor) -> torch.Tensor:
    return measure_looks(images)[0]


def measure_sharpness(images: torch.Tensor) -> torch.Tensor:
    return measure_looks(images)[1]


def batch_of(*pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2)


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (24, 30, 3), dtype=np.uint8)


def test_brightness_is_pillows_luma(pixels: np.ndarray) -> None:
    expected = np.asarray(Image.fromarray(pixels).convert("L"), dtype=float).mean()
    # Pillow rounds each pixel down by half a level on average.
    assert measure_brightness(batch_of(pixels)).item() == pytest.approx(expected, abs=0.6)


def test_black_and_white_are_the_ends_of_brightness() -> None:
    black, white = np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 255, np.uint8)
    assert measure_brightness(batch_of(black, white)).tolist() == pytest.approx([0, 255], abs=1e-3)


def test_sharpness_is_the_variance_of_scipys_laplacian(pixels: np.ndarray) -> None:
    luma = pixels @ np.array([0.299, 0.587, 0.114])
    kernel = np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]])
    expected = convolve(luma, kernel)[1:-1, 1:-1].var()
    assert measure_sharpness(batch_of(pixels)).item() == pytest.approx(expected, rel=1e-4)


def test_a_blurred_picture_is_less_sharp_and_a_plain_one_not_at_all(pixels: np.ndarray) -> None:
    blurred = np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(2)))
    plain = np.full_like(pixels, 90)
    sharp, soft, none = measure_sharpness(batch_of(pixels, blurred, plain)).tolist()
    assert sharp > 10 * soft > 0
    assert none == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("channels", [1, 4])
def test_other_channels_than_three_are_averaged(channels: int) -> None:
    images = torch.full((2, channels, 5, 6), 60, dtype=torch.uint8)
    assert measure_brightness(images).tolist() == [60, 60]


def test_an_image_too_small_for_a_laplacian_has_no_sharpness() -> None:
    assert measure_sharpness(torch.zeros((2, 3, 2, 9), dtype=torch.uint8)).tolist() == [0, 0]
