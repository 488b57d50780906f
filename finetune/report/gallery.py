"""Which photos the page shows: few enough to send, chosen for what a person learns from them.

A photo stands in the page once, however often it is shown. The mistakes come first, then labels
that may be wrong and answers that were nearly another; what is left of the budget goes to the
confusion matrix.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from finetune.report.answers import Answers
from finetune.report.labels import LabelCheck, check_labels

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Cell", "Gallery", "Pair", "choose_photos"]

MAX_PHOTOS = 240  # 12 KB each: 3 MB of a page that shall stay under 10
NUM_SUREST = 24
NUM_SUSPECTS = 12
NUM_LEAST_SURE = 12
NUM_PAIRS = 6
NUM_OF_PAIR = 6  # photos of each of these
NUM_OF_CELL = 4  # photos of any other cell of mistakes, where the budget allows
NUM_NAMED = 20  # files named in a cell; the rest stand in predictions.csv
MAX_CLASSES = 24  # rows of the matrix: what fits on a wide screen


@dataclass(frozen=True, slots=True)
class Pair:
    """Two classes that are taken for each other.

    Attributes:
        one: Index of the class that is more often taken for the other.
        other: Index of that other.
        num_there: Photos of `one` taken for `other`.
        num_back: Photos of `other` taken for `one`.
        photos: Positions of some of them, the surest first.
    """

    one: int
    other: int
    num_there: int
    num_back: int
    photos: tuple[int, ...]

    @property
    def num_mistakes(self) -> int:
        """Mistakes in both directions."""
        return self.num_there + self.num_back


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of the confusion matrix that has photos.

    Attributes:
        true: Index of the class that they are of.
        predicted: Index of the class that they are taken for.
        num_photos: How many there are.
        photos: Positions of those shown.
        named: Positions of those named, shown or not.
    """

    true: int
    predicted: int
    num_photos: int
    photos: tuple[int, ...]
    named: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Gallery:
    """The photos of a page, as positions in the answers of its part.

    Attributes:
        surest: Mistakes, the most confident first.
        least_sure: Answers whose two likeliest classes lie closest together.
        pairs: Classes most often taken for each other.
        classes: Rows and columns of the matrix, as indices in class order.
        cells: By row and column.
        labels: What the answers say of the labels; its first suspects are shown.
    """

    surest: tuple[int, ...]
    least_sure: tuple[int, ...]
    pairs: tuple[Pair, ...]
    classes: tuple[int, ...]
    cells: Mapping[tuple[int, int], Cell]
    labels: LabelCheck = field(default_factory=LabelCheck)

    @property
    def suspects(self) -> tuple[int, ...]:
        """Photos whose label is probably wrong, the likeliest first, as many as are shown."""
        return self.labels.suspects[:NUM_SUSPECTS]

    @property
    def studied(self) -> tuple[int, ...]:
        """Those of mistakes, suspects, unsure answers and pairs, each once: 84 at most."""
        of_pairs = [place for pair in self.pairs for place in pair.photos]
        return tuple(dict.fromkeys([*self.surest, *self.suspects, *self.least_sure, *of_pairs]))

    @property
    def photos(self) -> tuple[int, ...]:
        """Every position that is shown, each once, in a stable order."""
        of_cells = [place for cell in self.cells.values() for place in cell.photos]
        return tuple(dict.fromkeys([*self.studied, *of_cells]))


def choose_photos(
    answers: Answers, *, were_trained_on: bool = False, max_photos: int = MAX_PHOTOS
) -> Gallery:
    """Choose the photos of a page.

    Args:
        answers: Of the part that the page is about.
        were_trained_on: Whether the model has seen the labels, so that it cannot judge them.
        max_photos: How many there may be in all.
    """
    wrong = _places(answers.is_mistake)
    surest = _take(wrong[np.argsort(-answers.confidence[wrong], kind="stable")], NUM_SUREST)
    scored = _places(answers.is_scored)
    least_sure = _take(scored[np.argsort(_margins(answers)[scored], kind="stable")], NUM_LEAST_SURE)
    pairs = _find_pairs(answers)
    classes = _worst_classes(answers.confusion)
    labels = LabelCheck() if were_trained_on else check_labels(answers)
    chosen = Gallery(surest, least_sure, pairs, classes, {}, labels)
    shown = set(chosen.studied)
    cells = _fill_cells(answers, classes, shown, budget=max_photos - len(shown))
    return replace(chosen, cells=cells)


