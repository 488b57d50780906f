"""The schema of a recipe: every value a run depends on, with its range and its default.

`Recipe` is what a person writes; some values may be `auto`. `ResolvedRecipe` is what a run does;
none is. They are two types, so that "auto" cannot reach training. A recipe loads without torch:
what is heavy stands inside the verbs of its components. Only `load.py` knows YAML.

A validator here raises a RecipeError whose paths begin at the value that it checks.
"""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from finetune.components.augment import Augment, StandardAugment
from finetune.components.heads import Head, LinearHead
from finetune.components.metrics import METRICS
from finetune.components.optimizers import Optimizer, OptimizerSection
from finetune.components.policies import HeadPolicy, Policy
from finetune.components.problems import did_you_mean, show_value
from finetune.components.schedules import CosineSchedule, Schedule
from finetune.components.section import Number, Section, WholeNumber
from finetune.errors import DISTRIBUTION, Problem, RecipeError

__all__ = [
    "SELECTION_METRICS",
    "Auto",
    "DataSection",
    "EarlyStopping",
    "EvaluateSection",
    "ModelSection",
    "Recipe",
    "ResolvedDataSection",
    "ResolvedRecipe",
    "ResolvedRuntimeSection",
    "ResolvedStage",
    "RuntimeSection",
    "Stage",
    "TrainingSection",
]

Auto = Literal["auto"]
Fraction = Annotated[Number, Field(ge=0, lt=1)]
Epochs = Annotated[WholeNumber, Field(ge=1, le=10_000)]
LayerDecay = Annotated[Number, Field(gt=0, le=1)]
Pixels = Annotated[WholeNumber, Field(ge=8, le=4_096)]
Workers = Annotated[WholeNumber, Field(ge=0, le=256)]
ResizeMode = Literal["crop", "pad", "squash"]
Precision = Literal["fp32", "bf16", "fp16"]
BatchNormMode = Literal["trained", "frozen"]
MemoryFormat = Literal["contiguous", "channels_last"]

SELECTION_METRICS = tuple(f"val_{name}" for name in METRICS)
_DEVICES = ("auto", "cpu", "cuda", "cuda:1", "mps")
_DEVICE = r"^(auto|cpu|mps|cuda(:\d+)?)$"
_STAGE_NAME = r"^[A-Za-z0-9_-]{1,40}$"
_RECIPE_NAME = r"^[A-Za-z0-9_.-]{1,60}$"
_PROBE_VALUES = ("name", "train", "solver")  # all that a probe stage has


def _refuse(path: str, message: str, *, hint: str | None = None) -> RecipeError:
    """Make the error of a validator: one problem, its path from the value that is checked."""
    return RecipeError([Problem(path, message, hint=hint)])


def _selection_metric(value: Any) -> Any:
    """Check that a selection metric is a validation figure that exists."""
    if not isinstance(value, str) or value in SELECTION_METRICS:
        return value
    if value.startswith("test_"):
        raise _refuse(
            "", f"{value!r}: the test part is never used for a choice; take a val_ figure"
        )
    allowed = ", ".join(SELECTION_METRICS)
    hint = did_you_mean(value, SELECTION_METRICS)
    raise _refuse("", f"there is no metric {value!r}; allowed: {allowed}", hint=hint)


def _device(value: Any) -> Any:
    """Check that a device is one that a recipe can name."""
    if isinstance(value, str) and not re.match(_DEVICE, value):
        message = f"unknown value {value!r}; allowed: {', '.join(_DEVICES)}"
        raise _refuse("", message, hint=did_you_mean(value, _DEVICES))
    return value


def _stage_name(value: Any) -> Any:
    """Check that the name of a stage can stand in a table."""
    if isinstance(value, str) and not re.match(_STAGE_NAME, value):
        raise _refuse("", f"1 to 40 letters, digits, - and _ make a name, got {show_value(value)}")
    return value


def _recipe_name(value: Any) -> Any:
    """Check that the name of a recipe can stand in a path."""
    if isinstance(value, str) and not re.match(_RECIPE_NAME, value):
        raise _refuse(
            "", f"1 to 60 letters, digits, -, _ and . make a name, got {show_value(value)}"
        )
    return value


SelectionMetric = Annotated[
    str,
    BeforeValidator(_selection_metric),
    Field(json_schema_extra={"enum": list(SELECTION_METRICS)}),
]
Device = Annotated[str, Field(pattern=_DEVICE), BeforeValidator(_device)]


def _two_sides(value: Any) -> Any:
    """Read one number as both sides of a square."""
    return (value, value) if isinstance(value, int) and not isinstance(value, bool) else value


ImageSize = Annotated[
    tuple[Pixels, Pixels], BeforeValidator(_two_sides, json_schema_input_type=Pixels | list[Pixels])
]


