"""One epoch of gradient steps and one pass of validation, through Accelerate.

Every step is seeded by (seed, stage, epoch, step), so that dropout, drop path and mixup do not
depend on what ran before: an epoch can be taken up at any step. A loss or a gradient that is not
finite stops the run before the step that would spread it. Where memory does not suffice for a
batch, its gradient is computed in pieces that add up to it, so that batch size and rate stay; batch
normalisations that follow their batches follow the pieces then, and that is said.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from finetune.errors import TrainingError, join_names
from finetune.model.depth import is_batch_norm
from finetune.runtime.seeds import derive_seed
from finetune.runtime.space import in_pieces, is_lack_of_memory
from finetune.train.freeze import BatchNormMode, lacks_images, set_modes, statistics_kept

if TYPE_CHECKING:
    from accelerate import Accelerator
    from numpy.typing import NDArray
    from timm.utils import ModelEmaV3
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LambdaLR

    from finetune.types import Progress

__all__ = ["EpochSeed", "Stepper", "Tally", "train_epoch", "validate"]

Batch = tuple[Any, torch.Tensor, torch.Tensor]  # images or what crosses, labels, positions
MixBatch = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True, slots=True)
class EpochSeed:
    """What the randomness of an epoch is a function of."""

    seed: int
    stage_index: int
    epoch: int
    stage: str

    def at(self, step: int) -> StepSeed:
        """Give what the randomness of a step is a function of."""
        return StepSeed(self.seed, self.stage_index, self.epoch, self.stage, step)


@dataclass(frozen=True, slots=True)
class StepSeed(EpochSeed):
    """What the randomness of a step is a function of; steps are counted from 0."""

    step: int


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a batch, and what its mean loss is worth in the mean of the whole."""

    inputs: Any
    targets: torch.Tensor
    share: float


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
        names: Of the training images, by position.
        warn: Receives what a person should know.
        mix: Mixes images and labels of a batch; None where the recipe does not.
        clip_norm: Largest norm of the gradient; None for no limit.
        ema: Moving average of the weights; None where the recipe has none.
        averaged: The network that it is the average of.
        batch_norm: Mode of trained batch normalisations.
        max_skipped: Batches of an epoch that may be left out since they are not finite.
    """

    accelerator: Accelerator
    network: nn.Module
    optimizer: Optimizer
    schedule: LambdaLR
    loss: nn.Module
    normalize: Callable[[Any], Any]
    names: Sequence[str]
    warn: Callable[[str], None]
    mix: MixBatch | None = None
    clip_norm: float | None = None
    ema: ModelEmaV3 | None = None
    averaged: nn.Module | None = None
    batch_norm: BatchNormMode = "trained"
    max_skipped: int = 0

    def follows_batches(self) -> bool:
        """Whether a normalisation learns from the statistics of what it is given."""
        modules = self.network.modules()
        return any(is_batch_norm(module) and module.training for module in modules)


@dataclass(slots=True)
class Tally:
    """How far an epoch is, and what it gave so far.

    Attributes:
        num_batches: Batches that are done.
        num_steps: Optimiser steps among them.
        num_images: Images of this process.
        loss_sum: Of the loss over images.
        seconds: Spent on them.
        num_skipped: Batches left out since their loss or gradient was not finite.
        num_pieces: In which a batch is computed, since memory did not suffice for the whole.
    """

    num_batches: int = 0
    num_steps: int = 0
    num_images: int = 0
    loss_sum: float = 0.0
    seconds: float = 0.0
    num_skipped: int = 0
    num_pieces: int = 1

    @property
    def loss(self) -> float:
        """The mean over images."""
        return self.loss_sum / max(1, self.num_images)

    @property
    def images_per_second(self) -> float:
        """Training images of this process per second."""
        return self.num_images / max(self.seconds, 1e-9)


@dataclass(slots=True)
class _Group:
    """The batches whose gradients make one step.

    Attributes:
        batches: Positions of the images of each.
        losses: The mean loss of each.
    """

    batches: list[list[int]] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    @property
    def num_images(self) -> int:
        """Images of all batches."""
        return sum(map(len, self.batches))

    def add(self, positions: list[int], loss: float) -> None:
        """Take note of a batch."""
        self.batches.append(positions)
        self.losses.append(loss)

    def scale(self, num_images: int) -> float:
        """Give what a further batch counts beside the first, by which gradients are weighed."""
        return num_images / len(self.batches[0]) if self.batches else 1.0


def train_epoch(
    stepper: Stepper,
    loader: Any,
    seed: EpochSeed,
    *,
    tally: Tally,
    after_step: Callable[[], None] | None = None,
    progress: Progress | None = None,
) -> None:
    """Train for what is left of one pass over a loader of (images, labels, positions).

    Args:
        stepper: What a step needs.
        loader: The batches that are left: `tally.num_batches` of the epoch are behind.
        seed: What randomness is a function of.
        tally: Kept up to date; new for an epoch that begins.
        after_step: Called after each optimiser step, when everything is in order.
        progress: Called with images done and images in all.

    Raises:
        TrainingError: The loss is not finite, or memory does not suffice for one image.
    """
    accelerator = stepper.accelerator
    set_modes(accelerator.unwrap_model(stepper.network), stepper.batch_norm)
    total = len(loader.dataset)
    started = time.perf_counter() - tally.seconds
    group = _Group()
    for step, batch in enumerate(loader, start=tally.num_batches):
        with accelerator.accumulate(stepper.network):
            _add(stepper, group, batch, seed.at(step), tally)
            if accelerator.sync_gradients:
                _end_group(stepper, group, seed.at(step), tally)
                group = _Group()
        tally.num_batches += 1
        tally.seconds = time.perf_counter() - started
        if progress:
            progress(min(tally.num_images * accelerator.num_processes, total), total)
        if after_step and accelerator.sync_gradients:
            after_step()


@torch.inference_mode()
def validate(
    stepper: Stepper, network: nn.Module, loader: Any, *, progress: Progress | None = None
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Compute probabilities (N, K) float32 and labels (N,) over a loader, in eval mode."""
    network.eval()
    total, rows, all_labels = len(loader.dataset), [], []
    for images, labels, _ in loader:
        probs = torch.cat(in_pieces(partial(_probabilities, stepper, network, images), len(labels)))
        probs, labels = stepper.accelerator.gather_for_metrics((probs, labels))
        rows.append(probs.cpu().numpy())
        all_labels.append(labels.cpu().numpy())
        if progress:
            progress(sum(map(len, all_labels)), total)
    return np.concatenate(rows), np.concatenate(all_labels)