def _margins(answers: Answers) -> NDArray[np.float32]:
    """(N,) probability of the likeliest class above that of the next."""
    probs = answers.probabilities
    return probs[:, 0] - probs[:, 1] if probs.shape[1] > 1 else probs[:, 0]


def _find_pairs(answers: Answers) -> tuple[Pair, ...]:
    """Find the classes most often taken for each other, both directions together."""
    counts = answers.confusion
    both = np.triu(counts + counts.T, k=1)
    order = np.argsort(-both, axis=None, kind="stable")[:NUM_PAIRS]
    found = [np.unravel_index(place, both.shape) for place in order.tolist()]
    return tuple(
        _pair(answers, int(row), int(column)) for row, column in found if both[row, column]
    )


def _pair(answers: Answers, row: int, column: int) -> Pair:
    """Describe two classes, the one that is more often taken for the other first."""
    counts = answers.confusion
    one, other = (row, column) if counts[row, column] >= counts[column, row] else (column, row)
    there, back = _photos_of(answers, one, other), _photos_of(answers, other, one)
    # Half of those shown go each way, unless one way has fewer.
    half = NUM_OF_PAIR // 2
    num_back = min(len(back), max(half, NUM_OF_PAIR - len(there)))
    shown = (*_take(there, NUM_OF_PAIR - num_back), *_take(back, num_back))
    return Pair(one, other, len(there), len(back), shown)


def _worst_classes(counts: NDArray[np.int64]) -> tuple[int, ...]:
    """Give all classes, or those with most mistakes in row and column, in class order."""
    num_mistakes = counts.sum(axis=0) + counts.sum(axis=1) - 2 * counts.diagonal()
    order = np.argsort(-num_mistakes, kind="stable")[:MAX_CLASSES]
    return tuple(sorted(order.tolist()))


def _fill_cells(
    answers: Answers, classes: Iterable[int], shown: set[int], *, budget: int
) -> dict[tuple[int, int], Cell]:
    """Choose the photos of each cell, mistakes before right answers, most photos first."""
    chosen = list(classes)
    counts = answers.confusion
    keys = [(row, column) for row in chosen for column in chosen if counts[row, column]]
    keys.sort(key=lambda key: (key[0] == key[1], -counts[key]))
    shown = set(shown)
    cells = {}
    for true, predicted in keys:
        photos = _photos_of(answers, true, predicted)
        if true == predicted:
            photos = photos[::-1]  # of the right ones those that were least sure
        there = [place for place in photos.tolist() if place in shown]
        new = [place for place in photos.tolist() if place not in shown]
        room = max(0, min(NUM_OF_CELL - len(there), budget))
        shown.update(new[:room])
        budget -= len(new[:room])
        kept = {*there, *new[:room]}
        cells[true, predicted] = Cell(
            true=true,
            predicted=predicted,
            num_photos=len(photos),
            photos=tuple(place for place in photos.tolist() if place in kept),
            named=_take(photos, NUM_NAMED),
        )
    return {key: cells[key] for key in sorted(cells)}


def _photos_of(answers: Answers, true: int, predicted: int) -> NDArray[np.intp]:
    """Give the positions of a cell's photos, the most confident answer first."""
    places = _places(
        answers.is_scored & (answers.labels == true) & (answers.predicted == predicted)
    )
    return places[np.argsort(-answers.confidence[places], kind="stable")]


def _places(rows: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Give the positions at which something holds."""
    return np.flatnonzero(rows)


def _take(places: NDArray[np.intp], number: int) -> tuple[int, ...]:
    """Give the first few positions as plain numbers."""
    return tuple(places[:number].tolist())