class ModelSection(Section):
    """The network: a pretrained backbone and a new head."""

    backbone: str = Field(
        "efficientnet_b0",
        min_length=1,
        description="What timm takes: a name, name.tag, hf-hub:user/model, local-dir:path.",
    )
    pretrained: bool = Field(True, description="Load pretrained weights.")
    weights: str | None = Field(None, description="A weights file instead of the backbone's own.")
    head: Head = Field(LinearHead(), description="What turns features into logits.")
    image_size: ImageSize | None = Field(
        None,
        description="Height and width in pixels, or one number for both; of the weights if absent.",
    )
    in_chans: Literal[1, 3, 4] | None = Field(
        None, description="Channels: 1 grey, 3 RGB, 4 as they are; of the weights if absent."
    )
    drop_rate: Fraction = Field(0.0, description="Dropout before the classifier, in training.")
    drop_path_rate: Fraction = Field(0.0, description="Stochastic depth, in training.")

    @model_validator(mode="after")
    def _has_weights_of_one_kind(self) -> Self:
        if self.weights is not None and not self.pretrained:
            raise _refuse("weights", "a weights file is named, but pretrained is false; drop one")
        return self


class DataSection(Section):
    """The photos: where they are, how they are split, how they become input."""

    path: str | None = Field(None, description="A folder by class or a CSV; --data sets it.")
    val_fraction: Number = Field(
        0.15, gt=0, lt=0.9, description="Part of train carved out where there is no val."
    )
    test_fraction: Fraction = Field(
        0.15, description="Part carved out of a flat folder or a CSV without splits."
    )
    resize: ResizeMode | Auto = Field(
        "auto", description="crop cuts the long side, pad keeps all pixels, squash distorts."
    )
    max_pixels: WholeNumber = Field(
        178_956_970,  # Pillow's own limit against decompression bombs: 1 GiB at 3 bytes, twice over
        ge=1,
        description="Images with more pixels are left out, unread.",
    )


class EarlyStopping(Section):
    """End a stage when a validation figure no longer improves."""

    metric: SelectionMetric = Field("val_macro_f1", description="The figure that is watched.")
    patience: WholeNumber = Field(
        ge=1, description="Epochs without improvement before the stage ends."
    )
    min_delta: Number = Field(0.0, ge=0, description="What counts as improvement.")


