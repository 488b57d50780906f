"""Augmentation of training images; the only file that imports albumentations.

Presets crop at random to the input's size with area interpolation where they shrink, since
albumentations' plain linear resize does not antialias. Free pipelines name albumentations' own
transforms and their arguments; nothing else can be named, so a stranger's recipe is safe to load.
Randomness is a function of the seed passed with each image, whatever the process or the order.
Evaluation never passes here: it is `finetune.components.preprocess`.
"""

import copy
import inspect
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

from pydantic import BeforeValidator, Field, WithJsonSchema, field_serializer, field_validator

from finetune.components.preprocess import InputSpec, Preprocessing
from finetune.components.section import Section
from finetune.errors import DataError, Problem, RecipeError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]

__all__ = [
    "AlbumentationsAugment",
    "Augment",
    "AugmentFunction",
    "LightAugment",
    "NoAugment",
    "PythonAugment",
    "StandardAugment",
    "StrongAugment",
]

Probability = Annotated[float, Field(ge=0, le=1)]


class AugmentFunction(Protocol):
    """What `build` gives: HWC uint8 RGB of any size → HWC uint8 RGB of the input's size."""

    def __call__(self, image: "Pixels", *, seed: int) -> "Pixels":
        """Change one image; the same seed gives the same pixels."""
        ...


class NoAugment(Section):
    """No change: training images are what evaluation sees."""

    kind: Literal["none"] = "none"

    def check(self) -> None:
        """Find nothing wrong."""

    def build(self, spec: InputSpec) -> AugmentFunction:
        """Build the geometry of evaluation."""
        return _Geometry(spec)


class _Preset(Section):
    """Random crop to the input's size, flips, colour, rotation, blur, erasing."""

    kind: Literal["light", "standard", "strong"]
    min_scale: float = Field(
        0.35, gt=0, le=1, description="Smallest part of the image's area that a crop shows."
    )
    horizontal_flip: Probability = Field(0.5, description="Probability of a mirror image.")
    vertical_flip: Probability = Field(0.0, description="Probability of turning upside down.")
    colour: float = Field(
        0.0, ge=0, le=1, description="Largest change of brightness, contrast and saturation."
    )
    rotate_degrees: float = Field(0.0, ge=0, le=180, description="Largest angle, either way.")
    blur: Probability = Field(0.0, description="Probability of a Gaussian blur.")
    erase: Probability = Field(0.0, description="Probability of a blank patch (1708.04896).")

    def check(self) -> None:
        """Find nothing wrong: the ranges of the fields say all."""

    def build(self, spec: InputSpec) -> AugmentFunction:
        """Build the crop and what follows it."""
        raise NotImplementedError


class LightAugment(_Preset):
    """A crop of at least half of the image and a mirror image: for things whose colour tells."""

    kind: Literal["light"] = "light"
    min_scale: float = Field(0.5, gt=0, le=1, description="Smallest part of the area shown.")


class StandardAugment(_Preset):
    """A crop of at least a third, a mirror image and mild colour: for most photos."""

    kind: Literal["standard"] = "standard"
    colour: float = Field(0.2, ge=0, le=1, description="Largest change of colour.")


class StrongAugment(_Preset):
    """The crop of ImageNet training, colour, small rotations, blur, erasing: for long runs."""

    kind: Literal["strong"] = "strong"
    min_scale: float = Field(0.08, gt=0, le=1, description="Smallest part of the area shown.")
    colour: float = Field(0.4, ge=0, le=1, description="Largest change of colour.")
    rotate_degrees: float = Field(10.0, ge=0, le=180, description="Largest angle, either way.")
    blur: Probability = Field(0.1, description="Probability of a Gaussian blur.")
    erase: Probability = Field(0.25, description="Probability of a blank patch (1708.04896).")


