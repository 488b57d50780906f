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
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from finetune.model.fuse import fused
from finetune.runtime.cache import remember
from finetune.runtime.device import BF16_INSTRUCTIONS, may_compute, processor_seconds
from finetune.runtime.seeds import own_randomness
from finetune.runtime.space import is_lack_of_memory
from finetune.train.freeze import lacks_images

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from finetune.model.create import Model
    from finetune.types import MachineFacts

    Timer = Callable[[], float]

T = TypeVar("T")

__all__ = ["Course", "measure_course", "measure_speed", "with_bf16_choice"]

_NUM_IMAGES = 8  # a small batch: to measure must cost little beside what is measured for
_NUM_ROUNDS = 2
_WORTH_IT = 0.9  # in a run bf16 gains more than a step tells, since it takes half the memory


class _TooLargeError(RuntimeError):
    """There is no memory to measure it on one image."""


@dataclass(frozen=True, slots=True)
class Course:
    """When layers have their turn in a training step, by the names of their parameters.

    Attributes:
        before: Share of the forward pass that is over when a parameter's module begins.
        behind: Share of the step from there until the parameter has its gradient: what is left of
            a step in which nothing before it learns, nor is computed.
    """

    before: Mapping[str, float]
    behind: Mapping[str, float]


def measure_speed(
    model: Model, machine: MachineFacts, *, channels_last: bool, is_trained: bool = True
) -> dict[str, float]:
    """Measure passes and training steps of a network, once for each network and machine.

    Args:
        model: The network, which is left as it is.
        machine: Its device.
        channels_last: The layout.
        is_trained: Whether a stage makes steps; the probe makes none.

    Returns:
        Images per second: `fused` in eval mode with batch normalisations folded, `fused_bf16` where
        that may gain enough; with steps `forward` as it is, `train_fp32`, and `train_bf16` on a
        CPU that may compute it, unless memory does not suffice to train everything.
    """
    layout = torch.channels_last if channels_last else torch.contiguous_format
    key = _key(model, machine, layout)
    timed = partial(_passes, has_bf16=_computes_bf16_passes(machine))
    passes = remember("passes", key, lambda: _measure(model, machine.device, layout, timed))
    if not is_trained:
        return passes
    # Careful: everything learns here; in the run it may be a few layers, for which there is memory.
    with suppress(_TooLargeError):
        return passes | remember(
            "steps", key, lambda: _measure(model, machine.device, layout, _training_steps)
        )
    return passes


def measure_course(model: Model, machine: MachineFacts, *, channels_last: bool) -> Course:
    """Measure the course of a training step, once for each network and machine.

    Returns:
        Without shares where memory does not suffice to train everything.
    """
    layout = torch.channels_last if channels_last else torch.contiguous_format
    key = _key(model, machine, layout)
    flat: dict[str, float] = {}
    with suppress(_TooLargeError):
        flat = remember("course", key, lambda: _measure_course(model, machine.device, layout))
    shares: dict[str, dict[str, float]] = {"before": {}, "behind": {}}
    for name, share in flat.items():
        side, _, parameter = name.partition(" ")
        shares[side][parameter] = share
    return Course(**shares)


def with_bf16_choice(machine: MachineFacts, speed: Mapping[str, float]) -> MachineFacts:
    """Say of a machine whether bf16 pays for the network measured; a GPU's rule stands."""
    if "fused_bf16" in speed:
        machine = replace(machine, bf16_pass_gain=speed["fused_bf16"] / speed["fused"])
    if "train_bf16" not in speed:
        return machine
    fp32, bf16 = speed["train_fp32"], speed["train_bf16"]
    pays = bf16 > _WORTH_IT * fp32
    reason = f"measured here: {bf16:.3g} images/s in bf16, {fp32:.3g} in fp32"
    return replace(machine, has_fast_bf16=pays, bf16_reason=reason)


def _key(model: Model, machine: MachineFacts, layout: torch.memory_format) -> str:
    """Name all that speed depends on: the network, what it is given, and what computes."""
    return "\n".join(
        (
            str(model.network),
            f"{model.preprocessing.input_size} {model.train_spec} {layout}",
            f"{torch.__version__} {torch.get_num_threads()} {machine.device}",
            _processor(machine.device),
        )
    )


def _measure(
    model: Model,
    device: str,
    layout: torch.memory_format,
    timers_of: Callable[[nn.Module, torch.Tensor], dict[str, Timer]],
) -> dict[str, float]:
    """Time what a copy of the network does on blank images: the best of some rounds, in turn.

    One round is enough where no precision is chosen by it, but only told how long a run takes.
    """

    def measure(num_images: int) -> dict[str, float]:
        network, images = _placed(model, device, layout, num_images)
        best: dict[str, float] = {}
        with own_randomness(device):
            timers = timers_of(network, images)
            num_rounds = _NUM_ROUNDS if any(name.endswith("bf16") for name in timers) else 1
            for round_index in range(num_rounds + 1):
                seconds = {name: timer() for name, timer in timers.items()}
                if round_index:  # the first round sets things up
                    best = {name: min(best.get(name, one), one) for name, one in seconds.items()}
        return {name: num_images / max(value, 1e-6) for name, value in best.items()}

    return _in_memory(measure)


