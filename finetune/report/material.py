"""What the files of a run folder say, read back: the page is made of nothing else.

`metrics.json` and `predictions.csv` must be there. What tells of the training may be missing, as it
is where `finetune evaluate` wrote the folder.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from io import StringIO
from pathlib import Path
from typing import Any

from finetune.data.leaks import Leaks
from finetune.errors import FinetuneError, RecipeError
from finetune.evaluate.figures import ClassFigures, Figures
from finetune.evaluate.slices import Slice
from finetune.report.answers import Answers, read_answers
from finetune.runtime.shell import quote
from finetune.types import LeftOut

__all__ = ["Asked", "Course", "Epoch", "Material", "Part", "asked_of", "read_material"]

SCHEMA_VERSION = 1  # of metrics.json and of environment.json
_KINDS = ("DataFound", "EpochEnded", "Resumed", "StageEnded", "Warned")  # events that are used
_MAPS = "grad-cam"  # the default of report.maps, where there is no recipe
_ORDER = ("test", "val", "train")  # which part the page is about: the first that there is


@dataclass(frozen=True, slots=True)
class Epoch:
    """One row of `history.csv`; what is unknown is None."""

    stage: str
    epoch: int
    train_loss: float | None
    val_loss: float | None
    val_accuracy: float | None
    val_macro_f1: float | None
    lr: float | None
    images_per_second: float | None
    seconds: float | None


@dataclass(frozen=True, slots=True)
class Course:
    """What `events.jsonl` tells beside the figures.

    Attributes:
        counts: Photos by part and class.
        left_out: What took no part, and why.
        warnings: Sentences that were shown, each once.
        notes: What was said at the end of a stage, by its name.
        kept: Stage and epoch of the weights that were kept; None where it is not known.
        num_resumed: How often the run was interrupted and went on.
    """

    counts: Mapping[str, Mapping[str, int]]
    left_out: tuple[LeftOut, ...]
    warnings: tuple[str, ...]
    notes: Mapping[str, str]
    kept: tuple[str, int] | None
    num_resumed: int


@dataclass(frozen=True, slots=True)
class Asked:
    """What the recipe of a run says that the report needs.

    Attributes:
        name: Of the recipe; None where there is none.
        data: Folder or CSV that was trained on; None where it is not known.
        maps: By which method maps are made, or `none`.
        weights: A weights file that was named; None where there was none.
    """

    name: str | None
    data: Path | None
    maps: str
    weights: str | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """Figures and answers of one part.

    Attributes:
        split: Its name.
        figures: As `metrics.json` has them.
        answers: As `predictions.csv` has them.
        leaks: Photos that were trained on; None where that is not known.
        document: What `metrics.json` says of it, for what `Figures` has no field for.
    """

    split: str
    figures: Figures
    answers: Answers
    leaks: Leaks | None
    document: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Material:
    """What is known of a run.

    Attributes:
        folder: The run folder, absolute.
        document: `metrics.json`.
        parts: By name; at least one.
        epochs: In the order of training.
        course: What happened.
        recipe: The text of `recipe.yaml`; None where there is none.
        recipe_name: Name of the recipe.
        data: Folder or CSV that was trained on; None where it is not known.
        maps: By which method maps are made, or `none`.
        weights: A weights file that the recipe names; None where it names none.
        environment: `environment.json`; empty where there is none.
    """

    folder: Path
    document: Mapping[str, Any]
    parts: Mapping[str, Part]
    epochs: tuple[Epoch, ...]
    course: Course
    recipe: str | None
    recipe_name: str | None
    data: Path | None
    maps: str
    weights: str | None
    environment: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Name of the run."""
        return str(self.document["run"])

    @property
    def backbone(self) -> str:
        """Name of the backbone, without the folders that lead to it."""
        return str(self.document["backbone"]).rpartition("/")[2]

    @property
    def classes(self) -> tuple[str, ...]:
        """K names."""
        return tuple(self.document["classes"])

    @property
    def main(self) -> Part:
        """The part that the page is about: test where there is one."""
        return next(self.parts[name] for name in _ORDER if name in self.parts)

    @property
    def is_run(self) -> bool:
        """Whether training was part of it."""
        return self.recipe is not None

    @property
    def num_train(self) -> int | None:
        """Photos trained on; None where it is not known."""
        part = self.course.counts.get("train")
        return sum(part.values()) if part else None

    @property
    def stage_seconds(self) -> Mapping[str, float]:
        """What each stage cost."""
        seconds = self.document.get("seconds") or {}
        return dict(seconds.get("stages") or {})

    @property
    def probe_accuracy(self) -> float | None:
        """What the probe reached on validation; None where there was none."""
        probe = self.document.get("probe")
        return float(probe["val_accuracy"]) if probe else None


