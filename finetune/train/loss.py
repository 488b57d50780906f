"""What gradient stages minimise: cross entropy, smoothed, each image weighed by its class.

torch's own weights are of the entries of a target, and its mean divides by those of the batch. So
smoothing and mixing would pay for naming a rare class on photos of a common one, and what a class
counts would depend on what it happens to be drawn with. Here a weight is that of an image, as
`class_weight` is in scikit-learn and Keras, and the mean is over images.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn
from torch.nn import functional

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["CrossEntropy", "balanced_weights"]


class CrossEntropy(nn.Module):
    """The mean over images of weight · cross entropy, in nats.

    Args:
        weights: (K,) float32, what an image of each class counts; None where all count the same.
        label_smoothing: Share of a target that is spread evenly over all classes, in [0, 1).
    """

    weights: torch.Tensor | None

    def __init__(
        self, weights: torch.Tensor | None = None, *, label_smoothing: float = 0.0
    ) -> None:
        super().__init__()
        self.register_buffer("weights", weights)
        self._label_smoothing = label_smoothing

    def forward(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Compute the loss, a scalar.

        Args:
            logits: (B, K) float32.
            targets: (B,) int64 classes, or (B, K) shares that sum to 1; a mixed image counts what
                the classes in it do, by their shares.
        """
        losses = functional.cross_entropy(
            logits, targets, reduction="none", label_smoothing=self._label_smoothing
        )
        if self.weights is not None:
            losses = losses * (
                self.weights[targets] if targets.ndim == 1 else targets @ self.weights
            )
        return losses.mean()


def balanced_weights(counts: NDArray[np.int64]) -> torch.Tensor:
    """Weigh classes by their inverse frequency, (K,) float32; their mean over the images is 1.

    Args:
        counts: (K,) training images of each class.
    """
    balance = counts.sum() / (len(counts) * np.maximum(counts, 1))  # scikit-learn's "balanced"
    return torch.as_tensor(balance, dtype=torch.float32)
