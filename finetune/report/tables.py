r"""The tables of a run folder and the rows that `predict` gives: CSV, JSON, JSON lines.

Notable choices:

- A missing value is an empty cell in CSV and null in JSON; NaN is in neither.
- Several values of one cell, the classes of a set, are joined by `|` in CSV and a list in JSON.
- Floats have the fewest digits that give back the same float32 (probabilities) or float64.
- CSV is as `runtime/csv_text.py` has it.
- A file name that is not valid text (bytes that the file system allows and UTF-8 does not) is
  written with `\udcXX` in their place, so that the tables stay valid UTF-8.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from finetune.data.leaks import Leaks
from finetune.errors import FinetuneError
from finetune.evaluate.figures import ClassFigures
from finetune.evaluate.result import (
    EvalResult,
    PredictionSpeed,
    doubt_frame,
    has_answer,
    name_column,
    probability_frame,
)
from finetune.evaluate.slices import Slice
from finetune.model.calibration import Calibration
from finetune.runtime.csv_text import csv_text, quoted
from finetune.runtime.files import write_with
from finetune.types import Outputs

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

__all__ = [
    "MetricsHeader",
    "ProbeFigures",
    "metrics_document",
    "prediction_frame",
    "prediction_rows",
    "write_predictions",
    "write_tables",
]

SCHEMA_VERSION = 1
ROWS_AT_ONCE = 512  # bounds the memory of text: half a million cells with 1,000 classes


@dataclass(frozen=True, slots=True)
class ProbeFigures:
    """What a probe of the head reached, and what it cost in seconds."""

    val_accuracy: float
    seconds: float


@dataclass(frozen=True, slots=True)
class MetricsHeader:
    """What `metrics.json` says beside the figures of the splits.

    Attributes:
        run: Name of the run.
        backbone: Name of the backbone.
        classes: K class names in order.
        selected_by: Figure that chose the weights; None where nothing was chosen.
        total_seconds: Of the whole run.
        data_seconds: Of reading, checking and splitting.
        stage_seconds: All that each stage cost, by name, in order.
        peak_memory_mib: Largest resident memory; None where it is not known.
        probe: None where no probe was made.
        leaks: By split, how many of its images are also in train; a split not named is null.
        calibration: What was fitted on validation.
        num_parameters: Of the saved network; None where it is not known.
        prediction: How fast the figures' images were predicted; None where it was not measured.
    """

    run: str
    backbone: str
    classes: tuple[str, ...]
    selected_by: str | None = None
    total_seconds: float | None = None
    data_seconds: float | None = None
    stage_seconds: Mapping[str, float] = field(default_factory=dict)
    peak_memory_mib: int | None = None
    probe: ProbeFigures | None = None
    leaks: Mapping[str, Leaks] = field(default_factory=dict)
    calibration: Calibration = field(default_factory=Calibration)
    num_parameters: int | None = None
    prediction: PredictionSpeed | None = None


def metrics_document(
    results: Mapping[str, EvalResult], *, header: MetricsHeader
) -> dict[str, object]:
    """Give the content of `metrics.json` (`schema_version` 1) as plain values.

    Args:
        results: By split; `val` and `test` are null where they are absent.
        header: What the document says beside the figures.
    """
    splits: dict[str, object] = {"val": None, "test": None}
    for split, result in results.items():
        splits[split] = _split_document(result, leaks=header.leaks.get(split))
    probe = header.probe and {
        "val_accuracy": header.probe.val_accuracy,
        "seconds": header.probe.seconds,
    }
    return {
        "schema_version": SCHEMA_VERSION,
        "run": header.run,
        "backbone": header.backbone,
        "classes": list(header.classes),
        "selected_by": header.selected_by,
        "splits": splits,
        "probe": probe,
        "seconds": {
            "total": header.total_seconds,
            "data": header.data_seconds,
            "stages": dict(header.stage_seconds),
        },
        "peak_memory_mib": header.peak_memory_mib,
        "calibration": _fitted_document(header.calibration),
        "num_parameters": header.num_parameters,
        "prediction": header.prediction and _speed_document(header.prediction),
    }


def write_tables(results: Mapping[str, EvalResult], folder: Path, *, header: MetricsHeader) -> None:
    """Write four tables (classes, confusion, predictions, slices), and `metrics.json` last.

    Where that stands a run is finished, so all of it has to stand there by then.

    Args:
        results: By split, in the order of the tables.
        folder: An existing folder; each file is written whole or not at all.
        header: What `metrics.json` says beside the figures.

    Raises:
        FinetuneError: A file cannot be written; the sentence says why.
    """
    document = metrics_document(results, header=header)
    tables = {
        "per_class.csv": [_with_split(result) for result in results.values()],
        "confusion_matrix.csv": [_confusion_table(result) for result in results.values()],
        "predictions.csv": [result.predictions for result in results.values()],
        "slices.csv": [_slice_table(result) for result in results.values()],
    }
    for name, frames in tables.items():
        _write_lines(folder / name, _csv_lines(frames))
    text = json.dumps(document, ensure_ascii=False, allow_nan=False, indent=1)
    _write_lines(folder / "metrics.json", iter([text + "\n"]))


def prediction_frame(outputs: Outputs, *, top_k: int | None = None) -> "pd.DataFrame":
    """Give what `predict` gives: one row an image, in the order asked for.

    Args:
        outputs: What the network said; labels play no part.
        top_k: Also give the likeliest classes, as many as this or as there are.

    Returns:
        Columns path, predicted, probability, with `top_k` top_1, top_1_probability, top_2, …, then
        p_<class>… in class order (float32), and error; behind it set, rejected and ood where the
        model has them fitted. What is missing is None or NaN.
    """
    import pandas as pd

    order = np.argsort(-outputs.probs, axis=1, kind="stable")  # of equal ones the first class
    columns = {"path": _objects(outputs.names), **_ranked(outputs, order, rank=0)}
    for rank in range(min(top_k or 0, len(outputs.classes))):
        name, probability = _ranked(outputs, order, rank=rank).values()
        columns |= {f"top_{rank + 1}": name, f"top_{rank + 1}_probability": probability}
    errors = _objects([outputs.errors.get(row) for row in range(len(outputs.names))])
    parts = [pd.DataFrame(columns), probability_frame(outputs), pd.DataFrame({"error": errors})]
    return pd.concat([*parts, doubt_frame(outputs)], axis=1)


def prediction_rows(
    outputs: Outputs, *, top_k: int | None = None, is_brief: bool = False
) -> Iterator[dict[str, object]]:
    """Give the rows of `prediction_frame` as plain values, fit for JSON: None, never NaN.

    One after another: a million photos and a thousand classes are more than memory holds as such.

    Args:
        outputs: What the network said.
        top_k: As there.
        is_brief: Leave out the probability of every class, which is most of it for many classes.
    """
    frame = prediction_frame(outputs, top_k=top_k)
    if is_brief:
        frame = frame.drop(columns=probability_frame(outputs).columns)
    return _plain_rows(frame)


def write_predictions(outputs: Outputs, path: Path, *, top_k: int | None = None) -> None:
    """Write what `predict` gives to a file, as its ending says: `.csv` or `.jsonl`.

    Raises:
        FinetuneError: Another ending, or the file cannot be written.
    """
    kind = path.suffix.lower().lstrip(".")
    if kind not in ("csv", "jsonl"):
        raise FinetuneError(
            f"cannot write predictions to {path}: its ending must be .csv or .jsonl",
            hint=f"--out {path.with_suffix('.csv')}",
        )
    _write_lines(path, _prediction_lines(outputs, kind=kind, top_k=top_k))


def _prediction_lines(outputs: Outputs, *, kind: str, top_k: int | None) -> Iterator[str]:
    """Give predictions as pieces of text."""
    frame = prediction_frame(outputs, top_k=top_k)
    if kind == "csv":
        yield from _csv_lines([frame])
        return
    for row in _plain_rows(frame):
        yield json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n"


def _speed_document(speed: PredictionSpeed) -> dict[str, object]:
    """Give how fast images were predicted."""
    rate = speed.num_images / speed.seconds if speed.seconds > 0 else None
    return {
        "num_images": speed.num_images,
        "seconds": speed.seconds,
        "images_per_second": rate,
    }


def _split_document(result: EvalResult, *, leaks: Leaks | None) -> dict[str, object]:
    """Give the figures of one split: the contract's in its order, ours beside and behind them."""
    figures = result.figures
    return {
        "num_samples": figures.num_samples,
        "accuracy": figures.accuracy,
        "accuracy_interval": _ends(figures.accuracy_interval),
        "balanced_accuracy": figures.balanced_accuracy,
        "macro_f1": figures.macro_f1,
        "macro_f1_interval": _ends(figures.macro_f1_interval),
        "weighted_f1": figures.weighted_f1,
        "macro_precision": figures.macro_precision,
        "macro_recall": figures.macro_recall,
        "top_5_accuracy": figures.top_5_accuracy,
        "log_loss": figures.log_loss,
        "expected_calibration_error": figures.expected_calibration_error,
        "roc_auc_ovr": figures.roc_auc_ovr,
        "per_class": {row.name: _class_document(row) for row in figures.per_class},
        "num_unreadable": figures.num_unreadable,
        "num_unlabelled": figures.num_unlabelled,
        "num_leaked": leaks and leaks.num_copies,
        "num_near_leaked": leaks and leaks.num_near,
        "warnings": list(figures.warnings),
        "calibration": asdict(result.calibration),
        "slices": [_slice_document(row) for row in figures.slices],
    }


