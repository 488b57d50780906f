"""How honest a model is on one split: before and after its temperature, with sets and rejections.

On validation these figures flatter: the temperature and the thresholds were fitted there. Those of
the test part are what a person can expect.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from finetune.components.metrics import METRICS
from finetune.evaluate.intervals import Interval, wilson
from finetune.evaluate.rejection import CoveragePoint, coverage_curve
from finetune.evaluate.reliability import ReliabilityBin, calibration_error_interval, reliability
from finetune.model.calibration import softmax

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from finetune.types import Outputs

__all__ = ["CalibrationFigures", "measure_calibration"]


@dataclass(frozen=True, slots=True)
class CalibrationFigures:
    """Honesty of N images' probabilities; before and after the temperature, which may be none.

    Shares are in [0, 1], intervals are at 95 %; what the model has no threshold for is None.

    Attributes:
        ece_before: Expected calibration error of the network's own probabilities.
        ece_before_interval: The bootstrap's.
        ece_after: That of the published probabilities.
        ece_after_interval: The bootstrap's.
        log_loss_before: In nats; None with one class.
        log_loss_after: Likewise.
        coverage_of_sets: Share of sets that hold the right class.
        coverage_of_sets_interval: Wilson's.
        mean_set_size: Classes a set.
        num_rejected: Images whose answer is withheld.
        precision_of_answered: Share of the others that is right; None where there are none.
        precision_of_answered_interval: Wilson's.
        num_novel: Images that are unlike the training photos: a score above 1.
        reliability: Published confidence against accuracy, bin by bin.
        coverage_accuracy: Accuracy of the most confident images, by how many they are.
    """

    ece_before: float
    ece_before_interval: Interval | None
    ece_after: float
    ece_after_interval: Interval | None
    log_loss_before: float | None
    log_loss_after: float | None
    coverage_of_sets: float | None
    coverage_of_sets_interval: Interval | None
    mean_set_size: float | None
    num_rejected: int | None
    precision_of_answered: float | None
    precision_of_answered_interval: Interval | None
    num_novel: int | None
    reliability: tuple[ReliabilityBin, ...]
    coverage_accuracy: tuple[CoveragePoint, ...]


def measure_calibration(
    outputs: Outputs, scored: NDArray[np.bool_], *, seed: int = 0
) -> CalibrationFigures:
    """Measure the images of a split that are scored.

    Args:
        outputs: What the network said; without logits nothing is known of before.
        scored: (N,) which images count; at least one.
        seed: Seed of the resampling behind the intervals.
    """
    labels, after = outputs.labels[scored], outputs.probs[scored]
    before = after if outputs.logits is None else softmax(outputs.logits[scored])
    correct = after.argmax(axis=1) == labels
    confidence = after.max(axis=1)
    sets = None if outputs.sets is None else outputs.sets[scored]
    rejected = None if outputs.rejected is None else outputs.rejected[scored]
    covered = None if sets is None else sets[np.arange(len(labels)), labels]
    answered = None if rejected is None else correct[~rejected]
    return CalibrationFigures(
        ece_before=METRICS["expected_calibration_error"](before, labels),
        ece_before_interval=calibration_error_interval(before.max(axis=1), correct, seed=seed),
        ece_after=METRICS["expected_calibration_error"](after, labels),
        ece_after_interval=calibration_error_interval(confidence, correct, seed=seed),
        log_loss_before=_defined(METRICS["log_loss"](before, labels)),
        log_loss_after=_defined(METRICS["log_loss"](after, labels)),
        coverage_of_sets=_share(covered),
        coverage_of_sets_interval=_interval(covered),
        mean_set_size=None if sets is None else float(sets.sum(axis=1).mean()),
        num_rejected=None if rejected is None else int(rejected.sum()),
        precision_of_answered=_share(answered),
        precision_of_answered_interval=_interval(answered),
        num_novel=None if outputs.novelty is None else int((outputs.novelty[scored] > 1).sum()),
        reliability=reliability(confidence, correct),
        coverage_accuracy=coverage_curve(confidence, correct),
    )


def _share(holds: NDArray[np.bool_] | None) -> float | None:
    """Give the share of images for which something holds; None of no image."""
    return None if holds is None or not len(holds) else float(holds.mean())


def _interval(holds: NDArray[np.bool_] | None) -> Interval | None:
    """Give Wilson's interval of that share."""
    return None if holds is None or not len(holds) else wilson(int(holds.sum()), len(holds))


def _defined(value: float) -> float | None:
    """Turn the NaN of an undefined figure into None."""
    return None if np.isnan(value) else value
