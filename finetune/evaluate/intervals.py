"""95 % intervals: Wilson's for proportions and F1, the bootstrap's for averages over classes.

Wilson's interval needs no draws and holds its level with few images and at 0 and 1; it serves
accuracy, precision and recall. F1 of one class is a function of a proportion and has it too. An
average over classes is none, so it is resampled.
"""

from collections.abc import Iterator, Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "NUM_RESAMPLES",
    "Interval",
    "draw_counts",
    "f1_interval",
    "interval_of",
    "lower_bounds",
    "macro_f1_interval",
    "macro_f1_of_counts",
    "wilson",
]

Interval: TypeAlias = tuple[float, float]

NUM_RESAMPLES = 1_000  # the ends of a 95 % interval then rest on 25 resamples each
_MOST_NUMBERS = 1 << 20  # in what is drawn at once: 8 MiB


def wilson(successes: int, n: int, *, level: float = 0.95) -> Interval:
    """Give Wilson's score interval of a proportion (Wilson 1927).

    Its ends are the p with |successes / n - p| = z sqrt(p (1 - p) / n): every proportion that a
    score test at this level does not reject.

    Args:
        successes: From 0 to `n`.
        n: Number of trials, at least 1.
        level: Share of such intervals that shall hold the truth, in (0, 1).

    Returns:
        Lower and upper end, in [0, 1].

    Raises:
        ValueError: `n` is 0: the proportion is undefined.

    Example:
        >>> low, high = wilson(9, 10)
        >>> f"{low:.3f} {high:.3f}"
        '0.596 0.982'
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"a proportion needs 0 <= successes <= n and n >= 1, not {successes}/{n}")
    z = NormalDist().inv_cdf((1 + level) / 2)
    share = successes / n
    centre = share + z**2 / (2 * n)
    half_width = z * (share * (1 - share) / n + z**2 / (4 * n**2)) ** 0.5
    scale = 1 + z**2 / n
    low = 0.0 if successes == 0 else (centre - half_width) / scale  # exact: 0 - 0 leaves 1e-19
    high = 1.0 if successes == n else (centre + half_width) / scale
    return low, high


def lower_bounds(
    successes: "NDArray[np.integer]", n: "NDArray[np.integer]", *, level: float = 0.95
) -> "NDArray[np.float64]":
    """Give the least that proportions can be, one-sided and exact (Clopper and Pearson 1934).

    Args:
        successes: From 0 to `n` each.
        n: Numbers of trials, at least 1.
        level: Share of such bounds that the truth shall not be below, in (0, 1).

    Returns:
        In [0, 1), of the shape of the arguments.

    Example:
        >>> f"{lower_bounds(np.array([59]), np.array([59]))[0]:.3f}"
        '0.950'
    """
    from scipy.special import betaincinv

    found = betaincinv(np.maximum(successes, 1), n - successes + 1, 1 - level)
    return np.where(successes > 0, found, 0.0)


def f1_interval(hits: int, union: int, *, level: float = 0.95) -> Interval:
    """Give the interval of one class' F1 from Wilson's.

    Of the images that are of a class or are taken for it, the share J for which both hold is a
    proportion, and F1 = 2 J / (1 + J) rises with it, so the ends of J's interval become those of
    F1's. (negative) The bootstrap was tried first and left: with few images and few errors most of
    its intervals miss the truth, as no resample holds an error that the sample does not have;
    `tests/unit/evaluate/test_intervals.py` shows both.

    Args:
        hits: Images of the class that are taken for it.
        union: Images that are of the class or are taken for it, at least 1.
        level: Share of such intervals that shall hold the truth, in (0, 1).

    Returns:
        Lower and upper end, in [0, 1].
    """
    low, high = wilson(hits, union, level=level)
    return 2 * low / (1 + low), 2 * high / (1 + high)


def macro_f1_interval(
    confusion: "NDArray[np.int64]",
    *,
    num_resamples: int = NUM_RESAMPLES,
    level: float = 0.95,
    seed: int = 0,
) -> Interval | None:
    """Give the bootstrap's percentile interval of macro F1, its bias taken off.

    Resampling images and counting what they are taken for is drawing the confusion matrix from a
    multinomial distribution. So no image is touched: the cost is that of `num_resamples` draws for
    each cell that is not empty. Where classes have few images some of them are in no resample, so
    that resamples are worse than the sample on average; by as much all are moved.

    In simulations such intervals hold the truth in 95 of 100 cases where classes have five images
    or more, in 89 where they have two, and in 85 where they have one. (negative) Drawing within
    each class was tried first and left: it holds in 90, 71 and 50, since of two images of a class
    it shows half of the variance, and of one none.

    Args:
        confusion: (K, K) counts, rows true, columns predicted.
        num_resamples: Number of resamples.
        level: Share of such intervals that shall hold the truth, in (0, 1).
        seed: Seed of this function's own generator; the same seed gives the same interval.

    Returns:
        Lower and upper end, in [0, 1]; None where all resamples are equal, as where every image is
        right: an interval of width 0 would say what nobody knows.
    """
    true, said = np.nonzero(confusion)
    counts = confusion[true, said]
    drawn = [
        macro_f1_of_counts(some, true, said, num_classes=len(confusion))
        for some in draw_counts(counts, num_resamples, seed=seed)
    ]
    own = macro_f1_of_counts(counts[None], true, said, num_classes=len(confusion))
    return interval_of(drawn, float(own[0]), level=level, least=0.0)


def draw_counts(
    counts: "NDArray[np.integer]", num_resamples: int, *, seed: int
) -> "Iterator[NDArray[np.int64]]":
    """Draw how often each of C kinds of image is among as many images, drawn with replacement.

    Args:
        counts: (C,) how often each kind was seen, at least once; may be empty.
        num_resamples: R, how often to draw.
        seed: The same seed gives the same draws.

    Yields:
        (some, C) counts, R rows in all, of a few MiB each.
    """
    if not len(counts):
        return
    generator = np.random.default_rng(seed)
    total, at_once = int(counts.sum()), max(1, _MOST_NUMBERS // len(counts))
    for start in range(0, num_resamples, at_once):
        number = min(at_once, num_resamples - start)
        yield generator.multinomial(total, counts / total, size=number)


def macro_f1_of_counts(
    counts: "NDArray[np.integer]",
    true: "NDArray[np.integer]",
    said: "NDArray[np.integer]",
    *,
    num_classes: int,
) -> "NDArray[np.float64]":
    """Give macro F1 of R resamples, over the classes that occur in each, as METRICS has it.

    Args:
        counts: (R, C) images of each of C kinds.
        true: (C,) the class of each kind.
        said: (C,) what each kind is taken for.
        num_classes: K.

    Returns:
        (R,) in [0, 1]; 0 where there is no image.
    """
    hits, support, taken = np.zeros((3, num_classes, len(counts)))  # (K, R) each
    for place, (one, other) in enumerate(zip(true.tolist(), said.tolist(), strict=True)):
        support[one] += counts[:, place]
        taken[other] += counts[:, place]
        if one == other:
            hits[one] += counts[:, place]
    occurring = support + taken
    f1 = 2 * hits / np.where(occurring > 0, occurring, 1)
    averages: NDArray[np.float64] = f1.sum(axis=0) / np.maximum(1, (occurring > 0).sum(axis=0))
    return averages


def interval_of(
    drawn: "Sequence[NDArray[np.float64]]", own: float, *, level: float, least: float
) -> Interval | None:
    """Cut the same share off both tails of resampled figures; `level` of them stays.

    Args:
        drawn: The figures, in parts.
        own: The figure of the sample; the resamples are moved so that it is their mean.
        level: In (0, 1).
        least: The least that the figure can be; the largest is 1.

    Returns:
        Lower and upper end; None where all are equal.
    """
    values = np.concatenate([*drawn, np.empty(0)])
    if not len(values) or not np.ptp(values):
        return None
    ends = np.quantile(values, [(1 - level) / 2, (1 + level) / 2]) + own - values.mean()
    low, high = ends.clip(least, 1.0)
    return float(low), float(high)
