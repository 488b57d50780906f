"""Images made to do harm are refused from their headers, before they take memory."""

import io
import struct
import tracemalloc
import zlib

import pytest
from PIL import Image

from finetune.data.decode import UnreadableImageError, decode

MIB = 1 << 20
MAX_PIXELS = 178_956_970  # the default of data.max_pixels
MOST_MEMORY_MIB = 80  # Pillow takes 64 MiB of text, and no more
HEADER_END = 33  # of a PNG: the signature and IHDR


def chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk of a PNG with its checksum."""
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )


def small_png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PNG")
    return buffer.getvalue()


def with_chunks(*chunks: bytes) -> bytes:
    """A small PNG with chunks behind its header."""
    png = small_png()
    return png[:HEADER_END] + b"".join(chunks) + png[HEADER_END:]


def endless(length: int) -> bytes:
    """So many equal bytes, compressed to a thousandth."""
    return zlib.compress(b"a" * length)


def of_size(width: int, height: int) -> bytes:
    """A PNG that says it has this size, and has no pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return small_png()[:8] + chunk(b"IHDR", header) + chunk(b"IDAT", endless(64 * MIB))


HOSTILE = {
    "one long text": (with_chunks(chunk(b"zTXt", b"k\0\0" + endless(200 * MIB))), "damaged: "),
    "many texts": (
        with_chunks(*(chunk(b"zTXt", b"k%d\0\0" % number + endless(MIB)) for number in range(200))),
        "damaged: ",
    ),
    "a long colour profile": (
        with_chunks(chunk(b"iCCP", b"k\0\0" + endless(200 * MIB))),
        "damaged: ",
    ),
    "a hundred thousand pixels a side": (
        of_size(100_000, 100_000),
        "has 10000000000 pixels, the limit is 178956970",
    ),
}


@pytest.mark.parametrize("name", list(HOSTILE))
def test_a_bomb_is_refused_before_it_takes_memory(name: str) -> None:
    content, reason = HOSTILE[name]
    assert len(content) < MIB
    tracemalloc.start()
    try:
        with pytest.raises(UnreadableImageError) as caught:
            decode(content, max_pixels=MAX_PIXELS)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert caught.value.message.startswith(reason)
    assert peak < MOST_MEMORY_MIB * MIB
