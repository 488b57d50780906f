"""The only image decoder: Pillow, with one stated rule for every kind of image.

- Only raster formats are tried; PostScript, PDF, SVG and the like never reach an interpreter.
- The orientation in EXIF, or in XMP where EXIF has none, is applied; damaged EXIF is ignored.
- The whole image is decoded. What Pillow refuses is unreadable: there is no second decoder.
- Of animations, multi-picture files and multi-page TIFFs the first picture counts.
- Grey becomes three equal channels. Transparency is composited on white. CMYK, YCbCr, HSV, LAB
  and palettes are converted by Pillow.
- Of 16 bits the upper eight count, as Pillow does for colour. 32-bit integers within 0 to 65535 are
  16-bit values. Floats within 0 to 1 are scaled by 255, within 0 to 255 rounded. What lies outside
  these ranges is stretched from its minimum to its maximum; NaN counts as 0.
- What a network of one channel takes is the luma of that colour, as Pillow's mode L has it
  (ITU-R 601-2); an image that is grey stays as it is.
- A network of four channels takes the four bands of a file as they are: nothing is composited,
  converted or multiplied, whatever the file says that they mean. A file of another number of bands
  is refused. They travel in mode CMYK, whose bands Pillow resizes each on its own.
- Colour profiles are ignored, as in the training of timm's weights.
- An image with more than `max_pixels` is refused from its header, before it takes memory.
- Reduced decoding, where it is asked for: libjpeg computes a JPEG, or the first picture of an MPO,
  at the smallest of 1/8, 1/4 and 1/2 of its sides that the reduction allows, which is told the
  upright sizes. Where it allows none, in all other formats, and where libjpeg cannot scale (a
  lossless JPEG), the image is decoded at its own size. `max_pixels` counts that size, and damage is
  found all the same: the file is read to its end at every scale.
"""

import logging
import re
import stat
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from finetune.components.pixels import to_picture
from finetune.data.bands import why_not_four, with_plain_bands
from finetune.data.colours import to_channels
from finetune.errors import DataError
from finetune.types import Reduction

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = [
    "Header",
    "UnreadableImageError",
    "decode",
    "decode_with_header",
    "open_image_file",
    "quiet",
    "to_image",
]

# HEIF is there where the user has registered a plugin for it.
_FORMATS = (
    *("AVIF", "BMP", "DIB", "GIF", "HEIF", "ICO", "JPEG", "JPEG2000", "MPO", "PNG", "PPM"),
    *("TIFF", "WEBP"),
)
_SIGNATURES = (
    *((b"\x89PNG\r\n\x1a\n", "PNG"), (b"\xff\xd8\xff", "JPEG"), (b"GIF8", "GIF")),
    *((b"II*\x00", "TIFF"), (b"MM\x00*", "TIFF")),
)
_HEIC_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")
# What Pillow's plugins were seen to raise on damaged files.
_DAMAGE = (
    *(ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, MemoryError),
    *(OSError, RuntimeError, SyntaxError, TypeError, ValueError, struct.error, zlib.error),
)
_AT_ONCE = 64 << 20  # bytes; larger files are read as they are decoded
_ORIENTATION_TAG = 0x0112  # of EXIF and TIFF
_ON_ITS_SIDE = (5, 6, 7, 8)
_TURNED = (2, 3, 4, *_ON_ITS_SIDE)
_SCALABLE = ("JPEG", "MPO")
_SCALES = (8, 4, 2)  # that Pillow asks libjpeg for, the smallest picture first
_ARRAYS = {
    1: "a grey image is uint8 of shape (height, width) or (height, width, 1)",
    3: "an image is uint8 of shape (height, width, 3) in RGB order",
    4: "an image of four bands is uint8 of shape (height, width, 4)",
}


class UnreadableImageError(DataError):
    """A file is no image that can be read; the message is the reason, without the path."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says of its image.

    Attributes:
        format: Pillow's name of the format, such as `JPEG`.
        mode: Pillow's name of how pixels are stored, such as `RGB`, `P` or `I;16`.
        is_turned: Whether its orientation is another than upright.
    """

    format: str
    mode: str
    is_turned: bool


