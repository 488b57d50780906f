"""Runs compared on the same images: how much better one is, and whether chance explains it.

Notable choices:

- The first run is the reference; every other is compared with it. Whoever compares has a model and
  asks whether another one should take its place. To compare all pairs would cost certainty where
  nobody asked, and a reference chosen as the best of the very images flatters itself.
- The verdict rests on McNemar's exact test of the accuracies, of groups where the data has any.
  With several runs its p-values are corrected by Holm, as are those of the classes, over all
  classes of all runs.
- Images or classes that are not the same are refused: a difference would then be one of the photos.
- What is compared are these very models. Another seed moves a recipe's accuracy as well.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from finetune.evaluate.answers import Cost, RunAnswers, aligned, limits_of, require_same, units_of
from finetune.evaluate.figures import count_confusion
from finetune.evaluate.intervals import Interval, macro_f1_of_counts, wilson
from finetune.evaluate.paired import (
    holm,
    macro_f1_difference_interval,
    mcnemar,
    mcnemar_of_groups,
    newcombe,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "LEVEL",
    "Answer",
    "ClassDifference",
    "Comparison",
    "Difference",
    "Disagreement",
    "RunFigures",
    "compare_runs",
    "p_value_words",
]

LEVEL = 0.05  # of the verdict: the usual one, and that of the 95 % intervals beside it


@dataclass(frozen=True, slots=True)
class RunFigures:
    """How one run did on the images compared; intervals are at 95 %.

    Attributes:
        accuracy_interval: Wilson's; of this run alone, so it does not tell runs apart.
    """

    name: str
    accuracy: float
    accuracy_interval: Interval
    macro_f1: float
    cost: Cost


@dataclass(frozen=True, slots=True)
class ClassDifference:
    """How two runs differ in one class.

    Attributes:
        name: Class name.
        support: Number of its images.
        reference_recall: Share of them that the reference gets right.
        recall: Share of them that the run gets right.
        difference: `recall` less `reference_recall`.
        interval: Newcombe's, at 95 %.
        p_value: McNemar's, of the images of this class.
        corrected_p_value: By Holm, over the classes of all runs compared.
    """

    name: str
    support: int
    reference_recall: float
    recall: float
    difference: float
    interval: Interval
    p_value: float
    corrected_p_value: float

    @property
    def is_told(self) -> bool:
        """Whether chance does not explain the difference, having looked at every class."""
        return self.corrected_p_value < LEVEL


@dataclass(frozen=True, slots=True)
class Difference:
    """How one run differs from the reference; differences are the run's less the reference's.

    Attributes:
        run: Name of the run.
        reference: Name of the reference.
        num_only_run: Images that the run alone gets right.
        num_only_reference: Images that the reference alone gets right.
        accuracy: Difference of the accuracies.
        accuracy_interval: Newcombe's, at 95 %; None where both are right on the same images.
        macro_f1: Difference of the macro F1.
        macro_f1_interval: At 95 %; None where it is not known, as where both answer the same.
        p_value: McNemar's.
        corrected_p_value: By Holm, over the runs compared.
        per_class: Of the classes that have images, in class order.
        verdict: One sentence.
    """

    run: str
    reference: str
    num_only_run: int
    num_only_reference: int
    accuracy: float
    accuracy_interval: Interval | None
    macro_f1: float
    macro_f1_interval: Interval | None
    p_value: float
    corrected_p_value: float
    per_class: tuple[ClassDifference, ...]
    verdict: str = ""

    @property
    def is_told(self) -> bool:
        """Whether chance does not explain the difference of the accuracies."""
        return self.corrected_p_value < LEVEL


@dataclass(frozen=True, slots=True)
class Answer:
    """What one run takes an image for, with what probability."""

    predicted: str
    probability: float
    is_correct: bool


@dataclass(frozen=True, slots=True)
class Disagreement:
    """An image of which not all runs say the same.

    Attributes:
        path: Its name in the tables.
        label: Its class.
        answers: Of each run, in the order of the runs.
    """

    path: str
    label: str
    answers: tuple[Answer, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Runs compared on the same images.

    Attributes:
        split: Name of the part.
        num_samples: Number of the images.
        classes: K names in class order.
        runs: The reference first.
        differences: Of each other run to the reference.
        disagreements: Those first of which some runs are right and others wrong.
        notes: Sentences that the person should read beside the figures.
    """

    split: str
    num_samples: int
    classes: tuple[str, ...]
    runs: tuple[RunFigures, ...]
    differences: tuple[Difference, ...]
    disagreements: tuple[Disagreement, ...]
    notes: tuple[str, ...] = ()


