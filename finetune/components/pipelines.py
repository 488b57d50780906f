"""Augmentation at work on one image: its seed, its shape before and after.

`augment.py` says what is done; here it is done. Every class here is what a section's `build` gives:
a callable that takes an image and a seed, and that travels to worker processes. Python's, NumPy's
and torch's random states stay untouched; OpenCV's is set by albumentations' transforms of noise.
"""

import copy
import inspect
import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from finetune.components.pixels import to_array, to_picture
from finetune.components.preprocess import InputSpec, Preprocessing
from finetune.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]

__all__ = [
    "NARROWEST",
    "AugmentFunction",
    "CropReduction",
    "EvaluationGeometry",
    "NamedPipeline",
    "PythonPipeline",
    "evaluation_of",
]

NARROWEST = 3 / 4  # aspect of a random crop: 1409.4842, as torchvision and timm have it


class AugmentFunction(Protocol):
    """What `build` gives: HWC uint8 of any size → HWC uint8 of the input's size, C as before."""

    def __call__(self, image: "Pixels", *, seed: int) -> "Pixels":
        """Change one image; the same seed gives the same pixels."""
        ...


class Composes(Protocol):
    """A section that names albumentations' transforms."""

    def compose(self, spec: InputSpec) -> Any:
        """Give an `albumentations.Compose`."""
        ...

    def failures(self) -> tuple[type[Exception], ...]:
        """Give the errors that albumentations raises on an image it cannot take."""
        ...


class EvaluationGeometry:
    """The geometry of evaluation as an augmentation: deterministic, antialiased by Pillow."""

    def __init__(self, spec: InputSpec) -> None:
        self._transform = evaluation_of(spec).transform()

    def __call__(self, image: "Pixels", *, seed: int = 0) -> "Pixels":
        """Give the image as evaluation would see it; the seed changes nothing."""
        pixels: Pixels = self._transform(to_picture(image)).permute(1, 2, 0).numpy()
        return pixels


def evaluation_of(spec: InputSpec) -> Preprocessing:
    """Give what evaluation does, at the size of a training image; of its mean only the fill."""
    return Preprocessing.model_validate(
        {
            "input_size": (spec.channels, spec.height, spec.width),
            "mean": tuple(value / 255 for value in spec.fill),
            "interpolation": spec.interpolation,
            "crop_mode": spec.crop_mode,
            "crop_pct": spec.crop_pct,
            "decode": spec.decode,
        }
    )


@dataclass(frozen=True, slots=True)
class CropReduction:
    """Allows the scales at which the smallest random crop still has the input's size.

    Padding and squashing to the input's shape leave at least the area that is counted here.

    Attributes:
        width: Of the input, in pixels.
        height: Of the input, in pixels.
        min_scale: Smallest part of the image's area that a crop shows.

    Example:
        >>> CropReduction(224, 224, 0.35)((4000, 3000), (1000, 750))
        True
        >>> CropReduction(224, 224, 0.35)((4000, 3000), (500, 375))
        False
    """

    width: int
    height: int
    min_scale: float

    def __call__(self, full: tuple[int, int], reduced: tuple[int, int]) -> bool:
        """Whether an upright image of one size may be decoded as one of another."""
        width, height = reduced
        area = self.min_scale * width * height * NARROWEST
        shape = self.width / self.height
        narrowest, lowest = math.sqrt(area * shape), math.sqrt(area / shape)
        return min(width, narrowest) >= self.width and min(height, lowest) >= self.height


class NamedPipeline:
    """A pipeline of albumentations' transforms, then the input's size where it is not reached.

    Careful: `Compose.set_random_seed` gives every transform the same seed, so that flips along
    both axes fall together. One shared stream, as `Compose` has it when it is made, does not.
    """

    def __init__(self, section: Composes, spec: InputSpec, *, keeps_shape: bool) -> None:
        self._arguments = (section, spec, keeps_shape)
        self._compose = section.compose(spec)
        self._failures = section.failures()
        self._finish = EvaluationGeometry(spec)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, self._arguments

    def __call__(self, image: "Pixels", *, seed: int) -> "Pixels":
        """Change one image.

        Raises:
            DataError: A step cannot take an image of this size, or gives no image.
        """
        _, spec, keeps_shape = self._arguments
        if keeps_shape:
            image = _to_shape(image, spec)
        try:
            result = _run_seeded(self._compose, image, seed)
        except self._failures as error:
            height, width = image.shape[:2]
            raise DataError(
                f"the augmentation fails on an image of {width} x {height} pixels: {error}",
                hint="begin augment.transforms with RandomResizedCrop or Resize",
            ) from error
        return _finished(result, spec, self._finish)


