"""From rules to parameter groups with their final rates, and the schedule over a stage.

Layer decay is multiplied in here and the final rate is written into the group: timm's
`param_groups_layer_decay` writes `lr_scale`, which only timm's own schedulers read.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from finetune.train.freeze import Freezing

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from finetune.recipe.schema import ResolvedStage

__all__ = ["learning_rates", "make_optimizer", "make_schedule", "schedule_factor"]


def learning_rates(freezing: Freezing, *, lr: float, layer_decay: float) -> dict[str, float]:
    """Give each trained parameter its final rate: lr · scale · layer_decay^(depths from the head).

    The law is BEiT's and ELECTRA's (2106.08254, 2003.10555); the head has the full rate. Depths are
    timm's coarse groups: the blocks of a plain transformer, but the stages of one that has stages.
    """
    last = max(param.depth for param in freezing.params)
    return {
        param.name: lr * rule.lr_scale * layer_decay ** (last - param.depth)
        for param, rule in freezing.trained
    }


def make_optimizer(network: nn.Module, freezing: Freezing, stage: ResolvedStage) -> Optimizer:
    """Build the optimiser of a stage over groups of one rate and one weight decay each."""
    rates = learning_rates(freezing, lr=stage.lr, layer_decay=stage.layer_decay)
    parameters = dict(network.named_parameters())
    groups: defaultdict[tuple[float, float], list[nn.Parameter]] = defaultdict(list)
    for param, rule in freezing.trained:
        decay = stage.weight_decay if rule.decay else 0.0
        groups[rates[param.name], decay].append(parameters[param.name])
    rows: list[dict[str, Any]] = [
        {"params": members, "lr": lr, "weight_decay": decay}
        for (lr, decay), members in groups.items()
    ]
    return stage.optimizer.build(rows, lr=stage.lr, weight_decay=stage.weight_decay)


def make_schedule(optimizer: Optimizer, stage: ResolvedStage, *, num_steps: int) -> LambdaLR:
    """Build the schedule of a stage; it is stepped once an optimiser step."""
    return LambdaLR(optimizer, lambda step: schedule_factor(stage, step=step, num_steps=num_steps))


def schedule_factor(stage: ResolvedStage, *, step: int, num_steps: int) -> float:
    """Give the multiple of the rate at a step: linear warm-up, then the stage's schedule.

    A schedule that rises by itself is not warmed up as well.

    Args:
        stage: The stage.
        step: 0-based optimiser step within the stage.
        num_steps: Optimiser steps of the stage, ≥ 1.

    Returns:
        A multiple in [0, 1]; never 0 within the warm-up, which is valid at one epoch.
    """
    num_warmup = 0 if stage.schedule.rises else int(stage.warmup_fraction * num_steps)
    if step < num_warmup:
        return (step + 1) / (num_warmup + 1)
    remaining = max(1, num_steps - num_warmup)
    return stage.schedule.factor(min(1.0, (step - num_warmup) / remaining))