def read_material(folder: Path) -> Material:
    """Read the files of a run, or of an evaluation.

    Args:
        folder: Where `finetune run`, or `finetune evaluate --out`, wrote.

    Raises:
        FinetuneError: It is no such folder, or a file in it is damaged; the sentence names it.
    """
    folder = folder.resolve()
    _require_figures(folder)
    document = _read_json(folder / "metrics.json")
    try:
        parts = _read_parts(folder, document)
    except (AttributeError, KeyError, TypeError) as error:
        raise _damaged(folder / "metrics.json", f"{type(error).__name__} {error}") from error
    if not parts:
        raise _damaged(folder / "metrics.json", "it has the figures of no part")
    recipe = folder / "recipe.yaml"
    environment = folder / "environment.json"
    asked = asked_of(folder)
    return Material(
        folder=folder,
        document=document,
        parts=parts,
        epochs=tuple(_read_epochs(folder / "history.csv")),
        course=_read_course(folder / "events.jsonl"),
        recipe=_read_text(recipe) if recipe.is_file() else None,
        recipe_name=asked.name,
        data=asked.data,
        maps=asked.maps,
        weights=asked.weights,
        environment=_read_json(environment) if environment.is_file() else {},
    )


def asked_of(folder: Path) -> Asked:
    """Read what the recipe of a run asked for, as far as it can be read."""
    values = _recipe_values(folder)
    data, report, model = (values.get(name) or {} for name in ("data", "report", "model"))
    path = data.get("path")
    return Asked(
        name=values.get("name"),
        data=Path(path) if path else None,
        maps=report.get("maps", _MAPS),
        weights=model.get("weights"),
    )


def _recipe_values(folder: Path) -> Mapping[str, Any]:
    """Give the values of a recipe: of one with parts from Python as the model has them."""
    from finetune.recipe.load import load_recipe
    from finetune.recipe.values import to_values

    path, saved = folder / "recipe.yaml", folder / "model" / "finetune.json"
    try:
        return to_values(load_recipe(path), is_complete=True) if path.is_file() else {}
    except RecipeError:
        recipe = _read_json(saved).get("recipe") if saved.is_file() else None
        return recipe if isinstance(recipe, Mapping) else {}


def _require_figures(folder: Path) -> None:
    """Refuse a folder without figures, and say what it is instead."""
    if (folder / "metrics.json").is_file():
        return
    if not folder.is_dir():
        what = "is a file, not a run folder" if folder.exists() else "does not exist"
        raise FinetuneError(f"{folder} {what}", hint="name a folder that finetune run wrote")
    if (folder / "events.jsonl").is_file():
        raise FinetuneError(
            f"{folder} holds a run that has not come to its end: there are no figures yet",
            hint=f"finetune run --resume --out {quote(str(folder))}",
        )
    if (folder / "finetune.json").is_file():
        raise FinetuneError(
            f"{folder} is a saved model, not a run folder: it has no figures",
            hint=f"finetune report {quote(str(folder.parent))}",
        )
    raise FinetuneError(
        f"{folder} is no run folder: it has no metrics.json",
        hint="name a folder that finetune run wrote",
    )


