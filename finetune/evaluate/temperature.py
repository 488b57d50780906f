"""Temperature scaling: one number, fitted on validation, that makes probabilities honest.

Logits are divided by T before the softmax (Guo and others 2017, 1706.04599). T is the one under
which the labels of validation are likeliest. The mean log loss is convex in 1 / T, so it has one
minimum; and T = 1 is kept unless another T gains more than chance gives any fitted number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from finetune.train.linear import chunks_of
from finetune.types import Choice

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["fit_temperature"]

# Networks that were published need 0.5 to 4 (1706.04599); beyond these bounds it is a broken one.
BOUNDS = (0.05, 20.0)
# Of all images' log likelihood together, in nats: what Akaike's criterion (1974) asks of one more
# fitted number, so that it also helps with images it was not fitted on.
MIN_GAIN = 1.0


def fit_temperature(logits: NDArray[np.float32], labels: NDArray[np.integer[Any]]) -> Choice[float]:
    """Fit the temperature of N images whose labels are known.

    Args:
        logits: (N, K); images with one that is not finite do not count.
        labels: (N,) indices of columns.

    Returns:
        T within bounds, and why; 1 where no other is known to be better. It never makes these
        labels less likely than 1 does.
    """
    from scipy.optimize import minimize_scalar

    finite = np.isfinite(logits).all(axis=1)
    shifted = logits[finite] - logits[finite].max(axis=1, keepdims=True, initial=-np.inf)
    right = np.take_along_axis(shifted, labels[finite][:, None], axis=1)[:, 0].astype(np.float64)
    num_images = len(right)
    if not num_images:
        return Choice(1.0, "there is no validation image to fit it on")
    if (right == 0).all():
        return Choice(
            1.0, f"all {num_images} validation images are right, so nothing says how sure to be"
        )

    def loss(log_inverse: float) -> float:
        """Mean log loss at T = exp(-log_inverse), in nats."""
        return _log_loss(shifted, right, float(np.exp(log_inverse)))

    ends = (-np.log(BOUNDS[1]), -np.log(BOUNDS[0]))
    found = minimize_scalar(loss, bounds=ends, method="bounded")
    temperature, before, after = float(np.exp(-found.x)), loss(0.0), float(found.fun)
    seen = f"log loss on {num_images} validation images"
    if num_images * (before - after) < MIN_GAIN:
        return Choice(
            1.0, f"{seen} is {before:.4f}, and no other temperature gains more than chance would"
        )
    reason = f"least {seen}: {after:.4f} instead of {before:.4f}"
    if not BOUNDS[0] * 1.01 < temperature < BOUNDS[1] / 1.01:
        reason += "; held at its bound, so look for what is wrong with the model or the labels"
    return Choice(temperature, reason)


def _log_loss(shifted: NDArray[np.float32], right: NDArray[np.float64], inverse: float) -> float:
    """Compute the mean log loss of logits (N, K) times 1 / T; each row's largest logit is 0."""
    total = 0.0
    for rows in chunks_of(len(right), shifted.shape[1]):
        scaled = shifted[rows].astype(np.float64) * inverse
        total += float((np.log(np.exp(scaled).sum(axis=1)) - right[rows] * inverse).sum())
    return total / len(right)
