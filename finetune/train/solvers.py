"""Two solvers of one problem: L2 logistic regression on features of unit variance.

The problem is scikit-learn's: the mean log loss of the images, weighed by class where asked for,
and half the penalty times the squares of the weights; biases go free. Two classes have one row of
weights there and two opposite rows here.

`ScikitSolver` is scikit-learn itself, in float64 on one thread: best for few numbers. `TorchSolver`
computes in float32 with all threads or on an accelerator, by chunks of images, so that it makes
nothing of the size of the features. `choose_solver` knows where the one overtakes the other.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

import numpy as np
import torch
from torch.nn import functional

from finetune.train.linear import Features, LinearModel, chunks_of
from finetune.types import Choice

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from sklearn.linear_model import LogisticRegression

__all__ = [
    "ScikitSolver",
    "Solver",
    "SolverName",
    "TorchSolver",
    "choose_solver",
    "make_solver",
]

SolverName: TypeAlias = Literal["scikit-learn", "torch"]

# Images x features x classes from which torch takes less than half the time on two cores:
# docs/benchmarks/probe.json.
LARGE = 30_000_000
MAX_ITERATIONS = 500  # of L-BFGS
GRADIENT_TOLERANCE = 1e-4  # scikit-learn's own, of the largest entry
# In torch a fit ends with a step that lowers the objective by less, in nats: while penalties are
# compared, and at last. Then probabilities are within 1e-3 of the minimum's.
ROUGH, FINE = 1e-6, 1e-8
HISTORY = 20  # steps that L-BFGS in torch keeps
SAMPLES_PER_FEATURE = 2  # images that the covariance is estimated from
MIN_CURVATURE = 1e-6  # where every image is fitted there is none


class Solver(Protocol):
    """Fits one set of features, as often as asked."""

    def path(self, penalties: Iterable[float]) -> Iterator[LinearModel]:
        """Fit with one penalty after the other, closely enough to compare them.

        Args:
            penalties: From strong to weak, so that each fit is near the one before.
        """

    def fit(self, penalty: float, start: LinearModel | None = None) -> LinearModel:
        """Fit to the end.

        Args:
            penalty: Weight of the penalty beside the mean loss, > 0.
            start: A model that may be near the result, which does not depend on it.
        """


def choose_solver(num_images: int, width: int, num_classes: int) -> Choice[SolverName]:
    """Choose the solver that is faster, by how many products of numbers a pass takes."""
    shape = f"{num_images:,} images x {width:,} features x {num_classes:,} classes"
    if num_images * width * num_classes < LARGE:
        return Choice("scikit-learn", f"{shape} are fewer than {LARGE:,}")
    return Choice("torch", f"{shape} are at least {LARGE:,}")


def make_solver(
    name: SolverName,
    features: Features,
    *,
    num_classes: int,
    balanced: bool,
    device: torch.device | str,
) -> Solver:
    """Make a solver for some features.

    Args:
        name: Which.
        features: Of unit variance or nearly so, in an order that does not follow the classes; of at
            least two classes.
        num_classes: K, those that do not occur included.
        balanced: Weigh images by inverse class frequency.
        device: Where torch computes.
    """
    if name == "scikit-learn":
        return ScikitSolver(features, num_classes=num_classes, balanced=balanced)
    return TorchSolver(features, num_classes=num_classes, balanced=balanced, device=device)


class ScikitSolver:
    """scikit-learn's LogisticRegression, warm from penalty to penalty."""

    def __init__(self, features: Features, *, num_classes: int, balanced: bool) -> None:
        self._labels = features.labels
        self._num_classes = num_classes
        self._class_weight = "balanced" if balanced else None
        self._basis = _basis(features.values)
        values = features.values if self._basis is None else features.values @ self._basis
        self._values = values.astype(np.float64)

    def path(self, penalties: Iterable[float]) -> Iterator[LinearModel]:
        """Fit with one penalty after the other."""
        from sklearn.linear_model import LogisticRegression

        model = LogisticRegression(
            max_iter=MAX_ITERATIONS,
            tol=GRADIENT_TOLERANCE,
            warm_start=True,
            class_weight=self._class_weight,
        )
        for penalty in penalties:
            # Its C weighs the sum of the losses, not their mean.
            model.set_params(C=1.0 / (penalty * len(self._labels)))
            yield self._fitted(model)

    def fit(self, penalty: float, start: LinearModel | None = None) -> LinearModel:
        """Fit with one penalty, from nothing whatever `start` is: few numbers take little time."""
        return next(self.path([penalty]))

    def _fitted(self, model: LogisticRegression) -> LinearModel:
        """Fit; one cut off at the last iteration is good enough, and what is held out judges it."""
        from sklearn.exceptions import ConvergenceWarning

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(self._values, self._labels)
        weight, bias = np.asarray(model.coef_), np.asarray(model.intercept_)
        if len(model.classes_) == 2:
            weight, bias = np.vstack([-weight, weight]) / 2, np.hstack([-bias, bias]) / 2
        if self._basis is not None:
            weight = weight @ self._basis.T
        return _for_all_classes(weight, bias, model.classes_, self._num_classes)


