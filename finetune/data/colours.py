"""Pixels of every mode of Pillow as grey, RGB or four bands: the rules stand in `decode.py`."""

from typing import TYPE_CHECKING

from finetune.components.pixels import MODES

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image

__all__ = ["to_channels"]


def to_channels(image: "Image", channels: int) -> "Image":
    """Make an image grey, RGB or four plain bands: mode L, RGB or CMYK, for 1, 3 or 4 channels."""
    if channels == 4:
        from PIL import Image

        # Careful: convert would composite or invert; the bands themselves are wanted.
        return image if image.mode == MODES[4] else Image.merge(MODES[4], image.split())
    if channels == 1 and image.mode == MODES[1] and not image.has_transparency_data:
        return image
    colour = _to_rgb(image)
    return colour if channels == 3 else colour.convert(MODES[1])


def _to_rgb(image: "Image") -> "Image":
    """Convert any mode to RGB by the rules of `decode.py`."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _from_deep(image)
    if image.mode == "LAB":
        return _from_lab(image)
    if image.has_transparency_data:
        return _on_white(image.convert("RGBA"))
    return image if image.mode == "RGB" else image.convert("RGB")


def _on_white(image: "Image") -> "Image":
    """Composite an RGBA image on white."""
    from PIL import Image

    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, image).convert("RGB")


def _from_lab(image: "Image") -> "Image":
    """Convert CIE LAB (D50) to sRGB, which Pillow does by its colour management."""
    from PIL import ImageCms

    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
    if converted is None:
        raise ValueError("conversion from LAB failed")
    return converted


def _from_deep(image: "Image") -> "Image":
    """Bring grey values of 16 or 32 bits to 8."""
    import numpy as np
    from PIL import Image

    if image.mode.startswith("I;16"):  # by whole numbers: floats of 8 bytes need copies
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    values: NDArray[np.float64] = np.asarray(image.convert("F"), dtype=np.float64)
    values = np.nan_to_num(values, posinf=0.0, neginf=0.0)
    low, high = float(values.min()), float(values.max())
    if image.mode != "F" and low >= 0 and high <= 65_535:
        values = values // 256
    elif low >= 0 and high <= 1:
        values = values * 255
    elif low < 0 or high > 255:
        values = (values - low) * 255 / max(high - low, 1e-300)
    return Image.fromarray(np.rint(values).astype(np.uint8)).convert("RGB")
