"""The confusion matrix as a page shows it: numbers, shades, and words for who hears it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from finetune.report.answers import Answers
from finetune.report.gallery import Gallery

__all__ = ["MatrixCell", "MatrixRow", "build_matrix", "cell_key"]

NUM_SHADES = 10  # tell shares a tenth apart


@dataclass(frozen=True, slots=True)
class MatrixCell:
    """A number of the matrix.

    Attributes:
        number: Photos.
        key: Where their photos stand in the page; None where there are none.
        shade: 0 for none, to 10 for all photos of the class.
        words: What it says.
        is_right: Whether it stands on the diagonal.
    """

    number: int
    key: str | None
    shade: int
    words: str
    is_right: bool


@dataclass(frozen=True, slots=True)
class MatrixRow:
    """The photos of one class.

    Attributes:
        name: The class.
        cells: By predicted class.
        num_elsewhere: Photos taken for a class without a column.
        num_photos: Of the class.
    """

    name: str
    cells: tuple[MatrixCell, ...]
    num_elsewhere: int
    num_photos: int


def build_matrix(answers: Answers, gallery: Gallery) -> tuple[MatrixRow, ...]:
    """Lay out the rows of the matrix, of the classes that the gallery chose."""
    return tuple(_row(answers, gallery.classes, true) for true in gallery.classes)


def cell_key(true: int, predicted: int) -> str:
    """Name the place of a cell's photos in the page."""
    return f"cell-{true}-{predicted}"


def _row(answers: Answers, shown: Sequence[int], true: int) -> MatrixRow:
    """Lay out one row."""
    counts = answers.confusion[true]
    total = int(counts.sum())
    cells = tuple(_cell(answers, true, predicted, total) for predicted in shown)
    elsewhere = total - sum(cell.number for cell in cells)
    return MatrixRow(answers.classes[true], cells, elsewhere, total)


def _cell(answers: Answers, true: int, predicted: int, total: int) -> MatrixCell:
    """Lay out one number."""
    number = int(answers.confusion[true, predicted])
    name, taken_for = answers.classes[true], answers.classes[predicted]
    is_right = true == predicted
    verdict = "are right" if is_right else f"are taken for {taken_for}"
    return MatrixCell(
        number=number,
        key=cell_key(true, predicted) if number else None,
        shade=max(1, round(NUM_SHADES * number / total)) if number else 0,
        words=f"{number} of {total} {name} {verdict}",
        is_right=is_right,
    )
