"""Freezing that is what it says: parameters, statistics and dropout of frozen parts hold still.

`requires_grad=False` alone still moves the statistics of a frozen BatchNorm under `train()`. So a
module without a trained parameter is in `eval()` after every `set_modes`, and a BatchNorm follows
the statistics of its batches only where its own scale is trained and the stage says `trained`.
`timm.utils.freeze` is not used: it replaces modules.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import nn

from finetune.errors import Problem, RecipeError
from finetune.model.depth import is_batch_norm
from finetune.train.events import AuditRow
from finetune.types import ParamInfo, ParamRule

if TYPE_CHECKING:
    from finetune.components.policies import FreezePolicy

__all__ = ["Freezing", "audit", "freeze", "lacks_images", "set_modes", "statistics_kept"]

BatchNormMode = Literal["trained", "frozen"]


@dataclass(frozen=True, slots=True)
class Freezing:
    """What learns in a stage.

    Attributes:
        params: Every parameter, from stem to head.
        rules: One rule for each, in the same order.
        batch_norm: Whether batch statistics of trained blocks follow their batches.
    """

    params: tuple[ParamInfo, ...]
    rules: tuple[ParamRule, ...]
    batch_norm: BatchNormMode = "trained"

    @property
    def trained(self) -> tuple[tuple[ParamInfo, ParamRule], ...]:
        """The parameters that learn, with their rules."""
        return tuple(
            (param, rule)
            for param, rule in zip(self.params, self.rules, strict=True)
            if rule.trainable
        )


def freeze(
    network: nn.Module,
    params: tuple[ParamInfo, ...],
    *,
    policy: FreezePolicy,
    batch_norm: BatchNormMode = "trained",
    place: str = "stages",
) -> Freezing:
    """Let a policy decide what learns, and set `requires_grad` accordingly.

    Args:
        network: The network whose parameters `params` describes.
        params: From `describe_parameters`.
        policy: What learns.
        batch_norm: Whether batch statistics of trained blocks follow their batches.
        place: Dotted path of the policy in the recipe, for the error.

    Raises:
        RecipeError: Nothing would learn, or the policy does not answer for each parameter.
    """
    rules = tuple(policy.rules(params))
    if [rule.name for rule in rules] != [param.name for param in params]:
        raise RecipeError([Problem(place, "the policy must give one rule a parameter, in order")])
    if not any(rule.trainable for rule in rules):
        raise RecipeError(
            [Problem(place, "this stage trains nothing: no parameter is chosen")],
            hint="finetune run --dry-run shows the blocks that there are",
        )
    trainable = {rule.name: rule.trainable for rule in rules}
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(trainable[name])
    return Freezing(params, rules, batch_norm)


def set_modes(network: nn.Module, batch_norm: BatchNormMode = "trained") -> None:
    """Put what learns into `train()` and everything else into `eval()`.

    Call it in place of `network.train()`: before each epoch and after each evaluation.
    """
    network.train()
    _rest(network)
    for module in network.modules():
        if is_batch_norm(module) and not _follows_batches(module, batch_norm):
            module.eval()


def lacks_images(error: Exception) -> bool:
    """Whether a normalisation refused a batch of one image, which has no statistics of a batch."""
    return isinstance(error, ValueError) and "Expected more than 1 value per channel" in str(error)


def statistics_kept(network: nn.Module) -> Callable[[], None]:
    """Give what puts the statistics that batches move back to what they are now."""
    moved = [
        (values, values.clone())
        for module in network.modules()
        if is_batch_norm(module) and module.training
        for values in module.buffers(recurse=False)
    ]

    @torch.no_grad()
    def restore() -> None:
        for values, before in moved:
            values.copy_(before)

    return restore


def audit(network: nn.Module, freezing: Freezing, rates: dict[str, float]) -> tuple[AuditRow, ...]:
    """Tabulate, from stem to head, what learns in each depth, how fast, and the BatchNorm mode.

    Args:
        network: The network, its modes set.
        freezing: What learns.
        rates: Final learning rate by parameter name.
    """
    depths: dict[int, list[tuple[ParamInfo, ParamRule]]] = {}
    for param, rule in zip(freezing.params, freezing.rules, strict=True):
        depths.setdefault(param.depth, []).append((param, rule))
    sizes = {name: parameter.numel() for name, parameter in network.named_parameters()}
    modes = _norm_modes(network)
    return tuple(
        _audit_row(rows, sizes=sizes, rates=rates, modes=modes)
        for _, rows in sorted(depths.items())
    )


def _audit_row(
    rows: Sequence[tuple[ParamInfo, ParamRule]],
    *,
    sizes: dict[str, int],
    rates: dict[str, float],
    modes: dict[str, bool],
) -> AuditRow:
    """Sum up one depth."""
    here = {modes[param.name] for param, _ in rows if param.name in modes}
    names = {frozenset(): "none", frozenset({True}): "trained", frozenset({False}): "frozen"}
    return AuditRow(
        depth_name=rows[0][0].depth_name,
        num_trained=sum(sizes[param.name] for param, rule in rows if rule.trainable),
        num_frozen=sum(sizes[param.name] for param, rule in rows if not rule.trainable),
        lr=max((rates.get(param.name, 0.0) for param, rule in rows if rule.trainable), default=0.0),
        batch_norm=names.get(frozenset(here), "mixed"),
    )


def _norm_modes(network: nn.Module) -> dict[str, bool]:
    """Tell for each BatchNorm parameter whether its statistics follow the batches."""
    return {
        f"{name}.{parameter}": module.training
        for name, module in network.named_modules()
        if is_batch_norm(module)
        for parameter, _ in module.named_parameters(recurse=False)
    }


def _rest(module: nn.Module) -> None:
    """Put every subtree that has parameters but trains none of them into `eval()`."""
    parameters = list(module.parameters())
    if parameters and not any(parameter.requires_grad for parameter in parameters):
        module.eval()
        return
    for child in module.children():
        _rest(child)


def _follows_batches(module: nn.Module, batch_norm: BatchNormMode) -> bool:
    """Whether a BatchNorm's statistics follow its batches in this stage."""
    weight = getattr(module, "weight", None)
    learns = weight is None or weight.requires_grad
    return batch_norm == "trained" and learns and module.training
