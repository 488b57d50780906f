"""The depth map: which block every parameter of a network belongs to, from stem to head.

Blocks are timm's groups. Where an architecture has no `group_matcher` (28 of 1,371), the modules
named by its `feature_info` are the groups, and failing those its children in their own order. The
head is the parameters of `get_classifier()`, nothing else, and always the last depth.
"""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from finetune.model.backbone import group_names
from finetune.types import ParamInfo

if TYPE_CHECKING:
    from finetune.model.network import Network

__all__ = ["describe_parameters", "is_batch_norm", "num_blocks", "num_depths"]

_NORM_WORDS = ("Norm", "Affine", "LayerScale")  # timm's normalisation classes carry one of these


def describe_parameters(network: Network) -> tuple[ParamInfo, ...]:
    """Describe each parameter once, in the network's own order: name, depth, block, kind."""
    head = {id(parameter) for module in network.head_modules() for parameter in module.parameters()}
    norms = _norm_parameters(network)
    undecayed = _undecayed(network)
    coarse = _groups(network.backbone, coarse=True)
    fine = _groups(network.backbone, coarse=False)
    depth = _renumber(network, coarse, head)
    block = _renumber(network, fine, head)
    last_depth = max(depth.values(), default=-1) + 1
    last_block = max(block.values(), default=-1) + 1
    return tuple(
        ParamInfo(
            name=name,
            depth=last_depth if id(parameter) in head else depth[name],
            block=last_block if id(parameter) in head else block[name],
            is_head=id(parameter) in head,
            is_norm=id(parameter) in norms,
            ndim=parameter.ndim,
            depth_name=_depth_name(depth.get(name), is_head=id(parameter) in head),
            is_undecayed=name in undecayed,
        )
        for name, parameter in network.named_parameters()
    )


def num_depths(params: tuple[ParamInfo, ...]) -> int:
    """Count the coarse groups outside the head."""
    return len({param.depth for param in params if not param.is_head})


def num_blocks(params: tuple[ParamInfo, ...]) -> int:
    """Count the fine groups outside the head."""
    return len({param.block for param in params if not param.is_head})


def is_batch_norm(module: nn.Module) -> bool:
    """Whether a module keeps running statistics of batches."""
    return isinstance(module, _BatchNorm) or getattr(module, "track_running_stats", False) is True


def _depth_name(depth: int | None, *, is_head: bool) -> str:
    """Name a coarse group as recipes do."""
    if is_head:
        return "head"
    return "stem" if not depth else str(depth)


def _norm_parameters(network: nn.Module) -> set[int]:
    """Identify the parameters of normalisation layers."""
    return {
        id(parameter)
        for module in network.modules()
        if is_batch_norm(module) or any(word in type(module).__name__ for word in _NORM_WORDS)
        for parameter in module.parameters(recurse=False)
    }


def _undecayed(network: Network) -> set[str]:
    """Name the parameters that the architecture itself leaves out of weight decay."""
    patterns: Iterable[str] = getattr(network.backbone, "no_weight_decay", tuple)()
    return {
        network.backbone_prefix + name
        for name, _ in network.backbone.named_parameters()
        if any(fnmatchcase(name, pattern) for pattern in patterns)  # as timm's optimisers do
    }


def _renumber(network: Network, groups: dict[str, int], head: set[int]) -> dict[str, int]:
    """Number the groups outside the head 0, 1, 2, … in order, by the network's own names."""
    prefix = network.backbone_prefix
    outside = {
        prefix + name: groups[name]
        for name, parameter in network.backbone.named_parameters()
        if id(parameter) not in head
    }
    order = {group: index for index, group in enumerate(sorted(set(outside.values())))}
    return {name: order[group] for name, group in outside.items()}


def _groups(backbone: nn.Module, *, coarse: bool) -> dict[str, int]:
    """Group a timm model's parameters by timm's groups, its features, or its children."""
    groups = group_names(backbone, coarse=coarse)
    if groups is not None:
        return groups
    return _by_features(backbone) or _by_children(backbone)


def _by_features(backbone: nn.Module) -> dict[str, int] | None:
    """Group by the modules that `feature_info` names; what precedes the first is the stem."""
    info: Any = getattr(backbone, "feature_info", None)
    rows = info if isinstance(info, list) else getattr(info, "info", None) or []
    ends = [row["module"] for row in rows if row.get("module")]
    groups: dict[str, int] = {}
    reached = 0
    for name, _ in backbone.named_parameters():
        here = [index for index, end in enumerate(ends) if name.startswith(f"{end}.")]
        reached = max([reached, *(index + 1 for index in here)])
        groups[name] = reached
    return groups if reached > 1 else None


def _by_children(backbone: nn.Module) -> dict[str, int]:
    """Group by children that hold parameters; lists and sequences count one group a member."""
    groups: dict[str, int] = {}
    number = 0
    for child_name, child in backbone.named_children():
        parts = (
            [(f"{child_name}.{name}", part) for name, part in child.named_children()]
            if isinstance(child, (nn.Sequential, nn.ModuleList))
            else [(child_name, child)]
        )
        for prefix, part in parts:
            names = [f"{prefix}.{name}" for name, _ in part.named_parameters()]
            groups.update(dict.fromkeys(names, number))
            number += bool(names)
    own = {name: 0 for name, _ in backbone.named_parameters(recurse=False)}
    return own | groups