def decode(
    source: "Path | BinaryIO | bytes",
    *,
    max_pixels: int,
    channels: int = 3,
    reduction: Reduction | None = None,
) -> "Image":
    """Decode an image to its end: upright, of so many channels, by the rules of this module.

    Args:
        source: A path, an open binary file at its start, or the bytes of a file.
        max_pixels: Largest width times height, as the header says.
        channels: What the network takes: 1 grey, 3 RGB, 4 bands.
        reduction: Whether an image of one size may be decoded as one of another; None decodes at
            its own size.

    Returns:
        A Pillow image of mode L, RGB or CMYK that needs no file any more.

    Raises:
        UnreadableImageError: It cannot be read; the message is the reason, without the path.
    """
    if isinstance(source, bytes):
        source = BytesIO(source)
    if isinstance(source, Path):
        with open_image_file(source) as file, quiet():
            return _decode_file(file, max_pixels, channels, reduction)[0]
    with quiet():
        return _decode_file(source, max_pixels, channels, reduction)[0]


def decode_with_header(
    file: BinaryIO, *, max_pixels: int, channels: int = 3
) -> tuple["Image", Header]:
    """Decode an open file in full, as `decode` does, and tell what it says of itself.

    Careful: it leaves Pillow's warnings to `quiet`, which belongs around all threads that decode.

    Raises:
        UnreadableImageError: It cannot be read; the message is the reason, without the path.
    """
    return _decode_file(file, max_pixels, channels, None)


def to_image(value: object, *, channels: int = 3) -> "Image":
    """Take an image that a Python user holds, by the rules of this module.

    Args:
        value: A Pillow image of any mode, or an (H, W, C) uint8 array: RGB where C is 3, and (H, W)
            as well where it is 1.
        channels: C, what the network takes: 1 grey, 3 RGB, 4 bands.

    Returns:
        A Pillow image of mode L, RGB or CMYK.

    Raises:
        DataError: It is neither.
        UnreadableImageError: A Pillow image that cannot be loaded, or is not of four bands.
    """
    from PIL import Image

    if isinstance(value, Image.Image):
        with quiet():
            picture = _loaded(value, channels)
        return _plain(picture.copy() if picture is value else picture)
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if shape is None or dtype is None:
        raise DataError(f"an image is a Pillow image or an array, not {type(value).__name__}")
    depths = ((), (1,)) if channels == 1 else ((channels,),)
    if str(dtype) != "uint8" or len(shape) < 2 or shape[2:] not in depths or 0 in shape:
        raise DataError(f"an array of {_ARRAYS[channels]}, not {dtype} of shape {tuple(shape)}")
    import numpy as np

    return to_picture(np.asarray(value).reshape(*shape[:2], channels))


@contextmanager
def open_image_file(path: Path) -> Iterator[BinaryIO]:
    """Open a regular file that has bytes in it.

    All but very large ones are read at once: what is then decoded and what is digested are the same
    bytes, whoever writes to the file meanwhile.

    Raises:
        UnreadableImageError: It is missing, forbidden, empty, or no regular file.
    """
    if "\0" in str(path):
        raise UnreadableImageError("no such file")  # no file's name holds a zero byte
    try:
        found = path.stat()
        # Careful: opening a pipe would wait for ever.
        if not stat.S_ISREG(found.st_mode):
            raise UnreadableImageError(
                "a folder, not a file" if stat.S_ISDIR(found.st_mode) else "not a regular file"
            )
        file: BinaryIO = path.open("rb")
        if found.st_size <= _AT_ONCE:
            with file:
                file = BytesIO(file.read())
    except OSError as error:
        raise UnreadableImageError(_os_reason(error)) from error
    with file:
        yield file


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Pillow's warnings of odd metadata and large images to ourselves."""
    _silence_log()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@cache
def _silence_log() -> None:
    """Stop Python from printing what Pillow logs where nobody has set up logging."""
    logging.getLogger("PIL").addHandler(logging.NullHandler())


def _decode_file(
    file: BinaryIO, max_pixels: int, channels: int, reduction: Reduction | None
) -> tuple["Image", Header]:
    """Decode an open file, its damage turned into a reason."""
    from PIL import Image, UnidentifiedImageError

    if channels == 4:
        file = with_plain_bands(file)
    try:
        image = Image.open(file, formats=_formats())
    except UnidentifiedImageError as error:
        raise UnreadableImageError(_unidentified_reason(file)) from error
    except Image.DecompressionBombError as error:
        raise UnreadableImageError(_bomb_reason(str(error), max_pixels)) from error
    except _DAMAGE as error:
        raise UnreadableImageError(_damage_reason(error)) from error
    with image:
        num_pixels = image.width * image.height
        if num_pixels > max_pixels:
            raise UnreadableImageError(f"has {num_pixels} pixels, the limit is {max_pixels}")
        if reduction is None or not _is_reduced(image, reduction):
            return _loaded_with_header(image, channels)
        try:
            return _loaded_with_header(image, channels)
        except UnreadableImageError:  # damaged, or libjpeg cannot scale it: its own size decides
            file.seek(0)
            return _decode_file(file, max_pixels, channels, None)


