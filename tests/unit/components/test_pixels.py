"""Pixels travel between Pillow and arrays unchanged, whatever the number of channels."""

import numpy as np
import pytest
from PIL import Image

from finetune.components.pixels import to_array, to_picture


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB"), (4, "CMYK")])
def test_pixels_survive_the_way_there_and_back(channels, mode):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, channels), dtype=np.uint8)
    picture = to_picture(pixels)
    assert (picture.mode, picture.size) == (mode, (7, 5))
    assert np.array_equal(to_array(picture), pixels)


def test_pixels_that_do_not_lie_side_by_side_are_taken():
    pixels = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    assert np.array_equal(to_array(to_picture(pixels[::2, ::-1])), pixels[::2, ::-1])


def test_an_array_may_be_written_to_without_changing_the_picture():
    picture = Image.new("RGB", (3, 2), (1, 2, 3))
    to_array(picture)[:] = 9
    assert picture.getpixel((0, 0)) == (1, 2, 3)


@pytest.mark.parametrize("resample", list(Image.Resampling), ids=lambda value: value.name)
def test_pillow_resizes_four_bands_each_on_its_own(resample):
    pixels = np.random.default_rng(1).integers(0, 256, (40, 50, 4), dtype=np.uint8)
    together = to_array(to_picture(pixels).resize((23, 17), resample))
    alone = [to_picture(pixels[:, :, i : i + 1]).resize((23, 17), resample) for i in range(4)]
    assert np.array_equal(together, np.dstack([np.asarray(band) for band in alone]))
