"""How unlike the training photos a photo is: the distance of its features to theirs.

The score is the cosine distance to the k-th nearest of some training photos (Sun and others 2022,
2204.06507), as a multiple of a threshold that most validation photos stay below. It knows no
classes and assumes no distribution. What is stored of a training photo is its direction in feature
space, as safetensors: no photo can be made out of it, and nothing is pickled.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors.torch import load_file

from finetune.runtime.tensors import save_tensors

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Novelty", "directions"]

_TENSOR = "directions"


@dataclass(frozen=True, slots=True, eq=False)
class Novelty:
    """A reference to tell photos that are unlike those of training.

    Attributes:
        reference: (M, D) float16, the direction of the features of M training photos, as saved.
        neighbour: k ≥ 1: the distance to the k-th nearest row counts.
        threshold: Distance that counts as 1, > 0.
    """

    reference: torch.Tensor
    neighbour: int
    threshold: float

    def distances(self, features: torch.Tensor) -> NDArray[np.float32]:
        """Compute the cosine distance (B,) in [0, 2] of features (B, D) to the k-th nearest row."""
        rows = directions(self.reference.to(features.device))  # unit length again, in float32
        cosines = directions(features) @ rows.T  # (B, M)
        nearest = cosines.topk(self.neighbour, dim=1).values[:, -1]
        distances = (1 - nearest).clamp(min=0)  # rounding goes below 0
        values: NDArray[np.float32] = distances.cpu().numpy()
        return values

    def scores(self, features: torch.Tensor) -> NDArray[np.float32]:
        """Compute the distance (B,) as a multiple of the threshold: above 1 a photo is unlike."""
        return self.distances(features) / np.float32(self.threshold)

    def save(self, path: Path) -> None:
        """Write the reference; raises OSError where the system refuses."""
        save_tensors({_TENSOR: self.reference.contiguous()}, path)

    @classmethod
    def load(cls, path: Path, *, neighbour: int, threshold: float) -> Novelty:
        """Read a reference.

        Raises:
            KeyError: The file holds another tensor.
            ValueError: It has fewer rows than `neighbour`.
        """
        reference = load_file(path)[_TENSOR].clone()  # else Windows lets nobody replace the file
        if reference.ndim != 2 or not 1 <= neighbour <= len(reference):
            raise ValueError(f"{path.name} has no {neighbour} rows to compare with")
        return cls(reference, neighbour, threshold)


def directions(features: torch.Tensor) -> torch.Tensor:
    """Scale features (B, D) to unit length; what is 0 stays 0."""
    return torch.nn.functional.normalize(features.float(), dim=1)
