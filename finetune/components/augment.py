"""Augmentation of training images; the only file that imports albumentations.

Presets crop at random to the input's size with area interpolation where they shrink, since
albumentations' plain linear resize does not antialias. Free pipelines name albumentations' own
transforms and their arguments; nothing else can be named, so a stranger's recipe is safe to load.
Randomness is a function of the seed passed with each image, whatever the process or the order.
Evaluation never passes here: it is `finetune.components.preprocess`.

Where files are decoded at reduced scale, `reduction` says how small an augmentation may find them:
a preset's smallest crop keeps the input's size, `none` is evaluation; what free pipelines and
Python functions need cannot be known, so they are given all pixels.
"""

import inspect
import os
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema, field_serializer, field_validator

from finetune.components.component import Component
from finetune.components.pipelines import (
    NARROWEST,
    AugmentFunction,
    CropReduction,
    EvaluationGeometry,
    NamedPipeline,
    PythonPipeline,
    evaluation_of,
)
from finetune.components.preprocess import InputSpec
from finetune.components.section import Number, Section
from finetune.components.steps import find_unfit, make_steps, refusals
from finetune.errors import Problem, RecipeError
from finetune.types import Reduction

__all__ = [
    "AlbumentationsAugment",
    "Augment",
    "LightAugment",
    "NoAugment",
    "PythonAugment",
    "StandardAugment",
    "StrongAugment",
]

Probability = Annotated[Number, Field(ge=0, le=1)]

# OpenCV's flags by the names that the weights use; area replaces them where an image shrinks.
_ENLARGE = {"nearest": "INTER_NEAREST", "bicubic": "INTER_CUBIC", "lanczos": "INTER_LANCZOS4"}


class NoAugment(Section):
    """No change: training images are what evaluation sees."""

    kind: Literal["none"] = "none"

    def check(self) -> None:
        """Find nothing wrong."""

    def build(self, spec: InputSpec) -> AugmentFunction:
        """Build the geometry of evaluation."""
        return EvaluationGeometry(spec)

    def reduction(self, spec: InputSpec) -> Reduction | None:
        """Allow what evaluation allows."""
        return evaluation_of(spec).reduction


class _Preset(Section):
    """Random crop to the input's size, flips, colour, rotation, blur, erasing."""

    kind: Literal["light", "standard", "strong"]
    min_scale: Number = Field(
        0.35, gt=0, le=1, description="Smallest part of the image's area that a crop shows."
    )
    horizontal_flip: Probability = Field(0.5, description="Probability of a mirror image.")
    vertical_flip: Probability = Field(0.0, description="Probability of turning upside down.")
    colour: Number = Field(
        0.0, ge=0, le=1, description="Largest change of brightness, contrast and saturation."
    )
    rotate_degrees: Number = Field(0.0, ge=0, le=180, description="Largest angle, either way.")
    blur: Probability = Field(0.0, description="Probability of a Gaussian blur.")
    erase: Probability = Field(0.0, description="Probability of a blank patch (1708.04896).")

    def check(self) -> None:
        """Find nothing wrong: the ranges of the fields say all."""

    def build(self, spec: InputSpec) -> AugmentFunction:
        """Build the crop and what follows it."""
        return NamedPipeline(self, spec, keeps_shape=True)

    def reduction(self, spec: InputSpec) -> Reduction | None:
        """Allow the scales that leave the smallest crop the input's size."""
        if spec.decode == "full":
            return None
        return CropReduction(spec.width, spec.height, float(self.min_scale))

    def compose(self, spec: InputSpec) -> Any:
        """Give the `albumentations.Compose` of this preset."""
        A = _albumentations()
        import cv2

        shape = spec.width / spec.height
        # Of inputs fifteen times as wide as high a fiftieth is more than a hole may have.
        least = min(0.02, 0.29 * min(shape, 1 / shape))
        steps = [
            A.RandomResizedCrop(
                size=(spec.height, spec.width),
                scale=(self.min_scale, 1.0),
                ratio=(NARROWEST * shape, shape / NARROWEST),
                interpolation=getattr(cv2, _ENLARGE.get(spec.interpolation, "INTER_LINEAR")),
                area_for_downscale="image",
            ),
            A.HorizontalFlip(p=self.horizontal_flip),
            A.VerticalFlip(p=self.vertical_flip),
            A.Rotate(
                limit=(-self.rotate_degrees, self.rotate_degrees),
                border_mode=cv2.BORDER_REFLECT_101,
                p=0.5 if self.rotate_degrees else 0.0,
            ),
            self._change_of_colour(A, spec.channels),
            A.GaussianBlur(blur_limit=0, sigma_limit=(0.1, 1.5), p=self.blur),
            A.Erasing(scale=(least, 0.25), ratio=(0.3, 3.3), fill=spec.fill, p=self.erase),
        ]
        return A.Compose([step for step in steps if step.p > 0])

    def failures(self) -> tuple[type[Exception], ...]:
        """Name no error: a preset takes every image."""
        return ()

    def _change_of_colour(self, library: Any, channels: int) -> Any:
        """Change brightness and contrast, and saturation where there are colours."""
        p = 0.8 if self.colour else 0.0  # 2002.05709
        if channels == 4:  # which ColorJitter refuses
            limit = (-self.colour, self.colour)
            return library.RandomBrightnessContrast(
                brightness_limit=limit, contrast_limit=limit, brightness_by_max=False, p=p
            )
        change = (max(0.0, 1 - self.colour), 1 + self.colour)
        return library.ColorJitter(
            brightness=change,
            contrast=change,
            saturation=change if channels == 3 else (1.0, 1.0),
            hue=(0.0, 0.0),  # a hue tells classes of flowers and fruit apart
            p=p,
        )


