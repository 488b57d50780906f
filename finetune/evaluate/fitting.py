"""All that is fitted on validation after training: temperature, thresholds, novelty.

One after another, since each rests on the one before: thresholds are of calibrated probabilities.
Nothing here sees the test part. Validation has chosen the weights already, so that what is promised
is nominal; `metrics.json` has beside it what the test part shows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from finetune.evaluate.conformal import choose_set_threshold
from finetune.evaluate.novelty import fit_novelty
from finetune.evaluate.rejection import choose_reject_threshold
from finetune.evaluate.result import is_scored
from finetune.evaluate.temperature import fit_temperature
from finetune.model.calibration import Calibration, softmax
from finetune.types import Choice

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from finetune.model.novelty import Novelty
    from finetune.recipe.schema import EvaluateSection
    from finetune.types import Outputs

__all__ = ["fit_calibration"]

_NOT_ASKED = "not asked for"


def fit_calibration(
    outputs: Outputs,
    section: EvaluateSection,
    *,
    reference: Choice[NDArray[np.float32] | None],
    leaked: NDArray[np.bool_] | None = None,
) -> Calibration:
    """Fit what a recipe asks for on what the network said of the validation images.

    Args:
        outputs: With logits, and with features where there is a reference.
        section: What is asked for.
        reference: (M, D) features of training photos, or None and why there are none.
        leaked: (N,) whether an image stands in training as well: of those the network is too sure,
            and nothing is fitted on them. None where none does.

    Returns:
        Each value with its reason; None where it is not asked for or cannot be fitted.
    """
    new = np.ones(len(outputs.labels), bool) if leaked is None else ~leaked
    scored = is_scored(outputs) & new
    if outputs.logits is None:
        raise ValueError("a calibration is fitted on logits, and these outputs have none")
    logits, labels = outputs.logits[scored], outputs.labels[scored]
    temperature: Choice[float] | Choice[None] = Choice(None, _NOT_ASKED)
    if section.temperature:
        temperature = fit_temperature(logits, labels)
    probs = softmax(logits, temperature.value)
    reject: Choice[float | None] = Choice(None, _NOT_ASKED)
    if section.reject_at_precision is not None:
        correct = probs.argmax(axis=1) == labels
        reject = choose_reject_threshold(
            probs.max(axis=1, initial=0.0), correct, precision=section.reject_at_precision
        )
    conformal: Choice[float | None] = Choice(None, _NOT_ASKED)
    if section.conformal_coverage is not None:
        conformal = choose_set_threshold(probs, labels, coverage=section.conformal_coverage)
    novelty: Choice[Novelty | None] = Choice(None, reference.reason)
    if reference.value is not None and outputs.features is not None:
        num_classes = len(outputs.classes)
        novelty = fit_novelty(reference.value, outputs.features[new], num_classes=num_classes)
    return Calibration(
        temperature=temperature.value,
        reject_at_precision=section.reject_at_precision,
        reject_threshold=reject.value,
        conformal_coverage=section.conformal_coverage,
        conformal_threshold=conformal.value,
        novelty=novelty.value,
        reasons={
            "temperature": temperature.reason,
            "reject_threshold": reject.reason,
            "conformal_threshold": conformal.reason,
            "novelty_threshold": novelty.reason,
        },
    )
