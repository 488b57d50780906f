"""Slices of an evaluation: how well it goes for dark, blurred, small or otherwise marked images.

Images are parted into quarters by what was measured while they were predicted, and by the further
columns of a CSV. Notable choices:

- Sizes are those of the files; brightness and sharpness those of what the network sees.
- A slice of fewer than 30 images is too small to tell: its interval is some 30 points wide.
- Whoever looks at twenty slices finds one that is bad by chance. So each slice is tested against
  the rest by Fisher's exact test, and Holm corrects over all slices: what remains stands out.
- A slice says where, not why: if dark photos are mostly of a hard class, both explain it.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from finetune.evaluate.intervals import Interval, wilson
from finetune.evaluate.paired import holm
from finetune.types import Looks, Outputs

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Slice", "compute_slices", "slice_warnings"]

FEWEST = 30  # images; below, Wilson's interval of a share of 80 % is wider than 28 points
MAX_VALUES = 20  # of a column of words: more make a table that nobody reads
_QUARTERS = (0.25, 0.5, 0.75)
_LEVEL = 0.05  # of what stands out
_MEASURES: dict[str, tuple[str, str, str, str]] = {
    "pixels": ("smallest", "smaller", "larger", "largest"),
    "aspect": ("squarest", "squarer", "longer", "longest"),
    "brightness": ("darkest", "darker", "brighter", "brightest"),
    "sharpness": ("most blurred", "more blurred", "sharper", "sharpest"),
}


@dataclass(frozen=True, slots=True)
class Slice:
    """How well it goes for some of the scored images.

    Attributes:
        by: What they have in common: `pixels` (width times height), `aspect` (long side over
            short), `brightness`, `sharpness`, or a column of the CSV, as `column <name>`.
        name: Which of them they are: `darkest quarter`, or the value of a column.
        low: Least value; None where values are words.
        high: Greatest value; None where values are words.
        num_samples: Number of images.
        accuracy: Share that is right.
        accuracy_interval: Wilson's, at 95 %.
        rest_accuracy: Of all other images with a known value.
        is_small: Whether they are too few to tell.
        p_value: Fisher's, against the rest, by Holm over all slices.
    """

    by: str
    name: str
    low: float | None
    high: float | None
    num_samples: int
    accuracy: float
    accuracy_interval: Interval
    rest_accuracy: float
    is_small: bool
    p_value: float

    @property
    def stands_out(self) -> bool:
        """Whether it does worse than the rest by more than chance and many slices explain."""
        return not self.is_small and self.p_value < _LEVEL and self.accuracy < self.rest_accuracy


def compute_slices(outputs: Outputs, scored: "NDArray[np.bool_]") -> tuple[Slice, ...]:
    """Compute the slices of an evaluation.

    Args:
        outputs: Of N images.
        scored: (N,) whether an image counts.

    Returns:
        By measure, then by column of the CSV. What does not part the images is left out: a measure
        or column with one value, and a column of words with more than 20.
    """
    right = outputs.probs.argmax(axis=1) == outputs.labels
    found = [
        _slice(rows & scored, parted & scored, right, place)
        for place, rows, parted in _parts(outputs, scored)
    ]
    corrected = holm([one.p_value for one in found])
    return tuple(replace(one, p_value=p) for one, p in zip(found, corrected, strict=True))


def slice_warnings(slices: Sequence[Slice]) -> tuple[str, ...]:
    """Say which slices do worse than the rest, the worst first."""
    worse = sorted((one for one in slices if one.stands_out), key=lambda one: one.accuracy)
    return tuple(
        f"worse than the rest: {one.by}, {one.name}: {one.accuracy:.0%} of {one.num_samples} "
        f"images are right, of the others {one.rest_accuracy:.0%} "
        f"(p at most {max(one.p_value, 0.001):.3f}, corrected for {len(slices)} slices)"
        for one in worse
    )


@dataclass(frozen=True, slots=True)
class _Place:
    """Which slice it is."""

    by: str
    name: str
    low: float | None = None
    high: float | None = None


_Part = tuple[_Place, "NDArray[np.bool_]", "NDArray[np.bool_]"]  # with its rows, and all parted


def _parts(outputs: Outputs, scored: "NDArray[np.bool_]") -> Iterator[_Part]:
    """Part the images by everything that is known of them."""
    if outputs.looks is not None:
        for by, values in _measured(outputs.looks).items():
            yield from _quarters(by, values, scored, names=_MEASURES[by])
    for name, texts in _columns(outputs.extras).items():
        yield from _by_column(f"column {name}", texts, scored)


def _measured(looks: Looks) -> "Mapping[str, NDArray[np.float64]]":
    """Give the measures (N,) by name."""
    longer = np.maximum(looks.widths_px, looks.heights_px)
    shorter = np.minimum(looks.widths_px, looks.heights_px)
    return {
        "pixels": looks.widths_px * looks.heights_px,
        "aspect": longer / shorter,
        "brightness": looks.brightness,
        "sharpness": looks.sharpness,
    }


def _columns(
    extras: Sequence[tuple[tuple[str, str], ...]],
) -> "Mapping[str, NDArray[np.object_]]":
    """Give the further columns (N,) of a CSV by name; None where a value is missing."""
    rows = [dict(extra) for extra in extras]
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: np.array([row.get(name) for row in rows], dtype=object) for name in names}


def _by_column(
    by: str, texts: "NDArray[np.object_]", scored: "NDArray[np.bool_]"
) -> Iterator[_Part]:
    """Part the images by a column: into quarters where it has many numbers, else by its values."""
    known = scored & np.array([text is not None for text in texts], dtype=bool)
    values = Counter(texts[known].tolist())
    numbers = np.array([_number(text) for text in texts])
    if len(values) > len(_QUARTERS) + 1 and np.isfinite(numbers[known]).all():
        yield from _quarters(by, numbers, scored, names=("lowest", "lower", "higher", "highest"))
    elif 1 < len(values) <= MAX_VALUES:
        for value in sorted(values):
            yield _Place(by, value), known & (texts == value), known


def _quarters(
    by: str,
    values: "NDArray[np.float64]",
    scored: "NDArray[np.bool_]",
    *,
    names: tuple[str, str, str, str],
) -> Iterator[_Part]:
    """Part the images into quarters by a number; into fewer where many have the same one."""
    known = scored & np.isfinite(values)
    distinct = np.unique(values[known])
    if len(distinct) < 2:  # nothing is known, or all values are equal
        return
    # An edge is a value that occurs and begins the part above it, so that no part is empty; where
    # most images have the least value, the next greater one is the edge.
    edges = np.unique(np.quantile(values[known], _QUARTERS, method="higher").clip(distinct[1]))
    number = np.searchsorted(edges, values, side="right")
    for part in range(len(edges) + 1):
        rows = known & (number == part)
        low, high = float(values[rows].min()), float(values[rows].max())
        is_whole = len(edges) == len(_QUARTERS)
        name = f"{names[part]} quarter" if is_whole else f"{low:g} to {high:g}"
        yield _Place(by, name, low, high), rows, known


def _slice(
    rows: "NDArray[np.bool_]",
    parted: "NDArray[np.bool_]",
    right: "NDArray[np.bool_]",
    place: _Place,
) -> Slice:
    """Work out the figures of one slice against the other images; not corrected yet."""
    from scipy.stats import fisher_exact

    rest = parted & ~rows
    num_samples, num_right = int(rows.sum()), int(right[rows].sum())
    num_rest, num_rest_right = int(rest.sum()), int(right[rest].sum())
    table = [
        [num_right, num_samples - num_right],
        [num_rest_right, num_rest - num_rest_right],
    ]
    return Slice(
        by=place.by,
        name=place.name,
        low=place.low,
        high=place.high,
        num_samples=num_samples,
        accuracy=num_right / num_samples,
        accuracy_interval=wilson(num_right, num_samples),
        rest_accuracy=num_rest_right / num_rest,
        is_small=num_samples < FEWEST,
        p_value=float(fisher_exact(table).pvalue),
    )


def _number(text: str | None) -> float:
    """Read a number; what is none is NaN."""
    try:
        return float(text) if text is not None else math.nan
    except ValueError:
        return math.nan
