"""Four bands of a TIFF are taken as they are, whatever the file says that they mean."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from finetune.data.bands import with_plain_bands
from finetune.data.decode import UnreadableImageError, decode

WIDTH, HEIGHT = 6, 5
GREY, RGB, SEPARATED = 1, 2, 5
NOTHING, MULTIPLIED, OWN_ALPHA = 0, 1, 2


def bands_of(num_bands: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (HEIGHT, WIDTH, num_bands), dtype=np.uint8)


def tiff(
    photometric: int,
    extra: tuple[int, ...],
    *,
    num_bands: int = 4,
    bits: int = 8,
    planes: int = 1,
    order: str = "<",
) -> bytes:
    """Write an uncompressed TIFF by hand: Pillow writes few of these kinds."""
    values = bands_of(num_bands).astype(f"{order}u{bits // 8}") * (257 if bits == 16 else 1)
    pixels = (values if planes == 1 else values.transpose(2, 0, 1)).tobytes()
    tags = {
        256: (WIDTH,), 257: (HEIGHT,), 258: (bits,) * num_bands, 259: (1,), 262: (photometric,),
        273: tuple(8 + i * (len(pixels) // num_bands) for i in range(num_bands))[: 1 if planes == 1
        else None], 277: (num_bands,), 278: (HEIGHT,),
        279: (len(pixels),) if planes == 1 else (len(pixels) // num_bands,) * num_bands,
        284: (planes,), 338: extra,
    }  # fmt: skip
    tags = {tag: found for tag, found in tags.items() if found}
    far = 8 + len(pixels) + 2 + 12 * len(tags) + 4
    entries, tail = b"", b""
    for tag, found in tags.items():
        data = struct.pack(f"{order}{len(found)}H", *found)
        if len(data) > 4:
            place = struct.pack(f"{order}I", far + len(tail))
            tail += data
        else:
            place = data.ljust(4, b"\0")
        entries += struct.pack(f"{order}HHI", tag, 3, len(found)) + place
    magic = b"II*\0" if order == "<" else b"MM\0*"
    head = magic + struct.pack(f"{order}I", 8 + len(pixels))
    return head + pixels + struct.pack(f"{order}H", len(tags)) + entries + bytes(4) + tail


@pytest.mark.parametrize("order", ["<", ">"], ids=["little", "big"])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize(
    ("photometric", "extra"),
    [
        (RGB, ()),
        (RGB, (NOTHING,)),
        (RGB, (MULTIPLIED,)),
        (RGB, (OWN_ALPHA,)),
        (GREY, ()),
        (GREY, (NOTHING, NOTHING, NOTHING)),
        (SEPARATED, ()),
    ],
)
def test_four_bands_come_out_as_they_are(photometric, extra, bits, order):
    data = tiff(photometric, extra, bits=bits, order=order)
    image = decode(data, max_pixels=100, channels=4)
    assert image.mode == "CMYK"
    assert np.array_equal(np.asarray(image), bands_of(4))


@pytest.mark.parametrize("extra", [(NOTHING,), (OWN_ALPHA,)])
def test_bands_that_lie_apart_come_out_as_they_are(extra):
    image = decode(tiff(RGB, extra, planes=2), max_pixels=100, channels=4)
    assert np.array_equal(np.asarray(image), bands_of(4))


def test_bands_that_pillow_would_mix_up_are_refused():
    with pytest.raises(UnreadableImageError) as caught:
        decode(tiff(RGB, (OWN_ALPHA,), planes=2, bits=16), max_pixels=100, channels=4)
    assert caught.value.message == (
        "keeps its bands apart in a way that Pillow misreads; write them pixel by pixel"
    )


def test_bands_apart_and_compressed_are_refused_where_pillow_would_mix_them_up():
    image = Image.new("CMYK", (6, 5))
    buffer = io.BytesIO()
    image.save(buffer, "TIFF", compression="tiff_adobe_deflate", tiffinfo={284: 2})
    with pytest.raises(UnreadableImageError, match="keeps its bands apart"):
        decode(buffer.getvalue(), max_pixels=100, channels=4)


@pytest.mark.parametrize(
    ("num_bands", "extra"), [(5, (OWN_ALPHA, NOTHING)), (6, (NOTHING, NOTHING, NOTHING))]
)
def test_more_than_four_bands_are_refused_by_their_number(num_bands, extra):
    with pytest.raises(UnreadableImageError) as caught:
        decode(tiff(RGB, extra, num_bands=num_bands), max_pixels=100, channels=4)
    assert caught.value.message == f"has {num_bands} bands, the network takes 4"


def test_a_big_tiff_of_four_bands_comes_out_as_it_is():
    buffer = io.BytesIO()
    stored = Image.frombytes("RGBA", (WIDTH, HEIGHT), bands_of(4).tobytes())
    stored.save(buffer, "TIFF", big_tiff=True)
    own, nothing = (struct.pack("<HHQH", 338, 3, 1, value) for value in (OWN_ALPHA, NOTHING))
    data = buffer.getvalue().replace(own, nothing)
    assert Image.open(io.BytesIO(data)).mode == "RGB"
    image = decode(data, max_pixels=100, channels=4)
    assert np.array_equal(np.asarray(image), bands_of(4))


def test_a_file_that_is_no_tiff_is_the_file_itself_at_its_start():
    file = io.BytesIO(b"\x89PNG and so on")
    assert with_plain_bands(file) is file
    assert file.tell() == 0


def test_the_file_itself_is_not_written_to():
    data = tiff(GREY, (NOTHING, NOTHING, NOTHING))
    file = io.BytesIO(data)
    assert with_plain_bands(file) is not file
    assert file.getvalue() == data


@pytest.mark.parametrize("length", [2, 4, 6, 8, 150, 200])
def test_a_tiff_cut_short_is_unreadable(length):
    with pytest.raises(UnreadableImageError):
        decode(tiff(RGB, (OWN_ALPHA,))[:length], max_pixels=100, channels=4)
