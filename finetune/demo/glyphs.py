"""What the starter backbone learns beside the first digits: letters, drawn in a font of Pillow's.

Each letter is drawn large, in strokes of several widths, bent and turned, and then shrunk to 8 by 8
pixels as the handwritten digits are. No letter is one of the classes that the example trains on.
"""

import string
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.demo.digits import SIDE_PX
from finetune.runtime.files import make_folder

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

__all__ = ["write_letters"]

# Letters whose small form is the capital made smaller are one class: at 8 by 8 pixels they are one.
LETTERS = string.ascii_uppercase + "abdefghijlmnqrty"
PER_LETTER = 90
CANVAS_PX = 128  # drawn large, so that shrinking gives clean greys
FONT_PX = 96
GREY_LEVELS = 16  # of the handwritten digits


def write_letters(folder: Path, *, per_letter: int = PER_LETTER, seed: int = 0) -> Path:
    """Write images of bent letters, one folder a letter.

    Args:
        folder: Where; made if absent.
        per_letter: Images of each letter.
        seed: Every image follows from it.

    Returns:
        The folder.
    """
    import numpy as np

    rng = np.random.default_rng(seed)
    for letter in LETTERS:
        name = f"letter_{letter}" if letter.isupper() else f"letter_small_{letter}"
        make_folder(folder / name)
        for number in range(per_letter):
            _draw(letter, rng).save(folder / name / f"{name}_{number:03d}.png")
    return folder


def _draw(letter: str, rng: "np.random.Generator") -> "Image":
    """Draw one bent letter, as grey as a handwritten digit."""
    from PIL import Image, ImageDraw, ImageFont

    canvas = Image.new("L", (CANVAS_PX, CANVAS_PX))
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(FONT_PX)
    middle = (CANVAS_PX / 2, CANVAS_PX / 2)
    stroke = int(rng.integers(0, 5))
    draw.text(middle, letter, fill=255, font=font, anchor="mm", stroke_width=stroke)
    bent = canvas.transform(
        canvas.size, Image.Transform.QUAD, data=_corners(rng), resample=Image.Resampling.BILINEAR
    )
    box = bent.getbbox() or (0, 0, CANVAS_PX, CANVAS_PX)
    small = bent.crop(box).resize((8, 8), Image.Resampling.BOX)
    step = 255 // GREY_LEVELS
    grey = small.point(lambda value: min(255, round(value * 1.3) // step * step))
    return grey.resize((SIDE_PX, SIDE_PX), Image.Resampling.BICUBIC)


def _corners(rng: "np.random.Generator") -> list[float]:
    """Move the corners of the canvas: upper left, lower left, lower right, upper right."""
    shift = rng.normal(0, 0.09 * CANVAS_PX, size=(4, 2))
    slant = rng.normal(0, 0.12 * CANVAS_PX)
    corners = [(0, 0), (0, CANVAS_PX), (CANVAS_PX, CANVAS_PX), (CANVAS_PX, 0)]
    moved = [
        (x + dx + (slant if y == 0 else -slant), y + dy)
        for (x, y), (dx, dy) in zip(corners, shift, strict=True)
    ]
    return [float(value) for corner in moved for value in corner]
