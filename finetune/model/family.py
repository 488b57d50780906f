"""What kind of network a backbone is, told from its modules, never from a table of names.

Defaults that differ by kind (layer decay, memory format) ask here; the reason goes into the
resolved recipe.
"""

from __future__ import annotations

from typing import Literal

from torch import nn

from finetune.components.preprocess import Preprocessing
from finetune.model.depth import describe_parameters, is_batch_norm, num_blocks, num_depths
from finetune.model.network import Network
from finetune.types import BackboneFacts

__all__ = ["describe_backbone", "find_family"]

Family = Literal["conv", "convnext", "vit", "hybrid"]
_NARROW = 16  # input channels; of networks of 4 to 64 those of 8 and 12 crashed torch 2.13, not 16
_FEW_CONVOLUTIONS = 4  # a patch embedding, or a short stem, beside attention or token mixing


def describe_backbone(network: Network, preprocessing: Preprocessing) -> BackboneFacts:
    """Say what the resolution of a recipe needs to know of a network."""
    params = describe_parameters(network)
    return BackboneFacts(
        family=find_family(network),
        has_batch_norm=any(is_batch_norm(module) for module in network.modules()),
        num_depths=num_depths(params),
        num_blocks=num_blocks(params),
        crop_mode=preprocessing.crop_mode,
        is_narrow=any(_is_narrow(module) for module in network.modules()),
    )


def find_family(network: nn.Module) -> Family:
    """Find the family: attention or not, convolutions or not, batch normalisation or not."""
    modules = list(network.modules())
    num_convolutions = sum(isinstance(module, nn.Conv2d) for module in modules)
    has_attention = any(
        "Attention" in (name := type(module).__name__) and "Pool" not in name for module in modules
    )
    if num_convolutions <= _FEW_CONVOLUTIONS:
        return "vit"
    if has_attention:
        return "hybrid"
    return "conv" if any(is_batch_norm(module) for module in modules) else "convnext"


def _is_narrow(module: nn.Module) -> bool:
    """Whether a module is a strided 1 by 1 convolution of fewer than 16 input channels."""
    return (
        isinstance(module, nn.Conv2d)
        and module.kernel_size == (1, 1)
        and max(module.stride) > 1
        and module.in_channels < _NARROW
    )
