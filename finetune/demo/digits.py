"""The embedded example's data: scikit-learn's handwritten digits, written as an image folder.

1,797 real images of 8 by 8 pixels by 43 people, from the test part of a UCI set (Alpaydin and
Kaynak, 1998), in a package that is needed anyway. They are written as grey PNGs, enlarged.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from finetune.runtime.files import make_folder

__all__ = ["NAMES", "STARTER_DIGITS", "UNSEEN_DIGITS", "write_digits"]

STARTER_DIGITS = (0, 1, 2, 3, 4)
UNSEEN_DIGITS = (5, 6, 7, 8, 9)
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SIDE_PX = 32  # four times the original: the smallest side that the starter's network takes whole


def write_digits(
    folder: Path, digits: Sequence[int], *, per_class: Mapping[str, int] | None = None
) -> Path:
    """Write the images of some digits by split and class.

    Args:
        folder: Where; made if absent.
        digits: Which digits, 0 to 9.
        per_class: Images a class for each split, in the order of the original set; the last split
            takes the rest. None writes all into one folder without splits.

    Returns:
        The folder.
    """
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_digits

    data = load_digits()
    for digit in digits:
        images = data.images[data.target == digit]
        for position, image in enumerate(images):
            place = folder / _split_of(position, per_class) / NAMES[digit]
            make_folder(place)
            grey = np.rint(image * (255 / 16)).astype(np.uint8)  # 17 levels of grey
            picture = Image.fromarray(grey).resize((SIDE_PX, SIDE_PX), Image.Resampling.BICUBIC)
            picture.save(place / f"{NAMES[digit]}_{position:03d}.png")
    return folder


def _split_of(position: int, per_class: Mapping[str, int] | None) -> str:
    """Name the split of the image at a position; empty where there are no splits."""
    if per_class is None:
        return ""
    end = 0
    for split, size in per_class.items():
        end += size
        if position < end:
            return split
    return list(per_class)[-1]
