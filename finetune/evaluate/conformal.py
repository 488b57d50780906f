"""Conformal sets: the classes that together hold the right one as often as is wanted.

Split conformal prediction (Vovk and others 2005; Angelopoulos and Bates, 2107.07511) with the
score 1 - p of the right class (least ambiguous sets, Sadinle and others, 1609.00451), which gives
the smallest sets on average. Where a model is right more often than was asked, that score leaves
some sets empty; here each holds the likeliest class, which can only raise the coverage. Adaptive
sets (2006.02544) are never empty either, but longer: they name classes nobody doubts.

Careful: the promise is for images that nothing was chosen on, and validation chose the weights.
What the test part shows stands beside it in `metrics.json`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune.types import Choice

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["choose_set_threshold"]

_ROUNDING = 1e-9  # 0.9 * 10 is not quite 9 in floating point


def choose_set_threshold(
    probs: NDArray[np.float32], labels: NDArray[np.integer[Any]], *, coverage: float
) -> Choice[float | None]:
    """Choose the least probability at which a class is in the set.

    Args:
        probs: (N, K), rows sum to 1.
        labels: (N,) indices of columns.
        coverage: The share of sets that shall hold the right class, in (0, 1).

    Returns:
        The ceil((N + 1) coverage)-th largest probability of a right class; None where there are
        too few images to promise that coverage other than by naming all classes.
    """
    num_images = len(labels)
    rank = math.ceil((num_images + 1) * coverage - _ROUNDING)
    if rank > num_images:
        needed = math.ceil(coverage / (1 - coverage) - _ROUNDING)
        return Choice(
            None,
            f"{num_images} validation images cannot promise a coverage of {coverage:g}: that takes "
            f"{needed}",
        )
    right = np.sort(probs[np.arange(num_images), labels])
    return Choice(
        float(right[num_images - rank]),
        f"{rank} of {num_images} validation images have their class at it or above; nominal, "
        "since validation also chose the weights",
    )
