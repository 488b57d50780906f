"""Answers withheld: the threshold for a wanted precision, and what each share of answers costs.

A threshold that was chosen because its few best validation images are right promises too much:
half of such thresholds miss the precision they were chosen for. So it is not the precision seen
that must reach the wanted one, but the least that these images still allow: the lower end of the
exact interval of a proportion (Clopper and Pearson 1934), one-sided, at 95 %.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune.evaluate.intervals import lower_bounds
from finetune.types import Choice

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["CoveragePoint", "choose_reject_threshold", "coverage_curve"]

NUM_POINTS = 20  # of the curve: every five percent of the images


@dataclass(frozen=True, slots=True)
class CoveragePoint:
    """How right the answers are when only the most confident images are answered.

    Attributes:
        coverage: Share of the images that are answered, in (0, 1].
        threshold: The least probability among them.
        accuracy: Share of them that is right.
    """

    coverage: float
    threshold: float
    accuracy: float


def choose_reject_threshold(
    confidence: NDArray[np.float32], correct: NDArray[np.bool_], *, precision: float
) -> Choice[float | None]:
    """Choose the least probability at which an answer is given, so that precision is reached.

    Args:
        confidence: (N,) probability of the likeliest class.
        correct: (N,) whether that class is right.
        precision: The share of right answers that is wanted, in (0, 1).

    Returns:
        The smallest threshold at which the answered images show that precision, half way to the
        next lower probability; 0 where all may be answered, None where no threshold shows it.
    """
    if not len(confidence):
        return Choice(None, "there is no validation image to choose it on")
    order, ends = _ranked(confidence)
    ranked, num_right = confidence[order], np.cumsum(correct[order])
    least = lower_bounds(num_right[ends], ends + 1)
    reaching = np.flatnonzero(least >= precision)
    if not len(reaching):
        return Choice(None, _why_none(len(ranked), precision, float(least.max())))
    last = int(ends[reaching[-1]])
    shown = f"{num_right[last]} of {last + 1} answers are right"
    if last + 1 == len(ranked):
        return Choice(0.0, f"nothing need be withheld: {shown}, which shows {precision:g}")
    return Choice(
        _between(ranked[last + 1], ranked[last]),
        f"{len(ranked) - last - 1} of {len(ranked)} validation images withheld: of the rest "
        f"{shown}, which shows {precision:g}",
    )


def coverage_curve(
    confidence: NDArray[np.float32], correct: NDArray[np.bool_]
) -> tuple[CoveragePoint, ...]:
    """Tabulate the accuracy of the most confident images against how many they are.

    Args:
        confidence: (N,) probability of the likeliest class, N at least 1.
        correct: (N,) whether that class is right.

    Returns:
        At most 20 points, coverage rising to 1; images of one probability are answered together.
    """
    order, ends = _ranked(confidence)
    num_right = np.cumsum(correct[order])
    wanted = np.ceil(np.arange(1, NUM_POINTS + 1) * len(order) / NUM_POINTS) - 1
    lasts = np.unique(ends[np.searchsorted(ends, wanted)])
    return tuple(
        CoveragePoint(
            coverage=(last + 1) / len(order),
            threshold=float(confidence[order[last]]),
            accuracy=float(num_right[last]) / (last + 1),
        )
        for last in lasts.tolist()
    )


def _ranked(
    confidence: NDArray[np.float32],
) -> tuple[NDArray[np.intp], NDArray[np.integer[Any]]]:
    """Order images from sure to unsure; also give the last place of each probability."""
    order = np.argsort(-confidence, kind="stable")
    ranked = confidence[order]
    return order, np.flatnonzero(np.append(ranked[1:] < ranked[:-1], True))


def _between(lower: np.float32, upper: np.float32) -> float:
    """Give a float32 above the lower value and at most the upper: half way, where there is room."""
    middle = np.float32((float(lower) + float(upper)) / 2)
    return float(middle if middle > lower else upper)


def _why_none(num_images: int, precision: float, best: float) -> str:
    """Say why no threshold shows the precision."""
    if_all_right = float(lower_bounds(np.array([num_images]), np.array([num_images]))[0])
    if if_all_right < precision:
        return (
            f"{num_images} validation images are too few to show a precision of {precision:g}: if "
            f"all were right, they would show {if_all_right:.3f}"
        )
    return (
        f"no threshold shows a precision of {precision:g} on {num_images} validation images; the "
        f"best shows {best:.3f}"
    )
