"""What the stages of a run share while they run, and the one way an epoch enters the record."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import nn

from finetune.components.metrics import METRICS
from finetune.train.best import Best, Candidate
from finetune.train.events import EpochEnded

if TYPE_CHECKING:
    import numpy as np
    from accelerate import Accelerator
    from numpy.typing import NDArray

    from finetune.components.preprocess import Preprocessing
    from finetune.model.network import Network
    from finetune.recipe.schema import ResolvedRecipe
    from finetune.train.checkpoint import Checkpoints
    from finetune.train.events import OnEvent
    from finetune.train.inputs import Inputs

__all__ = ["UNKNOWN", "Epoch", "Session", "figures_of", "offer"]

UNKNOWN = float("nan")
_SHOWN = ("val_accuracy", "val_log_loss", "val_macro_f1")  # of every epoch


@dataclass(slots=True)
class Session:
    """What the stages share while they run.

    Attributes:
        network: In training.
        recipe: What to do.
        inputs: What is read.
        preprocessing: Normalises batches.
        accelerator: Places them.
        on_event: Receives what happens.
        best: The best weights so far.
        checkpoints: Where the state of training is kept; None to keep none.
        resumed: The state that the run goes on from, until its stage has taken it up.
        num_steps: Optimiser steps of the epochs that are over.
        history: The epochs that are over.
        seconds: What each stage cost, by name.
        probe: Its validation accuracy and the seconds it cost.
    """

    network: Network
    recipe: ResolvedRecipe
    inputs: Inputs
    preprocessing: Preprocessing
    accelerator: Accelerator
    on_event: OnEvent
    best: Best
    checkpoints: Checkpoints | None = None
    resumed: Mapping[str, Any] | None = None
    num_steps: int = 0
    history: list[EpochEnded] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    probe: tuple[float, float] | None = None
    _stage: str = ""
    _counted_at: float = 0.0

    def begin(self, stage: str) -> None:
        """Begin to count what a stage costs; what it cost before an interruption is counted."""
        self._stage, self._counted_at = stage, time.perf_counter()

    def count_seconds(self) -> None:
        """Bring the cost of the stage under way up to date."""
        now = time.perf_counter()
        self.seconds[self._stage] = self.seconds.get(self._stage, 0.0) + now - self._counted_at
        self._counted_at = now


@dataclass(frozen=True, slots=True)
class Epoch:
    """One epoch as a stage saw it.

    Attributes:
        stage: Name of the stage.
        number: 1-based within the stage.
        train_loss: Mean over the training images.
        images_per_second: Training images per second.
        figures: Validation figures by selection name; empty where there is no validation part.
        lr: Largest learning rate at its end.
        seconds: Of the epoch, validation included.
    """

    stage: str
    number: int
    train_loss: float
    images_per_second: float
    figures: Mapping[str, float]
    lr: float
    seconds: float


def figures_of(
    recipe: ResolvedRecipe, probs: NDArray[np.float32] | None, labels: NDArray[np.int64]
) -> dict[str, float]:
    """The metrics on validation that a run looks at, by their selection names.

    Not all: of ten thousand classes some take minutes.
    """
    if probs is None:
        return {}
    stopping = (stage.early_stopping for stage in recipe.stages)
    names = {*_SHOWN, recipe.evaluate.select_by, *(one.metric for one in stopping if one)}
    return {name: METRICS[name.removeprefix("val_")](probs, labels) for name in sorted(names)}


def offer(session: Session, epoch: Epoch, weights: nn.Module) -> None:
    """Offer the weights of an epoch as the best, and report the epoch."""
    val_loss = epoch.figures.get("val_log_loss", UNKNOWN)
    score = epoch.figures.get(session.recipe.evaluate.select_by, UNKNOWN)
    candidate = Candidate(epoch.stage, epoch.number, score, val_loss)
    is_best = session.best.offer(candidate, weights)
    row = EpochEnded(
        stage=epoch.stage,
        epoch=epoch.number,
        step=session.num_steps,
        train_loss=epoch.train_loss,
        val_loss=val_loss,
        val_accuracy=epoch.figures.get("val_accuracy", UNKNOWN),
        val_macro_f1=epoch.figures.get("val_macro_f1", UNKNOWN),
        lr=epoch.lr,
        images_per_second=epoch.images_per_second,
        seconds=epoch.seconds,
        is_best=is_best,
    )
    session.history.append(row)
    session.on_event(row)