def compare_runs(runs: Sequence[RunAnswers], *, seed: int = 0) -> Comparison:
    """Compare runs on the same images, the first being the reference.

    Args:
        runs: Two or more, all of one part.
        seed: Seed of the resampling behind the intervals.

    Raises:
        DataError: Classes, images, their labels or their contents are not the same in all.
    """
    reference = runs[0]
    for run in runs[1:]:
        require_same(reference, run)
    in_order = [aligned(run, reference) for run in runs]
    units = units_of(in_order)
    return Comparison(
        split=reference.split,
        num_samples=len(reference.paths),
        classes=reference.classes,
        runs=tuple(_figures(run) for run in in_order),
        differences=_differences(in_order, units, seed),
        disagreements=_disagreements(in_order),
        notes=limits_of(in_order, units),
    )


def _figures(run: RunAnswers) -> RunFigures:
    """Work out the figures of one run."""
    num_right = int((run.predicted == run.labels).sum())
    return RunFigures(
        name=run.name,
        accuracy=num_right / len(run.labels),
        accuracy_interval=wilson(num_right, len(run.labels)),
        macro_f1=_macro_f1(run),
        cost=run.cost,
    )


def _macro_f1(run: RunAnswers) -> float:
    """Work out macro F1, over the classes that occur."""
    confusion = count_confusion(run.predicted, run.labels, num_classes=len(run.classes))
    true, said = np.nonzero(confusion)
    counts = confusion[true, said][None]
    return float(macro_f1_of_counts(counts, true, said, num_classes=len(run.classes))[0])


def _differences(
    runs: Sequence[RunAnswers], units: "NDArray[np.int64] | None", seed: int
) -> tuple[Difference, ...]:
    """Compare every run with the first, and correct the p-values over all of them."""
    found = [_difference(runs[0], run, units, seed) for run in runs[1:]]
    overall = holm([one.p_value for one in found])
    by_class = iter(holm([row.p_value for one in found for row in one.per_class]))
    differences = []
    for one, corrected in zip(found, overall, strict=True):
        rows = tuple(replace(row, corrected_p_value=next(by_class)) for row in one.per_class)
        told = replace(one, corrected_p_value=corrected, per_class=rows)
        differences.append(replace(told, verdict=_verdict(told)))
    return tuple(differences)


def _difference(
    reference: RunAnswers, run: RunAnswers, units: "NDArray[np.int64] | None", seed: int
) -> Difference:
    """Compare a run with the reference; p-values are not corrected yet."""
    counts = _paired_counts(reference, run)
    _, only_reference, only_run, _ = counts
    answers, num_classes = (reference.predicted, run.predicted), len(run.classes)
    p_value = _p_value(reference, run, units)
    return Difference(
        run=run.name,
        reference=reference.name,
        num_only_run=only_run,
        num_only_reference=only_reference,
        accuracy=(only_run - only_reference) / len(run.labels),
        accuracy_interval=newcombe(counts) if only_reference + only_run else None,
        macro_f1=_macro_f1(run) - _macro_f1(reference),
        macro_f1_interval=macro_f1_difference_interval(
            answers, run.labels, num_classes=num_classes, seed=seed
        ),
        p_value=p_value,
        corrected_p_value=p_value,
        per_class=tuple(
            _class_difference(reference, run, units, label) for label in np.unique(run.labels)
        ),
    )