class LightAugment(_Preset):
    """A crop of at least half of the image and a mirror image: for things whose colour tells."""

    kind: Literal["light"] = "light"
    min_scale: Number = Field(0.5, gt=0, le=1, description="Smallest part of the area shown.")


class StandardAugment(_Preset):
    """A crop of at least a third, a mirror image and mild colour: for most photos."""

    kind: Literal["standard"] = "standard"
    colour: Number = Field(0.2, ge=0, le=1, description="Largest change of colour.")


class StrongAugment(_Preset):
    """The crop of ImageNet training, colour, small rotations, blur, erasing: for long runs."""

    kind: Literal["strong"] = "strong"
    min_scale: Number = Field(0.08, gt=0, le=1, description="Smallest part of the area shown.")
    colour: Number = Field(0.4, ge=0, le=1, description="Largest change of colour.")
    rotate_degrees: Number = Field(10.0, ge=0, le=180, description="Largest angle, either way.")
    blur: Probability = Field(0.1, description="Probability of a Gaussian blur.")
    erase: Probability = Field(0.25, description="Probability of a blank patch (1708.04896).")


def _step(value: Any) -> dict[str, Any]:
    """Read one step: `HorizontalFlip` stands for `{name: HorizontalFlip}`; all plain data."""
    if isinstance(value, str):
        return {"name": value}
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        raise ValueError("a transform is its name, or a mapping with `name` and its arguments")
    plain = {str(key): _plain(item) for key, item in value.items()}
    if "transforms" in plain:
        if not isinstance(plain["transforms"], list):
            raise ValueError("`transforms` of a composition is a list")
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


Step = Annotated[
    dict[str, Any], BeforeValidator(_step, json_schema_input_type=str | dict[str, Any])
]


class AlbumentationsAugment(Section):
    """Albumentations' own transforms by name, in order, with their arguments.

    Where the last step does not give the input's size, the geometry of evaluation follows it.
    """

    kind: Literal["albumentations"] = "albumentations"
    transforms: tuple[Step, ...] = Field(
        min_length=1, description="Steps: a name and its arguments; OneOf and others may nest."
    )

    def check(self) -> None:
        """Find unknown names, unknown arguments and values out of range.

        Raises:
            RecipeError: All of them, by path (`augment.transforms.0`).
        """
        self._steps()

    def build(self, spec: InputSpec) -> AugmentFunction:
        """Build the pipeline.

        Raises:
            RecipeError: As `check` does, and where a step cannot take the input's channels.
        """
        found = [] if spec.channels == 3 else self._unfit(spec)
        if found:
            raise RecipeError(found)
        return NamedPipeline(self, spec, keeps_shape=False)

    def reduction(self, spec: InputSpec) -> Reduction | None:
        """Allow none: what the steps need cannot be known."""
        return None

    def compose(self, spec: InputSpec) -> Any:
        """Give the `albumentations.Compose` of the steps."""
        return _albumentations().Compose(self._steps())

    def failures(self) -> tuple[type[Exception], ...]:
        """Name what albumentations and OpenCV raise on an image that a step cannot take."""
        import cv2
        from albumentations.augmentations.crops.transforms import CropSizeError

        of_python = (ArithmeticError, LookupError, NotImplementedError, TypeError, ValueError)
        return (*of_python, CropSizeError, cv2.error)

    def _unfit(self, spec: InputSpec) -> list[Problem]:
        """Find the steps that cannot take images of the input's channels."""
        failures = self.failures()
        library = _albumentations()
        return find_unfit(self._steps(), "augment.transforms", spec, failures, library=library)

    def _steps(self) -> list[Any]:
        """Make the transforms, or raise all problems at once."""
        problems: list[Problem] = []
        library = _albumentations()
        steps = make_steps(self.transforms, "augment.transforms", problems, library=library)
        if problems:
            raise RecipeError(problems)
        return steps


class PythonAugment(Section):
    """An augmentation given from Python: never from YAML.

    `function` is an albumentations pipeline, an object with `build(spec)`, or a callable from HWC
    uint8 to the same, RGB where the network takes three channels; it receives `seed=` where it has
    such a parameter. Where it does not give the input's size, the geometry of evaluation follows.
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

    @field_serializer("function", when_used="json")
    def _name(self, value: Any) -> str:
        kind = value if inspect.isroutine(value) else type(value)
        return f"{kind.__module__}.{kind.__qualname__}"

    def check(self) -> None:
        """Find steps that a pipeline may not hold.

        Raises:
            RecipeError: It normalises or makes tensors.
        """
        found = refusals(self.function)
        if found:
            raise RecipeError([Problem("augment", message) for message in found])

    def build(self, spec: InputSpec) -> AugmentFunction:
        """Build the function.

        Raises:
            RecipeError: As `check` does.
        """
        self.check()
        if hasattr(self.function, "build"):
            built: AugmentFunction = self.function.build(spec)
            return built
        return PythonPipeline(self.function, spec)

    def reduction(self, spec: InputSpec) -> Reduction | None:
        """Allow none: what the function needs cannot be known."""
        return None


def _albumentations() -> Any:
    """Import albumentations without its look for updates on the network."""
    name = "NO_ALBUMENTATIONS_UPDATE"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        import albumentations
    finally:
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before
    return albumentations


Augment = Annotated[
    AlbumentationsAugment
    | LightAugment
    | NoAugment
    | PythonAugment
    | StandardAugment
    | StrongAugment,
    Component(holds="function"),
]
