"""What a page says first: what was trained, how good it is, how sure one can be of that.

Pure: from what the files say to plain sentences. What to do next is `advice.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from finetune.data.words import counted
from finetune.report.words import as_percent, between, count, duration

if TYPE_CHECKING:
    from finetune.report.material import Material

__all__ = ["PART_WORDS", "Comparison", "compare", "floor_of", "mean_confidence", "tell"]

PART_WORDS = {"train": "training", "val": "validation", "test": "test"}


@dataclass(frozen=True, slots=True)
class Comparison:
    """An accuracy beside which that of the model is read.

    Attributes:
        name: What reaches it.
        accuracy: In [0, 1].
        part: The part that it was measured on.
        of_model: Accuracy of the model on the same part; None where it is not known.
        meaning: What it tells.
    """

    name: str
    accuracy: float
    part: str
    of_model: float | None
    meaning: str


def tell(material: Material) -> tuple[str, ...]:
    """Say in a few sentences what was trained on what, how good it is and how sure that is."""
    return tuple(
        part for part in (_training(material), _quality(material), _trust(material)) if part
    )


def compare(material: Material) -> tuple[Comparison, ...]:
    """Give what the model is compared with: always the same answer, and the probe."""
    name, share = floor_of(material)
    part = material.main
    rows = [
        Comparison(
            f"always answering “{name}”",
            share,
            part.split,
            part.figures.accuracy,
            "the most frequent class, without looking: what is no better has learned nothing",
        )
    ]
    probe, val = material.probe_accuracy, material.parts.get("val")
    if probe is not None:
        rows.append(
            Comparison(
                "the probe, a linear model on the untouched backbone",
                probe,
                "val",
                val.figures.accuracy if val else None,
                "what the backbone knew before anything in it learned; on validation",
            )
        )
    return tuple(rows)


def floor_of(material: Material) -> tuple[str, float]:
    """Give the most frequent training class, and its share of the part that the page is about.

    Where it is not known what was trained on, the most frequent class of the part itself.
    """
    support = {row.name: row.support for row in material.main.figures.per_class}
    trained = material.course.counts.get("train") or support
    name = max(material.classes, key=lambda each: trained.get(each, 0))
    return name, support[name] / max(sum(support.values()), 1)


def mean_confidence(material: Material) -> float:
    """Give the mean probability of the class that the model names, over scored photos."""
    answers = material.main.answers
    return float(np.mean(answers.confidence[answers.is_scored], dtype=np.float64))


def _training(material: Material) -> str:
    """Say what was trained on what."""
    classes = counted(len(material.classes), "class")
    if material.num_train is None:
        return f"{material.name}, a model for {classes} on {material.backbone}, was evaluated."
    where = f" in {material.data.name}" if material.data else ""
    seconds = (material.document.get("seconds") or {}).get("total")
    how_long = f" in {duration(seconds)}" if seconds else ""
    recipe = f" by the recipe {material.recipe_name}" if material.recipe_name else ""
    return (
        f"{material.backbone} learned to tell {classes} apart from {count(material.num_train)} "
        f"photos{where}{recipe}{how_long}."
    )


def _quality(material: Material) -> str:
    """Say how good it is, and how well that is known."""
    part = material.main
    figures = part.figures
    return (
        f"Of {count(figures.num_samples)} {PART_WORDS[part.split]} photos it names "
        f"{as_percent(figures.accuracy)} right; for other photos like these, expect "
        f"{between(figures.accuracy_interval)} (95 % interval)."
    )


def _trust(material: Material) -> str:
    """Say what limits the trust in these figures."""
    part = material.main
    limits = []
    if part.split == "val":
        limits.append("these photos chose the weights, so the figures are too good: no test part")
    if part.split == "train":
        limits.append("these photos were trained on: the figures say nothing of other photos")
    leaked = part.leaks.total if part.leaks else 0
    if leaked:
        verb = "also stands" if leaked == 1 else "also stand"
        limits.append(f"{count(leaked)} of them {verb} in the training part: expect less")
    return f"Careful: {'; '.join(limits)}." if limits else ""
