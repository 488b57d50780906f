"""Photos as they stand in a page: small, upright, read by the one decoder; or why they are not."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath

from finetune.components.pixels import MAX_PIXELS
from finetune.data.decode import UnreadableImageError, decode

__all__ = ["Photo", "photo_root", "read_photos"]

SIDE_PX = 192  # of the longer side: sharp at the size of a card, also on a dense screen
_QUALITY = 78  # of a JPEG of about 8 KB


@dataclass(frozen=True, slots=True)
class Photo:
    """One photo of a page.

    Attributes:
        name: Path relative to the data folder.
        uri: `data:` address of a small JPEG; None where the photo cannot be shown.
        width: Of the small JPEG, in pixels; 0 where there is none.
        height: The same.
        reason: Why it cannot be shown; empty where it can.
    """

    name: str
    uri: str | None
    width: int = 0
    height: int = 0
    reason: str = ""


def photo_root(data: Path) -> Path:
    """Give the folder that names are relative to: a data folder, or that of a CSV."""
    return data if data.is_dir() else data.parent


def read_photos(root: Path | None, names: Iterable[str]) -> dict[str, Photo]:
    """Read small pictures of photos.

    Args:
        root: Folder that the names are relative to; None where it is not known.
        names: As tables name them.

    Returns:
        By name; of what is not there any more, or cannot be read, the reason.
    """
    return {name: _read(root, name) for name in names}


def _read(root: Path | None, name: str) -> Photo:
    """Read one photo."""
    if root is None:
        return Photo(name, None, reason="it is not known where the photos are")
    place = PurePosixPath(name)
    # A table may come from anyone: nothing outside the data folder gets into a page by a name.
    if ".." in place.parts or not (root / place).is_relative_to(root) or "\0" in name:
        return Photo(name, None, reason="its name leads out of the data folder")
    try:
        image = decode(root / place, max_pixels=MAX_PIXELS, reduction=_is_enough)
    except UnreadableImageError as error:
        return Photo(name, None, reason=error.message)
    image = image.convert("RGB")
    image.thumbnail((SIDE_PX, SIDE_PX))
    stream = BytesIO()
    image.save(stream, "JPEG", quality=_QUALITY)
    uri = "data:image/jpeg;base64," + b64encode(stream.getvalue()).decode("ascii")
    return Photo(name, uri, image.width, image.height)


def _is_enough(full: tuple[int, int], reduced: tuple[int, int]) -> bool:
    """Whether a photo decoded at a reduced size is still as large as it is shown."""
    return max(reduced) >= SIDE_PX
