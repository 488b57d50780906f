"""Metrics: functions of probabilities and labels, computed by scikit-learn.

A metric is `(probs (N, K) float, labels (N,) int) -> float`: rows of `probs` sum to 1, labels are
column indices. An undefined figure is NaN here and null in files. Notable choices:

- The predicted class is the likeliest; of equal ones the first in class order, for every metric.
- Averages over classes are scikit-learn's defaults with `zero_division=0`: they run over the
  classes that occur among the labels or the predictions, so that `sklearn.metrics` gives the same
  figures from `predictions.csv`. A class that occurs in neither says nothing and is left out.
- Balanced accuracy runs over the classes that occur among the labels, as scikit-learn's does.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["METRICS", "Metric", "is_defined", "is_loss"]

Probs: TypeAlias = "NDArray[np.floating[Any]]"
Labels: TypeAlias = "NDArray[np.integer[Any]]"
Metric: TypeAlias = Callable[["Probs", "Labels"], float]

UNDEFINED = float("nan")
NUM_BINS = 15  # of the expected calibration error: 1706.04599
_LOSSES = frozenset({"expected_calibration_error", "log_loss"})


def is_loss(name: str) -> bool:
    """Say whether lower is better; a leading `val_` is ignored.

    >>> is_loss("val_log_loss"), is_loss("macro_f1")
    (True, False)
    """
    return name.removeprefix("val_") in _LOSSES


def is_defined(name: str, *, num_classes: int, num_found: int) -> bool:
    """Say whether a figure is defined for photos of so many classes; a leading `val_` is ignored.

    Args:
        name: Of the metric.
        num_classes: K.
        num_found: Classes that occur among the labels, at most K.
    """
    plain = name.removeprefix("val_")
    if plain == "top_5_accuracy":
        return num_classes > 5
    return plain != "roc_auc_ovr" or num_found == num_classes


def _accuracy(probs: "Probs", labels: "Labels") -> float:
    """Share of images whose likeliest class is right, in [0, 1]."""
    from sklearn.metrics import accuracy_score

    if not len(labels):
        return UNDEFINED
    return float(accuracy_score(labels, probs.argmax(axis=1)))


def _balanced_accuracy(probs: "Probs", labels: "Labels") -> float:
    """Mean recall over the classes that occur among the labels, in [0, 1]."""
    import numpy as np
    from sklearn.metrics import recall_score

    if not len(labels):
        return UNDEFINED
    # Not balanced_accuracy_score: it is the same figure but warns of classes without an image.
    predicted = probs.argmax(axis=1)
    return float(
        recall_score(
            labels, predicted, labels=np.unique(labels), average="macro", zero_division=0.0
        )
    )


def _average(
    probs: "Probs", labels: "Labels", *, how: Literal["macro", "weighted"]
) -> tuple[float, float, float]:
    """Precision, recall and F1 averaged over the classes that occur."""
    from sklearn.metrics import precision_recall_fscore_support

    if not len(labels):
        return UNDEFINED, UNDEFINED, UNDEFINED
    precision, recall, f1, _ = precision_recall_fscore_support(
        labels, probs.argmax(axis=1), average=how, zero_division=0.0
    )
    return float(precision), float(recall), float(f1)


def _macro_precision(probs: "Probs", labels: "Labels") -> float:
    """Unweighted mean of the classes' precision, in [0, 1]."""
    return _average(probs, labels, how="macro")[0]


def _macro_recall(probs: "Probs", labels: "Labels") -> float:
    """Unweighted mean of the classes' recall, in [0, 1]."""
    return _average(probs, labels, how="macro")[1]


def _macro_f1(probs: "Probs", labels: "Labels") -> float:
    """Unweighted mean of the classes' F1, in [0, 1]."""
    return _average(probs, labels, how="macro")[2]


def _weighted_f1(probs: "Probs", labels: "Labels") -> float:
    """Mean of the classes' F1 weighted by their number of images, in [0, 1]."""
    return _average(probs, labels, how="weighted")[2]


def _top_5_accuracy(probs: "Probs", labels: "Labels") -> float:
    """Share of images whose class is among the five likeliest; undefined for K of 5 or fewer."""
    import numpy as np
    from sklearn.metrics import top_k_accuracy_score

    num_classes = probs.shape[1]
    if not len(labels) or num_classes <= 5:
        return UNDEFINED
    # Careful: of equal scores scikit-learn takes the last class, argmax the first. Columns in
    # reverse make both take the first, so that the figure is never below the accuracy.
    return float(
        top_k_accuracy_score(
            num_classes - 1 - labels, probs[:, ::-1], k=5, labels=np.arange(num_classes)
        )
    )


def _log_loss(probs: "Probs", labels: "Labels") -> float:
    """Mean of -ln p(right class), in nats; p is clipped at float64's 2.2e-16 by scikit-learn."""
    import numpy as np
    from sklearn.metrics import log_loss

    num_classes = probs.shape[1]
    if not len(labels) or num_classes < 2:
        return UNDEFINED
    return float(log_loss(labels, _normalised(probs), labels=np.arange(num_classes)))


def _expected_calibration_error(probs: "Probs", labels: "Labels") -> float:
    """Mean gap between confidence and accuracy over 15 equal-width bins (1706.04599)."""
    import numpy as np

    if not len(labels):
        return UNDEFINED
    confidence = probs.max(axis=1).astype(np.float64)
    correct = (probs.argmax(axis=1) == labels).astype(np.float64)
    inner_edges = np.linspace(0, 1, NUM_BINS + 1)[1:-1]
    bins = np.digitize(confidence, inner_edges, right=True)  # ((m - 1) / M, m / M], as published
    gaps = np.bincount(bins, weights=correct - confidence, minlength=NUM_BINS)  # n_m (acc - conf)
    return float(np.abs(gaps).sum() / len(labels))


def _roc_auc_ovr(probs: "Probs", labels: "Labels") -> float:
    """Macro mean of one-against-rest areas; undefined where a class has no image."""
    import numpy as np
    from sklearn.metrics import roc_auc_score

    num_classes = probs.shape[1]
    if num_classes < 2 or len(np.unique(labels)) < num_classes:
        return UNDEFINED
    if num_classes == 2:
        return float(roc_auc_score(labels, probs[:, 1]))
    return float(
        roc_auc_score(
            labels,
            _normalised(probs),
            multi_class="ovr",
            average="macro",
            labels=np.arange(num_classes),
        )
    )


def _normalised(probs: "Probs") -> "NDArray[np.float64]":
    """Let rows sum to 1 in float64: float32 ones are off by more than scikit-learn accepts."""
    import numpy as np

    wide = probs.astype(np.float64)
    rows: NDArray[np.float64] = wide / wide.sum(axis=1, keepdims=True)
    return rows


METRICS: dict[str, Metric] = {
    "accuracy": _accuracy,
    "balanced_accuracy": _balanced_accuracy,
    "expected_calibration_error": _expected_calibration_error,
    "log_loss": _log_loss,
    "macro_f1": _macro_f1,
    "macro_precision": _macro_precision,
    "macro_recall": _macro_recall,
    "roc_auc_ovr": _roc_auc_ovr,
    "top_5_accuracy": _top_5_accuracy,
    "weighted_f1": _weighted_f1,
}