class Stage(Section):
    """One stage of training: what learns, for how long, how fast."""

    name: Annotated[str, BeforeValidator(_stage_name)] = Field(
        pattern=_STAGE_NAME, description="Its name in tables."
    )
    train: Policy = Field(description="What learns; everything else is frozen, BatchNorm included.")
    solver: Literal["gradient", "probe"] = Field(
        "gradient",
        description="gradient: epochs of steps. probe: L2 logistic regression on frozen features.",
    )
    epochs: Epochs | Auto = Field("auto", description="Passes over the training images.")
    lr: Number = Field(1e-4, gt=0, le=10, description="Learning rate of the last layers.")
    layer_decay: LayerDecay | Auto = Field(
        1.0, description="Factor on the learning rate for each depth away from the head."
    )
    weight_decay: Fraction = Field(0.05, description="Not on biases, norms and scales.")
    optimizer: Optimizer = Field(OptimizerSection(), description="What makes steps of gradients.")
    schedule: Schedule = Field(
        CosineSchedule(), description="The course of the rate after the warm-up."
    )
    warmup_fraction: Fraction = Field(
        0.1, description="Part of the stage's steps with a linearly rising rate."
    )
    batch_norm: BatchNormMode | Auto = Field(
        "auto", description="Statistics of the blocks that train; frozen blocks never move."
    )
    early_stopping: EarlyStopping | None = Field(None, description="Off unless given.")

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        if self.solver == "probe":
            self._check_probe()
        stopping = self.early_stopping
        if stopping and self.epochs != "auto" and stopping.patience >= self.epochs:
            raise _refuse("early_stopping.patience", cannot_fire(stopping.patience, self.epochs))
        return self

    def _check_probe(self) -> None:
        """Refuse what a probe does not have: it fits the head, without steps."""
        problems = []
        if not isinstance(self.train, HeadPolicy):
            problems.append(Problem("train", "solver: probe fits the head", hint="write head"))
        foreign = self.model_fields_set.difference(_PROBE_VALUES)
        for name in (name for name in type(self).model_fields if name in foreign):
            if type(self) is Stage:
                message = f"a stage with solver: probe has no {name}"
                problems.append(Problem(name, message, hint="leave it out"))
        if problems:
            raise RecipeError(problems)

    @model_serializer(mode="wrap")
    def _without_unused(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Write of a probe stage only what it has, so that it can be read again."""
        values: dict[str, Any] = handler(self)
        if self.solver == "probe":
            return {name: values[name] for name in _PROBE_VALUES if name in values}
        return values


def cannot_fire(patience: int, epochs: int) -> str:
    """Say why early stopping makes no sense: it would need more epochs than there are."""
    return f"early stopping with patience {patience} cannot fire within epochs: {epochs}"


class TrainingSection(Section):
    """How every gradient stage steps; each regulariser is off unless given."""

    batch_size: WholeNumber = Field(32, ge=1, le=65_536, description="Images a step on one device.")
    accumulate: WholeNumber = Field(1, ge=1, description="Batches whose gradients make one step.")
    clip_norm: Annotated[Number, Field(gt=0)] | None = Field(
        None, description="Largest norm of the gradient."
    )
    label_smoothing: Fraction = Field(
        0.0, description="Share of each label spread over all classes (1512.00567)."
    )
    mixup: Number = Field(0.0, ge=0, description="Alpha of mixup (1710.09412); 0 is off.")
    cutmix: Number = Field(0.0, ge=0, description="Alpha of CutMix (1905.04899); 0 is off.")
    class_weights: Literal["none", "balanced"] = Field(
        "none", description="balanced weighs the loss by inverse class frequency."
    )
    sampler: Literal["shuffle", "balanced"] = Field(
        "shuffle", description="balanced draws every class equally often, with repetition."
    )
    ema: Annotated[Number, Field(gt=0, lt=1)] | None = Field(
        None, description="Decay of an exponential moving average of the weights; it is evaluated."
    )


class RuntimeSection(Section):
    """Where and in which arithmetic it runs."""

    device: Device = Field("auto", description="auto, cpu, cuda, cuda:1, mps.")
    precision: Precision | Auto = Field("auto", description="Of training; figures are fp32.")
    memory_format: MemoryFormat | Auto = Field("auto", description="Layout of image tensors.")
    workers: Workers | Auto = Field(
        "auto", description="Processes that decode; the result does not depend on it."
    )


class EvaluateSection(Section):
    """Which figure chooses among models."""

    select_by: SelectionMetric = Field(
        "val_macro_f1", description="The validation figure that chooses the best weights."
    )


class Recipe(Section):
    """What a run does, as a person writes it.

    Raises:
        RecipeError: All problems at once, by dotted path; from a file also by line.

    Example:
        >>> Recipe(stages=[{"name": "head", "train": "head", "solver": "probe"}]).stages[0].solver
        'probe'
    """

    schema_version: Literal[1] = Field(1, description="Of the recipe's own format.")
    name: Annotated[str, BeforeValidator(_recipe_name)] = Field(
        "custom", pattern=_RECIPE_NAME, description="Its name."
    )
    seed: WholeNumber = Field(0, ge=0, lt=2**32, description="All randomness follows from it.")
    model: ModelSection = Field(ModelSection(), description="The network.")
    data: DataSection = Field(DataSection(), description="The photos.")
    augment: Augment = Field(StandardAugment(), description="Changes to training images only.")
    stages: tuple[Stage, ...] = Field(
        (Stage(name="head", train=HeadPolicy(), solver="probe"),),
        min_length=1,
        description="What learns, stage after stage.",
    )
    training: TrainingSection = Field(TrainingSection(), description="How gradient stages step.")
    runtime: RuntimeSection = Field(RuntimeSection(), description="Where it runs.")
    evaluate: EvaluateSection = Field(EvaluateSection(), description="What chooses.")

    @field_validator("schema_version", mode="before")
    @classmethod
    def _is_of_this_version(cls, value: Any) -> Any:
        if isinstance(value, int) and value > 1:
            hint = f"pip install --upgrade {DISTRIBUTION}"
            raise _refuse("", f"this version of finetune reads version 1, not {value}", hint=hint)
        return value

    @field_validator("stages")
    @classmethod
    def _names_differ(cls, stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
        names = [stage.name for stage in stages]
        for index, name in enumerate(names):
            if name in names[:index]:
                raise _refuse(f"{index}.name", f"two stages are called {name!r}; names must differ")
        return stages

    @model_validator(mode="after")
    def _probe_fits_head(self) -> Self:
        kind = self.model.head.kind
        if kind != "linear" and any(stage.solver == "probe" for stage in self.stages):
            raise _refuse(
                "model.head",
                f"a stage with solver: probe fits a linear head, but the head is {kind}",
                hint="write head: linear, or train the head by gradient",
            )
        return self


class ResolvedDataSection(DataSection):
    """Data section of a run."""

    path: str
    resize: ResizeMode


class ResolvedStage(Stage):
    """Stage of a run; a probe has one epoch, and no use for it."""

    epochs: Epochs
    layer_decay: LayerDecay
    batch_norm: BatchNormMode


class ResolvedRuntimeSection(RuntimeSection):
    """Runtime section of a run."""

    device: str = Field(pattern=r"^(cpu|mps|cuda(:\d+)?)$")
    precision: Precision
    memory_format: MemoryFormat
    workers: Workers


class ResolvedRecipe(Recipe):
    """What a run does: no value is "auto" any more.

    Attributes:
        reasons: Why each automatic value is what it is, by dotted path (`stages.1.epochs`).
    """

    data: ResolvedDataSection
    stages: tuple[ResolvedStage, ...]
    runtime: ResolvedRuntimeSection
    reasons: dict[str, str] = Field(default_factory=dict, exclude=True)

    def to_recipe(self) -> Recipe:
        """Give the plain recipe that repeats this run."""
        return Recipe.read(self.model_dump())
