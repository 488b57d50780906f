"""Batches of stored activations: what a stage reads in place of images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, Sampler

from finetune.runtime.seeds import derive_seed

if TYPE_CHECKING:
    from finetune.data.loading import EpochSampler
    from finetune.model.store import ActivationStore

__all__ = ["FromStored", "Row", "StoredViews", "ViewSampler", "stored_loader"]

Crossing = tuple[torch.Tensor, ...]
Batch = tuple[Crossing, torch.Tensor, torch.Tensor]
Loader: TypeAlias = "DataLoader[Batch]"
Row = tuple[int, int]  # position of an image, and a view of it


class FromStored(nn.Module):
    """The trained part of a network, as a module of one argument: what crosses the cut."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part

    def forward(self, crossing: Crossing) -> torch.Tensor:
        """Compute logits (B, K)."""
        logits: torch.Tensor = self.part(*crossing)
        return logits


@dataclass(frozen=True, slots=True)
class StoredViews:
    """The views of N images in their stores.

    Attributes:
        labels: (N,) int64 class indices.
        plain: Has view 0 of each: what evaluation sees.
        plain_places: (N,) int64 places in it.
        changed: Has the other views; None where there are none.
        changed_places: (N, views - 1) int64 places in it.
    """

    labels: torch.Tensor
    plain: ActivationStore
    plain_places: torch.Tensor
    changed: ActivationStore | None
    changed_places: torch.Tensor

    @property
    def num_views(self) -> int:
        """Views of each image."""
        return 1 + self.changed_places.shape[1]

    def read(self, rows: Sequence[Row]) -> Crossing:
        """Copy what is stored of some views: (B, …) each, in the order of the rows."""
        positions, views = torch.tensor(rows).unbind(1)
        is_plain = views == 0
        if self.changed is None or bool(is_plain.all()):
            return self.plain.read_at(self.plain_places[positions])
        others = ~is_plain
        changed = self.changed.read_at(self.changed_places[positions[others], views[others] - 1])
        if not bool(is_plain.any()):
            return changed
        plain = self.plain.read_at(self.plain_places[positions[is_plain]])
        return tuple(
            _merged(ours, theirs, is_plain) for ours, theirs in zip(plain, changed, strict=True)
        )


class StoredImages(Dataset[Batch]):
    """Batches of (what crosses, labels, positions) by rows; a DataLoader asks for whole batches."""

    def __init__(self, views: StoredViews) -> None:
        self._views = views

    def __len__(self) -> int:
        return len(self._views.labels)

    def __getitems__(self, rows: Sequence[Row]) -> Batch:
        positions = torch.tensor([position for position, _ in rows])
        return self._views.read(rows), self._views.labels[positions], positions


class ViewSampler(Sampler[Row]):
    """The order of the views of images: of training anew in each epoch, else view 0 in order.

    Args:
        views: What is stored.
        images: The order of training, which is told the epoch; None for the order of the images.
        seed: Of the run; which view is drawn follows from (seed, stage, epoch, image, repetition).
    """

    def __init__(self, views: StoredViews, images: EpochSampler | None, seed: int) -> None:
        self._views = views
        self._images = images
        self._seed = seed
        self._epoch = (0, 0)

    def begin_epoch(self, stage_index: int, epoch: int, *, skip: int = 0) -> None:
        """Tell which epoch comes next, and how many draws of it are behind."""
        self._epoch = (stage_index, epoch)
        if self._images is not None:
            self._images.begin_epoch(stage_index, epoch, skip=skip)

    @property
    def is_of_training(self) -> bool:
        """Whether epochs differ in order and view."""
        return self._images is not None

    def __len__(self) -> int:
        return len(self._views.labels)

    def __iter__(self) -> Iterator[Row]:
        if self._images is None:
            yield from ((position, 0) for position in range(len(self)))
            return
        for index in self._images:
            repetition, position = divmod(index, len(self))
            drawn = derive_seed(self._seed, "draw", *self._epoch, position, repetition)
            yield position, drawn % self._views.num_views


def stored_loader(views: StoredViews, sampler: ViewSampler, *, batch_size: int) -> Loader:
    """Make the loader of stored views; in training a last batch of one image is left out."""
    is_alone = len(sampler) > 1 and len(sampler) % batch_size == 1 and sampler.is_of_training
    return DataLoader(
        StoredImages(views),
        batch_size=batch_size,
        sampler=sampler,
        drop_last=is_alone,
        collate_fn=_as_it_is,
        generator=torch.Generator(),  # or the loader draws from the person's own random state
    )


def _as_it_is(batch: Any) -> Any:
    """Leave a batch as the data set gave it."""
    return batch


def _merged(plain: torch.Tensor, changed: torch.Tensor, is_plain: torch.Tensor) -> torch.Tensor:
    """Put two batches together in the order in which their rows were asked for."""
    merged = torch.empty((len(is_plain), *plain.shape[1:]), dtype=plain.dtype)
    if plain.ndim == 4 and plain.is_contiguous(memory_format=torch.channels_last):
        merged = merged.to(memory_format=torch.channels_last)
    merged[is_plain], merged[~is_plain] = plain, changed
    return merged
