"""Decoding at reduced scale: JPEGs only, as small as is allowed, and never a reason to refuse."""

import io
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from finetune.components.augment import StandardAugment
from finetune.components.preprocess import Preprocessing
from finetune.data.check import check_images
from finetune.data.decode import UnreadableImageError, decode
from finetune.data.index import index_source
from finetune.data.loading import EvalImages, TrainImages, make_loader
from finetune.types import Sample

LIMIT = 10_000_000
# A grey ramp of 16 x 16 pixels, written by libjpeg-turbo without loss, which it cannot scale.
LOSSLESS = bytes.fromhex(
    "ffd8ffe000104a46494600010100000100010000ffc3000b080010001001011100ffc400150001010000000000"
    "0000000000000000000408ffda00080101000100009fd0" + 31 * "8421084210" + "84210847ffd9"
)
# What a camera stores, by the orientation that it writes beside.
STORED = {
    1: lambda pixels: pixels,
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.transpose(1, 0, 2),
    6: np.rot90,
    7: lambda pixels: pixels[::-1, ::-1].transpose(1, 0, 2),
    8: lambda pixels: np.rot90(pixels, -1),
}


def scene(width: int, height: int) -> np.ndarray:
    """Smooth colours with an edge, and nothing symmetric: (H, W, 3) uint8."""
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    channels = [x, y**2, (x + y > 0.7) * 0.8]
    return np.rint(255 * np.stack(channels, axis=2)).astype(np.uint8)


def encoded(pixels: np.ndarray, kind: str = "JPEG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image = Image.fromarray(np.ascontiguousarray(pixels))
    image.save(buffer, format=kind, **{"quality": 95, **options})
    return buffer.getvalue()


def anything(full: tuple[int, int], reduced: tuple[int, int]) -> bool:
    return True


def size_of(data: bytes, reduction: object) -> tuple[int, int]:
    return decode(data, max_pixels=LIMIT, reduction=reduction).size


def test_without_a_reduction_every_pixel_is_decoded():
    data = encoded(scene(333, 211))
    with Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(image.convert("RGB"))
    assert np.array_equal(np.asarray(decode(data, max_pixels=LIMIT)), expected)


def test_a_reduction_that_allows_nothing_changes_nothing():
    data = encoded(scene(333, 211))
    plain = decode(data, max_pixels=LIMIT)
    asked = decode(data, max_pixels=LIMIT, reduction=lambda full, reduced: False)
    assert np.array_equal(np.asarray(asked), np.asarray(plain))


@pytest.mark.parametrize(
    ("least", "size"), [(1, (42, 27)), (43, (84, 53)), (85, (167, 106)), (168, (333, 211))]
)
def test_the_smallest_scale_that_is_allowed_is_taken(least, size):
    assert size_of(encoded(scene(333, 211)), lambda full, reduced: reduced[0] >= least) == size


@pytest.mark.parametrize(("side", "size"), [(1, 1), (3, 2), (7, 2), (8, 1), (15, 2)])
def test_an_image_is_never_reduced_to_nothing(side, size):
    assert size_of(encoded(scene(side, 99)), anything)[0] == size


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_reduction_is_asked_about_the_upright_sizes(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(STORED[orientation](scene(80, 48)), exif=exif.tobytes())
    asked = []

    def reduction(full: tuple[int, int], reduced: tuple[int, int]) -> bool:
        asked.append((full, reduced))
        return reduced == (20, 12)

    assert size_of(data, reduction) == (20, 12)
    assert asked == [((80, 48), (10, 6)), ((80, 48), (20, 12))]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_one_picture_at_reduced_scale(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(STORED[orientation](scene(640, 480)), exif=exif.tobytes(), subsampling=0)
    preprocessing = Preprocessing(input_size=(3, 64, 64), decode="reduced")
    image = decode(data, max_pixels=LIMIT, reduction=preprocessing.reduction)
    assert image.size == (320, 240)
    full = preprocessing.transform()(Image.fromarray(scene(640, 480))).int()
    difference = (preprocessing.transform()(image).int() - full).abs()
    assert difference.float().mean() < 0.5  # of 255; measured 0.18, turned wrongly 64
    assert difference.max() <= 5  # measured 2


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "BMP", "GIF"])
def test_other_formats_are_decoded_at_their_own_size(kind):
    data = encoded(scene(80, 48), kind)
    asked = decode(data, max_pixels=LIMIT, reduction=anything)
    assert np.array_equal(np.asarray(asked), np.asarray(decode(data, max_pixels=LIMIT)))


def test_damage_of_another_format_is_found_for_the_same_reason():
    # After the pixels a text that is cut off, which a second load would not see.
    cut = encoded(scene(80, 48), "PNG")[:-12] + b"\0\0\0\x64tEXtabc"
    reasons = []
    for reduction in (None, anything):
        with pytest.raises(UnreadableImageError) as caught:
            decode(cut, max_pixels=LIMIT, reduction=reduction)
        reasons.append(caught.value.message)
    assert reasons[1] == reasons[0] == "truncated: Truncated File Read"


def test_the_first_picture_of_an_mpo_is_reduced():
    second = Image.fromarray(scene(80, 48)[::-1])
    data = encoded(scene(80, 48), "MPO", save_all=True, append_images=[second])
    image = decode(data, max_pixels=LIMIT, reduction=anything)
    assert image.size == (10, 6)
    assert np.asarray(image)[0, 0, 1] < np.asarray(image)[-1, 0, 1]


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("L", 3), ("RGB", 1), ("CMYK", 4)])
def test_all_kinds_of_colour_are_reduced(mode, channels):
    buffer = io.BytesIO()
    Image.fromarray(scene(80, 48)).convert(mode).save(buffer, "JPEG")
    read = partial(decode, buffer.getvalue(), max_pixels=LIMIT, channels=channels)
    image = read(reduction=lambda full, reduced: reduced == (40, 24))
    expected = np.asarray(read().reduce(2)).astype(int)
    assert image.size == (40, 24)
    assert np.abs(np.asarray(image) - expected).mean() < 3  # of 255; inverted ink differs by 100


