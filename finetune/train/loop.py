"""One epoch of gradient steps and one pass of validation, through Accelerate.

Every step is seeded by (seed, stage, epoch, step), so that dropout, drop path and mixup do not
depend on what ran before. A non-finite loss stops the run before the step that would spread it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from finetune.errors import TrainingError
from finetune.runtime.seeds import derive_seed
from finetune.train.freeze import BatchNormMode, set_modes

if TYPE_CHECKING:
    from accelerate import Accelerator
    from numpy.typing import NDArray
    from timm.utils import ModelEmaV3
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LambdaLR

    from finetune.types import Progress

__all__ = ["EpochResult", "EpochSeed", "Stepper", "train_epoch", "validate"]

Batch = tuple[torch.Tensor, torch.Tensor]
MixBatch = Callable[[torch.Tensor, torch.Tensor], Batch]


@dataclass(frozen=True, slots=True)
class EpochSeed:
    """What the randomness of an epoch is a function of."""

    seed: int
    stage_index: int
    epoch: int
    stage: str


@dataclass(frozen=True, slots=True)
class Stepper:
    """All that a gradient step needs, prepared for the device.

    Attributes:
        accelerator: Placement, mixed precision, accumulation, distribution.
        network: The prepared network, or the prepared part of it that learns.
        optimizer: The prepared optimiser.
        schedule: Stepped once an optimiser step.
        loss: From logits and targets to a scalar.
        normalize: From what is read, such as uint8 images, to the network's input, on the device.
        mix: Mixes images and labels of a batch; None where the recipe does not.
        clip_norm: Largest norm of the gradient; None for no limit.
        ema: Moving average of the weights; None where the recipe has none.
        averaged: The network that it is the average of.
        batch_norm: Mode of trained batch normalisations.
    """

    accelerator: Accelerator
    network: nn.Module
    optimizer: Optimizer
    schedule: LambdaLR
    loss: nn.Module
    normalize: Callable[[Any], Any]
    mix: MixBatch | None = None
    clip_norm: float | None = None
    ema: ModelEmaV3 | None = None
    averaged: nn.Module | None = None
    batch_norm: BatchNormMode = "trained"


@dataclass(frozen=True, slots=True)
class EpochResult:
    """What an epoch of training gave.

    Attributes:
        loss: Mean over images.
        num_steps: Optimiser steps.
        images_per_second: Training images per second.
    """

    loss: float
    num_steps: int
    images_per_second: float


def train_epoch(
    stepper: Stepper, loader: Any, seed: EpochSeed, *, progress: Progress | None = None
) -> EpochResult:
    """Train for one pass over a loader of (images, labels, positions).

    Raises:
        TrainingError: The loss is not finite, or memory does not suffice for a batch.
    """
    accelerator = stepper.accelerator
    set_modes(accelerator.unwrap_model(stepper.network), stepper.batch_norm)
    total, losses, images_done, num_steps = len(loader.dataset), 0.0, 0, 0
    started = time.perf_counter()
    for step, (images, labels, _) in enumerate(loader):
        torch.manual_seed(derive_seed(seed.seed, "step", seed.stage_index, seed.epoch, step))
        with accelerator.accumulate(stepper.network), _memory_named(len(labels), seed):
            loss = _loss(stepper, images, labels)
            if not torch.isfinite(loss):
                raise _not_finite(loss, seed, step)
            accelerator.backward(loss)
            num_steps += _step(stepper)
        losses += loss.item() * len(labels)
        images_done += len(labels)
        if progress:
            progress(min(images_done * accelerator.num_processes, total), total)
    seconds = time.perf_counter() - started
    return EpochResult(
        loss=losses / max(1, images_done),
        num_steps=num_steps,
        images_per_second=images_done * accelerator.num_processes / max(seconds, 1e-9),
    )


@torch.inference_mode()
def validate(
    stepper: Stepper, network: nn.Module, loader: Any, *, progress: Progress | None = None
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Compute probabilities (N, K) float32 and labels (N,) over a loader, in eval mode."""
    network.eval()
    total, rows, all_labels = len(loader.dataset), [], []
    for images, labels, _ in loader:
        with stepper.accelerator.autocast():
            logits = network(stepper.normalize(images))
        probs = logits.float().softmax(dim=1)
        probs, labels = stepper.accelerator.gather_for_metrics((probs, labels))
        rows.append(probs.cpu().numpy())
        all_labels.append(labels.cpu().numpy())
        if progress:
            progress(sum(map(len, all_labels)), total)
    return np.concatenate(rows), np.concatenate(all_labels)


def _loss(stepper: Stepper, images: Any, labels: torch.Tensor) -> torch.Tensor:
    """Run a batch forward: mixing, the network, the loss in float32."""
    inputs = stepper.normalize(images)
    targets = labels
    if stepper.mix is not None and len(labels) > 1:
        inputs, targets = stepper.mix(inputs, labels)
    loss: torch.Tensor = stepper.loss(stepper.network(inputs).float(), targets)
    return loss


def _step(stepper: Stepper) -> int:
    """Step the optimiser where gradients are complete; give the number of steps made."""
    accelerator = stepper.accelerator
    if accelerator.sync_gradients and stepper.clip_norm is not None:
        accelerator.clip_grad_norm_(stepper.network.parameters(), stepper.clip_norm)
    stepper.optimizer.step()
    stepper.optimizer.zero_grad()
    if not accelerator.sync_gradients:
        return 0
    if not accelerator.optimizer_step_was_skipped:
        stepper.schedule.step()
    if stepper.ema is not None:
        stepper.ema.update(stepper.averaged)
    return 1


def _not_finite(loss: torch.Tensor, seed: EpochSeed, step: int) -> TrainingError:
    """Say where the loss left the finite numbers."""
    return TrainingError(
        f"the loss is {loss.item()} in stage {seed.stage!r}, epoch {seed.epoch}, step {step + 1}; "
        "training stopped before that step",
        hint="lower the stage's lr, or give training.clip_norm: 1.0",
    )


@contextmanager
def _memory_named(num_images: int, seed: EpochSeed) -> Iterator[None]:
    """Turn a lack of memory into one sentence that names the batch tried."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise _no_memory(num_images, seed) from error
    except RuntimeError as error:
        if "can't allocate memory" not in str(error):  # torch's CPU allocator
            raise
        raise _no_memory(num_images, seed) from error


def _no_memory(num_images: int, seed: EpochSeed) -> TrainingError:
    """Name the stage and the batch for which memory did not suffice."""
    return TrainingError(
        f"no memory for a batch of {num_images} images in stage {seed.stage!r}",
        hint=f"--set training.batch_size={max(1, num_images // 2)} --set training.accumulate=2",
    )