class TorchSolver:
    """L-BFGS in coordinates in which the objective is about as curved in every direction.

    For each class the Hessian is near c S + a I, with S the covariance of the features, c the mean
    of p (1 - p) (Böhning, 1992) and a the penalty. So the weights are taken along the principal
    directions of S, each in units of (its variance + a / c)^-0.5. The features of a pretrained
    network vary thousands of times more in one direction than in another; there this saves half to
    nine tenths of the passes over the images.

    Args:
        features: See `make_solver`; on a CPU their memory is shared, not copied.
        num_classes: K.
        balanced: Weigh images by inverse class frequency.
        device: Where it computes.
    """

    def __init__(
        self, features: Features, *, num_classes: int, balanced: bool, device: torch.device | str
    ) -> None:
        self._num_classes = num_classes
        self._classes, targets, counts = np.unique(
            features.labels, return_inverse=True, return_counts=True
        )
        self._values = torch.from_numpy(features.values).to(device)
        self._targets = torch.from_numpy(targets).to(device)
        weights = len(features) / (len(counts) * counts) if balanced else np.ones(len(counts))
        self._class_weights = torch.tensor(weights, dtype=torch.float32, device=device)
        sample = torch.from_numpy(features.values[: SAMPLES_PER_FEATURE * features.values.shape[1]])
        variances, directions = torch.linalg.eigh(sample.T @ sample / len(sample))
        self._sample = sample.to(device)
        self._variances = variances.clamp_min(0).to(device)
        self._directions = directions.to(device)

    def path(self, penalties: Iterable[float]) -> Iterator[LinearModel]:
        """Fit with one penalty after the other, each from the fit before."""
        model = None
        for penalty in penalties:
            model = self._minimise(penalty, model, ROUGH)
            yield model

    def fit(self, penalty: float, start: LinearModel | None = None) -> LinearModel:
        """Fit with one penalty."""
        return self._minimise(penalty, start, FINE)

    def _minimise(self, penalty: float, start: LinearModel | None, tolerance: float) -> LinearModel:
        """Run L-BFGS until a step gains less than the tolerance."""
        penalty *= 2 if len(self._classes) == 2 else 1  # two opposite rows have half the squares
        weight, bias = self._begin(start)
        units = (self._variances + penalty / self._curvature(weight, bias)).rsqrt()  # (D,)
        coordinates = (weight @ self._directions / units).requires_grad_()  # (K, D)
        bias.requires_grad_()

        def objective() -> float:
            weight = (coordinates.detach() * units @ self._directions.T).requires_grad_()
            loss = self._backward(weight, bias, penalty)
            coordinates.grad = weight.grad @ self._directions * units
            return loss

        optimizer = torch.optim.LBFGS(
            [coordinates, bias],
            max_iter=MAX_ITERATIONS,
            tolerance_grad=0.0,
            tolerance_change=tolerance,
            history_size=HISTORY,
            line_search_fn="strong_wolfe",
        )
        optimizer.step(objective)  # type: ignore[no-untyped-call]
        found = (coordinates.detach() * units @ self._directions.T, bias.detach())
        rows, biases = (tensor.cpu().numpy() for tensor in found)
        return _for_all_classes(rows, biases, self._classes, self._num_classes)

    def _begin(self, start: LinearModel | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Give the weights and biases that a fit begins with, of the classes that occur."""
        if start is None:
            num_rows, width = len(self._classes), self._values.shape[1]
            return self._values.new_zeros(num_rows, width), self._values.new_zeros(num_rows)
        weight, bias = start.weight[self._classes], start.bias[self._classes]
        return self._values.new_tensor(weight), self._values.new_tensor(bias)

    def _curvature(self, weight: torch.Tensor, bias: torch.Tensor) -> float:
        """Estimate the mean of p (1 - p) about a model."""
        probs = torch.addmm(bias, self._sample, weight.T).softmax(dim=1)
        return max(MIN_CURVATURE, float((probs * (1 - probs)).mean()))

    def _backward(self, weight: torch.Tensor, bias: torch.Tensor, penalty: float) -> float:
        """Compute the objective, and its gradients into `grad`; sums of losses are in float64."""
        objective = penalty / 2 * float(weight.detach().cpu().double().square().sum())
        weight.grad, bias.grad = penalty * weight.detach(), None
        for rows in chunks_of(len(self._targets), len(bias)):
            logits = torch.addmm(bias, self._values[rows], weight.T)
            losses = functional.cross_entropy(
                logits, self._targets[rows], weight=self._class_weights, reduction="none"
            )
            losses = losses / len(self._targets)
            losses.sum().backward()  # type: ignore[no-untyped-call]
            objective += float(losses.detach().cpu().double().sum())
        return objective


def _basis(values: NDArray[np.float32]) -> NDArray[np.float32] | None:
    """Find an orthonormal basis (D, N) of the features' span where there are fewer than D images.

    The weights of an L2 fit lie in that span, so that the fit in its coordinates is the same one,
    and smaller.
    """
    num_images, width = values.shape
    if num_images >= width:
        return None
    _, _, rows = np.linalg.svd(values, full_matrices=False)
    basis: NDArray[np.float32] = rows.T
    return basis


def _for_all_classes(
    weight: NDArray[np.floating[Any]],
    bias: NDArray[np.floating[Any]],
    classes: NDArray[np.int64],
    num_classes: int,
) -> LinearModel:
    """Give every class a row: one that was never seen is never the answer."""
    full_weight = np.zeros((num_classes, weight.shape[1]), weight.dtype)
    full_bias = np.full(num_classes, bias.min() - 10.0, bias.dtype)
    full_weight[classes], full_bias[classes] = weight, bias
    return LinearModel(full_weight, full_bias)
