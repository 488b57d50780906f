"""The best weights so far, by the figure that the recipe selects by.

Equal figures are told apart by the log loss on validation. The probe is a candidate like every
epoch, so that a run never ends worse than its own probe.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import nn

from finetune.components.metrics import is_loss
from finetune.model.adapters import plain_state

__all__ = ["Best", "Candidate"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """Weights that may be the best.

    Attributes:
        stage: Name of the stage that made them.
        epoch: 1-based epoch within it.
        score: The selection figure; NaN where there is no validation part.
        log_loss: On validation, in nats.
    """

    stage: str
    epoch: int
    score: float
    log_loss: float

    @property
    def origin(self) -> str:
        """Say where the weights come from."""
        return f"stage {self.stage}, epoch {self.epoch}"


@dataclass(slots=True)
class Best:
    """Keeps a copy of the best weights.

    Attributes:
        select_by: The selection figure, such as `val_macro_f1`.
        candidate: Where the best weights come from; None before the first offer.
        weights: The state of the network with them; empty before the first offer.
    """

    select_by: str
    candidate: Candidate | None = None
    weights: dict[str, torch.Tensor] = field(default_factory=dict)

    def offer(self, candidate: Candidate, network: nn.Module) -> bool:
        """Keep a copy of a network's weights if they are the best so far; say whether they are.

        Without a figure (NaN: no validation part) the latest weights are the best. Adapters are
        merged in what is kept, so that it fits the network without them.
        """
        if self.candidate is not None and not self._is_better(candidate, self.candidate):
            return False
        self.candidate = candidate
        self.weights = {
            name: tensor.detach().to("cpu", copy=True)
            for name, tensor in plain_state(network).items()
        }
        return True

    def restore(self, network: nn.Module) -> None:
        """Load the best weights into a network."""
        if self.weights:
            network.load_state_dict(self.weights)

    def _is_better(self, new: Candidate, old: Candidate) -> bool:
        """Compare by the figure, then by log loss; a later one without figures wins."""
        if math.isnan(new.score) or math.isnan(old.score):
            return math.isnan(old.score)
        sign = -1.0 if is_loss(self.select_by) else 1.0
        return (sign * new.score, -new.log_loss) > (sign * old.score, -old.log_loss)
