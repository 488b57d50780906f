"""The schema of a recipe: every value a run depends on, with its range and its default.

`Recipe` is what a person writes; some values may be `auto`. `ResolvedRecipe` is what a run does;
none is. They are two types, so that "auto" cannot reach training. A recipe loads without torch:
what is heavy stands inside the verbs of its components. Only `load.py` knows YAML.

A validator here raises a RecipeError whose paths begin at the value that it checks; plain values
check themselves (`kinds.py`).
"""

from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    field_validator,
    model_validator,
)

from finetune.components.augment import Augment, StandardAugment
from finetune.components.heads import Head, LinearHead
from finetune.components.pixels import MAX_PIXELS
from finetune.components.policies import HeadPolicy
from finetune.components.section import Number, Section, WholeNumber
from finetune.components.trackers import TrackSection
from finetune.errors import DISTRIBUTION
from finetune.recipe.kinds import (
    SELECTION_METRICS,
    Auto,
    BatchNormMode,
    Device,
    Epochs,
    Fraction,
    FrozenPrecision,
    ImageSize,
    LayerDecay,
    MemoryFormat,
    Precision,
    RecipeName,
    ResizeMode,
    SelectionMetric,
    Share,
    Views,
    Workers,
    refuse,
)
from finetune.recipe.stages import Stage

