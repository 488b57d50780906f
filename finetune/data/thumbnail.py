"""A small picture of each image, from which near-duplicates are found.

32 by 32 pixels in colour take 3 KiB. They are made of the image that was decoded anyway, in a
fraction of the time that decoding takes: a large image is first sampled, whatever its size.
"""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image

__all__ = ["SIDE", "make_thumbnail"]

SIDE = 32  # pixels; as many as in CIFAR, where a person still tells one photo from another
_SAMPLED = 512  # pixels of a side; 256 samples stand behind each pixel of the thumbnail
_GAP = 1.5  # Pillow averages whole pixels down to this many times the size, then interpolates


def make_thumbnail(image: "Image") -> "NDArray[np.uint8]":
    """Make the thumbnail of a decoded image: (32, 32, 3) uint8, its sides squeezed to a square.

    Args:
        image: Of mode L or RGB; of mode CMYK it has four plain bands, of which three count.
    """
    from PIL import Image

    if max(image.size) > _SAMPLED:
        width, height = image.size
        sampled = (min(width, _SAMPLED), min(height, _SAMPLED))
        image = image.resize(sampled, Image.Resampling.NEAREST)
    if image.width % SIDE or image.height % SIDE:
        small = image.resize((SIDE, SIDE), Image.Resampling.BILINEAR, reducing_gap=_GAP)
    else:  # as photos of 224 pixels are: whole pixels alone, in half of the time
        small = image.reduce((image.width // SIDE, image.height // SIDE))
    pixels = np.asarray(small)
    return np.repeat(pixels[..., None], 3, axis=2) if pixels.ndim == 2 else pixels[..., :3]
