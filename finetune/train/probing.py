"""A stage that fits the head: features once, the probe, and the probe as a candidate."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from finetune.data.groups import unit_of
from finetune.errors import Problem, RecipeError
from finetune.model.fuse import fused
from finetune.model.parts import digest_of
from finetune.model.store import ALL_MEMORY, StoreFullError
from finetune.runtime.rows import collect_rows
from finetune.train.compute import Computing, Frozen
from finetune.train.linear import Features, LinearModel
from finetune.train.probe import fit_probe
from finetune.train.session import UNKNOWN, Epoch, Session, figures_of, offer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from finetune.recipe.schema import ResolvedStage
    from finetune.train.inputs import Part
    from finetune.train.stored import StoredViews

__all__ = ["fit_stage"]

_NUM_CHECKED = 4  # images whose logits are compared; a head that is not linear differs on each


def fit_stage(session: Session, stage: ResolvedStage) -> str:
    """Fit the head by the probe, and offer it as a candidate.

    Returns:
        A note on the strength chosen, and why.

    Raises:
        RecipeError: The head of this backbone is not one linear layer on its features.
    """
    started = time.perf_counter()
    inputs, network = session.inputs, session.network
    try:
        train, val, counts = _features(session, place="disk")
    except StoreFullError:  # the probe needs them in memory in any case
        train, val, counts = _features(session, place="memory")
    training = session.recipe.training
    balanced = training.class_weights == "balanced" or training.sampler == "balanced"
    probe = fit_probe(
        replace(train, are_learned=session.num_steps > 0),
        val,
        num_classes=len(inputs.counts),
        balanced=balanced,
        device=session.accelerator.device,
    )
    model = probe.model
    network.set_linear_head(torch.from_numpy(model.weight), torch.from_numpy(model.bias))
    _check_linear(session, model)
    seconds = time.perf_counter() - started
    probs = model.probabilities(val.values) if len(val) else None
    figures = figures_of(session.recipe, probs, val.labels)
    epoch = Epoch(
        stage=stage.name,
        number=1,
        train_loss=model.log_loss(train),
        images_per_second=len(train) / max(seconds, 1e-9),
        figures=figures,
        lr=0.0,
        seconds=seconds,
    )
    offer(session, epoch, network)
    session.probe = (figures.get("val_accuracy", UNKNOWN), seconds)
    solved = f"solved by {probe.solver.value}: {probe.solver.reason}"
    return f"strength C={probe.strength:.3g}: {probe.reason}; {solved}; {counts}; "


def _features(
    session: Session, *, place: Literal["memory", "disk"]
) -> tuple[Features, Features, str]:
    """Give what enters the head of training and validation images, and what it took to have it."""
    inputs, network = session.inputs, session.network.eval()
    ready = fused(network, network.input_size)
    with torch.no_grad():
        blank = torch.zeros(1, *network.input_size, device=session.accelerator.device)
        shape = tuple(ready.head_inputs(blank).shape[1:])
    frozen = Frozen(
        lambda images: (ready.head_inputs(images),),
        shapes=(shape,),
        digest=digest_of(network, "head_inputs, fused", without=network.logit_layers()),
        precision=session.recipe.runtime.frozen_precision,
    )
    with ExitStack() as held:
        budgets = ALL_MEMORY if place == "memory" else None
        work = Computing(session, frozen, place=place, held=held, budgets=budgets)
        parts = [
            Features(np.empty((0, *shape), np.float32), np.empty(0, np.int64))
            if part is None
            else _read(work.views(part, num_views=1), part, *shape)
            for part in (inputs.train_part, inputs.val_part)
        ]
    train, val = parts
    return train, val, f"{work.num_computed} features computed, {work.num_found} were there"


def _read(views: StoredViews, part: Part, width: int) -> Features:
    """Copy the features of all images out of their store."""

    def read(some: slice) -> NDArray[np.float32]:
        (values,) = views.read([(position, 0) for position in range(some.start, some.stop)])
        rows: NDArray[np.float32] = values.float().numpy()
        return rows

    values = collect_rows(read, len(views.labels), width)
    _, units = np.unique([unit_of(sample) for sample in part.samples], return_inverse=True)
    return Features(values, views.labels.numpy(), units)


def _check_linear(session: Session, model: LinearModel) -> None:
    """Refuse a head whose logits are not the linear map of the features that was fitted."""
    plain = session.inputs.train_part.plain
    images = torch.stack([plain[position][0] for position in range(min(_NUM_CHECKED, len(plain)))])
    network = session.network.eval()
    with torch.inference_mode():
        batch = session.preprocessing.normalize(images.to(session.accelerator.device))
        expected = model.probabilities(network.head_inputs(batch).float().cpu().numpy())
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
