"""The decoder: one rule for every kind of image, one sentence for every kind of damage."""

import hashlib
import io
import logging
import os
import pickle
import struct
import sys
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from finetune.data.colours import to_channels
from finetune.data.content import digest_of
from finetune.data.decode import UnreadableImageError, decode, open_image_file, to_image
from finetune.errors import DataError

LIMIT = 10_000_000
RAMP = np.arange(6 * 4 * 3, dtype=np.uint8).reshape(4, 6, 3) * 3


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def pixels(source: Path | bytes) -> np.ndarray:
    image = decode(source, max_pixels=LIMIT)
    assert image.mode == "RGB"
    return np.asarray(image)


def reason(source: Path | bytes, max_pixels: int = LIMIT) -> str:
    with pytest.raises(UnreadableImageError) as caught:
        decode(source, max_pixels=max_pixels)
    return caught.value.message


def test_rgb_comes_out_as_it_is():
    assert np.array_equal(pixels(encoded(Image.fromarray(RAMP))), RAMP)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("at_once", [0, 1 << 20])
def test_a_path_bytes_and_an_open_file_give_the_same(tmp_path, monkeypatch, at_once, kind):
    monkeypatch.setattr("finetune.data.decode._AT_ONCE", at_once)
    data = encoded(Image.fromarray(RAMP), kind)
    path = tmp_path / "ramp"
    path.write_bytes(data)
    assert np.array_equal(pixels(path), RAMP)
    assert np.array_equal(np.asarray(decode(io.BytesIO(data), max_pixels=LIMIT)), RAMP)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_comes_out_upright(orientation, kind):
    turned = {
        1: RAMP,
        2: RAMP[:, ::-1],
        3: RAMP[::-1, ::-1],
        4: RAMP[::-1],
        5: RAMP.transpose(1, 0, 2),
        6: np.rot90(RAMP),
        7: RAMP[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(RAMP, -1),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(turned[orientation]))
    assert np.array_equal(pixels(encoded(stored, kind, exif=exif.tobytes())), RAMP)


@pytest.mark.parametrize("orientation", [0, 9, 77])
def test_an_orientation_that_does_not_exist_changes_nothing(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert np.array_equal(pixels(encoded(Image.fromarray(RAMP), exif=exif.tobytes())), RAMP)


def test_the_result_is_not_turned_a_second_time():
    exif = Image.Exif()
    exif[0x0112] = 6
    once = decode(encoded(Image.fromarray(RAMP), exif=exif.tobytes()), max_pixels=LIMIT)
    assert np.array_equal(np.asarray(to_image(once)), np.asarray(once))


def test_damaged_exif_is_ignored():
    data = encoded(Image.fromarray(RAMP), exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert np.array_equal(pixels(data), RAMP)


def test_exif_that_cannot_be_read_at_all_is_ignored():
    assert np.array_equal(pixels(encoded(Image.fromarray(RAMP), exif=b"no exif")), RAMP)


def test_grey_becomes_three_equal_channels():
    grey = RAMP[:, :, 0].copy()
    assert np.array_equal(pixels(encoded(Image.fromarray(grey))), np.stack([grey] * 3, axis=2))


def test_one_bit_becomes_black_and_white():
    bits = Image.fromarray(np.array([[0, 255], [255, 0]], np.uint8)).convert("1")
    assert pixels(encoded(bits))[:, :, 0].tolist() == [[0, 255], [255, 0]]


def test_transparency_is_composited_on_white():
    rgba = np.zeros((1, 3, 4), np.uint8)
    rgba[0, :, 3] = (0, 51, 255)
    assert pixels(encoded(Image.fromarray(rgba)))[0, :, 0].tolist() == [255, 204, 0]


def test_opaque_alpha_leaves_the_colours_alone():
    rgba = np.dstack([RAMP, np.full(RAMP.shape[:2], 255, np.uint8)])
    assert np.array_equal(pixels(encoded(Image.fromarray(rgba))), RAMP)


def test_grey_with_alpha_is_composited_on_white():
    grey = np.array([[[10, 255], [10, 0]]], np.uint8)
    assert pixels(encoded(Image.fromarray(grey, mode=None)))[0].tolist() == [[10] * 3, [255] * 3]


def test_a_palette_gives_its_colours():
    palette = Image.fromarray(np.array([[0, 1]], np.uint8), mode=None).convert("P")
    palette.putpalette([10, 20, 30, 40, 50, 60])
    assert pixels(encoded(palette))[0].tolist() == [[10, 20, 30], [40, 50, 60]]


def test_a_transparent_entry_of_a_palette_is_white():
    palette = Image.fromarray(np.array([[0, 1]], np.uint8), mode=None).convert("P")
    palette.putpalette([10, 20, 30, 40, 50, 60])
    assert pixels(encoded(palette, transparency=1))[0].tolist() == [[10, 20, 30], [255] * 3]


def test_a_transparent_colour_of_an_rgb_png_is_white():
    data = encoded(Image.fromarray(RAMP), transparency=tuple(int(v) for v in RAMP[0, 0]))
    assert pixels(data)[0, :2].tolist() == [[255] * 3, RAMP[0, 1].tolist()]


def test_cmyk_is_converted():
    cmyk = Image.new("CMYK", (8, 8), (255, 0, 0, 0))
    red, green, blue = pixels(encoded(cmyk, "TIFF"))[4, 4]
    assert red < 10
    assert green > 200
    assert blue > 200


def test_lab_is_converted_to_srgb():
    rgb = Image.new("RGB", (4, 4), (200, 60, 40))
    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    lab = ImageCms.profileToProfile(rgb, *profiles, outputMode="LAB")
    assert np.abs(pixels(encoded(lab, "TIFF")).astype(int) - [200, 60, 40]).max() <= 3


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_of_sixteen_bits_the_upper_eight_count(kind):
    deep = Image.fromarray(np.array([[0, 255, 256, 0x1234, 65_535]], np.uint16))
    assert pixels(encoded(deep, kind))[0, :, 0].tolist() == [0, 0, 1, 0x12, 255]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 256, 65_535], [0, 1, 255]),
        ([-100, 0, 100], [0, 128, 255]),
        ([0, 100_000, 200_000], [0, 128, 255]),
    ],
)
def test_integers_of_32_bits_are_16_bit_values_or_stretched(values, expected):
    deep = Image.fromarray(np.array([values], np.int32))
    assert pixels(encoded(deep, "TIFF"))[0, :, 0].tolist() == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([0.0, 99.6, 255.0], [0, 100, 255]),
        ([-1.0, 0.0, 1.0], [0, 128, 255]),
        ([0.0, float("nan"), 1.0], [0, 0, 255]),
        ([-7.0, -7.0, -7.0], [0, 0, 0]),
    ],
)
def test_floats_are_scaled_by_the_range_they_lie_in(values, expected):
    deep = Image.fromarray(np.array([values], np.float32))
    assert pixels(encoded(deep, "TIFF"))[0, :, 0].tolist() == expected


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "WEBP", "PNG", "MPO"])
def test_of_several_pictures_the_first_counts(kind):
    first, second = Image.new("RGB", (8, 8), "white"), Image.new("RGB", (8, 8), "black")
    data = encoded(first, kind, save_all=True, append_images=[second])
    assert int(pixels(data).min()) >= 250


