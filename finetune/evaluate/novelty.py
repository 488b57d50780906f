"""What photos are compared with to tell how new they are: some training photos, and a threshold.

A bounded sample of the training part is enough: the distance to the k-th nearest of one image in a
hundred told new photos as well as that to all of them (Sun and others 2022, 2204.06507). The sample
follows from the content of the files, and every class has the same number as far as it goes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from finetune.model.novelty import Novelty, directions
from finetune.recipe.resolve import NUM_REFERENCE
from finetune.types import Choice, Sample

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["fit_novelty", "sample_reference"]

NUM_OF_EACH = 3  # photos of a class, where classes are so many that it takes more
_MOST_NEIGHBOURS = 10  # 2204.06507 takes it where one image of ImageNet in a hundred is kept
_SHARE_BELOW = 0.95  # of validation photos, below a score of 1: the share that 2204.06507 accepts


def sample_reference(samples: Sequence[Sample]) -> list[Sample]:
    """Draw at most 500 photos, or three a class, by content: one of each class in turn.

    Args:
        samples: Labelled, with digests, whose order decides; copies of a file count once.
    """
    by_class: dict[str, dict[str, Sample]] = {}
    for sample in samples:
        by_class.setdefault(str(sample.label), {}).setdefault(str(sample.digest), sample)
    ranked = [
        (rank, label, photos[digest])
        for label, photos in sorted(by_class.items())
        for rank, digest in enumerate(sorted(photos))
    ]
    ranked.sort(key=lambda row: row[:2])
    most = max(NUM_REFERENCE, NUM_OF_EACH * len(by_class))
    return [sample for _, _, sample in ranked[:most]]


def fit_novelty(
    reference: NDArray[np.float32], features: NDArray[np.float32], *, num_classes: int
) -> Choice[Novelty | None]:
    """Fit the threshold that 95 % of validation photos stay below.

    Args:
        reference: (M, D) features of training photos.
        features: (N, D) features of validation photos; rows that are not finite do not count.
        num_classes: K: the neighbour that counts is well within a class.

    Returns:
        The reference with its threshold, and why; None where there is nothing to compare.
    """
    known = features[np.isfinite(features).all(axis=1)]
    if not len(known) or not len(reference):
        return Choice(None, "there are no training or no validation photos to compare")
    neighbour = int(np.clip(len(reference) // num_classes // 2, 1, _MOST_NEIGHBOURS))
    rows = directions(torch.from_numpy(reference)).half()
    distances = Novelty(rows, neighbour, 1.0).distances(torch.from_numpy(known))
    threshold = float(np.quantile(distances, _SHARE_BELOW, method="higher"))
    if threshold <= 0:
        return Choice(None, "validation photos do not differ from training photos")
    return Choice(
        Novelty(rows, neighbour, threshold),
        f"{_SHARE_BELOW:.0%} of {len(known)} validation photos are within {threshold:.3g} of "
        f"neighbour {neighbour} among {len(rows)} training photos",
    )
