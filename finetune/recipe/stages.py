"""A stage of a recipe: what learns, by what, for how long."""

from typing import Any, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from finetune.components.optimizers import Optimizer, OptimizerSection
from finetune.components.policies import HeadPolicy, Policy
from finetune.components.schedules import CosineSchedule, Schedule
from finetune.components.section import Number, Section, WholeNumber
from finetune.errors import Problem, RecipeError
from finetune.recipe.kinds import (
    Auto,
    BatchNormMode,
    Epochs,
    Fraction,
    LayerDecay,
    SelectionMetric,
    StageName,
    Views,
    refuse,
)

__all__ = ["EarlyStopping", "Stage", "cannot_fire"]

_PROBE_VALUES = ("name", "train", "solver")  # all that a probe stage has


class EarlyStopping(Section):
    """End a stage when a validation figure no longer improves."""

    metric: SelectionMetric = Field("val_macro_f1", description="The figure that is watched.")
    patience: WholeNumber = Field(
        ge=1, description="Epochs without improvement before the stage ends."
    )
    min_delta: Number = Field(0.0, ge=0, description="What counts as improvement.")


class Stage(Section):
    """One stage of training: what learns, for how long, how fast."""

    name: StageName = Field(description="Its name in tables.")
    train: Policy = Field(description="What learns; everything else is frozen, BatchNorm included.")
    solver: Literal["gradient", "probe"] = Field(
        "gradient",
        description="gradient: epochs of steps. probe: L2 logistic regression on frozen features.",
    )
    epochs: Epochs | Auto = Field(
        "auto",
        description="Passes over the training images; auto: near 400 steps, in 5 to 30 passes, "
        "from 2,000 images on in 5 to 10; from random weights near 1,500 steps, in 20 to 100.",
    )
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
    views: Views | Auto = Field(
        "auto",
        description="Views of a photo that frozen layers compute once, for all epochs to draw "
        "from; the first is evaluation's. 0 computes them anew in every epoch.",
    )
    early_stopping: EarlyStopping | None = Field(None, description="Off unless given.")

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        if self.solver == "probe":
            self._check_probe()
        stopping = self.early_stopping
        if stopping and self.epochs != "auto" and stopping.patience >= self.epochs:
            raise refuse("early_stopping.patience", cannot_fire(stopping.patience, self.epochs))
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
