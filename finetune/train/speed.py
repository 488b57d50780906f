"""How fast a network is on this machine: it chooses the precision and says how long a run takes.

Whether bf16 pays differs by network and by direction: of six backbones trained on one CPU four
gained up to 90 %, and one lost half. So it is measured, once for each network and machine; the
figures are kept, so that a repeat chooses the same. On a CPU the time is that of the processor, not
of the wall: what else the machine does at that moment must not choose the arithmetic of a run.
"""

from __future__ import annotations

import copy
import platform
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from finetune.runtime.cache import remember
from finetune.runtime.seeds import own_randomness

if TYPE_CHECKING:
    from finetune.model.create import Model
    from finetune.recipe.schema import ResolvedRecipe
    from finetune.types import DataFacts, MachineFacts

__all__ = ["estimate_seconds", "measure_speed", "with_bf16_choice"]

_NUM_IMAGES = 8  # a small batch: to measure must cost little beside what is measured for
_NUM_ROUNDS = 3
_WORTH_IT = 1.15  # bf16 rounds more, so a gain within the noise of the clock does not buy it


def measure_speed(model: Model, machine: MachineFacts, *, channels_last: bool) -> dict[str, float]:
    """Measure evaluation and training steps of a network, once for each network and machine.

    Returns:
        Images per second: `forward`, `train_fp32`, and on a CPU `train_bf16`.
    """
    layout = torch.channels_last if channels_last else torch.contiguous_format
    key = "\n".join(
        (
            str(model.network),
            f"{model.preprocessing.input_size} {model.train_spec} {layout}",
            f"{torch.__version__} {torch.get_num_threads()} {machine.device}",
            _processor(machine.device),
        )
    )
    return remember("speed", key, lambda: _measure(model, machine.device, layout))


def with_bf16_choice(machine: MachineFacts, speed: Mapping[str, float]) -> MachineFacts:
    """Say of a machine whether bf16 pays for the network measured; a GPU's rule stands."""
    if "train_bf16" not in speed:
        return machine
    fp32, bf16 = speed["train_fp32"], speed["train_bf16"]
    pays = bf16 > _WORTH_IT * fp32
    reason = f"measured here: {bf16:.3g} images/s in bf16, {fp32:.3g} in fp32"
    return replace(machine, has_fast_bf16=pays, bf16_reason=reason)


def estimate_seconds(
    recipe: ResolvedRecipe, data: DataFacts, speed: Mapping[str, float], *, num_test: int = 0
) -> float:
    """Estimate the seconds of all stages and of the figures at the end.

    A stage that trains a part is counted as if it trained everything, so that the estimate errs on
    the long side.
    """
    training = speed.get(f"train_{recipe.runtime.precision}", speed["train_fp32"])
    look = data.num_val / speed["forward"]
    seconds = (data.num_val + num_test) / speed["forward"]
    for stage in recipe.stages:
        if stage.solver == "probe":
            seconds += data.num_train / speed["forward"] + look
        else:
            seconds += stage.epochs * (data.num_train / training + look)
    return seconds


def _measure(model: Model, device: str, layout: torch.memory_format) -> dict[str, float]:
    """Time a copy of the network on blank images; the best of a few rounds, in turn."""
    network = copy.deepcopy(model.network).to(  # type: ignore[call-overload]
        device=device, memory_format=layout
    )
    size = model.preprocessing.input_size
    images = torch.zeros(_NUM_IMAGES, *size, device=device).to(memory_format=layout)
    precisions: dict[str, torch.dtype | None] = {"train_fp32": None}
    if torch.device(device).type == "cpu":
        precisions["train_bf16"] = torch.bfloat16
    best: dict[str, float] = {}
    with own_randomness(device):
        for round_index in range(_NUM_ROUNDS + 1):
            seconds = {"forward": _time_forward(network, images)}
            for name, precision in precisions.items():
                seconds[name] = _time_training(network, images, precision)
            if round_index:  # the first round sets things up
                best = {name: min(value, best.get(name, value)) for name, value in seconds.items()}
    return {name: _NUM_IMAGES / max(value, 1e-6) for name, value in best.items()}


@torch.inference_mode()
def _time_forward(network: torch.nn.Module, images: torch.Tensor) -> float:
    """Seconds of one evaluation of a batch."""
    network.eval()
    started = _clock(images.device)
    network(images).sum().item()  # waits for the device
    return _clock(images.device) - started


def _time_training(
    network: torch.nn.Module, images: torch.Tensor, precision: torch.dtype | None
) -> float:
    """Seconds of one forward and backward pass of everything."""
    network.train().requires_grad_(True).zero_grad()
    started = _clock(images.device)
    with torch.autocast(images.device.type, dtype=precision, enabled=precision is not None):
        logits = network(images)
    logits.float().square().mean().backward()
    if images.device.type == "cuda":
        torch.cuda.synchronize(images.device)
    return _clock(images.device) - started


def _clock(device: torch.device) -> float:
    """Read a clock in seconds: processor time shared by the threads on a CPU, else the wall's."""
    if device.type == "cpu":
        return time.process_time() / torch.get_num_threads()
    return time.perf_counter()


def _processor(device: str) -> str:
    """Name the processor that was measured."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(torch.device(device))
    return f"{platform.machine()} {platform.processor()} {torch.backends.cpu.get_cpu_capability()}"
