"""`finetune predict`: one row for every image, in the order given."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from finetune.cli.options import Debug, Json, Model, Workers, at_home, require_file
from finetune.errors import DataError

if TYPE_CHECKING:
    from finetune.cli.render import Screen
    from finetune.model.inference import InferenceOptions
    from finetune.train.events import Event
    from finetune.types import Outputs, Progress

__all__ = ["inference_options", "predict", "shown_progress"]

_STDIN = "-"
_ENDINGS = (".csv", ".jsonl")


class Precision(StrEnum):
    """Of the network's layers."""

    fp32 = "fp32"
    bf16 = "bf16"


def predict(
    model: Model,
    paths: Annotated[
        list[str],
        typer.Argument(metavar="PATH", help="Images and folders; - reads paths from stdin."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FILE",
            help="Write all probabilities to a .csv or .jsonl.",
            callback=at_home,
        ),
    ] = None,
    top_k: Annotated[
        int | None,
        typer.Option("--top-k", metavar="K", min=1, help="Also give the K likeliest classes."),
    ] = None,
    precision: Annotated[
        Precision,
        typer.Option("--precision", help="bf16 is faster where the device has units for it."),
    ] = Precision.fp32,
    workers: Workers = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Predict images with the model of a run; an image that cannot be read has its reason.

    Example: finetune predict runs/photos-efficientnet_b0-001 new/ --out answers.csv
    """
    if out is not None:
        require_file(out, _ENDINGS)
    items = _items(paths)
    from finetune.cli.render import Screen, print_json_rows
    from finetune.report.tables import prediction_rows, write_predictions
    from finetune.runtime.files import make_folder

    screen = Screen(sys.stderr)
    outputs = _predict(model, items, screen, precision, workers)
    if out is not None:
        make_folder(out.parent)
        write_predictions(outputs, out, top_k=top_k)
        screen.line(f"{len(outputs.names)} rows written to {out}")
    if json:
        print_json_rows(prediction_rows(outputs, top_k=top_k))
    elif out is None:
        _show(outputs, top_k or 1)
    if len(outputs.errors) == len(outputs.names):
        raise DataError(
            f"none of the {len(outputs.names)} images could be read",
            hint="the reason of each stands in its row",
        )


def _items(paths: list[str]) -> list[Path]:
    """List the images to predict, in order; folders give their files."""
    from finetune.data.index import list_images

    named: list[str | Path] = []
    for path in paths:
        lines = _stdin_lines() if path == _STDIN else [path]
        named += [line for line in lines if line.strip()]
    items = list_images(named)
    if not items:
        raise DataError("there is no image to predict", hint="name files, or a folder of images")
    return items


def _stdin_lines() -> list[str]:
    """Read the lines of stdin; names of files may have any bytes but the end of a line."""
    lines = [line.removesuffix(b"\r") for line in sys.stdin.buffer.read().split(b"\n")]
    if sys.platform == "win32":  # names are text there, in pipes in the encoding of the console
        return [line.decode(sys.stdin.encoding, "backslashreplace") for line in lines]
    return [os.fsdecode(line) for line in lines]


def _predict(
    model: str, items: list[Path], screen: Screen, precision: Precision, workers: int | None
) -> Outputs:
    """Predict, with progress on a screen."""
    from finetune.model.bundle import load_bundle
    from finetune.model.inference import predict as predict_images

    bundle = load_bundle(model)
    with shown_progress(screen) as progress:
        options = replace(inference_options(len(items), workers), precision=precision.value)
        return predict_images(bundle, items, options=options, progress=progress)


def inference_options(num_images: int, workers: int | None = None) -> InferenceOptions:
    """Choose device and processes for so many images, unless their number is given."""
    from finetune.model.inference import InferenceOptions
    from finetune.runtime.device import machine_facts

    machine = machine_facts()
    if workers is None:
        workers = machine.choose_workers(num_images).value
    return InferenceOptions(device=machine.device, workers=workers)


@contextmanager
def shown_progress(screen: Screen, label: str = "predicting") -> Iterator[Progress]:
    """Give a callback that draws how many images are done; the bar goes at the end."""
    from finetune.train.events import Progressed, progress_events

    def draw(event: Event) -> None:
        if isinstance(event, Progressed):
            screen.progress(label, event.done, event.total, event.images_per_second)

    try:
        yield progress_events(label, draw)
    finally:
        screen.end_progress()


def _show(outputs: Outputs, top_k: int) -> None:
    """Write a compact table on stdout: path, the likeliest classes, errors if there are any."""
    from finetune.cli.render import Column, Screen, figure
    from finetune.report.tables import prediction_rows

    ranks = range(1, min(top_k, len(outputs.classes)) + 1)
    columns = [Column("path", "left", is_shortened=True)]
    for rank in ranks:
        title = "predicted" if rank == 1 else f"{rank}."
        columns += [Column(title, "left", is_shortened=True), Column("probability")]
    found = list(prediction_rows(outputs, top_k=top_k, is_brief=True))
    doubts = [name for name in ("set", "rejected", "ood") if name in found[0]]
    columns += [Column(name, "left", is_shortened=name == "set") for name in doubts]
    if outputs.errors:
        columns.append(Column("error", "left", is_shortened=True))
    rows = []
    for row in found:
        cells = [str(row["path"])]
        for rank in ranks:
            probability = row[f"top_{rank}_probability"]
            known = isinstance(probability, float)
            cells += [
                str(row[f"top_{rank}"]) if known else "-",
                figure(probability if isinstance(probability, float) else None),
            ]
        cells += [_doubt(row[name]) for name in doubts]
        rows.append([*cells, str(row["error"] or "")] if outputs.errors else cells)
    Screen(sys.stdout).table(columns, rows)


def _doubt(value: object) -> str:
    """Write a set, whether an answer is withheld, or a score of novelty."""
    from finetune.cli.render import figure

    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, float):
        return figure(value)
    return "-" if value is None else ("yes" if value else "no")