def _probabilities(stepper: Stepper, network: nn.Module, images: Any, rows: slice) -> torch.Tensor:
    """Compute the probabilities (B, K) float32 of some images of a batch."""
    with stepper.accelerator.autocast():
        logits = network(stepper.normalize(_rows(images, rows)))
    probs: torch.Tensor = logits.float().softmax(dim=1)
    return probs


def _add(stepper: Stepper, group: _Group, batch: Batch, at: StepSeed, tally: Tally) -> None:
    """Add a batch to those of a step, or leave it out where its loss is not finite."""
    positions = batch[2].tolist()
    restore = statistics_kept(stepper.network) if stepper.max_skipped else None
    loss = _backward(stepper, batch, at, tally, scale=group.scale(len(positions)))
    if math.isfinite(loss):
        group.add(positions, loss)
        return
    if restore is not None:
        restore()
    if tally.num_pieces > 1:  # some of it may have been added; it is the only batch of its step
        stepper.optimizer.zero_grad()
    _leave_out(stepper, _Group([positions]), at, tally, f"the loss is {loss}")


def _end_group(stepper: Stepper, group: _Group, at: StepSeed, tally: Tally) -> None:
    """Step by what the batches of a group gave, if it is finite."""
    if not group.batches:
        return
    if not _clip(stepper, group):
        stepper.optimizer.zero_grad()
        _leave_out(stepper, group, at, tally, "the gradient is not finite")
        return
    if _step(stepper):
        tally.num_steps += 1
    elif stepper.accelerator.scaler.get_scale() < 1:  # halved from 65,536: it is not the overflow
        _leave_out(stepper, group, at, tally, "the gradient is not finite at any scale")
        return
    for positions, loss in zip(group.batches, group.losses, strict=True):
        tally.num_images += len(positions)
        tally.loss_sum += loss * len(positions)


def _backward(stepper: Stepper, batch: Batch, at: StepSeed, tally: Tally, *, scale: float) -> float:
    """Add the gradient of a batch; give its loss. What does not fit into memory is cut in two."""
    num_images = len(batch[1])
    while True:
        torch.manual_seed(derive_seed(at.seed, "step", at.stage_index, at.epoch, at.step))
        try:
            pieces = _pieces(stepper, batch, tally.num_pieces)
            return sum(_piece(stepper, piece, scale) for piece in pieces)
        except ValueError as error:
            if not lacks_images(error):
                raise
            raise _one_image(at) from error
        except RuntimeError as error:  # also torch.OutOfMemoryError
            if not is_lack_of_memory(error):
                raise
            is_least = tally.num_pieces >= _most_pieces(stepper, num_images)
            if is_least or stepper.accelerator.gradient_accumulation_steps > 1:
                raise _no_memory(num_images, at) from error
        stepper.optimizer.zero_grad()
        tally.num_pieces *= 2
        statistics = "; batch statistics are those of a piece" * stepper.follows_batches()
        stepper.warn(
            f"no memory for a batch of {num_images} images in stage {at.stage!r}: from here on it "
            f"is computed in {tally.num_pieces} pieces, and steps as before{statistics}"
        )


