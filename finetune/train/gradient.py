"""A stage of gradient steps: its optimiser, loss and loader prepared, its epochs run."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from finetune.components.metrics import is_loss
from finetune.torchvision_ops import register_missing_ops
from finetune.train.events import FrozenLayers, progress_events
from finetune.train.freeze import Freezing
from finetune.train.loop import EpochSeed, Stepper, train_epoch, validate
from finetune.train.once import Once, compute_once
from finetune.train.optim import make_optimizer, make_schedule
from finetune.train.session import UNKNOWN, Epoch, Session, figures_of, offer
from finetune.train.stored import FromStored

if TYPE_CHECKING:
    from finetune.recipe.schema import EarlyStopping, ResolvedStage
    from finetune.train.stored import Crossing

__all__ = ["train_stage"]


def train_stage(
    session: Session, stage: ResolvedStage, freezing: Freezing, *, stage_index: int
) -> str:
    """Train by gradient for the epochs of a stage.

    Returns:
        A note on how it ended; empty where it ran its epochs.

    Raises:
        TrainingError: The loss is not finite, or memory does not suffice.
    """
    with ExitStack() as held:
        found = compute_once(session, stage, held)
        if found.reason:
            session.on_event(FrozenLayers(stage.name, found.value is not None, found.reason))
        return _train(session, stage, _prepare(session, stage, freezing, found.value), stage_index)


def _train(session: Session, stage: ResolvedStage, work: _Work, stage_index: int) -> str:
    """Run the epochs of a stage; say how it ended."""
    stepper = work.stepper
    patience = _Patience(stage.early_stopping)
    note = ""
    for number in range(1, stage.epochs + 1):
        started = time.perf_counter()
        work.begin_epoch(stage_index, number)
        seed = EpochSeed(session.recipe.seed, stage_index, number, stage.name)
        report = progress_events("train", session.on_event)
        result = train_epoch(stepper, work.train, seed, progress=report)
        session.num_steps += result.num_steps
        weights = stepper.ema.module if stepper.ema is not None else session.network
        figures = _validate(session, work)
        epoch = Epoch(
            stage=stage.name,
            number=number,
            train_loss=result.loss,
            images_per_second=result.images_per_second,
            figures=figures,
            lr=max(group["lr"] for group in stepper.optimizer.param_groups),
            seconds=time.perf_counter() - started,
        )
        offer(session, epoch, weights)
        if patience.is_over(figures):
            note = f"stopped early after epoch {number}; "
            break
    session.accelerator.unwrap_model(stepper.network, keep_fp32_wrapper=False)
    session.accelerator.free_memory()
    return note


class _Patience:
    """Counts the epochs of a stage without improvement."""

    def __init__(self, stopping: EarlyStopping | None) -> None:
        self._stopping = stopping
        self._best = UNKNOWN
        self._waited = 0

    def is_over(self, figures: Mapping[str, float]) -> bool:
        """Take the figures of an epoch; say whether the stage shall end."""
        if self._stopping is None:
            return False
        score = figures.get(self._stopping.metric, UNKNOWN)
        gain = self._best - score if is_loss(self._stopping.metric) else score - self._best
        if math.isnan(self._best) or gain > self._stopping.min_delta:
            self._best, self._waited = score, 0
        else:
            self._waited += 1
        return self._waited >= self._stopping.patience


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
    begin_epoch: Callable[[int, int], None]


def _prepare(
    session: Session, stage: ResolvedStage, freezing: Freezing, once: Once | None
) -> _Work:
    """Prepare network, optimiser and loss of a gradient stage for the device."""
    inputs, accelerator = session.inputs, session.accelerator
    training = session.recipe.training
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
        normalize=session.preprocessing.normalize if once is None else _as_it_is,
        mix=_make_mix(session),
        clip_norm=training.clip_norm,
        ema=ema,
        averaged=session.network,
        batch_norm=stage.batch_norm,
    )
    if once is None:
        return _Work(stepper, train, inputs.val, averaged, inputs.begin_epoch)
    judged = once.network if ema is None else FromStored(once.split.trained.of(averaged))
    return _Work(stepper, train, once.val, judged, once.sampler.begin_epoch)


def _as_it_is(crossing: Crossing) -> Crossing:
    """Change nothing: what frozen layers computed needs no normalisation."""
    return crossing


def _make_loss(session: Session) -> nn.Module:
    """Cross entropy, smoothed and weighted as the recipe says."""
    training, counts = session.recipe.training, session.inputs.counts
    weight = None
    if training.class_weights == "balanced":
        balance = counts.sum() / (len(counts) * np.maximum(counts, 1))  # scikit-learn's "balanced"
        weight = torch.as_tensor(balance, dtype=torch.float32)
    return nn.CrossEntropyLoss(weight=weight, label_smoothing=training.label_smoothing)


def _make_mix(session: Session) -> Callable[..., Any] | None:
    """Mixup, CutMix, or one of the two drawn for each batch; None where the recipe has neither."""
    training, num_classes = session.recipe.training, len(session.inputs.counts)
    if not training.mixup and not training.cutmix:
        return None
    register_missing_ops()
    from torchvision.transforms import v2

    mixes = [
        kind(alpha=alpha, num_classes=num_classes)
        for kind, alpha in ((v2.MixUp, training.mixup), (v2.CutMix, training.cutmix))
        if alpha
    ]
    mix: Callable[..., Any] = v2.RandomChoice(mixes) if len(mixes) > 1 else mixes[0]
    return mix


def _make_ema(session: Session) -> Any:
    """A moving average of the weights, warmed up so that short stages profit too."""
    if session.recipe.training.ema is None:
        return None
    register_missing_ops()
    from timm.utils import ModelEmaV3

    return ModelEmaV3(session.network, decay=session.recipe.training.ema, use_warmup=True)


def _validate(session: Session, work: _Work) -> dict[str, float]:
    """Compute the validation figures of the weights; none where there is no validation part."""
    if work.val is None:
        return {}
    report = progress_events("val", session.on_event)
    return figures_of(*validate(work.stepper, work.judged, work.val, progress=report))
