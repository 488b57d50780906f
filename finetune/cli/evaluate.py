"""`finetune evaluate`: the figures of a saved model on labelled photos."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from finetune.cli.border import UsageError
from finetune.cli.options import Debug, Json, Model, Workers, at_home
from finetune.errors import FinetuneError
from finetune.runtime.paths import absolute_path
from finetune.types import Split

if TYPE_CHECKING:
    from collections.abc import Mapping

    from finetune.cli.render import Screen
    from finetune.data.leaks import Leaks
    from finetune.evaluate.labelled import Labelled
    from finetune.evaluate.result import EvalResult
    from finetune.model.bundle import Bundle
    from finetune.report.tables import MetricsHeader

__all__ = ["evaluate"]

_ROLES: dict[Split, str] = {
    "train": " (trained on: no test)",
    "val": " (used for selection: no test)",
    "test": "",
}


def evaluate(
    model: Model,
    data: Annotated[
        str,
        typer.Option("--data", metavar="DIR|CSV", help="Photos in folders by class, or a CSV."),
    ],
    split: Annotated[
        str,
        typer.Option(
            "--split", metavar="NAME", help="train, val or test; data without parts is taken whole."
        ),
    ] = "test",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="DIR",
            help="Write metrics.json, the tables and report.html there.",
            callback=at_home,
        ),
    ] = None,
    workers: Workers = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Evaluate a saved model on labelled photos: accuracy, F1, every class, with intervals.

    Example: finetune evaluate runs/photos-efficientnet_b0-001 --data photos/ --split test
    """
    part = next((known for known in _ROLES if known == split), None)
    if part is None:
        raise UsageError(f"--split {split} is not one of train, val, test", hint="--split test")
    if out is not None:
        _check_out(out)
    from finetune.cli.display import show_result
    from finetune.cli.render import Screen, print_json
    from finetune.model.bundle import load_bundle
    from finetune.report.tables import metrics_document, write_tables

    began = time.perf_counter()
    screen = Screen(sys.stderr)
    bundle = load_bundle(model)
    result, labelled = _evaluate(bundle, data, part, screen, workers)
    part = labelled.split  # photos that the run validated on are not made a test by asking
    known_leaks: dict[str, Leaks] = {} if labelled.leaks is None else {part: labelled.leaks}
    header = _header(bundle, known_leaks, time.perf_counter() - began)
    if out is not None:
        from finetune.report.report import write_report
        from finetune.runtime.files import make_folder

        make_folder(out)
        write_tables({part: result}, out, header=header)
        report = write_report(out, bundle, data=absolute_path(data))
        screen.line(f"tables written to {out}, and what they say to {report.path}")
    if json:
        print_json(metrics_document({part: result}, header=header))
    else:
        table = str(out / "per_class.csv") if out else None
        show_result(Screen(sys.stdout), result, role=_ROLES[part], table=table)


def _check_out(out: Path) -> None:
    """Refuse a folder that holds something or cannot be made, before anything slow happens."""
    from finetune.runtime.files import require_writable

    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise FinetuneError(
            f"{out} exists and is not empty; nothing is overwritten", hint="choose another --out"
        )
    require_writable(out)


def _evaluate(
    bundle: Bundle, data: str, split: Split, screen: Screen, workers: int | None
) -> tuple[EvalResult, Labelled]:
    """Predict the labelled photos with progress on a screen, and score the answers."""
    from finetune.cli.predict import inference_options, shown_progress
    from finetune.evaluate.evaluate import evaluate as score
    from finetune.evaluate.labelled import read_labelled
    from finetune.model.inference import predict_samples

    labelled = read_labelled(data, split=split, bundle=bundle)
    options = inference_options(len(labelled.samples), workers)
    with shown_progress(screen) as progress:
        outputs = predict_samples(bundle, labelled.samples, options=options, progress=progress)
    return score(outputs, split=labelled.split, notes=labelled.notes), labelled


def _header(bundle: Bundle, leaks: Mapping[str, Leaks], seconds: float) -> MetricsHeader:
    """Say what was evaluated."""
    from finetune.report.tables import MetricsHeader
    from finetune.runtime.device import peak_memory_mib

    folder = (bundle.folder or Path()).resolve()
    return MetricsHeader(
        run=folder.parent.name if folder.name == "model" else folder.name,
        backbone=str(bundle.document.get("backbone", "")),
        classes=bundle.classes,
        total_seconds=seconds,
        num_parameters=sum(values.numel() for values in bundle.network.parameters()),
        peak_memory_mib=peak_memory_mib(),
        leaks=leaks,
        calibration=bundle.calibration,
    )
