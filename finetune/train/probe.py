"""The probe: L2 logistic regression on frozen features, in seconds rather than epochs.

Linear probing before fine-tuning keeps the pretrained features whole (LP-FT, 2202.10054). Features
are scaled to unit variance; the penalty is chosen by log loss, on the validation part where that is
large enough to tell and on images held out of the training part where it is not; a solver of
`solvers.py` fits; the scaling is folded into the weights, so that the result is an ordinary linear
layer. Beside the features given there is one scaled copy of them, and a second, smaller one while
training images are held out; where they are many, in a mapped file each (decision 0031).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from finetune.runtime.rows import collect_rows
from finetune.train.linear import Features, LinearModel, chunks_of
from finetune.train.solvers import Solver, SolverName, choose_solver, make_solver
from finetune.types import Choice

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

__all__ = ["Probe", "fit_probe"]

# Weights of the L2 penalty beside the mean log loss of unit-variance features, strong to weak: a
# wide net of half decades. The best one hardly moves with the number of images.
PENALTIES = tuple(float(value) for value in np.logspace(1.0, -5.0, 13))
MIDDLE = 0.1  # amid the range that sets choose, for one that cannot
NUM_WORSE = 2  # penalties in a row that hold out worse than the best before the search ends
MIN_VALIDATION = 100  # images; below, folds of the training part have less noise
NUM_FOLDS = 5
MIN_FOLD = 1000  # images; a fold as large as that tells as much as all of them

_MakeSolver: TypeAlias = Callable[[Features], Solver]
_Split: TypeAlias = "tuple[NDArray[np.int64], NDArray[np.int64]]"  # rows to fit on, rows held out


@dataclass(frozen=True, slots=True)
class Probe:
    """A fitted linear head.

    Attributes:
        model: Weights (K, D) and biases (K,), float32, on unscaled features.
        strength: The inverse regularisation strength C chosen, of scikit-learn's meaning.
        reason: How it was chosen.
        solver: Which solver fitted it, and why.
    """

    model: LinearModel
    strength: float
    reason: str
    solver: Choice[SolverName]


def fit_probe(
    train: Features,
    val: Features,
    *,
    num_classes: int,
    balanced: bool = False,
    device: torch.device | str = "cpu",
    solver: SolverName | None = None,
) -> Probe:
    """Fit the probe, its strength chosen by log loss; equal arguments give an equal probe.

    Args:
        train: Features to fit on; of at least two classes.
        val: Features to choose the strength on; may be empty.
        num_classes: K ≥ 2.
        balanced: Weigh images by inverse class frequency.
        device: Where a solver that can computes.
        solver: Which one; None chooses by size.
    """
    # Careful: a limit holds for the libraries that are loaded, and scipy has a BLAS of its own.
    import sklearn.linear_model  # noqa: F401
    from threadpoolctl import threadpool_limits

    num_images, width = train.values.shape
    chosen = choose_solver(num_images, width, num_classes)
    if solver is not None:
        chosen = Choice(solver, "as asked for")
    make = partial(
        make_solver, chosen.value, num_classes=num_classes, balanced=balanced, device=device
    )
    # One thread for few numbers: a step of L-BFGS takes less time than threads take to meet. On two
    # busy cores the fit of 300 images of six classes took 0.5 s instead of 10 s.
    with threadpool_limits(1 if chosen.value == "scikit-learn" else None):
        scaling = _Scaling.of(train.values)
        scaled = scaling.scaled(train)
        search = _search(make, scaled, scaling.scaled(val), num_classes if balanced else None)
        penalty, start, reason = search
        model = scaling.folded(make(scaled).fit(penalty, start))
    return Probe(model, 1.0 / (penalty * len(train)), reason, chosen)


@dataclass(frozen=True, slots=True)
class _Scaling:
    """Mean and scale (D,) of features; what hardly varies beside the others keeps its scale."""

    mean: NDArray[np.float32]
    scale: NDArray[np.float32]

    @classmethod
    def of(cls, values: NDArray[np.float32]) -> _Scaling:
        """Measure features, their sums in float64, without a copy of all."""
        mean = values.mean(axis=0, dtype=np.float64).astype(np.float32)
        squares = np.zeros(len(mean))
        for rows in chunks_of(len(values), len(mean)):
            squares += np.square(values[rows] - mean).sum(axis=0, dtype=np.float64)
        scale = np.sqrt(squares / len(values)).astype(np.float32)
        return cls(mean, np.where(scale > 1e-6 * max(1e-12, float(scale.max())), scale, 1.0))

    def scaled(self, features: Features) -> Features:
        """Give a scaled copy, shuffled so that any slice of it is a sample."""
        order = np.random.default_rng(0).permutation(len(features))

        def scaled_rows(some: slice) -> NDArray[np.float32]:
            values = features.values[order[some]]
            np.subtract(values, self.mean, out=values)
            np.divide(values, self.scale, out=values)
            return values

        values = collect_rows(scaled_rows, len(features), features.width)
        return features.with_values(values, order)

    def folded(self, model: LinearModel) -> LinearModel:
        """Turn a model of scaled features into one of unscaled features."""
        weight = model.weight / self.scale
        bias = model.bias - weight @ self.mean.astype(np.float64)
        return LinearModel(weight.astype(np.float32), bias.astype(np.float32))


def _search(
    make: _MakeSolver, train: Features, val: Features, num_balanced: int | None
) -> tuple[float, LinearModel | None, str]:
    """Choose the penalty; give it, a model that was fitted with it, and how it was chosen.

    Where so many classes are balanced in the fit, they are in what it is judged by. Weaker
    penalties cost more iterations, so the search ends where they no longer help.
    """
    pairs, reason = _held_out(train, val)
    if not pairs:
        return MIDDLE, None, reason
    weights = [_balance(held.labels, num_balanced) for _, held in pairs]
    paths = [make(fit).path(PENALTIES) for fit, _ in pairs]
    losses: list[float] = []
    models: list[LinearModel] = []
    for fitted in zip(*paths, strict=True):  # one penalty after the other, in all folds
        judged = zip(fitted, pairs, weights, strict=True)
        losses.append(float(np.mean([model.log_loss(held, w) for model, (_, held), w in judged])))
        models.append(fitted[-1])
        if len(losses) - 1 - int(np.argmin(losses)) >= NUM_WORSE:
            break
    best = int(np.argmin(losses))
    return PENALTIES[best], models[best], reason


def _held_out(train: Features, val: Features) -> tuple[list[tuple[Features, Features]], str]:
    """Give what is fitted with what it is judged by, and which images those are.

    Training images that the network has learned from are no judges; a small validation part is.
    """
    known = np.flatnonzero(np.isin(val.labels, train.labels))
    if len(val) >= MIN_VALIDATION or (train.are_learned and len(known)):
        return [(train, val[known])], f"least log loss on {len(val):,} validation images"
    splits, reason = _splits(train)
    return [(train[fit], train[held]) for fit, held in splits], reason


def _balance(
    labels: NDArray[np.int64], num_classes: int | None
) -> NDArray[np.floating[Any]] | None:
    """Weigh classes (K,) by their inverse frequency; None where all images count the same."""
    if num_classes is None:
        return None
    return 1 / np.maximum(1, np.bincount(labels, minlength=num_classes))


def _splits(train: Features) -> tuple[Sequence[_Split], str]:
    """Divide the training part into folds; of folds so large that one is enough, give one.

    Images of one unit, such as a burst, are held out together: else they would be told from their
    like. Of a class that is held out whole no image counts.
    """
    labels, units = train.labels, train.units
    if units is None:
        units = np.arange(len(labels))
    homes = np.bincount(np.unique(np.stack([labels, units]), axis=1)[0])  # units of each class
    alone, shared = np.flatnonzero(homes[labels] == 1), np.flatnonzero(homes[labels] > 1)
    if not len(shared):
        single = "image" if len(np.unique(units)) == len(units) else "group"
        return [], f"each class has one training {single}, so none could be held out"
    splits = []
    for fit, held in _folds(labels[shared], units[shared], min(NUM_FOLDS, int(homes.max()))):
        rows = np.concatenate([shared[fit], alone])
        held_out = shared[held]
        splits.append((rows, held_out[np.isin(labels[held_out], labels[rows])]))
    splits = [(rows, held_out) for rows, held_out in splits if len(held_out)]
    if not splits:
        return [], "each fold would hold out all groups of its classes"
    num_held = len(splits[0][1])
    if num_held >= MIN_FOLD:
        return splits[:1], f"least log loss on {num_held:,} training images held out"
    return splits, f"least log loss over {len(splits)} folds of the training part"


def _folds(labels: NDArray[np.int64], units: NDArray[np.int64], num_folds: int) -> Iterable[_Split]:
    """Give rows to fit on and rows held out, stratified; units stay whole."""
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    are_single = len(np.unique(units)) == len(units)
    folds = StratifiedKFold(num_folds) if are_single else StratifiedGroupKFold(num_folds)
    with warnings.catch_warnings():
        # It warns of a class with fewer images than folds, which some of them hold out.
        warnings.simplefilter("ignore", UserWarning)
        yield from folds.split(labels, labels, groups=None if are_single else units)
