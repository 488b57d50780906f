"""A stage that fits the head: features once, the probe, and the probe as a candidate."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from finetune.components.metrics import METRICS
from finetune.errors import Problem, RecipeError
from finetune.model.features import extract_features
from finetune.train.events import progress_events
from finetune.train.probe import Features, Probe, fit_probe
from finetune.train.session import UNKNOWN, Epoch, Session, figures_of, offer

if TYPE_CHECKING:
    from finetune.recipe.schema import ResolvedStage
    from finetune.types import Progress

__all__ = ["fit_stage"]


def fit_stage(session: Session, stage: ResolvedStage) -> str:
    """Fit the head by the probe, and offer it as a candidate.

    Returns:
        A note on the strength chosen, and why.

    Raises:
        RecipeError: The head of this backbone is not one linear layer on its features.
    """
    started = time.perf_counter()
    inputs, network = session.inputs, session.network
    total = int(inputs.counts.sum()) + inputs.num_val
    extract = partial(extract_features, network, normalize=session.preprocessing.normalize)
    report = progress_events("features", session.on_event)
    train = Features(*extract(inputs.train_plain, progress=report, total=total))
    offset = len(train.labels)
    after = partial(_report_after, report, offset)
    val = Features(*extract(inputs.val or (), progress=after, total=total))
    training = session.recipe.training
    balanced = training.class_weights == "balanced" or training.sampler == "balanced"
    probe = fit_probe(train, val, num_classes=len(inputs.counts), balanced=balanced)
    network.set_linear_head(torch.from_numpy(probe.weight), torch.from_numpy(probe.bias))
    _check_linear(session, probe)
    seconds = time.perf_counter() - started
    probs = probe.probabilities(val.values) if len(val.labels) else None
    figures = figures_of(probs, val.labels)
    train_probs = probe.probabilities(train.values)
    epoch = Epoch(
        stage=stage.name,
        number=1,
        train_loss=METRICS["log_loss"](train_probs, train.labels),
        images_per_second=len(train.labels) / max(seconds, 1e-9),
        figures=figures,
        lr=0.0,
        seconds=seconds,
    )
    offer(session, epoch, network)
    session.probe = (figures.get("val_accuracy", UNKNOWN), seconds)
    return f"strength C={probe.strength:.3g}: {probe.reason}; "


def _check_linear(session: Session, probe: Probe) -> None:
    """Refuse a head whose logits are not the linear map of the features that was fitted."""
    images, _, _ = next(iter(session.inputs.train_plain))
    network = session.network.eval()
    with torch.inference_mode():
        batch = session.preprocessing.normalize(images[:4].to(session.accelerator.device))
        expected = probe.probabilities(network.head_inputs(batch).float().cpu().numpy())
        found = network(batch).float().softmax(dim=1).cpu().numpy()
    if not np.allclose(expected, found, atol=1e-3):
        raise RecipeError(
            [
                Problem(
                    "stages",
                    "solver: probe cannot fit the head of this backbone: between its "
                    "features and its logits stands more than one linear layer",
                )
            ],
            hint="train the head by gradient: {name: head, train: head, epochs: 3, lr: 1e-3}",
        )


def _report_after(report: Progress, offset: int, done: int, total: int) -> None:
    """Report progress of a second pass as a continuation of the first."""
    report(offset + done, total)
