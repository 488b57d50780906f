"""A stage of gradient steps: its optimiser, loss and loader prepared, its epochs run."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from finetune.components.metrics import is_loss
from finetune.errors import TrainingError
from finetune.runtime.interrupts import interrupts_deferred
from finetune.torchvision_ops import register_missing_ops
from finetune.train.checkpoint import Keeper
from finetune.train.events import FrozenLayers, Warned, progress_events
from finetune.train.freeze import Freezing
from finetune.train.loop import EpochSeed, Stepper, Tally, train_epoch, validate
from finetune.train.loss import CrossEntropy, balanced_weights
from finetune.train.mixing import make_mix
from finetune.train.once import Once, compute_once
from finetune.train.optim import make_optimizer, make_schedule
from finetune.train.session import UNKNOWN, Epoch, Session, figures_of, offer
from finetune.train.state import restore_stepper, session_state, stepper_state
from finetune.train.stored import FromStored

if TYPE_CHECKING:
    from finetune.recipe.schema import ResolvedStage
    from finetune.recipe.stages import EarlyStopping
    from finetune.train.stored import Crossing

__all__ = ["train_stage"]


@dataclass(slots=True)
class Course:
    """Where a gradient stage stands.

    Attributes:
        stage_index: 0-based position of the stage.
        epoch: 1-based epoch that is under way.
        tally: How far it is.
        best: The best figure that early stopping has seen.
        num_waited: Epochs since.
        note: How the stage ended; empty while it goes on.
        is_stored: Whether its frozen layers are computed once; None until that is known.
    """

    stage_index: int
    epoch: int = 1
    tally: Tally = field(default_factory=Tally)
    best: float = UNKNOWN
    num_waited: int = 0
    note: str = ""
    is_stored: bool | None = None

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> Course:
        """Make one of the values that `asdict` gave."""
        return cls(**{**values, "tally": Tally(**values["tally"])})

    def begin_next(self) -> None:
        """Go on to the next epoch."""
        self.epoch, self.tally = self.epoch + 1, Tally(num_pieces=self.tally.num_pieces)

    def has_stalled(self, stopping: EarlyStopping | None, figures: Mapping[str, float]) -> bool:
        """Take the figures of an epoch; say whether the stage shall end without improvement."""
        if stopping is None:
            return False
        score = figures.get(stopping.metric, UNKNOWN)
        gain = self.best - score if is_loss(stopping.metric) else score - self.best
        if math.isnan(self.best) or gain > stopping.min_delta:
            self.best, self.num_waited = score, 0
        else:
            self.num_waited += 1
        return self.num_waited >= stopping.patience


def train_stage(
    session: Session, stage: ResolvedStage, freezing: Freezing, *, stage_index: int
) -> str:
    """Train by gradient for the epochs of a stage, from where an interruption left it.

    Returns:
        A note on how it ended; empty where it ran its epochs.

    Raises:
        TrainingError: The loss or the weights are not finite, or memory does not suffice.
    """
    course = Course(stage_index)
    if session.resumed is not None:
        course = Course.read(session.resumed["course"])
    with ExitStack() as held:
        found = compute_once(session, stage, held, was_stored=course.is_stored)
        course.is_stored = found.value is not None
        if found.reason:
            session.on_event(FrozenLayers(stage.name, found.value is not None, found.reason))
            if found.value is None and session.recipe.training.manifold_mixup:
                session.on_event(Warned(f"stage {stage.name!r} goes without manifold_mixup"))
        work = _prepare(session, stage, freezing, found.value)
        if session.resumed is not None:
            restore_stepper(work.stepper, session.resumed)
            session.resumed = None
        _train(session, stage, work, course)
    return course.note


def _train(session: Session, stage: ResolvedStage, work: _Work, course: Course) -> None:
    """Run the epochs of a stage that are left."""
    stepper = work.stepper
    keeper = Keeper(session.checkpoints, lambda: _state(session, work, course))
    while course.epoch <= stage.epochs and not course.note:
        started = time.perf_counter()
        _run_epoch(session, work, course, keeper)
        weights = stepper.ema.module if stepper.ema is not None else session.network
        with keeper.interruptions_saved():
            figures = _validate(session, work, stage=stage.name, epoch=course.epoch)
        session.num_steps += course.tally.num_steps
        epoch = Epoch(
            stage=stage.name,
            number=course.epoch,
            train_loss=course.tally.loss,
            images_per_second=course.tally.images_per_second,
            figures=figures,
            lr=max(group["lr"] for group in stepper.optimizer.param_groups),
            seconds=time.perf_counter() - started,
        )
        offer(session, epoch, weights)
        if course.has_stalled(stage.early_stopping, figures):
            course.note = f"stopped early after epoch {course.epoch}; "
        course.begin_next()
        keeper.look()
    session.accelerator.unwrap_model(stepper.network, keep_fp32_wrapper=False)
    session.accelerator.free_memory()


def _run_epoch(session: Session, work: _Work, course: Course, keeper: Keeper) -> None:
    """Train for what is left of an epoch; an interruption waits for the end of a step."""
    recipe, tally = session.recipe, course.tally
    stage = recipe.stages[course.stage_index]
    seed = EpochSeed(recipe.seed, course.stage_index, course.epoch, stage.name)
    skip = tally.num_batches * recipe.training.batch_size
    work.begin_epoch(course.stage_index, course.epoch, skip=skip)
    with interrupts_deferred() as request:

        def after_step() -> None:
            if request.is_made:
                keeper.save()
                raise KeyboardInterrupt
            keeper.look()

        train_epoch(
            work.stepper,
            work.train,
            seed,
            tally=tally,
            after_step=after_step,
            progress=progress_events("train", session.on_event),
        )


def _state(session: Session, work: _Work, course: Course) -> dict[str, Any]:
    """Take everything that what comes next depends on."""
    return {
        "course": asdict(course),
        **session_state(session),
        **stepper_state(work.stepper, session.network),
    }


@dataclass(frozen=True, slots=True)
class _Work:
    """What a stage steps with and reads: images, or what frozen layers computed once.

    Attributes:
        stepper: All that a step needs.
        train: Batches of training.
        val: Batches of validation; None where there is no such part.
        judged: What is validated: the network, its trained part, or that of its moving average.
        begin_epoch: Tells the batches of training which epoch comes next.
    """

    stepper: Stepper
    train: Any
    val: Any
    judged: nn.Module
    begin_epoch: Callable[..., None]


def _prepare(
    session: Session, stage: ResolvedStage, freezing: Freezing, once: Once | None
) -> _Work:
    """Prepare network, optimiser and loss of a gradient stage for the device."""
    inputs, accelerator = session.inputs, session.accelerator
    training, num_classes = session.recipe.training, len(inputs.counts)
    train = inputs.train if once is None else once.train
    optimizer = make_optimizer(session.network, freezing, stage)
    steps_per_epoch = -(-len(train) // training.accumulate)
    schedule = make_schedule(optimizer, stage, num_steps=max(1, steps_per_epoch * stage.epochs))
    whole: nn.Module = session.network if once is None else once.network
    network, prepared = accelerator.prepare(whole, optimizer)
    ema = _make_ema(session)
    averaged: Any = session.network if ema is None else ema.module
    stepper = Stepper(
        accelerator=accelerator,
        network=network,
        optimizer=prepared,
        schedule=schedule,
        loss=_make_loss(session).to(accelerator.device),
        normalize=session.preprocessing.normalize if once is None else _ready_for(session),
        names=[sample.name for sample in inputs.train_part.samples],
        warn=lambda message: session.on_event(Warned(message)),
        mix=make_mix(training, num_classes, is_stored=once is not None),
        clip_norm=training.clip_norm,
        ema=ema,
        averaged=session.network,
        batch_norm=stage.batch_norm,
        max_skipped=training.max_skipped,
    )
    if once is None:
        return _Work(stepper, train, inputs.val, averaged, inputs.begin_epoch)
    judged = once.network if ema is None else FromStored(once.split.trained.of(averaged))
    return _Work(stepper, train, once.val, judged, once.sampler.begin_epoch)


def _ready_for(session: Session) -> Callable[[Crossing], Crossing]:
    """Give what brings stored tensors to fp32 where training is in it; mixed precisions cast."""
    is_exact = session.recipe.runtime.precision == "fp32"
    return lambda crossing: tuple(map(torch.Tensor.float, crossing)) if is_exact else crossing


def _make_loss(session: Session) -> CrossEntropy:
    """Cross entropy, smoothed and weighted as the recipe says."""
    training, counts = session.recipe.training, session.inputs.counts
    weights = balanced_weights(counts) if training.class_weights == "balanced" else None
    return CrossEntropy(weights, label_smoothing=training.label_smoothing)


def _make_ema(session: Session) -> Any:
    """A moving average of the weights, warmed up so that short stages profit too."""
    if session.recipe.training.ema is None:
        return None
    register_missing_ops()
    from timm.utils import ModelEmaV3

    return ModelEmaV3(session.network, decay=session.recipe.training.ema, use_warmup=True)


def _validate(session: Session, work: _Work, *, stage: str, epoch: int) -> dict[str, float]:
    """Compute the validation figures of the weights; none where there is no validation part.

    Raises:
        TrainingError: The weights have diverged.
    """
    if work.val is None:
        return {}
    report = progress_events("val", session.on_event)
    probs, labels = validate(work.stepper, work.judged, work.val, progress=report)
    if not np.isfinite(probs).all():
        raise TrainingError(
            f"what the network says of validation is not finite after stage {stage!r}, epoch "
            f"{epoch}: its weights have diverged",
            hint="lower the stage's lr, or give training.clip_norm: 1.0",
        )
    return figures_of(session.recipe, probs, labels)
