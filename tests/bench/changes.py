"""What is done to photos that the check shall find again."""

import io
import random
from collections.abc import Callable
from pathlib import Path

from PIL import Image, ImageEnhance

__all__ = ["LIKE", "ONE_PICTURE", "save"]

Change = Callable[[Image.Image, random.Random], Image.Image]
QUALITY = 90  # of JPEG, where a change does not say


def scaled(image: Image.Image, factor: float) -> Image.Image:
    """Resize both sides."""
    size = [max(1, round(side * factor)) for side in image.size]
    return image.resize((size[0], size[1]), Image.Resampling.BICUBIC)


def saved(image: Image.Image, quality: int) -> Image.Image:
    """Save as JPEG, and read that."""
    file = io.BytesIO()
    image.save(file, format="JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def cropped(image: Image.Image, rng: random.Random, low: float, high: float) -> Image.Image:
    """Take a share off each of width and height, at a random place."""
    shares = [rng.uniform(low, high) for _ in range(2)]
    starts = [rng.uniform(0, share) for share in shares]
    left, top = (round(start * side) for start, side in zip(starts, image.size, strict=True))
    width, height = (
        max(1, round((1 - share) * side)) for share, side in zip(shares, image.size, strict=True)
    )
    return image.crop((left, top, left + width, top + height))


def inner(image: Image.Image) -> Image.Image:
    """Cut a tenth off each side, where a rotation has left corners."""
    width, height = image.size
    return image.crop((width // 10, height // 10, width - width // 10, height - height // 10))


def save(image: Image.Image, target: Path) -> None:
    """Save a photo as JPEG."""
    target.parent.mkdir(parents=True, exist_ok=True)
    image.save(target, quality=QUALITY)


# The same picture still: the ranges are those that the check is meant for.
ONE_PICTURE: dict[str, Change] = {
    "resized to 0.3 to 0.8": lambda image, rng: scaled(image, rng.uniform(0.3, 0.8)),
    "recompressed, quality 30 to 90": lambda image, rng: saved(image, rng.randint(30, 90)),
    "mirrored": lambda image, rng: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "cropped by 3 to 10 %": lambda image, rng: cropped(image, rng, 0.03, 0.10),
    "all of these": lambda image, rng: saved(
        scaled(
            cropped(image, rng, 0.03, 0.10).transpose(Image.Transpose.FLIP_LEFT_RIGHT),
            rng.uniform(0.3, 0.8),
        ),
        rng.randint(30, 90),
    ),
}
# Beyond that: for features to find.
LIKE: dict[str, Change] = {
    "cropped by 10 to 20 %": lambda image, rng: cropped(image, rng, 0.10, 0.20),
    "rotated by 6 degrees": lambda image, rng: inner(image.rotate(6, Image.Resampling.BICUBIC)),
    "brighter by 30 %": lambda image, rng: ImageEnhance.Brightness(image).enhance(1.3),
}
