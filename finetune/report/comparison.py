"""What `finetune compare` found, as a document: plain values, the same keys in every one.

Beside it stands what its terminal and its page say alike.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from finetune.evaluate.answers import Cost
from finetune.evaluate.comparison import (
    ClassDifference,
    Comparison,
    Difference,
    Disagreement,
    RunFigures,
)
from finetune.report.words import duration, short_count
from finetune.runtime.files import write_text
from finetune.runtime.space import size_words

__all__ = ["comparison_document", "cost_words", "ranked_classes", "write_comparison"]

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


def cost_words(cost: Cost) -> dict[str, str]:
    """Say what a run cost, by the heading of a table; a dash where its files do not say."""
    memory, speed = cost.peak_memory_mib, cost.images_per_second
    return {
        "training": "-" if cost.training_seconds is None else duration(cost.training_seconds),
        "total": "-" if cost.total_seconds is None else duration(cost.total_seconds),
        "parameters": "-" if cost.num_parameters is None else short_count(cost.num_parameters),
        "memory": "-" if memory is None else size_words(memory << 20),
        "images/s": "-" if speed is None else f"{speed:.0f}",
        "model": "-" if cost.model_bytes is None else size_words(cost.model_bytes),
    }


def ranked_classes(one: Difference) -> list[ClassDifference]:
    """Give the classes of a difference, those first that chance explains least."""
    return sorted(
        one.per_class, key=lambda row: (row.corrected_p_value, -abs(row.difference), row.name)
    )


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
