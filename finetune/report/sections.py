"""The page as a list: each section is one function, its words stand in a template of its own.

To add one: a function from the source to a `Section`, a file in `templates/sections/`, and a line
at the foot of this file. A section that has nothing to say is None.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from finetune.errors import join_names
from finetune.evaluate.confident import FEWEST
from finetune.report.advice import advise
from finetune.report.gallery import NUM_NAMED
from finetune.report.inline import inline_svg
from finetune.report.labels import check_command
from finetune.report.matrix import build_matrix, cell_key
from finetune.report.plots import (
    draw_coverage,
    draw_losses,
    draw_reliability,
    draw_scores,
    svg_of,
)
from finetune.report.source import Section, Source
from finetune.report.story import PART_WORDS, compare, mean_confidence, tell
from finetune.report.words import as_percent

if TYPE_CHECKING:
    from finetune.report.material import Epoch, Material

__all__ = ["SECTIONS", "build_sections"]

_MANY_LEFT_OUT = 50  # files named; the rest stand in events.jsonl


def build_sections(source: Source) -> tuple[Section, ...]:
    """Give the sections that have something to say, in their order."""
    built = (build(source) for build in SECTIONS)
    return tuple(section for section in built if section is not None)


def summary(source: Source) -> Section:
    """What was trained, how good it is, what to do next."""
    material = source.material
    values = {
        "sentences": tell(material),
        "part": material.main,
        "part_word": PART_WORDS[material.main.split],
        "confidence": mean_confidence(material),
        "comparisons": compare(material),
        "advice": advise(material, source.gallery),
    }
    return Section("summary", "Summary", "summary.html", values)


def training(source: Source) -> Section | None:
    """How it learned, and what that cost."""
    material = source.material
    if not material.epochs:
        return None
    charts = []
    if len(material.epochs) > 1:
        charts = [
            inline_svg(
                svg_of(draw(material.epochs)), name=name, label=_chart_words(material.epochs, what)
            )
            for name, draw, what in (
                ("losses", draw_losses, "Losses of training and validation"),
                ("scores", draw_scores, "Accuracy and macro F1 on validation"),
            )
        ]
    values = {
        "charts": charts,
        "epochs": material.epochs,
        "kept": material.course.kept,
        "stages": _stages(material),
        "seconds": material.document["seconds"],
        "memory_mib": material.document.get("peak_memory_mib"),
        "num_resumed": material.course.num_resumed,
    }
    return Section("training", "How it learned", "training.html", values)


def confusion(source: Source) -> Section:
    """What is taken for what; each number leads to its photos."""
    material, gallery = source.material, source.gallery
    answers = material.main.answers
    cells = [
        {
            "key": cell_key(*place),
            "true": answers.classes[cell.true],
            "predicted": answers.classes[cell.predicted],
            "num_photos": cell.num_photos,
            "shots": [source.shots[one] for one in cell.photos],
            "names": [answers.names[one] for one in cell.named if one not in cell.photos],
            "num_more": cell.num_photos - len({*cell.photos, *cell.named}),
        }
        for place, cell in gallery.cells.items()
    ]
    values = {
        "rows": build_matrix(answers, gallery),
        "columns": [answers.classes[place] for place in gallery.classes],
        "num_classes": len(answers.classes),
        "cells": cells,
        "num_named": NUM_NAMED,
        "part_word": PART_WORDS[material.main.split],
    }
    return Section("confusion", "What is taken for what", "confusion.html", values)


def classes(source: Source) -> Section:
    """The figures of every class."""
    part = source.material.main
    rows = sorted(part.figures.per_class, key=lambda row: (row.f1 is None, row.f1 or 0.0, row.name))
    values = {
        "rows": rows,
        "trained": source.material.course.counts.get("train") or {},
        "part_word": PART_WORDS[part.split],
    }
    return Section("classes", "Class by class", "classes.html", values)


def doubt(source: Source) -> Section | None:
    """How far its probabilities can be believed, and when it says that it does not know."""
    part = source.material.main
    figures = part.document.get("calibration")
    if not figures:
        return None
    charts = [
        inline_svg(svg_of(draw(figures[rows])), name=name, label=label)
        for name, draw, rows, label in (
            ("reliability", draw_reliability, "reliability", _honesty_words(figures)),
            ("coverage", draw_coverage, "coverage_accuracy", _coverage_words(figures)),
        )
    ]
    values = {
        "figures": figures,
        "fitted": source.material.document.get("calibration") or {},
        "charts": charts,
        "num_samples": part.figures.num_samples,
        "part_word": PART_WORDS[part.split],
        "is_flattered": part.split == "val",
    }
    return Section("doubt", "How far to believe it", "doubt.html", values)


def slices(source: Source) -> Section | None:
    """Whether photos of some kind are answered worse than the others."""
    part = source.material.main
    rows = part.figures.slices
    if not rows:
        return None
    values = {
        "rows": sorted(rows, key=lambda row: (not row.stands_out, row.accuracy)),
        "num_worse": sum(row.stands_out for row in rows),
        "part_word": PART_WORDS[part.split],
    }
    return Section("slices", "Photos of one kind", "slices.html", values)


def photos(source: Source) -> Section | None:
    """The photos that a person learns most from."""
    material, gallery = source.material, source.gallery
    names = material.classes
    values = {
        "labels": _labels(source),
        "surest": [source.shots[place] for place in gallery.surest],
        "num_mistakes": int(material.main.answers.is_mistake.sum()),
        "least_sure": [source.shots[place] for place in gallery.least_sure],
        "pairs": [
            {
                "one": names[pair.one],
                "other": names[pair.other],
                "num_there": pair.num_there,
                "num_back": pair.num_back,
                "shots": [source.shots[place] for place in pair.photos],
            }
            for pair in gallery.pairs
        ],
        "num_missing": sum(shot.photo.uri is None for shot in source.shots.values()),
        "num_shown": len(source.shots),
        "data": material.data,
        "part_word": PART_WORDS[material.main.split],
        "maps": source.maps,
    }
    return Section("photos", "Photos to look at", "photos.html", values)


def health(source: Source) -> Section | None:
    """What the run found in the data: leaks, warnings, what was left out."""
    material = source.material
    figures = material.main.figures
    warnings = tuple(dict.fromkeys([*figures.warnings, *material.course.warnings]))
    left_out = material.course.left_out
    values = {
        "parts": [part for part in material.parts.values() if part.leaks is not None],
        "part_words": PART_WORDS,
        "warnings": warnings,
        "counts": material.course.counts,
        "names": material.classes,
        "left_out": left_out[:_MANY_LEFT_OUT],
        "num_left_out": len(left_out),
        "figures": figures,
        "checked": source.checked,
        "is_of_run": source.checked is not None and source.checked.is_of(material),
    }
    return Section("health", "Data health", "health.html", values)


def recipe(source: Source) -> Section | None:
    """What the run did, each automatic choice with its reason."""
    text = source.material.recipe
    if text is None:
        return None
    lines = [_split_comment(line) for line in text.rstrip("\n").split("\n")]
    return Section("recipe", "Recipe", "recipe.html", {"lines": lines})


def environment(source: Source) -> Section | None:
    """Where the run took place."""
    known = source.material.environment
    if not known:
        return None
    rows = [
        (name, value)
        for group in ("versions", "hardware")
        for name, value in (known.get(group) or {}).items()
    ]
    plain = ("device", "device_reason", "precision", "seed", "data_fingerprint")
    rows += [(name, known[name]) for name in plain if name in known]
    return Section("environment", "Environment", "environment.html", {"rows": rows})


def _labels(source: Source) -> dict[str, Any]:
    """Give what the model's answers say of the labels, and the photos of the first suspects."""
    material, labels = source.material, source.gallery.labels
    part = material.main
    fitted = material.document.get("calibration") or {}
    leaks = part.leaks
    return {
        "shots": [source.shots[place] for place in source.gallery.suspects],
        "num_suspects": len(labels.suspects),
        "num_judged": labels.num_judged,
        "fewest": FEWEST,
        "passed_over": join_names([material.classes[place] for place in labels.passed_over]),
        "split": part.split,
        "is_temperature_fitted": fitted.get("temperature") is not None,
        "num_leaked": leaks.total if leaks else None,
        "command": check_command(material),
    }


