"""What a model knows of its own doubt: fitted on validation, saved with it, part of every answer.

- A temperature divides the logits before the softmax (Guo and others 2017, 1706.04599): the
  probabilities become honest, the likeliest class stays the same one.
- Below a reject threshold an answer is withheld.
- A set has every class that reaches the conformal threshold, and always the likeliest.
- The novelty score says how unlike the training photos a photo is.

Fitting is `evaluate/`'s work; here fitted values are kept and applied, with numpy and torch alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from finetune.model.novelty import Novelty

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from finetune.types import Outputs

__all__ = ["NOVELTY_FILE", "Calibration", "softmax"]

NOVELTY_FILE = "novelty.safetensors"


@dataclass(frozen=True, slots=True)
class Calibration:
    """What was fitted on validation; None is what was not.

    Attributes:
        temperature: What logits are divided by, > 0.
        reject_at_precision: The share of right answers that was wanted of those not withheld.
        reject_threshold: Least probability of the likeliest class at which it is an answer.
        conformal_coverage: The share of sets that was wanted to hold the right class.
        conformal_threshold: Least probability at which a class is in the set.
        novelty: Tells photos that are unlike those of training.
        reasons: How each came about, or why it is None, by name.
    """

    temperature: float | None = None
    reject_at_precision: float | None = None
    reject_threshold: float | None = None
    conformal_coverage: float | None = None
    conformal_threshold: float | None = None
    novelty: Novelty | None = None
    reasons: Mapping[str, str] = field(default_factory=dict)

    def applied(self, outputs: Outputs) -> Outputs:
        """Give what a network said with probabilities, sets and doubts as this model has them.

        Args:
            outputs: With `logits`; of `features` the novelty is computed where it has none.

        Raises:
            ValueError: It has no logits.
        """
        if outputs.logits is None:
            raise ValueError("a calibration applies to logits, and these outputs have none")
        probs = softmax(outputs.logits, self.temperature)
        novelty = outputs.novelty
        if self.novelty is not None and outputs.features is not None:
            novelty = self.novelty.scores(torch.from_numpy(outputs.features))
        return replace(
            outputs,
            probs=probs,
            sets=self._sets(probs),
            rejected=None
            if self.reject_threshold is None
            else probs.max(axis=1) < np.float32(self.reject_threshold),
            novelty=novelty,
        )

    def _sets(self, probs: NDArray[np.float32]) -> NDArray[np.bool_] | None:
        """Name the classes (N, K) that reach the threshold, and the likeliest; none of NaN."""
        if self.conformal_threshold is None:
            return None
        sets = probs >= np.float32(self.conformal_threshold)
        known = np.flatnonzero(np.isfinite(probs).all(axis=1))
        sets[known, probs[known].argmax(axis=1)] = True
        return sets

    def to_document(self) -> dict[str, object]:
        """Give the part of `finetune.json` that is about doubt."""
        novelty = self.novelty
        return {
            "temperature": self.temperature,
            "reject_at_precision": self.reject_at_precision,
            "reject_threshold": self.reject_threshold,
            "conformal_coverage": self.conformal_coverage,
            "conformal_threshold": self.conformal_threshold,
            "novelty_threshold": None if novelty is None else novelty.threshold,
            "novelty_neighbour": None if novelty is None else novelty.neighbour,
            "calibration_reasons": dict(self.reasons),
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any], folder: Path) -> Calibration:
        """Read what a saved model has of it; one saved before there was any has none.

        Args:
            document: The content of `finetune.json`.
            folder: Where the model stands.

        Raises:
            TypeError, ValueError, KeyError: A value is not what it must be.
            OSError, SafetensorError: The reference of novelty cannot be read.
        """
        values = {
            name: _number(document, name)
            for name in (
                "temperature",
                "reject_at_precision",
                "reject_threshold",
                "conformal_coverage",
                "conformal_threshold",
            )
        }
        if values["temperature"] == 0:
            raise ValueError("temperature is 0")
        novelty = None
        threshold = _number(document, "novelty_threshold")
        if threshold:
            neighbour = int(document["novelty_neighbour"])
            novelty = Novelty.load(folder / NOVELTY_FILE, neighbour=neighbour, threshold=threshold)
        reasons = dict(document.get("calibration_reasons") or {})
        return cls(**values, novelty=novelty, reasons=reasons)


def softmax(logits: NDArray[np.float32], temperature: float | None = None) -> NDArray[np.float32]:
    """Turn logits (N, K) into probabilities (N, K) float32, the likeliest class being the same.

    Args:
        logits: NaN rows give NaN rows.
        temperature: What they are divided by, > 0; None for 1.
    """
    values = torch.from_numpy(logits)
    plain: NDArray[np.float32] = values.softmax(dim=1).numpy()
    if temperature is None or temperature == 1 or not len(logits):
        return plain
    probs: NDArray[np.float32] = (values / temperature).softmax(dim=1).numpy()
    best = plain.argmax(axis=1)
    # A high temperature may round two probabilities that hardly differ to one.
    tied = np.flatnonzero(probs.argmax(axis=1) != best)
    probs[tied, best[tied]] = np.nextafter(probs[tied].max(axis=1), np.float32(2))
    return probs


def _number(document: Mapping[str, Any], name: str) -> float | None:
    """Read a number that is not below 0, or None."""
    value = document.get(name)
    if value is None:
        return None
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or value < 0:
        raise TypeError(f"{name} is {value!r}")
    return float(value)
