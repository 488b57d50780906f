"""The batches of a run: training images anew each epoch, the same images plain, and validation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from finetune.components.augment import NoAugment
from finetune.data.decode import decode
from finetune.data.loading import (
    EpochSampler,
    EvalImages,
    TrainImages,
    ViewImages,
    make_loader,
    make_pass,
)

if TYPE_CHECKING:
    from accelerate import Accelerator
    from numpy.typing import NDArray
    from torch.utils.data import DataLoader

    from finetune.components.augment import Augment
    from finetune.components.preprocess import InputSpec, Preprocessing
    from finetune.data.kept import KeptViews
    from finetune.recipe.schema import ResolvedRecipe
    from finetune.types import Index, Sample

    Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
    Loader = DataLoader[Batch]

__all__ = ["Inputs", "Part", "balanced_weights", "class_counts", "make_inputs"]


@dataclass(frozen=True, slots=True)
class Part:
    """The images of one split, to be read view by view.

    Attributes:
        samples: N samples, in order.
        labels: (N,) int64 class indices.
        plain: The images as evaluation sees them.
        changed: The images to be augmented; None where they are not.
        load: Makes the batches of some of their views.
    """

    samples: tuple[Sample, ...]
    labels: torch.Tensor
    plain: EvalImages
    changed: TrainImages | None
    load: Callable[[ViewImages], Iterable[Batch]]

    def views(self, wanted: Sequence[tuple[int, int]]) -> Iterable[Batch]:
        """Load some (position, view), in order: batches of images, views, and their numbers."""
        return self.load(ViewImages(self.plain, self.changed, wanted))


@dataclass(frozen=True, slots=True)
class Inputs:
    """What training reads.

    Attributes:
        train_images: Augmented training images; told the epoch before each pass.
        sampler: Their order; told the epoch before each pass.
        train: Batches of the two.
        val: The validation images, in order; None where there are none.
        counts: (K,) int64 training images of each class.
        num_val: Validation images.
        train_part: The training images, view by view.
        val_part: The validation images likewise; None where there are none.
        train_size: Height and width of augmented images, in pixels.
    """

    train_images: TrainImages
    sampler: EpochSampler
    train: Loader
    val: Loader | None
    counts: NDArray[np.int64]
    num_val: int
    train_part: Part
    val_part: Part | None
    train_size: tuple[int, int]

    def prepared(self, accelerator: Accelerator) -> Inputs:
        """Let Accelerate place batches on the device, and share them out among processes."""
        val = None if self.val is None else accelerator.prepare(self.val)
        return replace(self, train=accelerator.prepare(self.train), val=val)

    def begin_epoch(self, stage_index: int, epoch: int, *, skip: int = 0) -> None:
        """Tell order and augmentation which epoch comes next, and how many draws are behind."""
        self.train_images.begin_epoch(stage_index, epoch)
        self.sampler.begin_epoch(stage_index, epoch, skip=skip)


def make_inputs(
    recipe: ResolvedRecipe,
    index: Index,
    *,
    preprocessing: Preprocessing,
    train_spec: InputSpec,
    kept: KeptViews | None = None,
) -> Inputs:
    """Build the loaders of a run.

    Args:
        recipe: Batch size, workers, sampler, augmentation.
        index: Split samples.
        preprocessing: What evaluation does to an image.
        train_spec: What augmentation must deliver.
        kept: What evaluation sees of some images already.
    """
    train, val = index.part("train"), index.part("val")
    counts = class_counts(train, index.classes)
    batch_size = recipe.training.batch_size
    workers, device = recipe.runtime.workers, recipe.runtime.device
    read = partial(decode, max_pixels=recipe.data.max_pixels, channels=preprocessing.channels)
    augment = _augmentation(recipe)
    images = TrainImages(
        train,
        augment.build(train_spec),
        index.classes,
        recipe.seed,
        partial(read, reduction=augment.reduction(train_spec)),
    )
    sampler = _order(recipe, train, index.classes)

    load = partial(make_loader, batch_size=batch_size, workers=workers, device=device)
    look = partial(make_pass, batch_size=batch_size, workers=workers, device=device)
    read_plain = partial(read, reduction=preprocessing.reduction)

    def part(samples: tuple[Sample, ...], changed: TrainImages | None = None) -> Part:
        transform = preprocessing.transform()
        plain = EvalImages(samples, transform, index.classes, read_plain, kept=kept)
        return Part(samples, torch.tensor(plain.labels), plain, changed, look)

    train_part, val_part = part(train, images), part(val) if val else None
    return Inputs(
        train_images=images,
        sampler=sampler,
        train=load(images, sampler=sampler, drop_single=True),
        val=None if val_part is None else load(val_part.plain),
        counts=counts,
        num_val=len(val),
        train_part=train_part,
        val_part=val_part,
        train_size=(train_spec.height, train_spec.width),
    )


def _augmentation(recipe: ResolvedRecipe) -> Augment:
    """Give what changes training images; a probe looks at what evaluation sees."""
    return recipe.augment if recipe.makes_steps else NoAugment()


def _order(
    recipe: ResolvedRecipe, train: tuple[Sample, ...], classes: tuple[str, ...]
) -> EpochSampler:
    """Make the order of training: every image once, or every class equally often."""
    if recipe.training.sampler == "shuffle":
        return EpochSampler(len(train), recipe.seed)
    weights = balanced_weights(train, classes, class_counts(train, classes))
    return EpochSampler(len(train), recipe.seed, weights=weights)


def class_counts(samples: tuple[Sample, ...], classes: tuple[str, ...]) -> NDArray[np.int64]:
    """Count the samples of each class, in class order."""
    position = {name: index for index, name in enumerate(classes)}
    labels = [position[str(sample.label)] for sample in samples]
    return np.bincount(labels, minlength=len(classes)).astype(np.int64)


def balanced_weights(
    samples: tuple[Sample, ...], classes: tuple[str, ...], counts: NDArray[np.int64]
) -> list[float]:
    """Give each sample the inverse of its class's count, so that classes are drawn equally."""
    position = {name: index for index, name in enumerate(classes)}
    return [1.0 / float(counts[position[str(sample.label)]]) for sample in samples]
