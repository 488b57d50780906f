"""Which labels the answers of a model contradict, by confident learning: the rule, and no more.

Northcutt and others, 1911.00068, in its plain form: a photo is a suspect where the probability of
another class reaches what photos of that label reach on average, and exceeds that of its own label
by a margin. The answers must come from a model that was not trained on these photos: one that was
agrees with wrong labels too. Nothing here is certain: a person looks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["FEWEST", "MARGIN", "Likeliest", "Suspects", "suspect_labels"]

FEWEST = 5  # photos of a class that tell what is usual for it, and as many as folds of a check
# Chosen on the training part of `textures`; docs/benchmarks/check.json reports on other photos.
MARGIN = 0.4  # between the two probabilities: below it nearly all suspects were right


@dataclass(frozen=True, slots=True, eq=False)
class Likeliest:
    """Of which classes probabilities are known, where it is not all of them.

    The likeliest two suffice: the other class of a suspect is above `MARGIN`, a third cannot be.

    Attributes:
        classes: (N, T) the likeliest classes, from the first on.
        own: (N,) probability of the label.
    """

    classes: NDArray[np.int64]
    own: NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class Suspects:
    """S labels that are probably wrong, the likeliest first.

    Attributes:
        places: (S,) positions of the photos.
        others: (S,) the class that each looks like.
        likely: (S,) its probability.
        own: (S,) that of the label.
    """

    places: NDArray[np.intp]
    others: NDArray[np.int64]
    likely: NDArray[np.floating[Any]]
    own: NDArray[np.floating[Any]]


def suspect_labels(
    probs: NDArray[np.floating[Any]],
    labels: NDArray[np.int64],
    *,
    of: Likeliest | None = None,
) -> Suspects:
    """Find the labels that probabilities contradict.

    Args:
        probs: (N, K) of all classes in order; or (N, T) of those that `of` names.
        labels: (N,) indices of classes. What no photo is labelled is no other class either.
        of: Which classes `probs` are of; None where they are of all.

    >>> probs = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.95, 0.05]])
    >>> suspect_labels(probs, np.array([0, 0, 1, 1])).places.tolist()
    [3]
    """
    rows = np.arange(len(labels))
    of_all = np.broadcast_to(np.arange(probs.shape[1]), probs.shape)
    classes = of_all if of is None else of.classes
    own = probs[rows, labels] if of is None else of.own
    last = max(probs.shape[1] - 1, classes.max(initial=0), labels.max(initial=0))
    usual = np.full(last + 1, np.inf)
    for label in np.unique(labels):
        usual[label] = own[labels == label].mean(dtype=np.float64)
    floor = usual if of is None else usual[classes]  # broadcast: no second table of N by K
    column = np.where(probs >= floor, probs, -1.0).argmax(axis=1)
    others, likely = classes[rows, column], probs[rows, column]
    is_suspect = (likely >= usual[others]) & (others != labels) & (likely - own > MARGIN)
    places = np.flatnonzero(is_suspect)
    places = places[np.argsort(own[places] - likely[places], kind="stable")]
    return Suspects(places, others[places], likely[places], own[places])
