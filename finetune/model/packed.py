"""Folded convolutions as oneDNN computes them fastest on x86: one call with weights laid out once.

In a plain pass torch lays out the weights of each convolution anew, writes its values, reads them
for the activation, and where padding is uneven ("same" padding of timm) copies the whole map first.
Here weights are laid out once for batches of one size, the activation is computed on the way, and
a depthwise kernel grows by zeros in place of the copy. The operators are those that the inductor of
torch.compile emits; for all that they do not cover the convolution runs as it is.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from finetune.torchvision_ops import register_missing_ops

__all__ = ["PackedConvolution", "can_pack", "pack"]

_EVEN = (0, 0, 0, 0)
# Exact types: a subclass may compute something else.
_ACTIVATIONS: dict[type[nn.Module], tuple[str, list[float]]] = {
    nn.Identity: ("none", []),
    nn.ReLU: ("relu", []),
    nn.ReLU6: ("hardtanh", [0.0, 6.0]),
    nn.SiLU: ("swish", []),
    nn.Hardswish: ("hardswish", []),
}
_MACHINES = ("x86_64", "AMD64")  # as Linux and macOS, and as Windows name them


class PackedConvolution(nn.Module):
    """A convolution and its activation in one call, where nothing learns.

    With gradients or autocast, on another device or for maps of another size it is the two modules
    that it was made of.

    Args:
        convolution: `Conv2d` with a bias, or `Conv2dSame` of timm.
        activation: One of `_ACTIVATIONS`.
        input_shape: (B, C, H, W) of what it is given; B does not matter.
    """

    def __init__(
        self, convolution: nn.Conv2d, activation: nn.Module, input_shape: Sequence[int]
    ) -> None:
        super().__init__()
        self.convolution = convolution
        self.activation = activation
        self._size = tuple(input_shape[-2:])
        padding, self._before, self._growth = _padding(convolution, self._size)
        geometry = [*map(list, (padding, convolution.stride, convolution.dilation))]
        self._geometry = (*geometry, convolution.groups)
        self._activation = (*_ACTIVATIONS[type(activation)], "")
        self._laid_out: tuple[int, torch.Tensor] | None = None

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Compute (B, D, H', W') of maps (B, C, H, W)."""
        if not self._is_covered(maps):
            values: torch.Tensor = self.activation(self.convolution(maps))
            return values
        if any(self._before):
            maps = nn.functional.pad(maps, self._before)
        maps = maps.contiguous(memory_format=torch.channels_last)
        weight, bias = self._weight_for(maps), self.convolution.bias
        operators: Any = torch.ops.mkldnn
        values = operators._convolution_pointwise(
            maps, weight, bias, *self._geometry, *self._activation
        )
        return values

    def _weight_for(self, maps: torch.Tensor) -> torch.Tensor:
        """Give the weight as oneDNN wants it for a batch of so many maps; kept for the next one.

        With another layout the answer is the same, but it took one photo three times as long.
        """
        if self._laid_out is not None and self._laid_out[0] == len(maps):
            return self._laid_out[1]
        grown = nn.functional.pad(self.convolution.weight, self._growth)
        operators: Any = torch.ops.mkldnn
        weight: torch.Tensor = operators._reorder_convolution_weight(
            grown, *self._geometry, list(maps.shape)
        )
        self._laid_out = len(maps), weight
        return weight

    def _is_covered(self, maps: torch.Tensor) -> bool:
        """Whether the operators do what is asked for."""
        return (
            not torch.is_grad_enabled()
            and not torch.is_autocast_enabled("cpu")
            and maps.device.type == "cpu"
            and maps.dtype == torch.float32
            and tuple(maps.shape[-2:]) == self._size
        )


def can_pack(device: torch.device) -> bool:
    """Tell whether torch has the operators, on a processor where they were seen to pay."""
    if device.type != "cpu" or platform.machine() not in _MACHINES:
        return False
    operators: Any = torch.ops.mkldnn
    names = ("_convolution_pointwise", "_reorder_convolution_weight")
    has_onednn: Any = torch.backends.mkldnn.is_available
    return has_onednn() and all(hasattr(operators, one) for one in names)


@torch.no_grad()
def pack(
    network: nn.Module, pairs: Sequence[tuple[str, str]], shapes: Mapping[str, Sequence[int]]
) -> Callable[[], None]:
    """Put packed convolutions in place of folded ones.

    Args:
        network: In eval mode, on a CPU.
        pairs: Names of folded convolutions and of what stands where their normalisations were.
        shapes: (B, C, H, W) of what each convolution is given.

    Returns:
        What undoes it.
    """
    before: dict[str, nn.Module] = {}
    for name, rest_name in pairs:
        convolution: Any = network.get_submodule(name)
        rest = network.get_submodule(rest_name)
        if isinstance(convolution.padding, str) or convolution.padding_mode != "zeros":
            continue
        before |= {name: convolution, rest_name: rest}
        is_known = type(rest) in _ACTIVATIONS
        activation = rest if is_known else nn.Identity()
        network.set_submodule(name, PackedConvolution(convolution, activation, shapes[name]))
        if is_known:
            network.set_submodule(rest_name, nn.Identity())

    def undo() -> None:
        for name, module in before.items():
            network.set_submodule(name, module)

    return undo


def _padding(
    convolution: nn.Conv2d, size: tuple[int, ...]
) -> tuple[tuple[int, int], tuple[int, ...], tuple[int, ...]]:
    """Give the padding on both sides, that to be made before, and by what the kernel grows.

    Uneven padding of a depthwise convolution becomes even: what it has too much on one side meets
    a row or a column of zeros of the kernel. The last two are as `pad` takes them.
    """
    if type(convolution).__name__ != "Conv2dSame":
        height, width = map(int, convolution.padding)
        return (height, width), _EVEN, _EVEN
    register_missing_ops()
    from timm.layers import get_same_padding

    kernel, stride, dilation = convolution.kernel_size, convolution.stride, convolution.dilation
    whole = [get_same_padding(*one) for one in zip(size, kernel, stride, dilation, strict=True)]
    top, left = (one // 2 for one in whole)
    bottom, right = whole[0] - top, whole[1] - left
    if (left, top) == (right, bottom):
        return (top, left), _EVEN, _EVEN
    if convolution.groups == convolution.in_channels and dilation == (1, 1):
        return (bottom, right), _EVEN, (right - left, 0, bottom - top, 0)
    return (0, 0), (left, right, top, bottom), _EVEN
