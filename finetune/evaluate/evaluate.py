"""From what a network said to figures: outputs in, result out, nothing on disk."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from finetune.errors import DataError, FinetuneError, join_names
from finetune.evaluate.calibration import measure_calibration
from finetune.evaluate.figures import Figures, compute_figures
from finetune.evaluate.result import EvalResult, has_answer, is_scored
from finetune.evaluate.slices import compute_slices, slice_warnings
from finetune.types import Outputs

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["evaluate"]

WIDE = 0.2  # an accuracy known to within 20 points tells no two sensible models apart


def evaluate(
    outputs: Outputs, *, split: str, seed: int = 0, notes: Sequence[str] = ()
) -> EvalResult:
    """Score what a network said of the images of one split.

    Images that could not be read and images of a class that the model does not know are not
    scored; they are counted and named in the warnings.

    Args:
        outputs: N images' probabilities and labels.
        split: Name of the split: `val`, `test`, `train`.
        seed: Seed of the resampling behind intervals.
        notes: What else should be read beside the figures; first among their warnings.

    Raises:
        DataError: There is no image to score.
        FinetuneError: A probability is not finite although the image could be read.
    """
    _refuse_non_finite(outputs)
    scored = is_scored(outputs)
    if not scored.any():
        raise _nothing_to_score(outputs, split)
    figures = compute_figures(
        outputs.probs[scored], outputs.labels[scored], classes=outputs.classes, seed=seed
    )
    slices = compute_slices(outputs, scored)
    figures = replace(
        figures,
        slices=slices,
        num_unreadable=len(outputs.errors),
        num_unlabelled=int(_is_unlabelled(outputs).sum()),
        warnings=tuple(
            [
                *notes,
                *_warn_of_size(figures),
                *_warn_of_classes(figures),
                *_warn_of_rest(outputs),
                *slice_warnings(slices),
            ]
        ),
    )
    calibration = measure_calibration(outputs, scored, seed=seed)
    return EvalResult(split=split, outputs=outputs, figures=figures, calibration=calibration)


def _refuse_non_finite(outputs: Outputs) -> None:
    """Refuse probabilities that are not numbers: the model is broken, not the images."""
    silent = ~has_answer(outputs)
    silent[list(outputs.errors)] = False
    if silent.any():
        names = [outputs.names[position] for position in np.flatnonzero(silent)]
        raise FinetuneError(
            f"the model gives probabilities that are not finite for {len(names)} of "
            f"{len(outputs.names)} images: {join_names(names)}",
            hint="train again with a lower lr, or with --set runtime.precision=fp32",
        )


def _nothing_to_score(outputs: Outputs, split: str) -> DataError:
    """Say why a split has no image to score."""
    if not outputs.names:
        return DataError(f"{split} has no images, so there is nothing to evaluate")
    return DataError(
        f"none of the {len(outputs.names)} images of {split} can be scored: "
        f"{len(outputs.errors)} could not be read, {int(_is_unlabelled(outputs).sum())} are of no "
        f"class that the model knows",
        hint=f"the model knows these classes: {join_names(outputs.classes)}",
    )


def _warn_of_size(figures: Figures) -> list[str]:
    """Warn where the accuracy is hardly known."""
    low, high = figures.accuracy_interval
    if high - low <= WIDE:
        return []
    return [
        f"too small to tell: from {figures.num_samples} images the accuracy is only known to lie "
        f"between {low:.0%} and {high:.0%} (95 %)"
    ]


def _warn_of_classes(figures: Figures) -> list[str]:
    """Warn of classes without an image: their recall is undefined."""
    absent = [row.name for row in figures.per_class if not row.support]
    if not absent:
        return []
    return [f"{_count(len(absent), 'class', 'classes')} without an image: {join_names(absent)}"]


def _warn_of_rest(outputs: Outputs) -> list[str]:
    """Warn of images that are not scored, with the reason."""
    warnings = []
    if outputs.errors:
        reasons = [f"{outputs.names[row]} ({why})" for row, why in sorted(outputs.errors.items())]
        count = _count(len(reasons), "image", "images")
        warnings.append(f"{count} could not be read, not scored: {join_names(reasons)}")
    unknown = [outputs.names[row] for row in np.flatnonzero(_is_unlabelled(outputs))]
    if unknown:
        count = _count(len(unknown), "image", "images")
        warnings.append(
            f"{count} of a class that the model does not know, not scored: {join_names(unknown)}"
        )
    return warnings


def _is_unlabelled(outputs: Outputs) -> "NDArray[np.bool_]":
    """Say of each image whether it has an answer but no class that the model knows."""
    return has_answer(outputs) & (outputs.labels < 0)


def _count(number: int, one: str, many: str) -> str:
    """Write a number with its noun."""
    return f"{number} {one if number == 1 else many}"