def _pieces(stepper: Stepper, batch: Batch, number: int) -> Iterator[Piece]:
    """Normalise and mix a batch, and cut it into pieces with their shares of the loss."""
    inputs, targets = stepper.normalize(batch[0]), batch[1]
    if stepper.mix is not None and len(targets) > 1:
        inputs, targets = stepper.mix(inputs, targets)
    if number == 1:
        yield Piece(inputs, targets, 1.0)
        return
    # The last batch of an epoch may have fewer images than there are pieces: none is left empty.
    pieces = min(number, _most_pieces(stepper, len(targets)))
    for rows in torch.arange(len(targets), device=targets.device).tensor_split(pieces):
        yield Piece(_rows(inputs, rows), targets[rows], len(rows) / len(targets))


def _most_pieces(stepper: Stepper, num_images: int) -> int:
    """Count the pieces that a batch can be cut into; one image has no statistics of a batch."""
    return max(1, num_images // 2) if stepper.follows_batches() else num_images


def _piece(stepper: Stepper, piece: Piece, scale: float) -> float:
    """Run a piece forward and backward; give its share of the loss of its batch."""
    logits = stepper.network(piece.inputs).float()
    loss = stepper.loss(logits, piece.targets) * piece.share
    if torch.isfinite(loss):
        stepper.accelerator.backward(loss * scale)
    return float(loss.item())


def _rows(inputs: Any, rows: torch.Tensor | slice) -> Any:
    """Take some rows of a batch of images, or of what frozen layers gave for them."""
    if isinstance(inputs, tuple):
        return tuple(part[rows] for part in inputs)
    return inputs[rows]


def _clip(stepper: Stepper, group: _Group) -> bool:
    """Make the gradient the mean over a group, and clip it; say whether it is finite.

    A scaler of fp16 sees to that itself.
    """
    accelerator = stepper.accelerator
    # Accelerate divides by the batches of a full group, whatever their images and their number.
    share = accelerator.gradient_accumulation_steps * len(group.batches[0]) / group.num_images
    if share != 1:
        for parameter in stepper.network.parameters():
            if parameter.grad is not None:
                parameter.grad.mul_(share)
    limit = math.inf if stepper.clip_norm is None else stepper.clip_norm
    norm = accelerator.clip_grad_norm_(stepper.network.parameters(), limit)
    return accelerator.scaler is not None or bool(torch.isfinite(norm))


def _leave_out(stepper: Stepper, group: _Group, at: StepSeed, tally: Tally, what: str) -> None:
    """Leave batches out that are not finite, or end the run before their step."""
    where = f"in stage {at.stage!r}, epoch {at.epoch}, step {at.step + 1}"
    names = [stepper.names[index] for positions in group.batches for index in positions]
    images = f"its images: {join_names(names)}"
    number = len(group.batches)
    if tally.num_skipped + number > stepper.max_skipped:
        raise TrainingError(
            f"{what} {where}; training stopped before that step; {images}",
            hint="lower the stage's lr, or give training.clip_norm: 1.0",
        )
    tally.num_skipped += number
    left_out = "the batch is" if number == 1 else f"the {number} batches of this step are"
    stepper.warn(f"{what} {where}; {left_out} left out; {images}")


def _step(stepper: Stepper) -> bool:
    """Step the optimiser; say whether it did, since a scaler skips what overflows in fp16."""
    accelerator = stepper.accelerator
    stepper.optimizer.step()
    stepper.optimizer.zero_grad()
    is_made = not accelerator.optimizer_step_was_skipped
    if is_made:
        stepper.schedule.step()
    if stepper.ema is not None:
        # timm warms up by the step that it is told; untold it would average from the start.
        stepper.ema.update(stepper.averaged, step=stepper.schedule.last_epoch)
    return is_made


def _one_image(at: StepSeed) -> TrainingError:
    """Name the stage that would learn the statistics of one image."""
    return TrainingError(
        f"stage {at.stage!r} learns from a batch of one image, of which batch normalisation has no "
        "statistics",
        hint=f"--set training.batch_size=8, or --set stages.{at.stage_index}.batch_norm=frozen",
    )


def _no_memory(num_images: int, at: StepSeed) -> TrainingError:
    """Name the stage and the batch for which memory did not suffice."""
    return TrainingError(
        f"no memory for a batch of {num_images} images in stage {at.stage!r}",
        hint=f"--set training.batch_size={max(1, num_images // 2)} --set training.accumulate=2",
    )