class PythonPipeline:
    """An augmentation given from Python, then the input's size where it is not reached."""

    def __init__(self, function: Any, spec: InputSpec) -> None:
        # A copy: the caller's own pipeline keeps its random state.
        self._function = copy.deepcopy(function)
        self._spec = spec
        self._finish = EvaluationGeometry(spec)
        self._is_seeded = hasattr(function, "set_random_state")
        self._takes_seed = not self._is_seeded and _takes_seed(function)

    def __call__(self, image: "Pixels", *, seed: int) -> "Pixels":
        """Change one image.

        Raises:
            DataError: The function gives no image. Its own errors pass unchanged.
        """
        if self._is_seeded:
            result = _run_seeded(self._function, image, seed)
        elif self._takes_seed:
            result = self._function(image, seed=seed)
        else:
            result = self._function(image)
        return _finished(result, self._spec, self._finish)


def _rebuild(section: Composes, spec: InputSpec, keeps_shape: bool) -> NamedPipeline:
    """Build a pipeline anew in another process, through the one door to albumentations."""
    return NamedPipeline(section, spec, keeps_shape=keeps_shape)


def _takes_seed(function: Any) -> bool:
    """Whether a function has a parameter `seed`; some of those written in C do not tell."""
    try:
        return "seed" in inspect.signature(function).parameters
    except (TypeError, ValueError):
        return False


def _run_seeded(pipeline: Any, image: "Pixels", seed: int) -> Any:
    """Run an albumentations pipeline with all its randomness from one seed."""
    import numpy as np

    pipeline.set_random_state(np.random.default_rng(seed), random.Random(seed))
    return pipeline(image=image)["image"]


def _finished(result: Any, spec: InputSpec, finish: Callable[["Pixels"], "Pixels"]) -> "Pixels":
    """Check that an augmentation gave an image, and bring it to the input's size."""
    import numpy as np

    if spec.channels == 1 and getattr(result, "ndim", None) == 2:
        result = result[:, :, None]
    is_image = (
        isinstance(result, np.ndarray)
        and result.dtype == np.uint8
        and result.ndim == 3
        and result.shape[2] == spec.channels
    )
    if not is_image:
        seen = f"{getattr(result, 'dtype', type(result).__name__)} {getattr(result, 'shape', '')}"
        raise DataError(
            f"the augmentation gave {seen.strip()}; it must give uint8 of shape "
            f"(height, width, {spec.channels}): normalisation comes from the weights, on the device"
        )
    if result.shape[:2] == (spec.height, spec.width):
        return np.ascontiguousarray(result)
    return finish(np.ascontiguousarray(result))


def _to_shape(image: "Pixels", spec: InputSpec) -> "Pixels":
    """Pad or squash an image to the input's shape where evaluation does, before a random crop."""
    from PIL import Image, ImageOps

    height, width = image.shape[:2]
    wanted = spec.width / spec.height
    if spec.crop_mode == "center" or width == round(height * wanted):
        return image
    picture = to_picture(image)
    # Enough for the smallest crop of a preset; a padded panorama would fill the memory, and to
    # resample a large photo takes longer than to decode it.
    longest = 4 * max(spec.height, spec.width)
    picture.thumbnail((longest, longest), Image.Resampling.BICUBIC)
    width, height = picture.size
    if spec.crop_mode == "border":
        box = (max(width, round(height * wanted)), max(height, round(width / wanted)))
        return to_array(ImageOps.pad(picture, box, color=spec.fill))
    area = width * height
    box = (max(1, round((area * wanted) ** 0.5)), max(1, round((area / wanted) ** 0.5)))
    return to_array(picture.resize(box, Image.Resampling.BICUBIC))