def _class_difference(
    reference: RunAnswers, run: RunAnswers, units: "NDArray[np.int64] | None", label: int
) -> ClassDifference:
    """Compare two runs on the images of one class."""
    rows = run.labels == label
    counts = _paired_counts(reference, run, rows)
    both, only_reference, only_run, _ = counts
    support = sum(counts)
    p_value = _p_value(reference, run, units, rows)
    return ClassDifference(
        name=run.classes[label],
        support=support,
        reference_recall=(both + only_reference) / support,
        recall=(both + only_run) / support,
        difference=(only_run - only_reference) / support,
        interval=newcombe(counts),
        p_value=p_value,
        corrected_p_value=p_value,
    )


def _paired_counts(
    reference: RunAnswers, run: RunAnswers, rows: "NDArray[np.bool_] | slice" = slice(None)
) -> tuple[int, int, int, int]:
    """Count images that both get right, the reference alone, the run alone, neither."""
    first = (reference.predicted == reference.labels)[rows]
    second = (run.predicted == run.labels)[rows]
    cells = (first & second, first & ~second, ~first & second, ~first & ~second)
    both, only_first, only_second, neither = (int(cell.sum()) for cell in cells)
    return both, only_first, only_second, neither


def _p_value(
    reference: RunAnswers,
    run: RunAnswers,
    units: "NDArray[np.int64] | None",
    rows: "NDArray[np.bool_] | slice" = slice(None),
) -> float:
    """Test whether two runs are equally often right: of groups where images have any."""
    if units is None:
        _, only_reference, only_run, _ = _paired_counts(reference, run, rows)
        return mcnemar(only_reference, only_run)
    first, second = ((one.predicted == one.labels).astype(int) for one in (reference, run))
    differences = np.bincount(units[rows], (second - first)[rows])
    return mcnemar_of_groups(differences.astype(np.int64))


def _verdict(one: Difference) -> str:
    """Say in one sentence whether the runs differ, and by how much."""
    if one.accuracy_interval is None:
        return (
            f"no difference can be told: {one.run} and {one.reference} are right on the same images"
        )
    low, high = one.accuracy_interval
    if one.is_told and one.accuracy < 0:
        better, worse, low, high = one.reference, one.run, -high, -low
    else:
        better, worse = one.run, one.reference
    p_value = p_value_words(one.corrected_p_value)
    interval = f"95 % interval {100 * low:.1f} to {100 * high:.1f}, {p_value}"
    if one.is_told:
        points = 100 * abs(one.accuracy)
        return f"{better} is better than {worse} by {points:.1f} points of accuracy, {interval}"
    return (
        f"no difference can be told: the accuracy of {better} less that of {worse} is "
        f"{100 * one.accuracy:.1f} points, {interval}"
    )


def p_value_words(value: float) -> str:
    """Write a p-value as one reads it.

    >>> p_value_words(0.0002), p_value_words(0.0386), p_value_words(0.62)
    ('p < 0.001', 'p = 0.039', 'p = 0.62')
    """
    return (
        "p < 0.001" if value < 0.001 else f"p = {value:.3f}" if value < 0.1 else f"p = {value:.2f}"
    )


def _disagreements(runs: Sequence[RunAnswers]) -> tuple[Disagreement, ...]:
    """Gather the images of which not all runs say the same."""
    predicted = np.stack([run.predicted for run in runs])  # (runs, N)
    rows = np.flatnonzero((predicted != predicted[0]).any(axis=0))
    found = [_disagreement(runs, int(row)) for row in rows]
    return tuple(sorted(found, key=lambda one: (not _divides(one), one.path)))


def _disagreement(runs: Sequence[RunAnswers], row: int) -> Disagreement:
    """Gather what the runs say of one image."""
    first = runs[0]
    answers = tuple(
        Answer(
            predicted=run.classes[run.predicted[row]],
            probability=float(run.probability[row]),
            is_correct=bool(run.predicted[row] == run.labels[row]),
        )
        for run in runs
    )
    return Disagreement(first.paths[row], first.classes[first.labels[row]], answers)


def _divides(one: Disagreement) -> bool:
    """Tell whether some runs are right about an image and others wrong."""
    return len({answer.is_correct for answer in one.answers}) > 1