def test_a_colour_profile_is_ignored():
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    assert np.array_equal(pixels(encoded(Image.fromarray(RAMP), icc_profile=profile)), RAMP)


def test_an_empty_file_is_called_empty(tmp_path):
    (tmp_path / "a.jpg").touch()
    assert reason(tmp_path / "a.jpg") == "empty file"


def test_text_is_not_an_image():
    assert reason(b"hello, this is text") == "not an image"


@pytest.mark.parametrize("start", [b"%!PS-Adobe-3.0 EPSF-3.0\n", b"%PDF-1.7\n", b"<svg></svg>"])
def test_what_needs_an_interpreter_is_not_an_image(start):
    assert reason(start + b"%%BoundingBox: 0 0 9 9\n" * 20) == "not an image"


def test_a_heic_photo_is_told_to_be_converted():
    data = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"
    assert reason(data) == "a HEIC image, which Pillow does not read; convert it to JPEG"


def test_a_jpeg_cut_in_half_is_truncated():
    data = encoded(Image.effect_noise((64, 64), 90).convert("RGB"), "JPEG")
    assert reason(data[: len(data) // 2]).startswith("truncated: image file is truncated (")


def test_a_png_cut_in_half_is_truncated():
    data = encoded(Image.effect_noise((64, 64), 90).convert("RGB"))
    assert reason(data[: len(data) // 2]) == "truncated: image file is truncated"


def test_a_png_with_a_wrong_checksum_is_damaged():
    data = bytearray(encoded(Image.fromarray(RAMP)))
    data[-20] ^= 0xFF
    assert reason(bytes(data)).startswith("damaged: ")


def test_a_header_that_cannot_be_read_is_damaged():
    assert reason(b"\x89PNG\r\n\x1a\n" + b"\0" * 30) == (
        "damaged: the header of this PNG cannot be read"
    )


def png_that_claims(width: int, height: int) -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunk + b"\0\0\0\0IDAT"


def test_an_image_with_too_many_pixels_is_refused_by_its_header():
    assert reason(png_that_claims(2000, 3000), 5_999_999) == (
        "has 6000000 pixels, the limit is 5999999"
    )


def test_an_image_beyond_pillows_limit_is_refused_in_the_same_words():
    assert reason(png_that_claims(100_000, 100_000), 10**12) == (
        f"has 10000000000 pixels, the limit is {2 * Image.MAX_IMAGE_PIXELS}"
    )


def test_pillows_own_limit_and_warning_stay_as_they_were(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        decode(encoded(Image.fromarray(RAMP)), max_pixels=LIMIT)
    assert Image.MAX_IMAGE_PIXELS == 20


def test_a_limit_without_a_number_is_still_said():
    from finetune.data.decode import _bomb_reason

    assert _bomb_reason("too large", 5) == "has too many pixels, the limit is 5"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), "too large for the memory"),
        (EOFError("no more"), "truncated: no more"),
        (IndexError(), "damaged: IndexError"),
        (ValueError("a\nb " + "x" * 300), "damaged: a b " + "x" * 116),
    ],
)
def test_damage_is_one_short_line(monkeypatch, error, expected):
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(Image, "open", fail)
    assert reason(encoded(Image.fromarray(RAMP))) == expected


def test_a_file_that_is_missing_says_so(tmp_path):
    assert reason(tmp_path / "absent.jpg") == "no such file"


def test_a_name_that_no_file_can_have_says_so(tmp_path):
    assert reason(tmp_path / "zero\0byte.jpg") == "no such file"
    assert reason(tmp_path / ("a" * 300)) == "file name too long"


def test_a_folder_is_not_a_file(tmp_path):
    assert reason(tmp_path) == "a folder, not a file"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no named pipes in folders")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    assert reason(tmp_path / "pipe.jpg") == "not a regular file"


def test_a_file_that_may_not_be_read_says_so(tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "a.jpg").write_bytes(b"x")
    monkeypatch.setattr(Path, "open", refuse)
    assert reason(tmp_path / "a.jpg") == "permission denied"


@pytest.mark.parametrize("at_once", [0, 1 << 20])
def test_a_file_that_cannot_be_read_to_its_end_says_so(tmp_path, monkeypatch, at_once):
    class Failing(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise OSError(5, "Input/output error")

    (tmp_path / "a.jpg").write_bytes(b"x")
    monkeypatch.setattr("finetune.data.decode._AT_ONCE", at_once)
    monkeypatch.setattr(Path, "open", lambda *_: Failing())
    assert "input/output error" in reason(tmp_path / "a.jpg").lower()


@pytest.mark.parametrize("size", [0, 1, 9])
def test_what_is_decoded_is_what_is_digested(tmp_path, size):
    path = tmp_path / "a.png"
    path.write_bytes(encoded(Image.fromarray(RAMP)))
    before = hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
    with open_image_file(path) as file:
        path.write_bytes(bytes(size))
        assert np.array_equal(np.asarray(decode(file, max_pixels=LIMIT)), RAMP)
        assert digest_of(file) == before


@pytest.mark.parametrize("at_once", [0, 1 << 20])
def test_no_handle_stays_open(tmp_path, monkeypatch, at_once):
    monkeypatch.setattr("finetune.data.decode._AT_ONCE", at_once)
    path = tmp_path / "a.png"
    path.write_bytes(encoded(Image.fromarray(RAMP)))
    image = decode(path, max_pixels=LIMIT)
    path.unlink()
    assert np.array_equal(np.asarray(image), RAMP)
    assert getattr(image, "fp", None) is None


def test_nothing_that_pillow_logs_is_printed(capsys):
    decode(encoded(Image.fromarray(RAMP)), max_pixels=LIMIT)
    logging.getLogger("PIL.TiffImagePlugin").error("too many samples")
    assert capsys.readouterr().err == ""


def test_the_error_travels_between_processes():
    error = pickle.loads(pickle.dumps(UnreadableImageError("empty file")))
    assert (type(error), error.message) == (UnreadableImageError, "empty file")


def test_an_array_is_taken_as_it_is():
    assert np.array_equal(np.asarray(to_image(RAMP[:, ::-1])), RAMP[:, ::-1])


def test_a_pillow_image_follows_the_same_rules_and_is_not_changed():
    exif = Image.Exif()
    exif[0x0112] = 6
    given = Image.open(io.BytesIO(encoded(Image.fromarray(RAMP), exif=exif.tobytes())))
    assert to_image(given).size == (4, 6)
    assert given.size == (6, 4)
    assert given.getexif()[0x0112] == 6


def test_a_damaged_pillow_image_has_a_reason():
    data = encoded(Image.effect_noise((64, 64), 90).convert("RGB"))
    with pytest.raises(UnreadableImageError, match="truncated: image file is truncated"):
        to_image(Image.open(io.BytesIO(data[: len(data) // 2])))


def test_a_pillow_image_without_pixels_has_a_reason():
    with pytest.raises(UnreadableImageError, match="has no pixels"):
        to_image(Image.new("RGB", (0, 5)))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("a.jpg", "an image is a Pillow image or an array, not str"),
        (
            np.zeros((4, 6, 3)),
            "an array of an image is uint8 of shape (height, width, 3) in RGB order, "
            "not float64 of shape (4, 6, 3)",
        ),
        (
            np.zeros((4, 6), np.uint8),
            "an array of an image is uint8 of shape (height, width, 3) in RGB order, "
            "not uint8 of shape (4, 6)",
        ),
        (
            np.zeros((0, 6, 3), np.uint8),
            "an array of an image is uint8 of shape (height, width, 3) in RGB order, "
            "not uint8 of shape (0, 6, 3)",
        ),
    ],
)
def test_anything_else_is_told_what_an_image_is(value, message):
    with pytest.raises(DataError) as caught:
        to_image(value)
    assert caught.value.message == message


def test_one_channel_is_the_luma_of_the_colour():
    image = decode(encoded(Image.fromarray(RAMP)), max_pixels=LIMIT, channels=1)
    assert image.mode == "L"
    assert np.array_equal(np.asarray(image), np.asarray(Image.fromarray(RAMP).convert("L")))


def test_one_channel_of_a_grey_image_is_the_image():
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    image = decode(encoded(Image.fromarray(grey)), max_pixels=LIMIT, channels=1)
    assert np.array_equal(np.asarray(image), grey)


def test_one_channel_of_16_bits_is_its_upper_eight():
    deep = np.arange(0, 65_536, 256, dtype=np.uint16).reshape(16, 16) + 200
    image = decode(encoded(Image.fromarray(deep)), max_pixels=LIMIT, channels=1)
    assert np.array_equal(np.asarray(image).ravel(), np.arange(256))


def test_one_channel_of_what_cannot_be_seen_through_is_composited_on_white():
    half = Image.new("LA", (2, 2), (0, 0))
    assert decode(encoded(half), max_pixels=LIMIT, channels=1).getpixel((0, 0)) == 255


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_four_bands_are_taken_as_they_are_with_nothing_composited(kind):
    bands = np.random.default_rng(0).integers(0, 256, (4, 6, 4), dtype=np.uint8)
    options = {"WEBP": {"lossless": True, "exact": True}}.get(kind, {})
    data = encoded(Image.frombytes("RGBA", (6, 4), bands.tobytes()), kind, **options)
    image = decode(data, max_pixels=LIMIT, channels=4)
    assert image.mode == "CMYK"
    assert np.array_equal(np.asarray(image), bands)


@pytest.mark.parametrize("mode", ["RGBA", "CMYK"])
def test_four_bands_come_out_upright(mode):
    bands = np.random.default_rng(0).integers(0, 256, (4, 6, 4), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = Image.frombytes(mode, (4, 6), np.ascontiguousarray(np.rot90(bands)).tobytes())
    data = encoded(stored, "TIFF", exif=exif.tobytes())
    assert np.array_equal(np.asarray(decode(data, max_pixels=LIMIT, channels=4)), bands)


@pytest.mark.parametrize(
    ("mode", "bands"),
    [("RGB", "3 bands"), ("L", "1 band"), ("P", "1 band"), ("LA", "2 bands"), ("I;16", "1 band")],
)
def test_another_number_of_bands_than_four_is_refused(mode, bands):
    with pytest.raises(UnreadableImageError) as caught:
        decode(encoded(Image.new(mode, (4, 6))), max_pixels=LIMIT, channels=4)
    assert caught.value.message == f"has {bands}, the network takes 4"


def test_four_bands_of_a_path_are_those_of_its_bytes(tmp_path):
    data = encoded(Image.new("RGBA", (4, 6), (1, 2, 3, 4)))
    path = tmp_path / "bands.png"
    path.write_bytes(data)
    assert decode(path, max_pixels=LIMIT, channels=4).getpixel((0, 0)) == (1, 2, 3, 4)


@pytest.mark.parametrize(("shape", "channels"), [((4, 6), 1), ((4, 6, 1), 1), ((4, 6, 4), 4)])
def test_an_array_of_the_networks_channels_is_taken_as_it_is(shape, channels):
    array = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    image = to_image(array, channels=channels)
    assert image.mode == {1: "L", 4: "CMYK"}[channels]
    assert np.array_equal(np.asarray(image).ravel(), array.ravel())


def test_a_pillow_image_of_four_bands_is_taken_as_it_is():
    image = to_image(Image.new("RGBA", (4, 6), (9, 8, 7, 6)), channels=4)
    assert image.getpixel((0, 0)) == (9, 8, 7, 6)


@pytest.mark.parametrize(
    ("shape", "channels", "words"),
    [
        ((4, 6, 3), 1, "a grey image is uint8 of shape (height, width) or (height, width, 1)"),
        ((4, 6, 3), 4, "an image of four bands is uint8 of shape (height, width, 4)"),
        ((4, 6), 4, "an image of four bands is uint8 of shape (height, width, 4)"),
    ],
)
def test_an_array_of_other_channels_is_told_what_is_wanted(shape, channels, words):
    with pytest.raises(DataError) as caught:
        to_image(np.zeros(shape, np.uint8), channels=channels)
    assert caught.value.message == f"an array of {words}, not uint8 of shape {shape}"


@pytest.mark.parametrize("mode", ["I;16", "I;16B"])
def test_16_bits_become_their_upper_eight_in_either_order_of_bytes(mode):
    values = np.arange(0, 65_536, 251, dtype=">u2" if mode == "I;16B" else "<u2").reshape(1, -1)
    image = Image.frombytes(mode, values.shape[::-1], values.tobytes())
    assert np.array_equal(np.asarray(to_channels(image, 1)), values.astype(int) // 256)