def _step(value: Any) -> dict[str, Any]:
    """Read one step: `HorizontalFlip` stands for `{name: HorizontalFlip}`; all plain data."""
    if isinstance(value, str):
        return {"name": value}
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        raise ValueError("a transform is its name, or a mapping with `name` and its arguments")
    plain = {str(key): _plain(item) for key, item in value.items()}
    if isinstance(plain.get("transforms"), list):
        plain["transforms"] = [_step(item) for item in plain["transforms"]]
    return plain


def _plain(value: Any) -> Any:
    """Give plain data, tuples as lists, so that a recipe equals its YAML."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    raise ValueError(f"arguments are plain data, not {type(value).__name__}")


class AlbumentationsAugment(Section):
    """Albumentations' own transforms by name, in order, with their arguments.

    Where the last step does not give the input's size, the geometry of evaluation follows it.
    """

    kind: Literal["albumentations"] = "albumentations"
    transforms: tuple[Annotated[dict[str, Any], BeforeValidator(_step)], ...] = Field(
        min_length=1, description="Steps: a name and its arguments; OneOf and others may nest."
    )

    def check(self) -> None:
        """Find unknown names, unknown arguments and values out of range.

        Raises:
            RecipeError: All of them, by path (`augment.transforms.0`).
        """
        raise NotImplementedError

    def build(self, spec: InputSpec) -> AugmentFunction:
        """Build the pipeline.

        Raises:
            RecipeError: As `check` does.
        """
        raise NotImplementedError


class PythonAugment(Section):
    """An augmentation given from Python: never from YAML.

    `function` is an albumentations pipeline, an object with `build(spec)`, or a callable from HWC
    uint8 RGB to the same; it receives `seed=` where it has such a parameter. Where it does not give
    the input's size, the geometry of evaluation follows it.
    """

    kind: Literal["python"] = "python"
    function: Annotated[Any, WithJsonSchema({"type": "null"})] = Field(
        description="Only from Python."
    )

    @field_validator("function")
    @classmethod
    def _is_callable(cls, value: Any) -> Any:
        if callable(value) or hasattr(value, "build"):
            return value
        raise ValueError("an augmentation in Python cannot be named in a file; pass it as augment=")

    @field_serializer("function")
    def _name(self, value: Any) -> str:
        kind = value if inspect.isroutine(value) else type(value)
        return f"{kind.__module__}.{kind.__qualname__}"

    def check(self) -> None:
        """Find steps that a pipeline may not hold.

        Raises:
            RecipeError: It normalises or makes tensors.
        """
        raise NotImplementedError

    def build(self, spec: InputSpec) -> AugmentFunction:
        """Build the function.

        Raises:
            RecipeError: As `check` does.
        """
        raise NotImplementedError


class _Geometry:
    """The geometry of evaluation as an augmentation."""

    def __init__(self, spec: InputSpec) -> None:
        red, green, blue = (value / 255 for value in spec.fill)
        self._transform = Preprocessing(
            input_size=(3, spec.height, spec.width),
            mean=(red, green, blue),
            interpolation=spec.interpolation,
            crop_mode=spec.crop_mode,
            crop_pct=spec.crop_pct,
        ).transform()

    def __call__(self, image: "Pixels", *, seed: int = 0) -> "Pixels":
        from PIL import Image

        pixels: Pixels = self._transform(Image.fromarray(image)).permute(1, 2, 0).numpy()
        return pixels


def _expand(value: Any) -> Any:
    """Read the short forms: a preset's name, or an augmentation given from Python."""
    if isinstance(value, str):
        return {"kind": value}
    if not isinstance(value, Section) and (callable(value) or hasattr(value, "build")):
        return {"kind": "python", "function": value}
    return value


Augment = Annotated[
    Annotated[
        AlbumentationsAugment
        | LightAugment
        | NoAugment
        | PythonAugment
        | StandardAugment
        | StrongAugment,
        Field(discriminator="kind"),
    ],
    BeforeValidator(_expand),
]
