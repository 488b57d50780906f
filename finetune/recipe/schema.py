"""The schema of a recipe: every value a run depends on, with its range and its default.

`Recipe` is what a person writes; some values may be `auto`. `ResolvedRecipe` is what a run does;
none is. They are two types, so that "auto" cannot reach training. A recipe loads without torch:
what is heavy stands inside the verbs of its components. Only `load.py` knows YAML.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from finetune.components.augment import Augment, StandardAugment
from finetune.components.heads import Head, LinearHead
from finetune.components.metrics import METRICS
from finetune.components.optimizers import Optimizer, OptimizerSection
from finetune.components.policies import HeadPolicy, Policy
from finetune.components.schedules import CosineSchedule, Schedule
from finetune.components.section import Section
from finetune.errors import nearest

__all__ = [
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
Fraction = Annotated[float, Field(ge=0, lt=1)]
ResizeMode = Literal["crop", "pad", "squash"]
Precision = Literal["fp32", "bf16", "fp16"]
MemoryFormat = Literal["contiguous", "channels_last"]


def _selection_metric(value: str) -> str:
    """Check that a selection metric is a validation figure that exists."""
    if value.startswith("test_"):
        raise ValueError("the test part is never used for a choice; take a val_ metric")
    allowed = [f"val_{name}" for name in METRICS]
    if value not in allowed:
        near = nearest(value, allowed)
        tail = f"; did you mean {near}?" if near else ""
        raise ValueError(f"there is no metric {value!r}{tail} Allowed: {', '.join(allowed)}")
    return value


SelectionMetric = Annotated[str, BeforeValidator(_selection_metric)]


class ModelSection(Section):
    """The network: a pretrained backbone and a new head."""

    backbone: str = Field(
        "efficientnet_b0",
        min_length=1,
        description="What timm.create_model takes: a name, name.tag, hf-hub:user/model, local-dir:path.",
    )
    pretrained: bool = Field(True, description="Load pretrained weights.")
    weights: str | None = Field(None, description="A weights file instead of the backbone's own.")
    head: Head = Field(LinearHead(), description="What turns features into logits.")
    drop_rate: Fraction = Field(0.0, description="Dropout before the classifier, in training.")
    drop_path_rate: Fraction = Field(0.0, description="Stochastic depth, in training.")


class DataSection(Section):
    """The photos: where they are, how they are split, how they become input."""

    path: str | None = Field(None, description="A folder by class or a CSV; --data sets it.")
    val_fraction: float = Field(
        0.15, gt=0, lt=0.9, description="Part of train carved out where there is no val."
    )
    test_fraction: Fraction = Field(
        0.15, description="Part carved out of a flat folder or a CSV without splits."
    )
    resize: ResizeMode | Auto = Field(
        "auto", description="crop cuts the long side, pad keeps all pixels, squash distorts."
    )
    max_pixels: int = Field(
        178_956_970,  # Pillow's own limit against decompression bombs: 1 GiB at 3 bytes, twice over
        ge=1,
        description="Images with more pixels are left out, unread.",
    )


class EarlyStopping(Section):
    """End a stage when a validation figure no longer improves."""

    metric: SelectionMetric = "val_macro_f1"
    patience: int = Field(ge=1, description="Epochs without improvement before the stage ends.")
    min_delta: float = Field(0.0, ge=0, description="What counts as improvement.")


class Stage(Section):
    """One stage of training: what learns, for how long, how fast."""

    name: str = Field(pattern=r"^[A-Za-z0-9_-]{1,40}$", description="Its name in tables.")
    train: Policy = Field(description="What learns; everything else is frozen, BatchNorm included.")
    solver: Literal["gradient", "probe"] = Field(
        "gradient",
        description="gradient: epochs of steps. probe: L2 logistic regression on frozen features.",
    )
    epochs: Annotated[int, Field(ge=1, le=10_000)] | Auto = Field(
        "auto", description="Passes over the training images."
    )
    lr: float = Field(1e-4, gt=0, le=10, description="Learning rate of the last layers.")
    layer_decay: Annotated[float, Field(gt=0, le=1)] | Auto = Field(
        1.0, description="Factor on the learning rate for each depth away from the head."
    )
    weight_decay: float = Field(0.05, ge=0, lt=1, description="Not on biases, norms and scales.")
    optimizer: Optimizer = OptimizerSection()
    schedule: Schedule = CosineSchedule()
    warmup_fraction: Fraction = Field(
        0.1, description="Part of the stage's steps with a linearly rising rate."
    )
    batch_norm: Literal["trained", "frozen"] = Field(
        "trained", description="Statistics of the blocks that train; frozen blocks never move."
    )
    early_stopping: EarlyStopping | None = Field(None, description="Off unless given.")

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        if self.solver == "probe":
            if not isinstance(self.train, HeadPolicy):
                raise ValueError("solver: probe fits the head; write train: head")
            foreign = sorted(self.model_fields_set - {"name", "train", "solver"})
            if foreign and type(self) is Stage:
                raise ValueError(f"solver: probe has no {', '.join(foreign)}; leave it out")
        stopping = self.early_stopping
        if stopping and self.epochs != "auto" and stopping.patience >= self.epochs:
            raise ValueError(
                f"early_stopping.patience {stopping.patience} cannot fire within "
                f"{self.epochs} epochs; it must be smaller"
            )
        return self


class TrainingSection(Section):
    """How every gradient stage steps; each regulariser is off unless given."""

    batch_size: int = Field(32, ge=1, le=65_536, description="Images a step on one device.")
    accumulate: int = Field(1, ge=1, description="Batches whose gradients make one step.")
    clip_norm: Annotated[float, Field(gt=0)] | None = Field(
        None, description="Largest norm of the gradient."
    )
    label_smoothing: Fraction = Field(0.0, description="1512.00567.")
    mixup: float = Field(0.0, ge=0, description="Alpha of mixup (1710.09412); 0 is off.")
    cutmix: float = Field(0.0, ge=0, description="Alpha of CutMix (1905.04899); 0 is off.")
    class_weights: Literal["none", "balanced"] = Field(
        "none", description="balanced weighs the loss by inverse class frequency."
    )
    sampler: Literal["shuffle", "balanced"] = Field(
        "shuffle", description="balanced draws every class equally often, with repetition."
    )
    ema: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None, description="Decay of an exponential moving average of the weights; it is evaluated."
    )


class RuntimeSection(Section):
    """Where and in which arithmetic it runs."""

    device: str = Field(
        "auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$", description="auto, cpu, cuda, cuda:1, mps."
    )
    precision: Precision | Auto = Field("auto", description="Of training; figures are fp32.")
    memory_format: MemoryFormat | Auto = Field("auto", description="Layout of image tensors.")
    workers: Annotated[int, Field(ge=0, le=256)] | Auto = Field(
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
        RecipeError: From `finetune.recipe.load`, which reports all problems at once.

    Example:
        >>> Recipe(stages=[{"name": "head", "train": "head", "solver": "probe"}]).stages[0].solver
        'probe'
    """

    schema_version: Literal[1] = 1
    name: str = Field("custom", pattern=r"^[A-Za-z0-9_.-]{1,60}$", description="Its name.")
    seed: int = Field(0, ge=0, lt=2**32, description="All randomness follows from it.")
    model: ModelSection = ModelSection()
    data: DataSection = DataSection()
    augment: Augment = Field(StandardAugment(), description="Changes to training images only.")
    stages: tuple[Stage, ...] = Field(
        (Stage(name="head", train=HeadPolicy(), solver="probe"),),
        min_length=1,
        description="What learns, stage after stage.",
    )
    training: TrainingSection = TrainingSection()
    runtime: RuntimeSection = RuntimeSection()
    evaluate: EvaluateSection = EvaluateSection()

    @field_validator("stages")
    @classmethod
    def _names_differ(cls, stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
        names = [stage.name for stage in stages]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two stages are called {twice[0]!r}; names must differ")
        return stages

    @model_validator(mode="after")
    def _probe_fits_head(self) -> Self:
        if (
            any(stage.solver == "probe" for stage in self.stages)
            and self.model.head.kind != "linear"
        ):
            raise ValueError(
                f"solver: probe fits a linear head, but model.head is {self.model.head.kind}"
            )
        return self


class ResolvedDataSection(DataSection):
    """Data section of a run."""

    path: str
    resize: ResizeMode


class ResolvedStage(Stage):
    """Stage of a run."""

    epochs: Annotated[int, Field(ge=1, le=10_000)]
    layer_decay: Annotated[float, Field(gt=0, le=1)]


class ResolvedRuntimeSection(RuntimeSection):
    """Runtime section of a run."""

    precision: Precision
    memory_format: MemoryFormat
    workers: Annotated[int, Field(ge=0, le=256)]


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
        values: dict[str, Any] = self.model_dump(mode="json")
        return Recipe.model_validate(values)
