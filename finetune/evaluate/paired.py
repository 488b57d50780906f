"""Two models on the same images: a test, intervals and a correction, from counts alone.

The images that both get right, or both wrong, say nothing of which model is better; the others do.
So nothing here treats the two as if they had been measured on images of their own, which would
make the interval of their difference far too wide.

- Whether the accuracies differ: McNemar's exact test.
- By how much, for accuracy and macro F1: a bootstrap that resamples images, each with both answers.
- By how much, for the recall of one class, which may have ten images: Newcombe's interval, which
  needs no draws and holds its level there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from finetune.evaluate.intervals import (
    NUM_RESAMPLES,
    Interval,
    macro_f1_of_counts,
    percentiles,
    wilson,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["DifferenceIntervals", "bootstrap_differences", "holm", "mcnemar", "newcombe"]


@dataclass(frozen=True, slots=True)
class DifferenceIntervals:
    """Intervals of the second model's figures less the first's, at 95 % unless asked otherwise.

    Attributes:
        accuracy: None where all resamples have the same, as where both are right on the same
            images: there is nothing to resample.
        macro_f1: None for the same reason, as where both give the same answers.
    """

    accuracy: Interval | None
    macro_f1: Interval | None


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


def bootstrap_differences(
    answers: tuple["NDArray[np.int64]", "NDArray[np.int64]"],
    labels: "NDArray[np.int64]",
    *,
    num_classes: int,
    num_resamples: int = NUM_RESAMPLES,
    level: float = 0.95,
    seed: int = 0,
) -> DifferenceIntervals:
    """Give the paired, stratified bootstrap's percentile intervals of two differences.

    An image is drawn with both answers. Of the images of one true class, which are drawn among
    themselves, only the numbers of each pair of answers matter, and these follow a multinomial
    distribution: no image is touched, as in `macro_f1_interval`.

    Args:
        answers: The first and the second model's: (N,) indices of classes each.
        labels: (N,) indices of classes, N at least 1.
        num_classes: K.
        num_resamples: Number of resamples.
        level: Share of such intervals that shall hold the truth, in (0, 1).
        seed: Seed of this function's own generator; the same seed gives the same intervals.
    """
    first, second = answers
    support = np.bincount(labels, minlength=num_classes)  # (K,)
    hits = np.zeros((2, num_resamples, num_classes))
    taken = np.zeros_like(hits)
    generator = np.random.default_rng(seed)
    for true in np.flatnonzero(support):
        rows = labels == true
        pairs, counts = np.unique(np.stack([first[rows], second[rows]]), axis=1, return_counts=True)
        draws = generator.multinomial(support[true], counts / support[true], size=num_resamples)
        for model, said in enumerate(pairs):
            for answer in np.unique(said):
                number = draws[:, said == answer].sum(axis=1)
                taken[model, :, answer] += number
                hits[model, :, true] += number * (answer == true)
    accuracy = np.diff(hits.sum(axis=2), axis=0)[0] / len(labels)
    first_f1, second_f1 = (macro_f1_of_counts(hits[m], taken[m], support) for m in (0, 1))
    return DifferenceIntervals(*(_ends(drawn, level) for drawn in (accuracy, second_f1 - first_f1)))


def _ends(drawn: "NDArray[np.float64]", level: float) -> Interval | None:
    """Give the percentiles of resamples (R,); None where all are the same."""
    return percentiles(drawn, level) if np.ptp(drawn) > 0 else None


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
