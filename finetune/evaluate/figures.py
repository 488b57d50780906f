"""Figures of one split: what `metrics.json` says of it, as frozen dataclasses.

What is undefined is None. Decided figure by figure:

- recall of a class without an image: None; precision of a class never predicted: None;
  F1 of a class that is neither: None, but 0 where one of the two is;
- averages over classes are those of `METRICS`, so that scikit-learn gives the same;
- an interval is None where its figure is, and for macro F1 where there is no error to resample.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from finetune.components.metrics import METRICS
from finetune.evaluate.intervals import Interval, f1_interval, macro_f1_interval, wilson
from finetune.evaluate.slices import Slice

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["ClassFigures", "Figures", "compute_figures", "count_confusion"]


@dataclass(frozen=True, slots=True)
class ClassFigures:
    """Figures of one class; intervals are at 95 %.

    Attributes:
        name: Class name.
        precision: Share of the images taken for it that are of it; None where none is taken.
        precision_interval: Wilson's.
        recall: Share of its images that are taken for it; None where it has no image.
        recall_interval: Wilson's.
        f1: Harmonic mean of both; None where it has no image and none is taken for it.
        f1_interval: Wilson's, carried over to F1.
        support: Number of its images.
    """

    name: str
    precision: float | None
    precision_interval: Interval | None
    recall: float | None
    recall_interval: Interval | None
    f1: float | None
    f1_interval: Interval | None
    support: int


@dataclass(frozen=True, slots=True)
class Figures:
    """Figures of one split, over its images with a known class that could be read.

    Shares are in [0, 1], intervals are at 95 %; see `METRICS` for what each figure is.

    Attributes:
        num_samples: Images that the figures rest on.
        accuracy_interval: Wilson's.
        macro_f1_interval: The bootstrap's; None where all resamples are alike, as without an error.
        log_loss: In nats.
        per_class: In class order.
        num_unreadable: Images without an answer, not scored.
        num_unlabelled: Images whose class is unknown to the model, not scored.
        warnings: Sentences that the person should read beside the figures.
        slices: Of images that have something in common; see `slices.py`.
    """

    num_samples: int
    accuracy: float
    accuracy_interval: Interval
    balanced_accuracy: float
    macro_f1: float
    macro_f1_interval: Interval | None
    weighted_f1: float
    macro_precision: float
    macro_recall: float
    top_5_accuracy: float | None
    log_loss: float | None
    expected_calibration_error: float
    roc_auc_ovr: float | None
    per_class: tuple[ClassFigures, ...]
    num_unreadable: int = 0
    num_unlabelled: int = 0
    warnings: tuple[str, ...] = ()
    slices: tuple[Slice, ...] = ()


def compute_figures(
    probs: "NDArray[np.float32]",
    labels: "NDArray[np.int64]",
    *,
    classes: tuple[str, ...],
    seed: int = 0,
) -> Figures:
    """Compute the figures of N images.

    Args:
        probs: (N, K), finite, rows sum to 1; N at least 1.
        labels: (N,) indices of columns.
        classes: K names in the order of the columns.
        seed: Seed of the resampling behind the interval of macro F1.

    Returns:
        All figures; nothing is said of images that are not scored, and there are no warnings.
    """
    values = {name: metric(probs, labels) for name, metric in METRICS.items()}
    predicted = probs.argmax(axis=1)
    confusion = count_confusion(predicted, labels, num_classes=len(classes))
    return Figures(
        num_samples=len(labels),
        accuracy=values["accuracy"],
        accuracy_interval=wilson(int(confusion.trace()), len(labels)),
        balanced_accuracy=values["balanced_accuracy"],
        macro_f1=values["macro_f1"],
        macro_f1_interval=macro_f1_interval(confusion, seed=seed),
        weighted_f1=values["weighted_f1"],
        macro_precision=values["macro_precision"],
        macro_recall=values["macro_recall"],
        top_5_accuracy=_defined(values["top_5_accuracy"]),
        log_loss=_defined(values["log_loss"]),
        expected_calibration_error=values["expected_calibration_error"],
        roc_auc_ovr=_defined(values["roc_auc_ovr"]),
        per_class=_class_figures(predicted, labels, classes=classes, confusion=confusion),
    )


def count_confusion(
    predicted: "NDArray[np.int64]", labels: "NDArray[np.int64]", *, num_classes: int
) -> "NDArray[np.int64]":
    """Count what the images of each class are taken for.

    Args:
        predicted: (N,) indices of classes, N at least 1.
        labels: (N,) indices of classes.
        num_classes: K.

    Returns:
        (K, K) int64, rows true, columns predicted: scikit-learn's axes.
    """
    from sklearn.metrics import confusion_matrix

    counts = confusion_matrix(labels, predicted, labels=np.arange(num_classes))
    return np.asarray(counts, dtype=np.int64)


def _class_figures(
    predicted: "NDArray[np.int64]",
    labels: "NDArray[np.int64]",
    *,
    classes: tuple[str, ...],
    confusion: "NDArray[np.int64]",
) -> tuple[ClassFigures, ...]:
    """Work out precision, recall and F1 of every class, with intervals."""
    from sklearn.metrics import precision_recall_fscore_support

    precision, recall, f1, support = precision_recall_fscore_support(
        labels, predicted, labels=np.arange(len(classes)), zero_division=np.nan
    )
    hits = confusion.diagonal()  # (K,)
    taken = confusion.sum(axis=0)  # (K,)
    return tuple(
        ClassFigures(
            name=name,
            precision=_defined(precision[k]),
            precision_interval=_interval(wilson, hits[k], taken[k]),
            recall=_defined(recall[k]),
            recall_interval=_interval(wilson, hits[k], support[k]),
            f1=_defined(f1[k]),
            f1_interval=_interval(f1_interval, hits[k], support[k] + taken[k] - hits[k]),
            support=int(support[k]),
        )
        for k, name in enumerate(classes)
    )


def _interval(
    give: Callable[[int, int], Interval], successes: np.integer, n: np.integer
) -> Interval | None:
    """Give the interval of a share; None where the share is undefined."""
    return give(int(successes), int(n)) if n else None


def _defined(value: float) -> float | None:
    """Turn the NaN of an undefined figure into None."""
    return None if np.isnan(value) else float(value)
