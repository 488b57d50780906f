"""Curves of one class against the rest, and top-k accuracy: what a page draws of an evaluation.

All of them are scikit-learn's. Notable choices:

- A curve that is undefined is None: ROC without an image of the class or without one of the others,
  the others without an image of the class.
- The area that stands beside a curve is that of all its points. Drawn are 200 of them at most, the
  ones that carry its shape; the area below the drawn line differs from that below the whole line by
  0.001 at most (`tests/unit/evaluate/test_curves.py`).
- Average precision is a sum of steps, as scikit-learn has it, not the area below the drawn line.
- A threshold that was chosen on `test` makes its figures there no test any more.
"""

from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "MAX_POINTS",
    "ClassCurves",
    "Curves",
    "PrecisionRecallCurve",
    "RocCurve",
    "ThresholdCurve",
    "compute_curves",
    "thinned",
]

MAX_POINTS = 200  # of a curve: more are not told apart on a screen
_FAR = 0.5  # of what strays most: 300 equal stairs keep their area to 0.0002; to 0.001 at 1
MAX_K = 10  # of top-k accuracy: what a person looks through


@dataclass(frozen=True, slots=True, eq=False)
class RocCurve:
    """False positives against true ones.

    Attributes:
        false_positive_rate: (P,) rising from 0 to 1.
        true_positive_rate: (P,) rising from 0 to 1.
        thresholds: (P,) falling; an image is taken for the class from there on. The first is
            infinite: nothing is taken.
        area: Below the curve through all points.
    """

    false_positive_rate: "NDArray[np.float64]"
    true_positive_rate: "NDArray[np.float64]"
    thresholds: "NDArray[np.float64]"
    area: float


@dataclass(frozen=True, slots=True, eq=False)
class PrecisionRecallCurve:
    """Recall against precision.

    Attributes:
        recall: (P,) falling from 1 to 0.
        precision: (P,) the last is 1 by definition, where nothing is taken.
        average_precision: Of all points: precisions weighted by the steps of recall.
    """

    recall: "NDArray[np.float64]"
    precision: "NDArray[np.float64]"
    average_precision: float


@dataclass(frozen=True, slots=True, eq=False)
class ThresholdCurve:
    """What comes of taking an image for the class from a threshold on.

    Attributes:
        thresholds: (P,) rising: probabilities that occur.
        precision: (P,)
        recall: (P,)
        f1: (P,)
        best_threshold: Where F1 is greatest; of equal ones the highest. Among the thresholds.
        best_f1: F1 there.
    """

    thresholds: "NDArray[np.float64]"
    precision: "NDArray[np.float64]"
    recall: "NDArray[np.float64]"
    f1: "NDArray[np.float64]"
    best_threshold: float
    best_f1: float


@dataclass(frozen=True, slots=True)
class ClassCurves:
    """The curves of one class; None where undefined.

    Attributes:
        name: Class name.
        support: Number of its images.
    """

    name: str
    support: int
    roc: RocCurve | None
    precision_recall: PrecisionRecallCurve | None
    threshold: ThresholdCurve | None


@dataclass(frozen=True, slots=True)
class Curves:
    """All curves of one evaluation.

    Attributes:
        per_class: In class order.
        top_k_accuracy: For k = 1, 2, … up to 10 or K; the last is 1 where it is K.
    """

    per_class: tuple[ClassCurves, ...]
    top_k_accuracy: tuple[float, ...]


def compute_curves(
    probs: "NDArray[np.floating[Any]]",
    labels: "NDArray[np.integer[Any]]",
    *,
    classes: tuple[str, ...],
) -> Curves:
    """Compute the curves of N images.

    Args:
        probs: (N, K), finite, rows sum to 1; N at least 1.
        labels: (N,) indices of columns.
        classes: K names in the order of the columns.
    """
    return Curves(
        per_class=tuple(
            _class_curves(labels == number, probs[:, number].astype(np.float64), name)
            for number, name in enumerate(classes)
        ),
        top_k_accuracy=_top_k_accuracy(probs, labels),
    )


def thinned(
    x: "NDArray[np.float64]", y: "NDArray[np.float64]", *, most: int = MAX_POINTS
) -> "NDArray[np.int64]":
    """Choose the points of a line that carry its shape, the ends among them.

    From the chord between the ends on, the piece whose points stray farthest from its chord, by the
    area in between, is cut in two: the method of Douglas and Peucker (1973), the worst piece first,
    until there are enough points or none strays. Where several points stray far, the cut is made
    where the area below the line stays nearest to what it was.

    Args:
        x: (P,) rising or falling, P at least 1.
        y: (P,)
        most: Number of points, 2 at least.

    Returns:
        Places in x and y, rising; all of them where there are no more than `most`.
    """
    if len(x) <= most:
        return np.arange(len(x))
    chosen = {0, len(x) - 1}
    waiting = [_worst(x, y, 0, len(x) - 1)]
    heapify(waiting)
    while waiting and len(chosen) < most:
        area, first, cut, last = heappop(waiting)
        if area >= 0:  # the areas stand negative in the heap: no piece strays any more
            break
        chosen.add(cut)
        for start, end in ((first, cut), (cut, last)):
            if end - start > 1:
                heappush(waiting, _worst(x, y, start, end))
    return np.array(sorted(chosen))