def _is_reduced(image: "Image", reduction: Reduction) -> bool:
    """Ask libjpeg for the smallest scale that a reduction allows."""
    # Careful: of a PNG, asking for the orientation loads it, and a second load hides its damage.
    if image.format not in _SCALABLE:
        return False
    is_on_its_side = _orientation(image) in _ON_ITS_SIDE
    width, height = image.size
    for scale in _SCALES:
        stored = (-(-width // scale), -(-height // scale))  # libjpeg rounds up
        sizes = (image.size, stored)
        full, reduced = ((h, w) if is_on_its_side else (w, h) for w, h in sizes)
        if min(width, height) >= scale and reduction(full, reduced):
            return image.draft(None, (width // scale, height // scale)) is not None
    return False


@cache
def _formats() -> list[str]:
    """List the formats of ours that this Pillow knows; it fails on names that it does not."""
    from PIL import Image

    Image.init()
    return [name for name in _FORMATS if name in Image.OPEN]


def _loaded_with_header(image: "Image", channels: int) -> tuple["Image", Header]:
    """Load an image of a file, take it off the file, and keep what that said."""
    format_, mode = str(image.format), image.mode
    picture = _loaded(image, channels)
    header = Header(format_, mode, _orientation(image) in _TURNED)
    # Nobody else holds these pixels: a copy would cost a tenth of the decoding, and the memory.
    return _plain(picture._new(picture.im) if picture is image else picture), header


def _plain(picture: "Image") -> "Image":
    """Take metadata off: what kept its EXIF would be turned again by the next who reads it."""
    picture.info = {}
    return picture


def _loaded(image: "Image", channels: int) -> "Image":
    """Load the pixels, turn them upright, make them what is wanted; metadata stays behind.

    The picture may be the image itself, of which metadata has still to be taken off.
    """
    if 0 in image.size:
        raise UnreadableImageError("has no pixels")
    reason = why_not_four(image) if channels == 4 else None
    if reason:
        raise UnreadableImageError(reason)
    try:
        image.load()
        return _upright(to_channels(image, channels), _orientation(image))
    except _DAMAGE as error:
        raise UnreadableImageError(_damage_reason(error)) from error


def _orientation(image: "Image") -> object:
    """Read the orientation, 1 to 8; damaged metadata is as good as none."""
    try:
        return image.getexif().get(_ORIENTATION_TAG)
    except _DAMAGE:
        return None


def _upright(image: "Image", orientation: object) -> "Image":
    """Undo an EXIF orientation; values other than 2 to 8 change nothing."""
    from PIL.Image import Transpose

    methods = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    method = methods.get(orientation) if isinstance(orientation, int) else None
    return image if method is None else image.transpose(method)


def _unidentified_reason(file: BinaryIO) -> str:
    """Say why Pillow knows no format: empty, HEIC, or no image."""
    file.seek(0)
    start = file.read(12)
    if not start:
        return "empty file"
    if start[4:8] == b"ftyp" and start[8:12] in _HEIC_BRANDS:
        return "a HEIC image, which Pillow does not read; convert it to JPEG"
    known = next((name for magic, name in _SIGNATURES if start.startswith(magic)), None)
    return f"damaged: the header of this {known} cannot be read" if known else "not an image"


def _bomb_reason(message: str, max_pixels: int) -> str:
    """Say how many pixels there are, from Pillow's own message."""
    found = [int(number) for number in re.findall(r"\d+", message)]
    if len(found) < 2:
        return f"has too many pixels, the limit is {max_pixels}"
    return f"has {found[0]} pixels, the limit is {min(max_pixels, found[1])}"


def _damage_reason(error: Exception) -> str:
    """Say in one short sentence what Pillow found."""
    if isinstance(error, MemoryError):
        return "too large for the memory"
    text = " ".join(str(error).split()) or type(error).__name__
    is_cut = isinstance(error, EOFError) or "truncated" in text.lower()
    return f"{'truncated' if is_cut else 'damaged'}: {text[:120]}"


def _os_reason(error: OSError) -> str:
    """Say why a file cannot be opened."""
    if isinstance(error, FileNotFoundError):
        return "no such file"
    return (error.strerror or type(error).__name__).lower()
