"""The plain values that a recipe holds: ranges, words and names, each with its own refusal.

A validator here raises a RecipeError whose path is that of the value itself.
"""

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from finetune.components.metrics import METRICS
from finetune.components.problems import did_you_mean, show_value
from finetune.components.section import Number, WholeNumber
from finetune.errors import Problem, RecipeError

__all__ = [
    "SELECTION_METRICS",
    "Auto",
    "BatchNormMode",
    "Device",
    "Epochs",
    "Fraction",
    "FrozenPrecision",
    "ImageSize",
    "LayerDecay",
    "MemoryFormat",
    "Precision",
    "RecipeName",
    "ResizeMode",
    "SelectionMetric",
    "Share",
    "StageName",
    "Views",
    "Workers",
    "refuse",
]

Auto = Literal["auto"]
Fraction = Annotated[Number, Field(ge=0, lt=1)]
Share = Annotated[Number, Field(gt=0, lt=1)]
Epochs = Annotated[WholeNumber, Field(ge=1, le=10_000)]
LayerDecay = Annotated[Number, Field(gt=0, le=1)]
Pixels = Annotated[WholeNumber, Field(ge=8, le=4_096)]
Views = Annotated[WholeNumber, Field(ge=0, le=64)]
Workers = Annotated[WholeNumber, Field(ge=0, le=256)]
ResizeMode = Literal["crop", "pad", "squash"]
Precision = Literal["fp32", "bf16", "fp16"]
FrozenPrecision = Literal["fp32", "bf16"]
BatchNormMode = Literal["trained", "frozen"]
MemoryFormat = Literal["contiguous", "channels_last"]

SELECTION_METRICS = tuple(f"val_{name}" for name in METRICS)
_DEVICES = ("auto", "cpu", "cuda", "cuda:1", "mps")
_DEVICE = r"^(auto|cpu|mps|cuda(:\d+)?)$"
_STAGE_NAME = r"^[A-Za-z0-9_-]{1,40}$"
_RECIPE_NAME = r"^[A-Za-z0-9_.-]{1,60}$"


def refuse(path: str, message: str, *, hint: str | None = None) -> RecipeError:
    """Make the error of a validator: one problem, its path from the value that is checked."""
    return RecipeError([Problem(path, message, hint=hint)])


def _selection_metric(value: Any) -> Any:
    """Check that a selection metric is a validation figure that exists."""
    if not isinstance(value, str) or value in SELECTION_METRICS:
        return value
    if value.startswith("test_"):
        raise refuse("", f"{value!r}: the test part is never used for a choice; take a val_ figure")
    allowed = ", ".join(SELECTION_METRICS)
    hint = did_you_mean(value, SELECTION_METRICS)
    raise refuse("", f"there is no metric {value!r}; allowed: {allowed}", hint=hint)


def _device(value: Any) -> Any:
    """Check that a device is one that a recipe can name."""
    if isinstance(value, str) and not re.match(_DEVICE, value):
        message = f"unknown value {value!r}; allowed: {', '.join(_DEVICES)}"
        raise refuse("", message, hint=did_you_mean(value, _DEVICES))
    return value


def _stage_name(value: Any) -> Any:
    """Check that the name of a stage can stand in a table."""
    if isinstance(value, str) and not re.match(_STAGE_NAME, value):
        raise refuse("", f"1 to 40 letters, digits, - and _ make a name, got {show_value(value)}")
    return value


def _recipe_name(value: Any) -> Any:
    """Check that the name of a recipe can stand in a path."""
    if isinstance(value, str) and not re.match(_RECIPE_NAME, value):
        raise refuse(
            "", f"1 to 60 letters, digits, -, _ and . make a name, got {show_value(value)}"
        )
    return value


SelectionMetric = Annotated[
    str,
    BeforeValidator(_selection_metric),
    Field(json_schema_extra={"enum": list(SELECTION_METRICS)}),
]
Device = Annotated[str, Field(pattern=_DEVICE), BeforeValidator(_device)]
StageName = Annotated[str, Field(pattern=_STAGE_NAME), BeforeValidator(_stage_name)]
RecipeName = Annotated[str, Field(pattern=_RECIPE_NAME), BeforeValidator(_recipe_name)]


def _two_sides(value: Any) -> Any:
    """Read one number as both sides of a square."""
    return (value, value) if isinstance(value, int) and not isinstance(value, bool) else value


ImageSize = Annotated[
    tuple[Pixels, Pixels], BeforeValidator(_two_sides, json_schema_input_type=Pixels | list[Pixels])
]
