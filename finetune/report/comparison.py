"""What `finetune compare` found, as a document: plain values, the same keys in every one."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from finetune.evaluate.comparison import Comparison, Difference, Disagreement, RunFigures
from finetune.runtime.files import write_text

__all__ = ["comparison_document", "write_comparison"]

SCHEMA_VERSION = 1


def comparison_document(comparison: Comparison) -> dict[str, object]:
    """Give a comparison as plain values (`schema_version` 1), described in reference/files.md."""
    return {
        "schema_version": SCHEMA_VERSION,
        "split": comparison.split,
        "num_samples": comparison.num_samples,
        "classes": list(comparison.classes),
        "reference": comparison.runs[0].name,
        "runs": [_run(run) for run in comparison.runs],
        "differences": [_difference(one) for one in comparison.differences],
        "images": [_image(one, comparison) for one in comparison.disagreements],
        "notes": list(comparison.notes),
    }


def write_comparison(document: dict[str, object], path: Path) -> None:
    """Write a document of a comparison, whole or not at all.

    Raises:
        FinetuneError: The disk is full or the folder cannot be written.
    """
    text = json.dumps(document, ensure_ascii=False, allow_nan=False, indent=1)
    write_text(path, text + "\n")


def _run(run: RunFigures) -> dict[str, Any]:
    """Give the figures of one run, its cost beside them."""
    values = asdict(run)
    return {**values, "accuracy_interval": list(run.accuracy_interval)}


def _difference(one: Difference) -> dict[str, Any]:
    """Give how one run differs from the reference."""
    values = asdict(one)
    for name in ("accuracy_interval", "macro_f1_interval"):
        values[name] = None if values[name] is None else list(values[name])
    rows = [{**row, "interval": list(row["interval"])} for row in values.pop("per_class")]
    return {**values, "is_told": one.is_told, "per_class": rows}


def _image(one: Disagreement, comparison: Comparison) -> dict[str, Any]:
    """Give one image with the answer of each run."""
    answers = {
        run.name: asdict(answer) for run, answer in zip(comparison.runs, one.answers, strict=True)
    }
    return {"path": one.path, "label": one.label, "answers": answers}
