"""The probe: L2 logistic regression on frozen features, in seconds rather than epochs.

Linear probing before fine-tuning keeps the pretrained features whole (LP-FT, 2202.10054). The fit
is scikit-learn's; its strength is chosen by log loss, on the validation part where that is large
enough to tell and by cross-validation on the training part where it is not. Features are scaled to
unit variance for the fit, and the scaling is folded into the weights, so that the result is an
ordinary linear layer.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from sklearn.linear_model import LogisticRegression

__all__ = ["Features", "Probe", "fit_probe"]

# Weights of the L2 penalty beside the mean log loss of unit-variance features, strong to weak: a
# wide net of half decades. The best one hardly moves with the number of images.
PENALTIES = tuple(float(value) for value in np.logspace(1.0, -5.0, 13))
NUM_WORSE = 2  # penalties in a row that hold out worse than the best before the search ends
MIN_VALIDATION = 100  # images; below, cross-validation on the training part has less noise
NUM_FOLDS = 5
MAX_ITERATIONS = 500  # of L-BFGS; each penalty starts from the fit before it
TOLERANCE = 1e-4


@dataclass(frozen=True, slots=True)
class Features:
    """Pooled features of labelled images.

    Attributes:
        values: (N, D) float32.
        labels: (N,) int64 class indices.
    """

    values: NDArray[np.float32]
    labels: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Probe:
    """A fitted linear head.

    Attributes:
        weight: (K, D) float32, on unscaled features.
        bias: (K,) float32.
        strength: The inverse regularisation strength C chosen.
        reason: How it was chosen.
    """

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    strength: float
    reason: str

    def probabilities(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Compute probabilities (N, K) float32 of features (N, D)."""
        logits = features @ self.weight.T + self.bias
        logits -= logits.max(axis=1, keepdims=True)
        exponents = np.exp(logits)
        probs: NDArray[np.float32] = exponents / exponents.sum(axis=1, keepdims=True)
        return probs


def fit_probe(train: Features, val: Features, *, num_classes: int, balanced: bool = False) -> Probe:
    """Fit the probe, its strength chosen by log loss.

    Args:
        train: Features to fit on; every class occurs.
        val: Features to choose the strength on; may be empty.
        num_classes: K ≥ 2.
        balanced: Weigh images by inverse class frequency.
    """
    # Careful: a limit holds for the libraries that are loaded, and scipy has a BLAS of its own.
    import sklearn.linear_model  # noqa: F401
    from threadpoolctl import threadpool_limits

    # One thread: a step of L-BFGS takes less time than threads take to meet. On two busy cores the
    # fit of 300 images of six classes took 0.5 s instead of 10 s.
    with threadpool_limits(1):
        return _fit_probe(train, val, num_classes=num_classes, balanced=balanced)


def _fit_probe(train: Features, val: Features, *, num_classes: int, balanced: bool) -> Probe:
    """Scale the features, choose the strength, fit, and fold the scaling into the weights."""
    mean = train.values.mean(axis=0)
    scale = train.values.std(axis=0)
    scale = np.where(scale > 1e-6 * max(1e-12, float(scale.max())), scale, 1.0)
    scaled = Features((train.values - mean) / scale, train.labels)
    if len(val.labels) >= MIN_VALIDATION:
        held_out = Features((val.values - mean) / scale, val.labels)
        losses = _losses(scaled, held_out, balanced=balanced)
        reason = f"least log loss on {len(val.labels)} validation images"
    else:
        losses, reason = _cross_validate(scaled, balanced=balanced)
    strength = _strength(PENALTIES[int(np.argmin(losses))], scaled)
    model = _model(strength, balanced=balanced)
    basis = _basis(scaled)
    _fit(model, scaled, basis)
    weight, bias = _rows(model, num_classes)
    folded = (weight if basis is None else weight @ basis.T) / scale
    return Probe(
        weight=folded.astype(np.float32),
        bias=(bias - folded @ mean).astype(np.float32),
        strength=strength,
        reason=reason,
    )