def _fitted_document(calibration: Calibration) -> dict[str, object]:
    """Give what was fitted on validation."""
    values = calibration.to_document()
    reasons = values.pop("calibration_reasons")
    return {"fitted_on": "val", **values, "reasons": reasons}


def _class_document(row: ClassFigures) -> dict[str, object]:
    """Give the figures of one class."""
    return {
        "precision": row.precision,
        "recall": row.recall,
        "recall_interval": _ends(row.recall_interval),
        "f1": row.f1,
        "support": row.support,
        "precision_interval": _ends(row.precision_interval),
        "f1_interval": _ends(row.f1_interval),
    }


def _slice_document(row: Slice) -> dict[str, object]:
    """Give the figures of one slice."""
    ends = {"accuracy_interval": _ends(row.accuracy_interval), "stands_out": row.stands_out}
    return {**asdict(row), **ends}


def _ends(interval: tuple[float, float] | None) -> list[float] | None:
    """Write an interval as JSON has it."""
    return None if interval is None else list(interval)


def _with_split(result: EvalResult) -> "pd.DataFrame":
    """Put the split before the table per class."""
    frame = result.per_class
    frame.insert(0, "split", result.split)
    return frame


def _confusion_table(result: EvalResult) -> "pd.DataFrame":
    """Put split and true class before the counts; a class may be called `true` or `split`."""
    frame = result.confusion.reset_index(drop=True)
    frame.insert(0, "true", list(result.classes), allow_duplicates=True)
    frame.insert(0, "split", result.split, allow_duplicates=True)
    return frame