def _read_parts(folder: Path, document: Mapping[str, Any]) -> dict[str, Part]:
    """Read the figures and the answers of each part."""
    splits = {name: part for name, part in document["splits"].items() if part is not None}
    answers = read_answers(folder / "predictions.csv", document["classes"])
    missing = [name for name in splits if name not in answers]
    if missing:
        raise _damaged(folder / "predictions.csv", f"it has no photo of {missing[0]}")
    return {
        name: Part(name, _figures(part), answers[name], _leaks(part), part)
        for name, part in splits.items()
    }


def _figures(part: Mapping[str, Any]) -> Figures:
    """Give the figures of a part as what they were before they were written."""
    per_class = tuple(
        ClassFigures(name=name, **_of_type(ClassFigures, row))
        for name, row in part["per_class"].items()
    )
    slices = tuple(Slice(**_of_type(Slice, row)) for row in part.get("slices") or ())
    return Figures(**{**_of_type(Figures, part), "per_class": per_class, "slices": slices})


def _of_type(kind: type, row: Mapping[str, Any]) -> dict[str, Any]:
    """Take the fields of a dataclass from a row, its lists as tuples."""
    names = [field.name for field in fields(kind) if field.name in row]
    return {name: tuple(row[name]) if isinstance(row[name], list) else row[name] for name in names}


def _leaks(part: Mapping[str, Any]) -> Leaks | None:
    """Give what is known of leaks."""
    copies = part.get("num_leaked")
    return None if copies is None else Leaks(copies, part.get("num_near_leaked"))


def _read_epochs(path: Path) -> Iterator[Epoch]:
    """Read `history.csv`; nothing where there is none."""
    if not path.is_file():
        return
    numbers = [field.name for field in fields(Epoch)][2:]
    try:
        for row in csv.DictReader(StringIO(_read_text(path), newline="")):
            values = {name: float(row[name]) if row[name] else None for name in numbers}
            yield Epoch(row["stage"], int(row["epoch"]), **values)
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(path, f"{type(error).__name__} {error}") from error


def _read_course(path: Path) -> Course:
    """Read what happened; nothing where there is no log."""
    rows = list(_read_events(path)) if path.is_file() else []
    try:
        return _course(rows)
    except (KeyError, TypeError) as error:
        raise _damaged(path, f"{type(error).__name__} {error}") from error


def _course(rows: Sequence[Mapping[str, Any]]) -> Course:
    """Gather what the events tell; of a run that went on, the last word counts."""
    of = {kind: [row for row in rows if row["event"] == kind] for kind in _KINDS}
    found = of["DataFound"][-1:]
    best = [row for row in of["EpochEnded"] if row["is_best"]][-1:]
    return Course(
        counts=found[0]["counts"] if found else {},
        left_out=tuple(LeftOut(**one) for row in found for one in row["left_out"]),
        warnings=tuple(dict.fromkeys(row["message"] for row in of["Warned"])),
        notes={row["stage"]: row["note"] for row in of["StageEnded"] if row["note"]},
        kept=(best[0]["stage"], best[0]["epoch"]) if best else None,
        num_resumed=len(of["Resumed"]),
    )


def _read_events(path: Path) -> Iterator[Mapping[str, Any]]:
    """Read the log; a line that a kill cut off is passed over, as the run goes on below it."""
    for line in _read_text(path).split("\n"):
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and "event" in row:
            yield row


def _read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object."""
    try:
        document = json.loads(_read_text(path))
    except ValueError as error:
        raise _damaged(path, str(error)) from error
    if not isinstance(document, dict):
        raise _damaged(path, "it is no JSON object")
    version = document.get("schema_version")
    if version != SCHEMA_VERSION:
        raise _damaged(path, f"its schema_version is {version!r}, not {SCHEMA_VERSION}")
    return document


def _read_text(path: Path) -> str:
    """Read a text file."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise FinetuneError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise _damaged(path, "it is not UTF-8") from error


def _damaged(path: Path, reason: str) -> FinetuneError:
    """Say that a file is not as it was written."""
    return FinetuneError(
        f"{path} is damaged: {reason}",
        hint="finetune evaluate RUN --data DIR --out DIR makes figures and tables anew",
    )