def _in_memory(measure: Callable[[int], T]) -> T:
    """Measure on a small batch, and on a smaller one where memory does not suffice."""
    num_images = _NUM_IMAGES
    while True:
        try:
            return measure(num_images)
        except (RuntimeError, ValueError) as error:
            if not is_lack_of_memory(error) and not lacks_images(error):
                raise
            if num_images == 1:
                raise _TooLargeError(str(error)) from error
        num_images //= 2


def _placed(
    model: Model, device: str, layout: torch.memory_format, num_images: int
) -> tuple[nn.Module, torch.Tensor]:
    """Copy the network to the device, and make a batch of blank images for it."""
    network = copy.deepcopy(model.network).to(  # type: ignore[call-overload]
        device=device, memory_format=layout
    )
    size = model.preprocessing.input_size
    images = torch.zeros(num_images, *size, device=device).to(memory_format=layout)
    return network, images


def _computes_bf16_passes(machine: MachineFacts) -> bool:
    """Tell whether passes may be faster in bf16: older GPUs have no such products at all."""
    if machine.device == "cpu":
        return may_compute("amx_bf16")  # on x86 its matrix units alone are much faster
    return machine.has_fast_bf16


def _passes(network: Any, images: torch.Tensor, *, has_bf16: bool) -> dict[str, Timer]:
    """Give what times a pass of frozen layers, with normalisations folded."""
    ready = fused(network.eval(), network.input_size)
    timers: dict[str, Timer] = {"fused": partial(_time_forward, ready, images)}
    if has_bf16:
        timers["fused_bf16"] = partial(_time_forward, ready, images, torch.bfloat16)
    return timers


def _training_steps(network: nn.Module, images: torch.Tensor) -> dict[str, Timer]:
    """Give what times evaluation and a training step, in bf16 as well where a CPU computes it.

    Others imitate it: of MobileNetV2 that took sixteen times as long as fp32.
    """
    network.requires_grad_(True)
    timers: dict[str, Timer] = {
        "forward": partial(_time_forward, network, images),
        "train_fp32": partial(_time_training, network, images),
    }
    if images.device.type == "cpu" and may_compute(*BF16_INSTRUCTIONS):
        timers["train_bf16"] = partial(_time_training, network, images, torch.bfloat16)
    return timers


def _measure_course(model: Model, device: str, layout: torch.memory_format) -> dict[str, float]:
    """Watch training steps of a copy of the network; the fastest is the one least disturbed."""

    def measure(num_images: int) -> dict[str, float]:
        network, images = _placed(model, device, layout, num_images)
        network.train().requires_grad_(True)
        with own_randomness(device):
            steps = [_watch_step(network, images) for _ in range(_NUM_ROUNDS + 1)]
        return min(steps, key=lambda step: step[0])[1]

    return _in_memory(measure)


def _watch_step(network: nn.Module, images: torch.Tensor) -> tuple[float, dict[str, float]]:
    """Time one training step; note when each module begins and each parameter has its gradient."""
    begun: dict[str, float] = {}
    ended: dict[str, float] = {}

    def note(times: dict[str, float], name: str) -> Callable[..., None]:
        def hook(*_: object) -> None:
            times.setdefault(name, _clock(images.device))

        return hook

    network.zero_grad()
    with ExitStack() as stack:
        for name, module in network.named_modules():
            stack.callback(module.register_forward_pre_hook(note(begun, name)).remove)
        for name, parameter in network.named_parameters():
            handle = parameter.register_post_accumulate_grad_hook(note(ended, name))  # type: ignore[no-untyped-call]
            stack.callback(handle.remove)
        loss = network(images).float().square().mean()
        middle = _clock(images.device)
        loss.backward()
        end = _clock(images.device)
    forward, step = (max(at - begun[""], 1e-6) for at in (middle, end))
    course = {}
    for name, at in ended.items():
        before = begun.get(name.rpartition(".")[0], begun[""]) - begun[""]
        course[f"before {name}"] = before / forward
        course[f"behind {name}"] = (at - begun[""] - before) / step
    return step, course


@torch.inference_mode()
def _time_forward(
    network: nn.Module, images: torch.Tensor, precision: torch.dtype | None = None
) -> float:
    """Seconds of one evaluation of a batch."""
    network.eval()
    started = _clock(images.device)
    with torch.autocast(images.device.type, dtype=precision, enabled=precision is not None):
        network(images)
    return _clock(images.device) - started


def _time_training(
    network: nn.Module, images: torch.Tensor, precision: torch.dtype | None = None
) -> float:
    """Seconds of one forward and backward pass of everything."""
    network.train().zero_grad()
    started = _clock(images.device)
    with torch.autocast(images.device.type, dtype=precision, enabled=precision is not None):
        logits = network(images)
    logits.float().square().mean().backward()
    return _clock(images.device) - started


def _clock(device: torch.device) -> float:
    """Read a clock in seconds: on a CPU the processor time of this thread, else the wall's."""
    if device.type == "cpu":
        return processor_seconds()
    torch.accelerator.synchronize(device)
    return time.perf_counter()


def _processor(device: str) -> str:
    """Name the processor that was measured."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(torch.device(device))
    return f"{platform.machine()} {platform.processor()} {torch.backends.cpu.get_cpu_capability()}"
