"""Between Pillow images and arrays, for every number of channels a network may take.

One channel is Pillow's mode L, three are RGB. Careful: four are mode CMYK, whose bands Pillow
resizes each on its own; RGBA would be multiplied by its alpha. Nothing is ever converted from it.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

__all__ = ["MAX_PIXELS", "MODES", "to_array", "to_picture"]

# Pillow's own limit against decompression bombs: 1 GiB at 3 bytes, twice over.
MAX_PIXELS = 178_956_970

# Pillow's mode by number of channels.
MODES = {1: "L", 3: "RGB", 4: "CMYK"}


def to_array(image: "Image") -> "NDArray[np.uint8]":
    """Copy the pixels of an image of mode L, RGB or CMYK.

    Returns:
        (H, W, C) uint8, to be written to at will; C is 1, 3 or 4.
    """
    import numpy as np

    return np.array(image, dtype=np.uint8).reshape(image.height, image.width, -1)


def to_picture(pixels: "NDArray[np.uint8]") -> "Image":
    """Make a Pillow image of (H, W, C) uint8, C being 1, 3 or 4."""
    from PIL import Image

    height, width, channels = pixels.shape
    return Image.frombytes(MODES[channels], (width, height), pixels.tobytes())