def _slice_table(result: EvalResult) -> "pd.DataFrame":
    """Put the split before the table of slices."""
    frame = result.slices
    frame.insert(0, "split", result.split)
    return frame


def _ranked(
    outputs: Outputs, order: "NDArray[np.intp]", *, rank: int
) -> dict[str, "NDArray[np.object_] | NDArray[np.float32]"]:
    """Give the class of a rank and its probability for each image."""
    answered, place = has_answer(outputs), order[:, rank]
    probability = outputs.probs[np.arange(len(place)), place]
    return {
        "predicted": name_column(outputs.classes, place, known=answered),
        "probability": np.where(answered, probability, np.float32(np.nan)),
    }


def _objects(values: Sequence[str | None]) -> "NDArray[np.object_]":
    """Make an array of texts."""
    return np.array(values, dtype=object)


def _plain_rows(frame: "pd.DataFrame") -> Iterator[dict[str, object]]:
    """Give the rows of a frame as plain values by column, one after another."""
    for part in _parts(frame):
        columns = [_plain(part.iloc[:, place]) for place in range(part.shape[1])]
        for row in zip(*columns, strict=True):
            yield dict(zip(frame.columns, row, strict=True))


def _plain(column: "pd.Series") -> list[object]:
    """Give a column as plain values: None where missing, float32 with its fewest digits."""
    if column.dtype.kind == "f":
        return [float(text) if text else None for text in _cells(column)]
    return [None if gone else value for value, gone in zip(column, column.isna(), strict=True)]


def _write_lines(path: Path, pieces: Iterator[str]) -> None:
    """Write pieces of text one after another, whole or not at all."""

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            for piece in pieces:
                # In JSON and for a reader alike a lone surrogate is then its escape, \udcXX.
                file.write(piece.encode("utf-8", "backslashreplace"))

    write_with(path, write)


def _csv_lines(frames: Sequence["pd.DataFrame"]) -> Iterator[str]:
    """Write frames of equal columns under one header, some rows at a time."""
    for number, frame in enumerate(frames):
        if not number:
            yield csv_text([frame.columns])
        for part in _parts(frame):
            columns = [_cells(part.iloc[:, place]) for place in range(part.shape[1])]
            yield "".join(",".join(row) + "\n" for row in zip(*columns, strict=True))


def _parts(frame: "pd.DataFrame") -> Iterator["pd.DataFrame"]:
    """Cut a frame into pieces of some rows each."""
    for start in range(0, len(frame), ROWS_AT_ONCE):
        yield frame.iloc[start : start + ROWS_AT_ONCE]


def _cells(column: "pd.Series") -> list[str]:
    """Write a column as cells: empty where missing, floats with their fewest digits."""
    if column.dtype.kind == "f":
        values = column.to_numpy()
        cells: list[str] = np.where(np.isnan(values), "", values.astype("U32")).tolist()
        return cells
    gone = column.isna()
    return [
        "" if missing else quoted(_text(value)) for value, missing in zip(column, gone, strict=True)
    ]


def _text(value: object) -> str:
    """Write a value as one text; several are joined by |."""
    return "|".join(map(str, value)) if isinstance(value, list) else str(value)
