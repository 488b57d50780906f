"""How long a run will take, said before it starts: measured rates times images."""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from finetune.model.network import Network
    from finetune.recipe.schema import ResolvedRecipe
    from finetune.types import DataFacts

__all__ = ["Rates", "estimate_seconds", "measure_rates"]

_NUM_IMAGES = 8  # a small batch: the estimate must cost little beside what it estimates


@dataclass(frozen=True, slots=True)
class Rates:
    """What a network does on this machine, in images per second.

    Attributes:
        forward: Evaluation.
        training: A step with every parameter trained.
    """

    forward: float
    training: float


def measure_rates(
    network: Network, *, input_size: tuple[int, int, int], recipe: ResolvedRecipe
) -> Rates:
    """Measure one evaluation and one training step of a copy of the network, on blank images."""
    layouts = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}
    layout = layouts[recipe.runtime.memory_format]
    device = torch.device(recipe.runtime.device)
    trial: Network = copy.deepcopy(network).to(  # type: ignore[call-overload]
        device=device, memory_format=layout
    )
    images = torch.zeros(_NUM_IMAGES, *input_size, device=device).to(memory_format=layout)
    with torch.random.fork_rng(), torch.inference_mode():
        trial.eval()(images)  # the first call sets things up
        started = time.perf_counter()
        float(trial(images).sum())
    forward = time.perf_counter() - started
    trial.train().requires_grad_(True)
    with torch.random.fork_rng():
        started = time.perf_counter()
        trial(images).float().square().mean().backward()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    training = time.perf_counter() - started
    return Rates(_NUM_IMAGES / max(forward, 1e-6), _NUM_IMAGES / max(training, 1e-6))


def estimate_seconds(
    recipe: ResolvedRecipe, data: DataFacts, rates: Rates, *, num_test: int = 0
) -> float:
    """Estimate the seconds of all stages and of the figures at the end.

    A stage that trains a part is counted as if it trained everything: frozen layers before the
    trained ones save time, so that the estimate errs on the long side.
    """
    look = data.num_val / rates.forward
    seconds = (data.num_val + num_test) / rates.forward
    for stage in recipe.stages:
        if stage.solver == "probe":
            seconds += data.num_train / rates.forward + look
        else:
            seconds += stage.epochs * (data.num_train / rates.training + look)
    return seconds
