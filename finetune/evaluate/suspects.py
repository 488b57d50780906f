"""What features say of a data set: photos that are nearly one, and labels that are wrong.

Labels are judged by confident learning, the rule of `confident.py`, on the probabilities that a
probe gives which has not seen the photo. Nothing here is certain: a person looks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations_with_replacement
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune.data.findings import Finding
from finetune.data.groups import joined, unit_of
from finetune.evaluate.confident import FEWEST, suspect_labels
from finetune.train.linear import Features, chunks_of
from finetune.train.probe import fit_probe
from finetune.types import Sample

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["find_similar", "find_suspect_labels", "predict_held_out"]

NUM_FOLDS = FEWEST  # each photo is judged by a probe that saw four of them
_BLOCK = 2048  # rows of a product: 16 MiB of cosines, and each feature is read few times
# Chosen on the training part of `textures`; docs/benchmarks/check.json reports on other photos.
_SIMILAR = 0.8  # cosine of features about their mean: different textures reached 0.77


def find_similar(features: NDArray[np.float32], samples: Sequence[Sample]) -> Iterator[Finding]:
    """Find photos whose features are nearly equal, but that are no near-duplicates.

    Args:
        features: (N, D).
        samples: N checked samples.

    Returns:
        A finding for each group; its value is the smallest cosine that joins it.
    """
    cosines = dict(_similar_pairs(features, samples))
    groups = joined(cosines)
    group_of = {member: number for number, group in enumerate(groups) for member in group}
    least = [1.0] * len(groups)
    for (one, _), cosine in cosines.items():
        least[group_of[one]] = min(least[group_of[one]], cosine)
    for group, cosine in zip(groups, least, strict=True):
        named = [samples[member] for member in group]
        detail = " ~ ".join(f"{sample.name} ({sample.label})" for sample in named)
        yield Finding("similar", tuple(sample.name for sample in named), detail, round(cosine, 3))


def find_suspect_labels(
    features: Features, samples: Sequence[Sample], classes: Sequence[str]
) -> tuple[Finding, ...]:
    """Find labels that are probably wrong, the likeliest first.

    Args:
        features: Of N samples, their labels as indices into the classes.
        samples: N checked samples.
        classes: K names.

    Returns:
        A finding for each suspect; its value is the probability of the other class. A class with
        fewer than five pictures is not judged.
    """
    rows = _judgeable(features.labels, samples)
    known, labels = np.unique(features.labels[rows], return_inverse=True)
    if len(known) < 2:
        return ()
    _, units = np.unique([unit_of(samples[row]) for row in rows], return_inverse=True)
    probs = predict_held_out(replace(features[rows], labels=labels, units=units))
    found = suspect_labels(probs, labels)
    return tuple(
        Finding(
            "suspect_label",
            (samples[rows[place]].name,),
            f"labelled {classes[known[labels[place]]]} ({own:.2f}), "
            f"looks like {classes[known[other]]} ({likely:.2f})",
            round(float(likely), 3),
        )
        for place, other, likely, own in zip(
            found.places, found.others, found.likely, found.own, strict=True
        )
    )


def predict_held_out(features: Features) -> NDArray[np.floating[Any]]:
    """Predict each image by a probe that has seen neither it nor its like.

    Args:
        features: Of N images, with their units, which are held out whole; each class in five at
            least.

    Returns:
        Probabilities (N, K).
    """
    from sklearn.model_selection import StratifiedGroupKFold

    num_classes = int(features.labels.max()) + 1
    probs = np.zeros((len(features), num_classes))
    folds = StratifiedGroupKFold(NUM_FOLDS, shuffle=True, random_state=0)
    for fit, held_out in folds.split(features.values, features.labels, groups=features.units):
        # The held-out fold chooses the strength of the penalty, one number, and nothing else.
        probe = fit_probe(features[fit], features[held_out], num_classes=num_classes)
        for chunk in chunks_of(len(held_out), num_classes):
            places = held_out[chunk]
            probs[places] = probe.model.probabilities(features.values[places])
    return probs


def _similar_pairs(
    features: NDArray[np.float32], samples: Sequence[Sample]
) -> Iterator[tuple[tuple[int, int], float]]:
    """Give pairs of positions that show different pictures, with their cosine."""
    centred = features - features.mean(axis=0)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True).clip(1e-12)
    blocks = [slice(start, start + _BLOCK) for start in range(0, len(samples), _BLOCK)]
    for rows, others in combinations_with_replacement(blocks, 2):
        cosines = centred[rows] @ centred[others].T
        for place, column in zip(*np.nonzero(cosines > _SIMILAR), strict=True):
            one, other = int(place) + rows.start, int(column) + others.start
            if one < other and samples[one].picture != samples[other].picture:
                yield (one, other), float(cosines[place, column])


def _judgeable(labels: NDArray[np.int64], samples: Sequence[Sample]) -> NDArray[np.intp]:
    """Give the positions of images whose class has a unit for each fold."""
    units: dict[int, set[str]] = {}
    for label, sample in zip(labels.tolist(), samples, strict=True):
        units.setdefault(label, set()).add(unit_of(sample))
    enough = [label for label, found in units.items() if len(found) >= NUM_FOLDS]
    return np.flatnonzero(np.isin(labels, enough))
