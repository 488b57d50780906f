"""`finetune` with one thing broken, as a machine or a network breaks it.

python tests/faults/broken.py memory|loss run …
"""

import sys
from collections.abc import Callable

import torch
from torch import nn

from finetune.train.loss import CrossEntropy

LARGEST_BATCH = 4  # images for which the memory of the broken machine suffices
FIRST_BAD_STEP = 30  # in the second epoch of the stage that trains everything


def lack_memory() -> None:
    """Let no convolution that trains find memory for a larger batch."""
    compute = nn.Conv2d.forward

    def forward(self: nn.Conv2d, input: torch.Tensor) -> torch.Tensor:
        if torch.is_grad_enabled() and self.weight.requires_grad and len(input) > LARGEST_BATCH:
            raise RuntimeError(
                "[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate "
                "memory: you tried to allocate 9663676416 bytes. Error code 12 (Cannot "
                "allocate memory)"
            )
        return compute(self, input)

    nn.Conv2d.forward = forward  # type: ignore[method-assign]


def lose_numbers() -> None:
    """Let the loss become NaN in the middle of the last stage."""
    compute = CrossEntropy.forward
    count = 0

    def forward(self: CrossEntropy, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        nonlocal count
        loss = compute(self, logits, targets)
        if not torch.is_grad_enabled():
            return loss
        count += 1
        return loss * float("nan") if count > FIRST_BAD_STEP else loss

    CrossEntropy.forward = forward  # type: ignore[method-assign]


BREAKS: dict[str, Callable[[], None]] = {"memory": lack_memory, "loss": lose_numbers}

if __name__ == "__main__":
    BREAKS[sys.argv.pop(1)]()
    from finetune.cli.app import main

    sys.exit(main())