__all__ = [
    "SELECTION_METRICS",
    "Auto",
    "DataSection",
    "EvaluateSection",
    "ModelSection",
    "Recipe",
    "ReportSection",
    "ResolvedDataSection",
    "ResolvedRecipe",
    "ResolvedRuntimeSection",
    "ResolvedStage",
    "RuntimeSection",
    "TrainingSection",
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
            raise refuse("weights", "a weights file is named, but pretrained is false; drop one")
        return self


class DataSection(Section):
    """The photos: where they are, how they are split, how they become input."""

    path: str | None = Field(None, description="A folder by class or a CSV; --data sets it.")
    listed: bool = Field(
        False, description="Photos and labels were given one by one; no folder or CSV has them."
    )
    val_fraction: Number = Field(
        0.15, gt=0, lt=0.9, description="Part of train carved out where there is no val."
    )
    test_fraction: Fraction = Field(
        0.15, description="Part carved out of a flat folder or a CSV without splits."
    )
    exclude: str | None = Field(
        None, description="A fix list of finetune check; --exclude sets it."
    )
    split: str | None = Field(
        None, description="The split.csv of an earlier run, to use again; --split sets it."
    )
    resize: ResizeMode | Auto = Field(
        "auto", description="crop cuts the long side, pad keeps all pixels, squash distorts."
    )
    max_pixels: WholeNumber = Field(
        MAX_PIXELS,
        ge=1,
        le=MAX_PIXELS,
        description="Images with more pixels are left out, unread.",
    )
    follow_links: bool = Field(
        False, description="Take photos that links lead to outside of the data folder."
    )
    decode: Literal["full", "reduced"] = Field(
        "full",
        description="reduced: large JPEGs at a half to an eighth, in training and prediction.",
    )


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
    manifold_mixup: Number = Field(
        0.0,
        ge=0,
        description="Alpha of mixup of what frozen layers computed once (1806.05236); 0 is off.",
    )
    class_weights: Literal["none", "balanced"] = Field(
        "none", description="balanced weighs the loss by inverse class frequency."
    )
    sampler: Literal["shuffle", "balanced"] = Field(
        "shuffle", description="balanced draws every class equally often, with repetition."
    )
    max_skipped: WholeNumber = Field(
        0, ge=0, description="Batches an epoch that may be left out since their loss is not finite."
    )
    ema: Annotated[Number, Field(gt=0, lt=1)] | None = Field(
        None, description="Decay of an exponential moving average of the weights; it is evaluated."
    )

    @model_validator(mode="after")
    def _mixes_in_one_place(self) -> Self:
        if self.manifold_mixup and (self.mixup or self.cutmix):
            raise refuse("manifold_mixup", "mixup and CutMix mix images; drop them or this")
        return self


class RuntimeSection(Section):
    """Where and in which arithmetic it runs."""

    device: Device = Field("auto", description="auto, cpu, cuda, cuda:1, mps.")
    precision: Precision | Auto = Field("auto", description="Of training; figures are fp32.")
    frozen_precision: FrozenPrecision | Auto = Field(
        "auto", description="Of layers that are computed once, and of what is stored of them."
    )
    memory_format: MemoryFormat | Auto = Field("auto", description="Layout of image tensors.")
    compile: bool = Field(
        False, description="Compile training steps by torch.compile; it rounds in another order."
    )
    workers: Workers | Auto = Field(
        "auto", description="Processes that decode; the result does not depend on it."
    )
    cache_gib: Number = Field(
        10.0,  # 50,000 images of 200 KiB, or 2 million of 5 KiB
        ge=0,
        description="Of disk for all that frozen layers computed, which runs share; 0 stores "
        "nothing there.",
    )
    cache_memory_share: Number = Field(
        0.5, ge=0, le=1, description="Of free memory for it, where the disk has no room."
    )
    checkpoint_share: Number = Field(
        0.02,
        ge=0,
        le=1,
        description="Largest share of the time that checkpoints may take; 0 writes none.",
    )
    checkpoint_gib: Number = Field(20.0, ge=0, description="Of disk for checkpoints.")


class EvaluateSection(Section):
    """Which figure chooses among models, and what is fitted on validation afterwards."""

    select_by: SelectionMetric = Field(
        "val_macro_f1", description="The validation figure that chooses the best weights."
    )
    temperature: bool = Field(
        True, description="Divide logits by a temperature that makes probabilities honest."
    )
    reject_at_precision: Share | None = Field(
        None, description="Withhold unsure answers, so that this share of the others is right."
    )
    conformal_coverage: Share | None = Field(
        None, description="Name sets of classes, this share of which hold the right one."
    )
    novelty: bool = Field(
        True, description="Compare photos with some of training: unlike ones have a score above 1."
    )


class ReportSection(Section):
    """What the page of a run shows beside what its tables say."""

    maps: Literal["grad-cam", "none"] = Field(
        "grad-cam", description="Where the model looked, for the photos that the page is about."
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
    name: RecipeName = Field("custom", description="Its name.")
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
    evaluate: EvaluateSection = Field(
        EvaluateSection(), description="What chooses, what is fitted."
    )
    report: ReportSection = Field(ReportSection(), description="What the page of the run shows.")
    track: TrackSection = Field(TrackSection(), description="What is told of the run.")

    @field_validator("schema_version", mode="before")
    @classmethod
    def _is_of_this_version(cls, value: Any) -> Any:
        if isinstance(value, int) and value > 1:
            hint = f"pip install --upgrade {DISTRIBUTION}"
            raise refuse("", f"this version of finetune reads version 1, not {value}", hint=hint)
        return value

    @field_validator("stages")
    @classmethod
    def _names_differ(cls, stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
        names = [stage.name for stage in stages]
        for index, name in enumerate(names):
            if name in names[:index]:
                raise refuse(f"{index}.name", f"two stages are called {name!r}; names must differ")
        return stages

    @model_validator(mode="after")
    def _probe_fits_head(self) -> Self:
        kind = self.model.head.kind
        if kind != "linear" and any(stage.solver == "probe" for stage in self.stages):
            raise refuse(
                "model.head",
                f"a stage with solver: probe fits a linear head, but the head is {kind}",
                hint="write head: linear, or train the head by gradient",
            )
        return self

    @property
    def makes_steps(self) -> bool:
        """Whether a stage learns by gradient; a probe is fitted."""
        return any(stage.solver == "gradient" for stage in self.stages)


class ResolvedDataSection(DataSection):
    """Data section of a run."""

    path: str
    resize: ResizeMode


class ResolvedStage(Stage):
    """Stage of a run; a probe has one epoch, and no use for it."""

    epochs: Epochs
    layer_decay: LayerDecay
    batch_norm: BatchNormMode
    views: Views


class ResolvedRuntimeSection(RuntimeSection):
    """Runtime section of a run."""

    device: str = Field(pattern=r"^(cpu|mps|cuda(:\d+)?)$")
    precision: Precision
    frozen_precision: FrozenPrecision
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
