"""Small photos of one colour, written where a test wants them."""

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

WritePhoto = Callable[..., Path]


@pytest.fixture
def write_photo() -> WritePhoto:
    """Write an 8x6 PNG whose content follows from a number."""

    def write(path: Path, number: int = 0) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        colour = (number % 256, number // 256 % 256, 90)
        Image.new("RGB", (8, 6), colour).save(path, format="PNG")
        return path

    return write
