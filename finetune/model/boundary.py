"""Any network and any choice of what learns: the frozen part, computed once, and the trained part.

The cut follows the flow of data (`tracing.py`, `dataflow.py`). Where a network cannot be traced and
only its head learns, the cut is before the head's modules, or before timm's `forward_head`. Nothing
is believed: whatever way the parts were found, they are returned only if, on random images, in the
modes of training and in eval mode, they give the network's own logits bit by bit, leave its batch
statistics as it does, and the frozen part draws no random number and treats each image for itself.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from finetune.model.dataflow import CutError, choose_cut
from finetune.model.parts import (
    FrozenPart,
    TrainedPart,
    digest_of,
    frozen_code,
    trained_code,
)
from finetune.model.tracing import TRACE_FAILURES, trace
from finetune.runtime.device import plain_fp32
from finetune.runtime.seeds import own_randomness

if TYPE_CHECKING:
    from finetune.model.network import Network

__all__ = ["NoSplit", "Split", "split_network"]

_NUM_IMAGES = 4  # of the proof; another size than the two that were traced
_ROW_TOLERANCE = 1e-3  # of the largest value: a batch of another size rounds in another order


@dataclass(frozen=True)
class Split:
    """A network in two parts.

    Attributes:
        frozen: Images (B, C, H, W) to a tuple of tensors (B, …); it needs no gradient.
        trained: Those tensors to logits (B, K), in the modes that the network is in; it holds the
            network, and `trained.of(other)` is the same part of another network.
        shapes: Of what crosses, for one image.
        reason: Where the cut is and why, in one sentence.
        digest: Identifies the frozen computation; another weight gives another.
        how: Found by the graph, or by timm's names for features and head.
        frozen_share: Of the operations of a forward pass, in [0, 1], as far as they were counted.
    """

    frozen: nn.Module
    trained: TrainedPart | HeadPart
    shapes: tuple[tuple[int, ...], ...]
    reason: str
    digest: str
    how: Literal["graph", "features"] = "graph"
    frozen_share: float = 1.0


@dataclass(frozen=True)
class NoSplit:
    """A network that stays whole.

    Attributes:
        reason: Why, in a few words.
    """

    reason: str


@torch.no_grad()
def split_network(network: Network) -> Split | NoSplit:
    """Split a network in its present modes, which `set_modes` leaves; nothing of it is changed.

    Args:
        network: With what learns requiring a gradient, in the modes of training. The parts share
            its modules and parameters, and are made for the device that it is on.
    """
    if not network.training:
        return NoSplit("the network is in eval mode")
    if not any(parameter.requires_grad for parameter in network.parameters()):
        return NoSplit("nothing learns")
    weight = next(network.parameters())
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(_NUM_IMAGES, *network.input_size, generator=generator)
    images = images.to(weight.device, weight.dtype)
    failures = []
    with own_randomness(str(weight.device)), plain_fp32(str(weight.device)):
        for way in (_by_graph, _by_head_inputs, _by_features):
            try:
                return way(network, images)
            except TRACE_FAILURES as error:
                failures.append(error)
            if not _is_only_head(network):
                break
    return NoSplit((str(failures[0]) or type(failures[0]).__name__).splitlines()[0])


class HeadPart(nn.Module):
    """What enters the head to logits (B, K), in the modes that the network is in."""

    def __init__(self, network: nn.Module, *, is_whole_head: bool) -> None:
        super().__init__()
        self.network: Any = network
        self._is_whole_head = is_whole_head
        self.training = network.training

    def forward(self, *crossing: torch.Tensor) -> torch.Tensor:
        """Compute logits (B, K): of several classifiers, as timm does, the mean."""
        if self._is_whole_head:
            logits: torch.Tensor = self.network.backbone.forward_head(*crossing)
            return logits
        modules = self.network.head_modules()
        outputs = [module(given) for module, given in zip(modules, crossing, strict=True)]
        logits = sum(outputs[1:], start=outputs[0])
        return logits / len(outputs) if len(outputs) > 1 else logits

    def of(self, network: nn.Module) -> HeadPart:
        """Give the same part of another network of the same architecture, such as an average."""
        return HeadPart(network, is_whole_head=self._is_whole_head)


class _Features(nn.Module):
    """Images (B, C, H, W) to what enters the head, in eval mode whatever the network is in."""

    def __init__(self, network: Network, *, is_whole_head: bool) -> None:
        super().__init__()
        self.network = network
        self._is_whole_head = is_whole_head
        self.training = False

    def train(self, mode: bool = True) -> _Features:
        """Do nothing: frozen is frozen."""
        return self

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Compute what crosses."""
        modes = [(module, module.training) for module in self.network.modules()]
        self.network.eval()
        try:
            if self._is_whole_head:
                return (self.network.backbone.forward_features(images),)
            return self._caught(images)
        finally:
            for module, was_training in modes:
                module.training = was_training

    def _caught(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Catch what enters the modules of the head."""
        caught: list[tuple[nn.Module, tuple[Any, ...]]] = []
        modules = self.network.head_modules()
        handles = [
            module.register_forward_pre_hook(lambda head, given: caught.append((head, given)))
            for module in modules
        ]
        try:
            self.network(images)
        finally:
            for handle in handles:
                handle.remove()
        if [head for head, _ in caught] != list(modules):
            raise CutError("the head's modules are not called once each, in order")
        if not all(len(given) == 1 and isinstance(given[0], torch.Tensor) for _, given in caught):
            raise CutError("a module of the head takes more than one tensor")
        return tuple(given[0] for _, given in caught)


def _by_graph(network: Network, images: torch.Tensor) -> Split:
    """Cut the graph of the forward pass."""
    traced = _copy(network)
    graph = trace(traced)
    cut = choose_cut(graph, traced)
    codes = {True: trained_code(graph, cut, traced=traced)}
    evaluated = _copy(network).eval()
    codes[False] = trained_code(trace(evaluated), cut, traced=evaluated)
    code = frozen_code(graph, cut, traced=traced)
    fresh = _copy(network)
    is_changing = _prove(FrozenPart(fresh, code), TrainedPart(fresh, codes), images)
    frozen = FrozenPart(network, code)
    return Split(
        frozen=frozen,
        trained=TrainedPart(network, codes, is_changing=is_changing),
        shapes=cut.shapes,
        reason=f"cut before {cut.before}: {_size(cut.shapes)}, "
        f"{cut.frozen_share:.0%} of the arithmetic before it",
        digest=digest_of(frozen, code.source),
        frozen_share=cut.frozen_share,
    )


def _by_head_inputs(network: Network, images: torch.Tensor) -> Split:
    """Cut before the modules of the head."""
    return _before_head(network, images, is_whole_head=False)


def _by_features(network: Network, images: torch.Tensor) -> Split:
    """Cut before timm's `forward_head`."""
    if network.head is not None:
        raise CutError("the head is not timm's")
    return _before_head(network, images, is_whole_head=True)


def _before_head(network: Network, images: torch.Tensor, *, is_whole_head: bool) -> Split:
    """Cut by timm's names for features and head."""
    fresh = _copy(network)
    frozen = _Features(fresh, is_whole_head=is_whole_head)
    if _prove(frozen, HeadPart(fresh, is_whole_head=is_whole_head), images):
        raise CutError("the head works in place")
    shapes = tuple(tuple(tensor.shape[1:]) for tensor in frozen(images))
    where = "forward_head" if is_whole_head else "the head"
    part = _Features(network, is_whole_head=is_whole_head)
    return Split(
        frozen=part,
        trained=HeadPart(network, is_whole_head=is_whole_head),
        shapes=shapes,
        reason=f"cut before {where}, for the network cannot be traced: {_size(shapes)}",
        digest=digest_of(part, where, without=network.head_modules()),
        how="features",
    )


def _prove(frozen: nn.Module, trained: nn.Module, images: torch.Tensor) -> bool:
    """Compare the parts with the network; tell whether the trained part changes what it is given.

    Raises:
        CutError: They differ, or the frozen part is no function of each image alone.
    """
    network: Any = trained.network
    before = torch.get_rng_state()
    crossing = frozen(images)
    if not torch.equal(before, torch.get_rng_state()):
        raise CutError("the frozen part draws random numbers")
    for whole, alone in zip(crossing, frozen(images[:1]), strict=True):
        scale = max(1.0, float(whole[:1].abs().max()))
        if len(whole) != len(images) or not _is_close(alone, whole[:1], scale * _ROW_TOLERANCE):
            raise CutError("the frozen part does not take each image for itself")
    is_changing = False
    for mode in ("training", "eval"):
        if mode == "eval":
            network.eval()
        given = tuple(tensor.clone() for tensor in crossing)
        if not _are_equal(_outcome(network, network, (images,)), _outcome(trained, network, given)):
            raise CutError(f"in {mode} mode the parts do not give the network's logits")
        is_changing |= not _are_equal(given, crossing)
    return is_changing


def _outcome(
    part: nn.Module, network: nn.Module, given: tuple[torch.Tensor, ...]
) -> tuple[torch.Tensor, ...]:
    """Give the logits and the network's buffers after a pass, which leaves them as they were."""
    before = [buffer.clone() for buffer in network.buffers()]
    torch.manual_seed(0)
    logits = part(*given)
    after = [buffer.clone() for buffer in network.buffers()]
    for buffer, value in zip(network.buffers(), before, strict=True):
        buffer.copy_(value)
    return (logits, *after)


def _are_equal(ours: tuple[torch.Tensor, ...], theirs: tuple[torch.Tensor, ...]) -> bool:
    """Whether tensors are equal: bit by bit on a CPU, up to rounding where kernels may vary."""
    return len(ours) == len(theirs) and all(
        _is_close(one, other, 0.0 if one.device.type == "cpu" else _ROW_TOLERANCE)
        for one, other in zip(ours, theirs, strict=True)
    )


def _is_close(one: torch.Tensor, other: torch.Tensor, tolerance: float) -> bool:
    """Whether two tensors differ nowhere by more than a tolerance."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return torch.allclose(one, other, rtol=0, atol=tolerance, equal_nan=True)


def _is_only_head(network: Network) -> bool:
    """Whether nothing but the head learns."""
    head = {parameter for module in network.head_modules() for parameter in module.parameters()}
    return all(parameter in head for parameter in network.parameters() if parameter.requires_grad)


def _copy(network: Network) -> Network:
    """Copy a network but for its parameters, which the copy shares; caches are emptied."""
    twin = copy.deepcopy(network, {id(parameter): parameter for parameter in network.parameters()})
    twin.train()  # some of timm's attentions keep a bias in eval mode, and forget it here
    for own, other in zip(network.modules(), twin.modules(), strict=True):
        other.training = own.training
    return twin


def _size(shapes: tuple[tuple[int, ...], ...]) -> str:
    """Say how much crosses."""
    count = "1 tensor" if len(shapes) == 1 else f"{len(shapes)} tensors"
    return f"{count} of {sum(map(math.prod, shapes)):,} values an image"