def _losses(train: Features, val: Features, *, balanced: bool) -> NDArray[np.float64]:
    """Log loss on `val` for each penalty, fitted on `train` from strong to weak.

    Weaker regularisation costs more iterations, so the search ends where it no longer helps; what
    was not tried is infinite.
    """
    from sklearn.metrics import log_loss

    basis = _basis(train)
    held_out = val.values if basis is None else val.values @ basis
    model = _model(1.0, balanced=balanced)
    losses = np.full(len(PENALTIES), np.inf)
    for position, penalty in enumerate(PENALTIES):
        model.set_params(C=_strength(penalty, train))
        _fit(model, train, basis)
        known = np.isin(val.labels, model.classes_)
        probs = model.predict_proba(held_out[known])
        losses[position] = log_loss(val.labels[known], probs, labels=model.classes_)
        if position - int(np.argmin(losses)) >= NUM_WORSE:
            break
    return losses


def _basis(features: Features) -> NDArray[np.float32] | None:
    """Find an orthonormal basis (D, N) of the features' span where there are fewer than D images.

    The weights of an L2 fit lie in that span, so that the fit in its coordinates is the same one,
    and smaller.
    """
    num_images, width = features.values.shape
    if num_images >= width:
        return None
    _, _, rows = np.linalg.svd(features.values, full_matrices=False)
    basis: NDArray[np.float32] = rows.T
    return basis


def _cross_validate(train: Features, *, balanced: bool) -> tuple[NDArray[np.float64], str]:
    """Mean log loss of each penalty over stratified folds of the training part."""
    from sklearn.model_selection import StratifiedKFold

    smallest = int(np.bincount(train.labels)[np.unique(train.labels)].min())
    num_folds = min(NUM_FOLDS, smallest)
    if num_folds < 2:
        middle = np.abs(np.log10(PENALTIES) + 1)  # 0.1: amid the range that other sets choose
        return middle, "a class has one training image, so none could be held out"
    folds = StratifiedKFold(num_folds, shuffle=True, random_state=0)
    rows = [
        _losses(
            Features(train.values[fit], train.labels[fit]),
            Features(train.values[held], train.labels[held]),
            balanced=balanced,
        )
        for fit, held in folds.split(train.values, train.labels)
    ]
    return np.mean(rows, axis=0), f"least log loss over {num_folds} folds of the training part"


def _strength(penalty: float, train: Features) -> float:
    """Give scikit-learn's C, which weighs the sum of the losses, not their mean."""
    return 1.0 / (penalty * len(train.labels))


def _model(strength: float, *, balanced: bool) -> LogisticRegression:
    """Make scikit-learn's estimator, warm from fit to fit."""
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(
        C=strength,
        max_iter=MAX_ITERATIONS,
        tol=TOLERANCE,
        warm_start=True,
        class_weight="balanced" if balanced else None,
    )


def _fit(model: LogisticRegression, features: Features, basis: NDArray[np.float32] | None) -> None:
    """Fit; a fit cut off at the last iteration is good enough, and validation judges it."""
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        values = features.values if basis is None else features.values @ basis
        model.fit(values, features.labels)


def _rows(
    model: LogisticRegression, num_classes: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give one row a class; two classes have one row there, and two symmetric ones here."""
    weight, bias = np.asarray(model.coef_), np.asarray(model.intercept_)
    if len(model.classes_) == 2:
        weight, bias = np.vstack([-weight, weight]) / 2, np.hstack([-bias, bias]) / 2
    full_weight = np.zeros((num_classes, weight.shape[1]))
    full_bias = np.full(num_classes, bias.min() - 10.0)  # a class never seen is never the answer
    full_weight[model.classes_], full_bias[model.classes_] = weight, bias
    return full_weight, full_bias
