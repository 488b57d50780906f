"""The decoder over broken, odd and hostile files from the test suites of image libraries."""

from pathlib import Path

import numpy as np
import pytest

from finetune.components.preprocess import Preprocessing
from finetune.data.decode import UnreadableImageError, decode
from finetune.data.walk import list_images

pytestmark = pytest.mark.real

LIMIT = 178_956_970
REASONS = {
    "LISTING.json": "not an image",
    "pillow_broken.png": "damaged: the header of this PNG cannot be read",
    "pillow_broken_data_stream.png": (
        "damaged: unrecognized data stream contents when reading image file"
    ),
    "pillow_decompression_bomb.gif": "has 4364696535 pixels, the limit is 178956970",
    "pillow_libtiff_segfault.tif": "damaged: the header of this TIFF cannot be read",
    "pillow_png_decompression_dos.png": (
        "damaged: Decompressed data too large for PngImagePlugin.MAX_TEXT_CHUNK"
    ),
    "pillow_truncated_end_chunk.png": "truncated: Truncated File Read",
    "pillow_truncated_jpeg.jpg": "truncated: image file is truncated (8 bytes not processed)",
    "pillow_unknown_compression_method.png": "damaged: the header of this PNG cannot be read",
    "trunc_half.jpg": "truncated: image file is truncated (12 bytes not processed)",
    "vips_truncated.gif": "truncated: image file is truncated (20 bytes not processed)",
    "vips_truncated.jpg": "truncated: image file is truncated (10 bytes not processed)",
    "zero_bytes.jpg": "empty file",
}


@pytest.fixture(scope="module")
def messy(assets) -> Path:
    return assets / "messy"


def read(path: Path) -> np.ndarray:
    return np.asarray(decode(path, max_pixels=LIMIT)).astype(int)


def test_every_file_gives_pixels_or_its_reason(messy):
    reasons, shapes = {}, {}
    for path in list_images([messy]):
        try:
            shapes[path.name] = read(path).shape
        except UnreadableImageError as error:
            reasons[path.name] = error.message
    assert len(reasons) + len(shapes) == 62
    assert reasons == REASONS
    assert {shape[2] for shape in shapes.values()} == {3}


def test_the_eight_orientations_are_one_picture_but_for_jpeg_noise(messy):
    paths = sorted(messy.glob("exif_Landscape_*.jpg"))
    assert len(paths) == 9
    first, *others = (read(path) for path in paths)
    for other in others:
        assert other.shape == (1200, 1800, 3)
        # Each was compressed anew after turning; another orientation differs by 70 and more.
        assert np.abs(other - first).mean() < 5
    assert np.abs(first[::-1] - first).mean() > 70


@pytest.mark.parametrize("number", [6, 8])
def test_rotated_photos_come_out_upright(messy, number):
    assert read(messy / f"vips_rotation_{number}.jpg").shape == (308, 231, 3)


def test_an_orientation_in_xmp_alone_is_applied(messy):
    from PIL import Image

    path = messy / "pillow_xmp_tags_orientation.png"
    with Image.open(path) as image:
        assert "exif" not in image.info
        turned = image.convert("RGBA").transpose(Image.Transpose.ROTATE_180)
    opaque = np.asarray(turned)[:, :, 3] == 255
    assert np.array_equal(read(path)[opaque], np.asarray(turned)[:, :, :3][opaque])


def test_transparency_is_white(messy):
    assert read(messy / "pillow_transparent.png")[0, 0].tolist() == [255, 255, 255]
    assert read(messy / "pillow_transparent.gif")[0, 0].tolist() == [255, 255, 255]


def test_equal_files_give_equal_pixels(messy):
    one, other = (read(messy / f"duplicate_{letter}.jpg") for letter in "ab")
    assert np.array_equal(one, other)


def test_every_readable_file_becomes_an_input(messy):
    transform = Preprocessing().transform()
    names = [path for path in list_images([messy]) if path.name not in REASONS]
    assert len(names) == 49
    shapes = {tuple(transform(decode(path, max_pixels=LIMIT)).shape) for path in names}
    assert shapes == {(3, 224, 224)}
