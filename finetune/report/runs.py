"""Finished runs as their folders tell them: predictions, classes and what they cost.

Only files are read, no model is loaded. A folder that `finetune evaluate --out` wrote is as good as
a run; what it does not say is None.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune.errors import DataError, join_names
from finetune.evaluate.answers import Cost, RunAnswers
from finetune.report.material import asked_of
from finetune.runtime.paths import home_path

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["FinishedRun", "read_run", "read_runs", "shared_split"]

_COLUMNS = ("path", "split", "label", "predicted", "probability", "correct")
_SPLITS = ("test", "val")  # in the order of preference: val chose the weights


@dataclass(frozen=True, eq=False)
class FinishedRun:
    """A run folder that was read.

    Attributes:
        name: How the run is called.
        path: Its folder.
        classes: K names.
        predictions: The first columns of `predictions.csv`, all of them text.
        digests: Of files by their name; empty where `split.csv` has none.
        groups: Of files by their name, as the data names them; likewise.
        num_leaked: Images of each part that it was also trained on, as far as is known.
        fingerprint: Of all images, labels and parts; None where it is not known.
        cost: What the run cost.
    """

    name: str
    path: Path
    classes: tuple[str, ...]
    predictions: pd.DataFrame
    digests: Mapping[str, str]
    groups: Mapping[str, str]
    num_leaked: Mapping[str, int]
    fingerprint: str | None
    cost: Cost

    def splits(self) -> tuple[str, ...]:
        """Name the parts that it was evaluated on, test first."""
        found = set(self.predictions["split"])
        return tuple(split for split in _SPLITS if split in found)

    def data(self) -> Path | None:
        """Give the folder or CSV of its photos, as its recipe says; None where it does not."""
        return asked_of(self.path).data

    def answers(self, split: str) -> RunAnswers:
        """Give what it says of the scored images of one part.

        Raises:
            DataError: No image of the part is scored, or a row makes no sense.
        """
        table = self.predictions
        rows = table[(table["split"] == split) & (table["correct"] != "")]
        if rows.empty:
            raise DataError(f"{self.path} has no scored images of {split}")
        index = {name: number for number, name in enumerate(self.classes)}
        unknown = sorted({*rows["label"], *rows["predicted"]} - index.keys())
        if unknown or rows["path"].duplicated().any():
            what = f"classes that metrics.json lacks: {join_names(unknown)}"
            raise _damaged(
                self.path / "predictions.csv", what if unknown else "an image stands there twice"
            )
        return RunAnswers(
            name=self.name,
            split=split,
            classes=self.classes,
            paths=tuple(rows["path"]),
            labels=np.array([index[name] for name in rows["label"]], dtype=np.int64),
            predicted=np.array([index[name] for name in rows["predicted"]], dtype=np.int64),
            probability=_numbers(rows["probability"], self.path / "predictions.csv"),
            digests=tuple(self.digests.get(path) or None for path in rows["path"]),
            groups=tuple(self.groups.get(path) or None for path in rows["path"]),
            num_leaked=self.num_leaked.get(split, 0),
            fingerprint=self.fingerprint,
            cost=self.cost,
        )


def read_runs(folders: Sequence[str | Path]) -> list[FinishedRun]:
    """Read runs, each called by its folder, or by its path where two folders are called alike.

    Raises:
        DataError: One is missing, unfinished or damaged.
    """
    runs = [read_run(folder) for folder in folders]
    names = [run.path.name for run in runs]
    return [
        replace(run, name=str(folder)) if names.count(run.path.name) > 1 else run
        for run, folder in zip(runs, folders, strict=True)
    ]


def read_run(folder: str | Path) -> FinishedRun:
    """Read the folder of a finished run.

    Raises:
        DataError: It is missing, unfinished, damaged, or written by a later version.
    """
    path = home_path(folder).resolve()
    _require_finished(path, Path(folder))
    metrics = _read_json(path / "metrics.json")
    if metrics.get("schema_version") != 1 or not isinstance(metrics.get("classes"), list):
        raise _damaged(path / "metrics.json", "it is not of schema_version 1")
    environment_file = path / "environment.json"
    environment = _read_json(environment_file) if environment_file.is_file() else {}
    digests, groups = _read_split(path / "split.csv", ("digest", "group"))
    return FinishedRun(
        name=path.name,
        path=path,
        classes=tuple(_as_written(str(name)) for name in metrics["classes"]),
        predictions=_read_predictions(path / "predictions.csv"),
        digests=digests,
        groups=groups,
        num_leaked=_num_leaked(metrics),
        fingerprint=environment.get("data_fingerprint"),
        cost=_cost(metrics, path, device=environment.get("device")),
    )


def shared_split(runs: Sequence[FinishedRun]) -> str:
    """Choose the part to compare runs on: test where all have it, else val.

    Raises:
        DataError: There is none that all have.
    """
    for split in _SPLITS:
        if all(split in run.splits() for run in runs):
            return split
    has = [f"{run.name} ({' and '.join(run.splits()) or 'neither'})" for run in runs]
    raise DataError(
        f"the runs share neither test nor val: {join_names(has)}",
        hint="evaluate all on the same photos: finetune evaluate RUN --data DIR --out FOLDER",
    )


def _require_finished(path: Path, given: Path) -> None:
    """Refuse what is no folder of a finished run, and say what it is."""
    if not path.is_dir():
        what = "is a file" if path.exists() else "does not exist"
        raise DataError(f"{given} {what}; a run folder is needed", hint="ls runs")
    missing = [name for name in ("metrics.json", "predictions.csv") if not (path / name).is_file()]
    if not missing:
        return
    if (path / "finetune.json").is_file():
        hint = f"name the run that it is of: {given.parent}"
    elif (path / "recipe.yaml").is_file():
        hint = f"finetune run --out {given} --resume ends it"
    else:
        hint = "name a folder that finetune run or finetune evaluate --out has written"
    raise DataError(f"{given} holds no finished run: it lacks {join_names(missing)}", hint=hint)


def _read_predictions(path: Path) -> pd.DataFrame:
    """Read the columns that say what was predicted; empty cells stay empty text."""
    import pandas as pd

    try:
        table = pd.read_csv(
            path,
            usecols=range(len(_COLUMNS)),
            dtype=str,
            keep_default_na=False,
            lineterminator="\n",
            encoding="utf-8",
        )
    except (OSError, ValueError) as error:  # pandas' own errors are ValueErrors, UTF-8's too
        raise _damaged(path, _first_line(error)) from error
    if tuple(table.columns) != _COLUMNS:
        raise _damaged(path, f"its columns begin with {join_names(list(table.columns))}")
    return table


def _num_leaked(metrics: Mapping[str, Any]) -> dict[str, int]:
    """Give how many images of each part were also trained on, copies and the like."""
    parts = metrics.get("splits")
    names = ("num_leaked", "num_near_leaked")
    return {
        split: sum(number for number in map(part.get, names) if isinstance(number, int))
        for split, part in (parts.items() if isinstance(parts, dict) else ())
        if isinstance(part, dict)
    }


def _read_split(path: Path, names: Sequence[str]) -> tuple[dict[str, str], ...]:
    """Read columns of the split, by image; of one that is not there nothing is known."""
    if not path.is_file():
        return tuple({} for _ in names)
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        return tuple({row["path"]: row.get(name) or "" for row in rows} for name in names)
    except (OSError, ValueError, KeyError, csv.Error) as error:
        raise _damaged(path, _first_line(error)) from error


def _cost(metrics: Mapping[str, Any], path: Path, *, device: str | None) -> Cost:
    """Gather what a run cost; the seconds of an evaluation are none of its training."""
    seconds = metrics.get("seconds") or {}
    stages = list((seconds.get("stages") or {}).values())
    prediction = metrics.get("prediction") or {}
    weights = path / "model" / "model.safetensors"
    return Cost(
        total_seconds=seconds.get("total") if stages else None,
        training_seconds=sum(stages) if stages else None,
        num_parameters=metrics.get("num_parameters"),
        peak_memory_mib=metrics.get("peak_memory_mib") or None,  # 0 where it was not known
        images_per_second=prediction.get("images_per_second"),
        model_bytes=weights.stat().st_size if weights.is_file() else None,
        device=device,
    )


def _read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _damaged(path, _first_line(error)) from error
    if not isinstance(document, dict):
        raise _damaged(path, "it is no JSON object")
    return document


def _numbers(column: pd.Series, path: Path) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Read a column of numbers."""
    try:
        return column.to_numpy(dtype=np.float64)
    except ValueError as error:
        raise _damaged(path, _first_line(error)) from error


def _as_written(name: str) -> str:
    """Write a name as the tables do, which have an escape for what is no valid text."""
    return name.encode("utf-8", "backslashreplace").decode()


def _damaged(path: Path, what: str) -> DataError:
    """Say that a file of a run cannot be used."""
    return DataError(
        f"{path} is damaged: {what}", hint="evaluate the run anew: finetune evaluate RUN --out DIR"
    )


def _first_line(error: Exception) -> str:
    """Give the first line of a foreign message."""
    return (str(error) or type(error).__name__).splitlines()[0]
