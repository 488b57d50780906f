"""TIFFs of four bands, as satellites, drones and microscopes write them.

Pillow reads the four samples of a pixel by what the file says they mean: one that means nothing is
dropped, colours that were multiplied by alpha are divided by it, and four grey samples are not read
at all. Here the bands are wanted as they are, so a copy in memory says what leaves them alone: RGB
and an alpha of its own. The pixels in the file stay as they are, and so does the file.
"""

import struct
from collections.abc import Mapping
from io import BytesIO
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from finetune.data.words import counted

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["why_not_four", "with_plain_bands"]

# Tags and values of TIFF 6.0.
_BITS_PER_SAMPLE, _COMPRESSION, _PHOTOMETRIC = 258, 259, 262
_SAMPLES_PER_PIXEL, _PLANES, _EXTRA_SAMPLES = 277, 284, 338
_NONE, _APART = 1, 2  # of compression, of planes
_GREY, _RGB, _SEPARATED = 1, 2, 5
_ALPHA_OF_ITS_OWN = 2
_SHORT = 3
_CODES = {_SHORT: "H", 4: "I"}  # struct's codes of the whole numbers that stand in these tags


class _Layout(NamedTuple):
    """How a TIFF writes its directory: struct's codes."""

    order: str
    offset: str
    length: str  # of the directory, in entries
    number: str  # of values in an entry
    room: int  # bytes for its value


_CLASSIC = {b"II*\x00": "<", b"MM\x00*": ">"}
_BIG = {b"II+\x00": "<", b"MM\x00+": ">"}


class _Entry(NamedTuple):
    """One tag: where its entry lies in the file, and its first value."""

    position: int
    value: int


def why_not_four(image: "Image") -> str | None:
    """Say why an opened image does not give four bands as they are in its file, if it does not."""
    num_bands = len(image.getbands())
    tags: Mapping[int, Any] | None = getattr(image, "tag_v2", None)
    if tags is not None and tags.get(_SAMPLES_PER_PIXEL, 1) != 4:
        num_bands = tags.get(_SAMPLES_PER_PIXEL, 1)  # those beyond the fourth are dropped
    if num_bands != 4:
        return f"has {counted(num_bands, 'band')}, the network takes 4"
    if tags is not None and _is_misread(tags):
        return "keeps its bands apart in a way that Pillow misreads; write them pixel by pixel"
    return None


def with_plain_bands(file: BinaryIO) -> BinaryIO:
    """Give a file from which Pillow reads four bands as they are.

    Returns:
        A copy in memory for a TIFF of four samples a pixel; the file itself for all others. At its
        start.
    """
    file.seek(0)
    layout = _layout(file.read(4))
    entries = {} if layout is None else _entries(file, layout)
    values = {tag: entry.value for tag, entry in entries.items()}
    file.seek(0)
    means_known = values.get(_PHOTOMETRIC) in (_GREY, _RGB, _SEPARATED)
    if layout is None or values.get(_SAMPLES_PER_PIXEL) != 4 or not means_known:
        return file
    data = bytearray(file.read())
    _write(data, layout, entries[_PHOTOMETRIC].position, (_PHOTOMETRIC, _RGB))
    if _EXTRA_SAMPLES in entries:
        where = entries[_EXTRA_SAMPLES].position
        _write(data, layout, where, (_EXTRA_SAMPLES, _ALPHA_OF_ITS_OWN))
    return BytesIO(data)


def _is_misread(tags: Mapping[int, Any]) -> bool:
    """Whether Pillow mixes up bands that lie one after the other in the file.

    Measured with Pillow 13.0 on TIFFs of every kind that tifffile writes: uncompressed ones of
    16 bits come out wrong, and compressed ones that say nothing of the fourth band.
    """
    if tags.get(_PLANES) != _APART:
        return False
    if tags.get(_COMPRESSION, _NONE) == _NONE:
        return bool(max(tags.get(_BITS_PER_SAMPLE, (1,))) > 8)
    return _EXTRA_SAMPLES not in tags


def _layout(magic: bytes) -> _Layout | None:
    """Tell the layout from a file's first four bytes; None where it is no TIFF."""
    if magic in _CLASSIC:
        return _Layout(_CLASSIC[magic], offset="I", length="H", number="I", room=4)
    if magic in _BIG:
        return _Layout(_BIG[magic], offset="4xQ", length="Q", number="Q", room=8)
    return None


def _entries(file: BinaryIO, layout: _Layout) -> dict[int, _Entry]:
    """Read the whole numbers of the first directory, by tag; none from a damaged one."""
    found: dict[int, _Entry] = {}
    size = struct.calcsize(f"{layout.order}HH{layout.number}") + layout.room
    try:
        (start,) = _read(file, layout.order + layout.offset)
        file.seek(start)
        (length,) = _read(file, layout.order + layout.length)
        for position in range(file.tell(), file.tell() + length * size, size):
            file.seek(position)
            tag, kind, _ = _read(file, f"{layout.order}HH{layout.number}")
            if kind in _CODES:
                found[tag] = _Entry(position, *_read(file, layout.order + _CODES[kind]))
    except (OSError, OverflowError, ValueError, struct.error):
        return {}
    return found


def _read(file: BinaryIO, code: str) -> tuple[int, ...]:
    """Read numbers from where the file stands."""
    return struct.unpack(code, file.read(struct.calcsize(code)))


def _write(data: bytearray, layout: _Layout, position: int, entry: tuple[int, int]) -> None:
    """Write an entry, a tag and its one value, over the one at a position."""
    tag, value = entry
    code = f"{layout.order}HH{layout.number}H{layout.room - 2}x"
    struct.pack_into(code, data, position, tag, _SHORT, 1, value)
