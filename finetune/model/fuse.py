"""Batch normalisations folded into the convolutions before them: the same function, faster.

In eval mode a batch normalisation is a scale and a shift of each channel, which the convolution
before it can do itself (torch.nn.utils.fusion). Which follows which is seen, not guessed: hooks
watch one image pass. A copy is returned, and only where it gives the network's own logits. On x86
its convolutions are packed as well (`packed.py`).
"""

from __future__ import annotations

import copy
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from finetune.model.depth import is_batch_norm
from finetune.model.packed import can_pack, pack
from finetune.runtime.device import plain_fp32

__all__ = ["fused"]

NetworkT = TypeVar("NetworkT", bound=nn.Module)
Pairs = list[tuple[str, str]]
Tensors = tuple[torch.Tensor, ...]

# Careful: a subclass may compute its weight anew in each pass (weight standardisation).
_PLAIN = ("Conv2d", "Conv2dSame")
# What a network was seen to raise that looks for more in its convolution than a call.
_FAILURES = (AttributeError, RuntimeError, TypeError)
_TOLERANCE = 1e-5  # of the largest value; rounding in another order gives a few 1e-7


@torch.no_grad()
def fused(network: NetworkT, input_size: tuple[int, int, int]) -> NetworkT:
    """Give a copy of a network in eval mode whose convolutions do the work of its normalisations.

    Args:
        network: In eval mode, or a part of one that gives a tuple of tensors; it is not changed.
        input_size: (C, H, W) of an image.

    Returns:
        The copy; the network itself where nothing can be folded, or where the outputs for a
        random image would differ by more than rounding.
    """
    if not any(is_batch_norm(module) and _is_foldable(module) for module in network.modules()):
        return network
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(1, *input_size, generator=generator)
    images = images.to(next(network.parameters()).device)
    candidate = copy.deepcopy(network).eval()
    with plain_fp32(str(images.device)):
        observed = _observe(candidate, images)
        if not observed.pairs:
            return network
        for convolution, norm in observed.pairs:
            _fold(candidate, convolution, norm)
        if can_pack(images.device):
            undo = pack(candidate, observed.pairs, observed.shapes)
            if _is_same(candidate, images, observed.outputs):
                return candidate
            undo()
        return candidate if _is_same(candidate, images, observed.outputs) else network


@dataclass(frozen=True, slots=True)
class _Observed:
    """What one image showed on its way.

    Attributes:
        pairs: Names of convolutions and of the normalisations that take just their output.
        shapes: (1, C, H, W) of what each convolution took.
        outputs: What came out at the end.
    """

    pairs: Pairs
    shapes: dict[str, torch.Size]
    outputs: Tensors


def _observe(network: nn.Module, images: torch.Tensor) -> _Observed:
    """Find which normalisations take just the output of a convolution."""
    caught: dict[int, tuple[str, torch.Tensor]] = {}
    calls: dict[str, int] = {}
    shapes: dict[str, torch.Size] = {}
    pairs: Pairs = []

    def after(name: str) -> object:
        def hook(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            calls[name] = calls.get(name, 0) + 1
            shapes[name] = inputs[0].shape
            caught[id(output)] = (name, output)  # held, so that no other tensor takes its id

        return hook

    def before(name: str) -> object:
        def hook(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            calls[name] = calls.get(name, 0) + 1
            if id(inputs[0]) in caught:
                pairs.append((caught[id(inputs[0])][0], name))

        return hook

    with ExitStack() as stack:
        for name, module in network.named_modules():
            if type(module).__name__ in _PLAIN and isinstance(module, nn.Conv2d):
                handle = module.register_forward_hook(after(name))  # type: ignore[arg-type]
            elif is_batch_norm(module) and _is_foldable(module):
                handle = module.register_forward_pre_hook(before(name))
            else:
                continue
            stack.callback(handle.remove)
        outputs = _tensors(network(images))
    once = [pair for pair in pairs if calls[pair[0]] == calls[pair[1]] == 1]
    return _Observed(once, shapes, outputs)


def _tensors(outputs: torch.Tensor | Tensors) -> Tensors:
    """Give one output or several as several."""
    return (outputs,) if isinstance(outputs, torch.Tensor) else tuple(outputs)


def _is_same(network: nn.Module, images: torch.Tensor, expected: Tensors) -> bool:
    """Whether a network gives what is expected, but for rounding; what fails does not."""
    try:
        found = _tensors(network(images))
    except _FAILURES:
        return False
    return all(_is_close(one, other) for one, other in zip(found, expected, strict=True))


def _is_close(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two outputs differ by rounding alone."""
    scale = max(1.0, float(other.abs().max()))
    return torch.allclose(one / scale, other / scale, rtol=0, atol=_TOLERANCE)


def _is_foldable(norm: nn.Module) -> bool:
    """Whether a normalisation is a scale and a shift by stored statistics."""
    return getattr(norm, "running_mean", None) is not None and norm.weight is not None


def _fold(network: nn.Module, convolution_name: str, norm_name: str) -> None:
    """Put a normalisation into a convolution; what remains of it is its activation, if any."""
    convolution: Any = network.get_submodule(convolution_name)
    norm: Any = network.get_submodule(norm_name)
    convolution.weight, convolution.bias = fuse_conv_bn_weights(
        convolution.weight,
        convolution.bias,
        norm.running_mean,
        norm.running_var,
        norm.eps,
        norm.weight,
        norm.bias,
    )
    parent, _, child = norm_name.rpartition(".")
    rest = getattr(norm, "act", None) or nn.Identity()  # timm's BatchNormAct2d
    setattr(network.get_submodule(parent), child, rest)