def _stages(material: Material) -> list[dict[str, Any]]:
    """Give what each stage cost: seconds and images per second."""
    seconds = material.stage_seconds
    longest = max(seconds.values(), default=0.0)
    return [
        {
            "name": name,
            "seconds": cost,
            "share": cost / longest if longest else 0.0,
            "num_epochs": sum(epoch.stage == name for epoch in material.epochs),
            "images_per_second": _rate(material.epochs, name),
            "note": material.course.notes.get(name, ""),
        }
        for name, cost in seconds.items()
    ]


def _rate(epochs: tuple[Epoch, ...], stage: str) -> float | None:
    """Give the mean images per second of a stage."""
    rates = [epoch.images_per_second for epoch in epochs if epoch.stage == stage]
    known = [rate for rate in rates if rate is not None]
    return sum(known) / len(known) if known else None


def _chart_words(epochs: tuple[Epoch, ...], what: str) -> str:
    """Say in words what a chart shows; the table below it has every figure."""
    last = epochs[-1]
    return (
        f"{what} over {len(epochs)} epochs; at the end a validation accuracy of "
        f"{as_percent(last.val_accuracy)}. The table below has every figure."
    )


def _honesty_words(figures: Mapping[str, Any]) -> str:
    """Say in words what the chart of reliability shows."""
    return (
        "How often answers are right against how sure they are; on average the two differ by "
        f"{100 * figures['ece_after']:.1f} points."
    )


def _coverage_words(figures: Mapping[str, Any]) -> str:
    """Say in words what the chart of coverage shows."""
    points = figures["coverage_accuracy"]
    half = min(points, key=lambda point: abs(point["coverage"] - 0.5))
    return (
        "Accuracy of the surest answers against their share of all photos: "
        f"{as_percent(half['accuracy'])} of the surest {as_percent(half['coverage'], 0)}, "
        f"{as_percent(points[-1]['accuracy'])} of the last point."
    )


def _split_comment(line: str) -> tuple[str, str]:
    """Part a line of a recipe into what it sets and the reason behind it."""
    if line.lstrip().startswith("#"):
        return "", line
    text, mark, comment = line.partition(" # ")
    return text, mark + comment


SECTIONS: tuple[Callable[[Source], Section | None], ...] = (
    summary,
    training,
    confusion,
    classes,
    photos,
    doubt,
    slices,
    health,
    recipe,
    environment,
)