def _worst(
    x: "NDArray[np.float64]", y: "NDArray[np.float64]", first: int, last: int
) -> tuple[float, int, int, int]:
    """Give less the area by which a piece strays from its chord, and the piece with its cut."""
    inner_x, inner_y = x[first : last + 1], y[first : last + 1]
    width, height = inner_x[-1] - inner_x[0], inner_y[-1] - inner_y[0]
    length = float(np.hypot(width, height))
    # Off a chord of no length points stray by their distance from its one end.
    if length:
        strayed = np.abs((inner_x - inner_x[0]) * height - (inner_y - inner_y[0]) * width) / length
    else:
        strayed = np.hypot(inner_x - inner_x[0], inner_y - inner_y[0])
    steps = np.hypot(np.diff(inner_x), np.diff(inner_y))
    area = float((steps * (strayed[1:] + strayed[:-1])).sum() / 2)
    return (
        (-area if strayed.max() > 0 else 0.0),
        first,
        first + _cut(inner_x, inner_y, strayed),
        last,
    )


def _cut(x: "NDArray[np.float64]", y: "NDArray[np.float64]", strayed: "NDArray[np.float64]") -> int:
    """Choose where to cut a piece: of the points that stray far, where its area stays best."""
    below = (np.diff(x) * (y[1:] + y[:-1])).sum() / 2
    chords = ((x - x[0]) * (y + y[0]) + (x[-1] - x) * (y[-1] + y)) / 2
    is_far = strayed >= _FAR * strayed.max()
    is_far[[0, -1]] = False
    return int(np.where(is_far, np.abs(chords - below), np.inf)[1:-1].argmin()) + 1


def _class_curves(
    is_class: "NDArray[np.bool_]", scores: "NDArray[np.float64]", name: str
) -> ClassCurves:
    """Compute the curves of one class against the rest."""
    support = int(is_class.sum())
    return ClassCurves(
        name=name,
        support=support,
        roc=_roc(is_class, scores) if 0 < support < len(is_class) else None,
        precision_recall=_precision_recall(is_class, scores) if support else None,
        threshold=_threshold(is_class, scores) if support else None,
    )


def _roc(is_class: "NDArray[np.bool_]", scores: "NDArray[np.float64]") -> RocCurve:
    """Compute ROC of a class that has images, as the others have."""
    from sklearn.metrics import auc, roc_curve

    false_rate, true_rate, thresholds = roc_curve(is_class, scores)
    kept = thinned(false_rate, true_rate)
    return RocCurve(
        false_positive_rate=false_rate[kept],
        true_positive_rate=true_rate[kept],
        thresholds=thresholds[kept],
        area=float(auc(false_rate, true_rate)),
    )


def _precision_recall(
    is_class: "NDArray[np.bool_]", scores: "NDArray[np.float64]"
) -> PrecisionRecallCurve:
    """Compute precision and recall of a class that has images."""
    from sklearn.metrics import average_precision_score, precision_recall_curve

    precision, recall, _ = precision_recall_curve(is_class, scores, drop_intermediate=True)
    kept = thinned(recall, precision)
    return PrecisionRecallCurve(
        recall=recall[kept],
        precision=precision[kept],
        average_precision=float(average_precision_score(is_class, scores)),
    )


def _threshold(is_class: "NDArray[np.bool_]", scores: "NDArray[np.float64]") -> ThresholdCurve:
    """Compute precision, recall and F1 over the threshold of a class that has images."""
    from sklearn.metrics import precision_recall_curve

    precision, recall, thresholds = precision_recall_curve(is_class, scores)
    precision, recall = precision[:-1], recall[:-1]  # the last point has no threshold
    total = precision + recall
    f1 = 2 * precision * recall / np.where(total > 0, total, 1)
    best = len(f1) - 1 - int(f1[::-1].argmax())
    kept = np.union1d(thinned(thresholds, f1, most=MAX_POINTS - 1), [best])
    return ThresholdCurve(
        thresholds=thresholds[kept],
        precision=precision[kept],
        recall=recall[kept],
        f1=f1[kept],
        best_threshold=float(thresholds[best]),
        best_f1=float(f1[best]),
    )


def _top_k_accuracy(
    probs: "NDArray[np.floating[Any]]", labels: "NDArray[np.integer[Any]]"
) -> tuple[float, ...]:
    """Give the share of images whose class is among the k likeliest; of equal ones the first."""
    order = np.argsort(-probs, axis=1, kind="stable")[:, :MAX_K]  # (N, k)
    is_found = (order == labels[:, None]).cumsum(axis=1)
    return tuple(is_found.mean(axis=0).tolist())
