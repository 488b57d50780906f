"""Small photos of one colour, written where a test wants them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

WritePhoto = Callable[..., Path]
DrawScene = Callable[[int], Image.Image]


@pytest.fixture
def write_photo() -> WritePhoto:
    """Write an 8x6 PNG whose content follows from a number."""

    def write(path: Path, number: int = 0) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        colour = (number % 256, number // 256 % 256, 90)
        Image.new("RGB", (8, 6), colour).save(path, format="PNG")
        return path

    return write


@pytest.fixture
def draw_scene() -> DrawScene:
    """Draw a picture of 120x90 with structure at every scale, as photos have."""

    def draw(number: int) -> Image.Image:
        rng = np.random.default_rng(number)
        picture = np.zeros((90, 120, 3))
        for side in (3, 6, 12, 24, 48):
            noise = rng.normal(0, 100 / side, size=(side, side, 3)).astype(np.float32)
            for channel in range(3):
                layer = Image.fromarray(noise[..., channel]).resize((120, 90), 3)
                picture[..., channel] += np.asarray(layer)
        return Image.fromarray(np.clip(picture + 128, 0, 255).astype(np.uint8))

    return draw
