"""What an evaluation gives: figures, and the tables behind them as data frames.

The frames are made when they are asked for, each time anew: whoever changes one changes nothing
else. In frames what is undefined or unknown is missing (NaN, NA); in `figures` it is None.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from finetune.evaluate.calibration import CalibrationFigures
from finetune.evaluate.curves import Curves, compute_curves
from finetune.evaluate.figures import ClassFigures, Figures, count_confusion
from finetune.evaluate.intervals import Interval
from finetune.evaluate.slices import Slice
from finetune.types import Outputs

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

__all__ = [
    "EvalResult",
    "PredictionSpeed",
    "doubt_frame",
    "has_answer",
    "is_scored",
    "name_column",
    "probability_frame",
]

SLICE_COLUMNS = (
    *("by", "slice", "low", "high", "num_samples", "accuracy", "accuracy_low", "accuracy_high"),
    *("rest_accuracy", "is_small", "p_value", "stands_out"),
)
NUM_SHOWN = 20  # classes that a summary lists: a screenful


@dataclass(frozen=True, slots=True)
class PredictionSpeed:
    """How many images were predicted for the figures, in how many seconds, decoding included."""

    num_images: int
    seconds: float


@dataclass(frozen=True, eq=False)
class EvalResult:
    """How well a network did on the images of one split.

    Attributes:
        split: Name of the split; figures of `val` chose the weights and are no test.
        outputs: What the network said of every image, also of those that are not scored.
        figures: All figures, as in `metrics.json`.
        calibration: How honest its probabilities are, with sets and rejections.
    """

    split: str
    outputs: Outputs
    figures: Figures
    calibration: CalibrationFigures

    @property
    def classes(self) -> tuple[str, ...]:
        """K class names in the order of every table."""
        return self.outputs.classes

    @property
    def per_class(self) -> "pd.DataFrame":
        """K rows: class, precision, recall, f1, support and the ends of their 95 % intervals."""
        import pandas as pd

        return pd.DataFrame([_class_row(row) for row in self.figures.per_class])

    @property
    def confusion(self) -> "pd.DataFrame":
        """(K, K) counts of scored images: rows true, columns predicted, both by class name."""
        import pandas as pd

        scored = is_scored(self.outputs)
        counts = count_confusion(
            self.outputs.probs[scored].argmax(axis=1),
            self.outputs.labels[scored],
            num_classes=len(self.classes),
        )
        return pd.DataFrame(
            counts,
            index=pd.Index(self.classes, name="true"),
            columns=pd.Index(self.classes, name="predicted"),
        )

    @property
    def predictions(self) -> "pd.DataFrame":
        """N rows, one an image: path, split, label, predicted, probability, correct, p_<class>….

        Behind them set, rejected and ood, where the model has them fitted.
        """
        import pandas as pd

        labels, best = self.outputs.labels, self.outputs.probs.argmax(axis=1)
        answered = has_answer(self.outputs)
        correct = pd.Series(best == labels, dtype="boolean")
        correct[~is_scored(self.outputs)] = pd.NA
        known = pd.DataFrame(
            {
                "path": pd.Series(self.outputs.names, dtype="object"),
                "split": self.split,
                "label": name_column(self.classes, labels, known=labels >= 0),
                "predicted": name_column(self.classes, best, known=answered),
                "probability": _best_probability(self.outputs),
                "correct": correct,
            }
        )
        return pd.concat(
            [known, probability_frame(self.outputs), doubt_frame(self.outputs)], axis=1
        )

    @property
    def slices(self) -> "pd.DataFrame":
        """One row a slice: by, slice, low, high, num_samples, accuracy and its interval, …."""
        import pandas as pd

        rows = [_slice_row(row) for row in self.figures.slices]
        return pd.DataFrame(rows, columns=SLICE_COLUMNS)

    @property
    def curves(self) -> Curves:
        """ROC, precision and recall of each class, and top-k accuracy, of the scored images."""
        scored = is_scored(self.outputs)
        return compute_curves(
            self.outputs.probs[scored], self.outputs.labels[scored], classes=self.classes
        )

    def summary(self) -> str:
        """Say the figures in a few lines of plain text; the weakest classes first."""
        figures = self.figures
        role = " (it chose the weights: no test)" if self.split == "val" else ""
        lines = [
            f"{self.split}: {figures.num_samples} images of {len(self.classes)} classes{role}",
            f"accuracy           {_percent(figures.accuracy)}{_between(figures.accuracy_interval)}",
            f"macro F1           {_percent(figures.macro_f1)}{_between(figures.macro_f1_interval)}",
            f"balanced accuracy  {_percent(figures.balanced_accuracy)}",
            "",
            *self._class_lines(),
        ]
        notes = [f"note: {warning}" for warning in figures.warnings]
        return "\n".join([*lines, *([""] if notes else []), *notes])

    def __repr__(self) -> str:
        figures = self.figures
        low, high = figures.accuracy_interval
        return (
            f"EvalResult({self.split}: {figures.num_samples} images, "
            f"accuracy {figures.accuracy:.3f} [{low:.3f}, {high:.3f}], "
            f"macro F1 {figures.macro_f1:.3f})"
        )

    def _class_lines(self) -> list[str]:
        """Tabulate the classes, the weakest F1 first."""
        rows = sorted(
            self.figures.per_class, key=lambda row: (row.f1 is None, row.f1 or 0.0, row.name)
        )
        width = max(len("class"), *(len(row.name) for row in rows[:NUM_SHOWN]))
        lines = [f"{'class':<{width}}  precision  {'recall':>7}  {'F1':>7}  images"]
        lines += [
            f"{row.name:<{width}}  {_percent(row.precision):>9}  {_percent(row.recall)}"
            f"  {_percent(row.f1)}  {row.support:>6}"
            for row in rows[:NUM_SHOWN]
        ]
        if len(rows) > NUM_SHOWN:
            lines.append(f"and {len(rows) - NUM_SHOWN} more classes, none of them weaker")
        return lines


def has_answer(outputs: Outputs) -> "NDArray[np.bool_]":
    """Say of each image whether the network answered: (N,), False where it could not be read."""
    answered = np.asarray(np.isfinite(outputs.probs).all(axis=1))
    answered[list(outputs.errors)] = False
    return answered


def is_scored(outputs: Outputs) -> "NDArray[np.bool_]":
    """Say of each image whether it counts: (N,), it has an answer and its class is known."""
    return has_answer(outputs) & (outputs.labels >= 0)


def name_column(
    names: Sequence[str], index: "NDArray[np.intp]", *, known: "NDArray[np.bool_]"
) -> "NDArray[np.object_]":
    """Give the names at N places as (N,) objects, None where `known` is False."""
    column = np.array(names, dtype=object)[index]
    column[~known] = None
    return column


def probability_frame(outputs: Outputs) -> "pd.DataFrame":
    """Give N rows of float32 columns `p_<class>`, NaN where there is no answer."""
    import pandas as pd

    probs = np.where(has_answer(outputs)[:, None], outputs.probs, np.float32(np.nan))
    return pd.DataFrame(probs, columns=[f"p_{name}" for name in outputs.classes])


def doubt_frame(outputs: Outputs) -> "pd.DataFrame":
    """Give N rows of what the model doubts: set, rejected and ood, each where it is fitted.

    Returns:
        `set` has lists of class names, the likeliest first; `rejected` True or False; `ood` float32
        multiples of the threshold of novelty. What is not known of an image is None or NaN.
    """
    import pandas as pd

    answered = has_answer(outputs)
    columns: dict[str, object] = {}
    if outputs.sets is not None:
        order = np.argsort(-outputs.probs, axis=1, kind="stable")
        rows = [
            [outputs.classes[k] for k in order[row] if outputs.sets[row, k]] if known else None
            for row, known in enumerate(answered)
        ]
        columns["set"] = pd.Series(rows, dtype="object")
    if outputs.rejected is not None:
        withheld = zip(outputs.rejected.tolist(), answered, strict=True)
        columns["rejected"] = pd.Series(
            [one if known else None for one, known in withheld], dtype="object"
        )
    if outputs.novelty is not None:
        columns["ood"] = np.where(answered, outputs.novelty, np.float32(np.nan))
    return pd.DataFrame(columns, index=pd.RangeIndex(len(outputs.names)))


def _best_probability(outputs: Outputs) -> "NDArray[np.float32]":
    """Probability of the likeliest class: (N,), NaN where there is no answer."""
    best: NDArray[np.float32] = outputs.probs.max(axis=1)
    return np.where(has_answer(outputs), best, np.float32(np.nan))


def _class_row(row: ClassFigures) -> dict[str, object]:
    """One row of the table per class, in the order of its columns."""
    ends = {
        f"{name}_{end}": value
        for name, interval in (
            ("precision", row.precision_interval),
            ("recall", row.recall_interval),
            ("f1", row.f1_interval),
        )
        for end, value in zip(("low", "high"), interval or (np.nan, np.nan), strict=True)
    }
    figures = {
        "precision": _or_nan(row.precision),
        "recall": _or_nan(row.recall),
        "f1": _or_nan(row.f1),
    }
    return {"class": row.name, **figures, "support": row.support, **ends}


def _slice_row(row: Slice) -> tuple[object, ...]:
    """One row of the table of slices, in the order of its columns."""
    limits = (_or_nan(row.low), _or_nan(row.high))
    figures = (row.num_samples, row.accuracy, *row.accuracy_interval, row.rest_accuracy)
    return (row.by, row.name, *limits, *figures, row.is_small, row.p_value, row.stands_out)


def _or_nan(value: float | None) -> float:
    """Write an undefined figure as frames do."""
    return np.nan if value is None else value


def _percent(value: float | None) -> str:
    """Write a share in seven characters."""
    return "      -" if value is None else f"{100 * value:5.1f} %"


def _between(interval: Interval | None) -> str:
    """Write an interval behind its figure."""
    if interval is None:
        return ""
    return f"   95 % interval {100 * interval[0]:.1f} to {100 * interval[1]:.1f} %"
