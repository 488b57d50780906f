"""Batches whose images, or what frozen layers gave for them, are mixed with one another."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from finetune.torchvision_ops import register_missing_ops

if TYPE_CHECKING:
    from finetune.recipe.schema import TrainingSection

__all__ = ["ManifoldMixup", "make_mix"]

Crossing = tuple[torch.Tensor, ...]


class ManifoldMixup:
    """Mixup of what a network computed of images (manifold mixup, Verma et al., 1806.05236).

    Each image is mixed with the one before it in the batch, all by one share that is drawn from
    Beta(alpha, alpha), as torchvision's MixUp does with pixels; the layer is the one at which the
    freeze boundary lies.

    Args:
        alpha: Above 0; the larger, the more even the shares.
        num_classes: K.
    """

    def __init__(self, alpha: float, num_classes: int) -> None:
        self._beta = torch.distributions.Beta(alpha, alpha)
        self._num_classes = num_classes

    def __call__(self, crossing: Crossing, labels: torch.Tensor) -> tuple[Crossing, torch.Tensor]:
        """Mix tensors of any kind of float (B, …); give them with targets (B, K) that sum to 1."""
        share = float(self._beta.sample())
        targets = functional.one_hot(labels, self._num_classes).float()
        mixed = tuple(torch.lerp(part.roll(1, 0), part, share) for part in crossing)
        return mixed, torch.lerp(targets.roll(1, 0), targets, share)


def make_mix(
    training: TrainingSection, num_classes: int, *, is_stored: bool
) -> Callable[..., Any] | None:
    """Make what mixes the batches of a stage; None where the recipe mixes none of their kind.

    Args:
        training: Its `mixup` and `cutmix` mix images, one of the two drawn for each batch; its
            `manifold_mixup` mixes what is stored.
        num_classes: K.
        is_stored: Whether batches are of what frozen layers computed once.
    """
    if is_stored:
        alpha = training.manifold_mixup
        return ManifoldMixup(alpha, num_classes) if alpha else None
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
