"""Accelerate, set up from a resolved recipe: device, precision, accumulation.

One loop serves a CPU and a GPU in every precision; there is no placement code of ours. The loop
gathers what several processes would compute, but a run still refuses to be started in several.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import TorchDynamoPlugin

from finetune.errors import FinetuneError

if TYPE_CHECKING:
    from finetune.recipe.schema import ResolvedRecipe

__all__ = ["make_accelerator"]

_WAY_OUT = "install a C++ compiler such as g++, or --set runtime.compile=false"
_PRECISIONS = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}


def make_accelerator(recipe: ResolvedRecipe) -> Accelerator:
    """Set Accelerate up for a run.

    Careful: Accelerate keeps its state for the whole process. A process that trains twice, with
    another device or precision the second time, needs it reset.

    Raises:
        FinetuneError: The precision cannot be had on the device, or nothing can be compiled.
    """
    device = torch.device(recipe.runtime.device)
    precision = recipe.runtime.precision
    if precision == "fp16" and device.type == "cpu":
        raise FinetuneError(
            "fp16 training needs a GPU", hint="--set runtime.precision=bf16, or leave it to auto"
        )
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)
    if AcceleratorState._shared_state and not torch.distributed.is_initialized():
        AcceleratorState._reset_state(reset_partial_state=True)
    if recipe.runtime.compile:
        _require_compiler(device)
    return Accelerator(
        cpu=device.type == "cpu",
        mixed_precision=_PRECISIONS[precision],
        gradient_accumulation_steps=recipe.training.accumulate,
        step_scheduler_with_optimizer=False,
        dynamo_plugin=_compiling() if recipe.runtime.compile else None,
    )


def _compiling() -> TorchDynamoPlugin:
    """Compile what is prepared, anew for each size of batch, so that the order plays no part.

    What is saved and evaluated is the network itself, whose weights the compiled one shares.
    """
    return TorchDynamoPlugin(backend="inductor", dynamic=False)


def _require_compiler(device: torch.device) -> None:
    """Compile a line, so that what is missing or broken shows before the first step."""
    try:
        torch.compile(lambda values: values + 1)(torch.zeros(1, device=device))
    except RuntimeError as error:  # of torch's compiler all are
        cause = str(error).strip().splitlines()[0]
        raise FinetuneError(f"torch.compile does not work here: {cause}", hint=_WAY_OUT) from error
