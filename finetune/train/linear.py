"""Features of labelled images, and the linear model on them that a probe is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune.runtime.rows import collect_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Features", "LinearModel", "chunks_of"]

_CHUNK = 1 << 20  # numbers in what is computed of many images at once: 4 MiB of float32


@dataclass(frozen=True, slots=True)
class Features:
    """Pooled features of labelled images.

    Attributes:
        values: (N, D) float32; in a mapped file where they are many.
        labels: (N,) int64 class indices.
        units: (N,) numbers of what is held out together; None where each image is by itself.
        are_learned: Whether what gave the features has learned from these images: those held out
            look easier then than new ones are.
    """

    values: NDArray[np.float32]
    labels: NDArray[np.int64]
    units: NDArray[np.int64] | None = None
    are_learned: bool = False

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: slice | NDArray[np.integer[Any]]) -> Features:
        """Give some of the images: a view for a slice, a copy for indices."""
        if isinstance(rows, slice):
            return self.with_values(self.values[rows], rows)
        places = rows
        values = collect_rows(lambda some: self.values[places[some]], len(places), self.width)
        return self.with_values(values, places)

    @property
    def width(self) -> int:
        """Values of one image: D."""
        width: int = self.values.shape[1]
        return width

    def with_values(
        self, values: NDArray[np.float32], rows: slice | NDArray[np.integer[Any]]
    ) -> Features:
        """Give some of the images with other values."""
        units = None if self.units is None else self.units[rows]
        return Features(values, self.labels[rows], units, self.are_learned)


@dataclass(frozen=True, slots=True)
class LinearModel:
    """A linear map from features to logits.

    Attributes:
        weight: (K, D) float.
        bias: (K,) float.
    """

    weight: NDArray[np.floating[Any]]
    bias: NDArray[np.floating[Any]]

    def probabilities(self, values: NDArray[np.float32]) -> NDArray[np.floating[Any]]:
        """Compute probabilities (N, K) of features (N, D)."""
        exponents = self._logits(values)
        np.exp(exponents, out=exponents)
        exponents /= exponents.sum(axis=1, keepdims=True)
        return exponents

    def log_loss(
        self, features: Features, weights: NDArray[np.floating[Any]] | None = None
    ) -> float:
        """Compute the mean of -ln p(right class), in nats, without all probabilities at once.

        Args:
            features: Of N images.
            weights: What an image of each class (K,) counts; None where all count the same.
        """
        total = mass = 0.0
        for rows in chunks_of(len(features), len(self.bias)):
            logits, labels = self._logits(features.values[rows]), features.labels[rows]
            right = np.take_along_axis(logits, labels[:, None], axis=1)[:, 0]
            losses = np.log(np.exp(logits, out=logits).sum(axis=1)) - right
            shares = np.ones(len(labels)) if weights is None else weights[labels]
            total += float(losses @ shares)
            mass += float(shares.sum())
        return total / mass

    def _logits(self, values: NDArray[np.float32]) -> NDArray[np.floating[Any]]:
        """Compute logits (N, K), shifted so that the largest of each image is 0."""
        logits = values @ self.weight.T
        logits += self.bias
        logits -= logits.max(axis=1, keepdims=True)
        return logits


def chunks_of(num_rows: int, width: int) -> Iterator[slice]:
    """Cut rows into chunks of a few MiB, given how many numbers are computed of a row.

    >>> [(chunk.start, chunk.stop) for chunk in chunks_of(2_500, 1_000)]
    [(0, 1048), (1048, 2096), (2096, 2500)]
    """
    size = max(1, _CHUNK // width)
    for start in range(0, num_rows, size):
        yield slice(start, min(start + size, num_rows))
