"""Two models on the same images: a test, intervals and a correction, from counts alone.

The images that both get right, or both wrong, say nothing of which model is better; the others do.
So nothing here treats the two as if they had been measured on images of their own, which would
make the interval of their difference far too wide.

- Whether the accuracies differ: McNemar's exact test, of groups where images have any.
- By how much, for accuracy and for the recall of one class, which may have ten images: Newcombe's
  interval, which needs no draws and holds its level there.
- By how much, for macro F1: a bootstrap that resamples images, each with both answers.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from finetune.evaluate.intervals import (
    NUM_RESAMPLES,
    Interval,
    draw_counts,
    interval_of,
    macro_f1_of_counts,
    wilson,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["holm", "macro_f1_difference_interval", "mcnemar", "mcnemar_of_groups", "newcombe"]


def mcnemar(only_first: int, only_second: int) -> float:
    """Give the two-sided p-value of McNemar's exact test (McNemar 1947).

    Were the models equally good, each image that one alone gets right would be the first's or the
    second's with equal chance.

    Args:
        only_first: Images that the first alone gets right.
        only_second: Images that the second alone gets right.

    Example:
        >>> f"{mcnemar(2, 10):.4f}"
        '0.0386'
    """
    from scipy.stats import binomtest

    num_discordant = only_first + only_second
    if not num_discordant:
        return 1.0
    return float(binomtest(only_first, num_discordant, 0.5).pvalue)


def mcnemar_of_groups(differences: "NDArray[np.integer]") -> float:
    """Give the two-sided p-value of McNemar's exact test of groups in place of images.

    Images of one group, such as a burst, are right or wrong together, so they are no evidence of
    their own. Were the models equally good, each group would favour the first as likely as the
    second, by as much: the exact test of randomised signs (Fisher 1935). For groups of one image
    it is `mcnemar`.

    Args:
        differences: (G,) of each group, the images that the second alone gets right less those that
            the first alone gets right.

    Example:
        >>> f"{mcnemar_of_groups(np.array([-1] * 2 + [1] * 10)):.4f}", mcnemar_of_groups(
        ...     np.array([30, 0])
        ... )
        ('0.0386', 1.0)
    """
    sizes = np.abs(differences[differences != 0])
    chances = np.ones(1)  # of each sum from -S to S, by steps of 1
    for size in sizes.tolist():
        wider = np.zeros(len(chances) + 2 * size)
        wider[: len(chances)] += chances / 2
        wider[2 * size :] += chances / 2
        chances = wider
    sums = np.abs(np.arange(len(chances)) - len(chances) // 2)
    return min(1.0, float(chances[sums >= abs(int(differences.sum()))].sum()))


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Correct p-values of one family of tests, in their order (Holm 1979).

    Of all tests whose corrected p-value is below a level, the chance that any one is a false alarm
    is below that level, however the tests depend on one another.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        (0.03, 0.06, 0.06)
    """
    values = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    steps = values[order] * np.arange(len(values), 0, -1)
    corrected = np.empty_like(values)
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return tuple(corrected.tolist())


def newcombe(counts: tuple[int, int, int, int], *, level: float = 0.95) -> Interval:
    """Give Newcombe's interval of the difference of two shares of the same images.

    Method 10 of Newcombe 1998 (Statistics in Medicine 17, 2635): Wilson's intervals of both shares,
    put together with the correlation of the two.

    Args:
        counts: Images that both get right, the first alone, the second alone, neither; one at
            least.
        level: Share of such intervals that shall hold the truth, in (0, 1).

    Returns:
        Lower and upper end of the second share less the first, in [-1, 1].
    """
    both, only_first, only_second, _ = counts
    n = sum(counts)
    first, second = (both + only_first) / n, (both + only_second) / n
    low_first, high_first = wilson(both + only_first, n, level=level)
    low_second, high_second = wilson(both + only_second, n, level=level)
    phi = _correlation(counts)
    down, up = second - low_second, high_first - first
    low = second - first - (down**2 - 2 * phi * down * up + up**2) ** 0.5
    up, down = high_second - second, first - low_first
    high = second - first + (up**2 - 2 * phi * up * down + down**2) ** 0.5
    return max(low, -1.0), min(high, 1.0)


def macro_f1_difference_interval(
    answers: tuple["NDArray[np.int64]", "NDArray[np.int64]"],
    labels: "NDArray[np.int64]",
    *,
    num_classes: int,
    num_resamples: int = NUM_RESAMPLES,
    level: float = 0.95,
    seed: int = 0,
) -> Interval | None:
    """Give the paired bootstrap's percentile interval of a difference of macro F1.

    An image is drawn with its class and both answers. Only the numbers of each such triple matter,
    and these follow a multinomial distribution: no image is touched, as in `macro_f1_interval`.

    Args:
        answers: The first and the second model's: (N,) indices of classes each.
        labels: (N,) indices of classes, N at least 1.
        num_classes: K.
        num_resamples: Number of resamples.
        level: Share of such intervals that shall hold the truth, in (0, 1).
        seed: Seed of this function's own generator; the same seed gives the same interval.

    Returns:
        Of the second model's less the first's; None where all resamples have the same, as where
        both give the same answers.
    """
    kinds, counts = np.unique(np.stack([labels, *answers]), axis=1, return_counts=True)
    true, *both = kinds

    def differences(some: "NDArray[np.integer]") -> "NDArray[np.float64]":
        first, second = (
            macro_f1_of_counts(some, true, said, num_classes=num_classes) for said in both
        )
        return second - first

    drawn = [differences(some) for some in draw_counts(counts, num_resamples, seed=seed)]
    return interval_of(drawn, float(differences(counts[None])[0]), level=level, least=-1.0)


def _correlation(counts: tuple[int, int, int, int]) -> float:
    """Estimate the correlation of two shares, with Newcombe's correction for continuity."""
    both, only_first, only_second, neither = counts
    first, second = both + only_first, both + only_second
    margins = first * (only_second + neither) * second * (only_first + neither)
    if not margins:
        return 0.0
    excess = float(both * neither - only_first * only_second)
    if excess > 0:
        excess = max(excess - sum(counts) / 2, 0.0)
    return float(excess / margins**0.5)