def test_a_progressive_jpeg_is_reduced():
    assert size_of(encoded(scene(80, 48), progressive=True), anything) == (10, 6)


def test_a_jpeg_that_libjpeg_cannot_scale_is_decoded_at_its_own_size():
    image = decode(LOSSLESS, max_pixels=LIMIT, reduction=anything)
    expected = 8 * np.add.outer(np.arange(16), np.arange(16))
    assert np.array_equal(np.asarray(image)[:, :, 0], expected)


@pytest.mark.parametrize("part", [0.3, 0.5, 0.9])
def test_a_truncated_jpeg_is_found_at_reduced_scale_for_the_same_reason(part):
    data = encoded(np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8))
    reasons = []
    for reduction in (None, anything):
        with pytest.raises(UnreadableImageError) as caught:
            decode(data[: int(part * len(data))], max_pixels=LIMIT, reduction=reduction)
        reasons.append(caught.value.message)
    assert reasons[0].startswith("truncated: image file is truncated")
    assert reasons[1] == reasons[0]


def test_the_limit_counts_the_pixels_of_the_whole_image():
    with pytest.raises(UnreadableImageError) as caught:
        decode(encoded(scene(80, 48)), max_pixels=3839, reduction=anything)
    assert caught.value.message == "has 3840 pixels, the limit is 3839"


def test_a_file_and_a_path_are_reduced_alike(tmp_path):
    data = encoded(scene(80, 48))
    (tmp_path / "a.jpg").write_bytes(data)
    for source in (tmp_path / "a.jpg", io.BytesIO(data)):
        assert decode(source, max_pixels=LIMIT, reduction=anything).size == (10, 6)


@pytest.fixture
def photos(tmp_path: Path) -> tuple[Sample, ...]:
    """Three classes of one photo each, three times as large as an input needs."""
    for number, name in enumerate("abc"):
        (tmp_path / name).mkdir()
        pixels = np.roll(scene(800, 600), 100 * number, axis=1)
        (tmp_path / name / "0.jpg").write_bytes(encoded(pixels))
    return index_source(tmp_path).samples


def test_the_check_before_a_run_decodes_in_full_and_reports_the_size_of_the_file(photos):
    index = index_source(photos[0].path.parents[1])
    checked = check_images(index, max_pixels=LIMIT)
    assert {sample.size_px for sample in checked.samples} == {(800, 600)}


@pytest.mark.parametrize("workers", [0, 2])
def test_training_and_evaluation_of_reduced_photos_are_close_to_those_of_whole_ones(
    photos, workers
):
    batches = {}
    for setting in ("full", "reduced"):
        preprocessing = Preprocessing(input_size=(3, 64, 64), decode=setting)
        spec, augment = preprocessing.spec, StandardAugment()
        read = partial(decode, max_pixels=LIMIT)
        evaluated = partial(read, reduction=preprocessing.reduction)
        trained = partial(read, reduction=augment.reduction(spec))
        sets = (
            EvalImages(photos, preprocessing.transform(), "abc", evaluated),
            TrainImages(photos, augment.build(spec), "abc", 7, trained),
        )
        loaders = [make_loader(one, batch_size=3, workers=workers) for one in sets]
        batches[setting] = [next(iter(loader))[0].int() for loader in loaders]
    for full, reduced in zip(batches["full"], batches["reduced"], strict=True):
        assert not torch.equal(full, reduced)
        assert (full - reduced).abs().float().mean() < 1.0  # of 255; measured 0.2 and 0.5
