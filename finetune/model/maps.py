"""Where in an image a network finds what speaks for a class: Grad-CAM of its last feature map.

Grad-CAM (Selvaraju and others, 1610.02391) weighs each channel of a feature map by the mean
gradient of a class, adds the channels up and keeps what is positive. Where a linear head stands on
pooled features that is the class activation map of Zhou and others (1512.04150) itself.

- The feature map is found by watching one pass, not by names: the last output that has places, in
  either layout or as tokens, and on whose places the answer depends. Behind the last attention of
  a transformer that answers by one token it does not, so the map is of what enters it.
- A class is meant against the mean of all logits. What speaks for all classes alike changes no
  probability, so it shall not colour a map either.
- The layers up to the feature map run without gradients; only those behind it run backward.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import nn

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["MapSource", "compute_maps", "find_map_source"]

Layout = Literal["channels first", "channels last", "tokens"]
Grid = tuple[int, int]

_MOST_PREFIX_TOKENS = 16  # a class token, perhaps one of distillation, and 4 or 8 registers
_LAST_OUTPUTS = 24  # modules; a block of a transformer has 17 with what stands behind it
_MOST_STRETCH = 2.0  # of a grid against its image: 33 by 32 pixels may become 2 by 1 places


@dataclass(frozen=True, slots=True)
class MapSource:
    """The feature map of which maps are made.

    Attributes:
        module: Dotted name of the module whose output it is.
        call: Which of the module's calls in one pass, from 0.
        layout: Where its channels stand; tokens are a list of places, row after row.
        grid: Its places: rows and columns.
        num_prefix: Tokens before those of the places.
    """

    module: str
    call: int
    layout: Layout
    grid: Grid
    num_prefix: int = 0

    def by_place(self, values: torch.Tensor) -> torch.Tensor:
        """Bring what has the shape of the feature map to (B, places, C)."""
        if self.layout == "channels first":
            return values.flatten(2).transpose(1, 2)
        if self.layout == "channels last":
            return values.flatten(1, 2)
        return values[:, self.num_prefix :]


@dataclass(frozen=True, slots=True)
class _Seen:
    """An output that has places."""

    source: MapSource
    values: torch.Tensor


@dataclass(frozen=True, slots=True)
class _Pass:
    """What one image gives on its way.

    Attributes:
        logits: (1, K).
        seen: Outputs that have places, in their order.
        num_before_lost: How many of them come before the last tokens whose grid is not known.
    """

    logits: torch.Tensor
    seen: list[_Seen]
    num_before_lost: int


def find_map_source(network: nn.Module, images: torch.Tensor) -> MapSource | None:
    """Find the last feature map on whose places the answer depends.

    Args:
        network: In eval mode; images (B, C, H, W) to logits (B, K).
        images: Normalised; the first is looked at.

    Returns:
        None where no output has places, the answer depends on none of them, or the network goes on
        with tokens that never were a grid: in what order they stand is not known.
    """
    with torch.enable_grad():
        passed = _watch(network, images[:1].detach().clone().requires_grad_())
        logits, seen = passed.logits, passed.seen[passed.num_before_lost :]
        # Any sum in which no two logits weigh the same: classes that differ do not cancel out.
        answer = (logits * torch.linspace(1, 2, logits.shape[1], device=logits.device)).sum()
    shape = _shape_of_the_stream(seen)
    for part in (seen[-_LAST_OUTPUTS:], seen):  # the end alone is a short way back
        depending = _depending(answer, part)
        alike = [one for one in depending if one.values.shape == shape]
        as_wide = [one for one in depending if shape and one.values.shape[-1] == shape[-1]]
        if depending:
            return (alike or as_wide or depending)[-1].source
    return None


def compute_maps(
    network: nn.Module, images: torch.Tensor, classes: torch.Tensor, source: MapSource
) -> NDArray[np.float32]:
    """Compute a map of each image for each of some classes.

    Args:
        network: That in which the source was found, in eval mode.
        images: (B, C, H, W), normalised.
        classes: (B, T) int64, T classes for each image.
        source: The feature map.

    Returns:
        (B, T, rows, columns) in [0, 1], the largest value of each map being 1; a map of zeros where
        nothing speaks for a class.
    """
    caught: list[torch.Tensor] = []
    num_calls = 0

    def catch(module: nn.Module, inputs: object, output: torch.Tensor) -> torch.Tensor | None:
        nonlocal num_calls
        num_calls += 1
        if num_calls - 1 != source.call:
            return None
        caught.append(output.detach().requires_grad_())
        torch.set_grad_enabled(True)  # from here on, until no_grad ends
        return caught[0].clone()  # what follows may write into it

    handle = network.get_submodule(source.module).register_forward_hook(catch)
    try:
        with torch.no_grad():
            logits = network(images)
            evidence = logits - logits.mean(dim=1, keepdim=True)  # (B, K)
            chosen = evidence.gather(1, classes.to(evidence.device)).sum(dim=0)  # (T,)
            gradients = [
                torch.autograd.grad(one, caught[0], retain_graph=True)[0] for one in chosen
            ]
    finally:
        handle.remove()
    return _weighed(source.by_place(caught[0].detach()), map(source.by_place, gradients), source)


def _weighed(
    values: torch.Tensor, gradients: Sequence[torch.Tensor] | map[torch.Tensor], source: MapSource
) -> NDArray[np.float32]:
    """Add up channels (B, places, C) by the mean of their gradients; scale each map to 1."""
    weights = [one.mean(dim=1, keepdim=True) for one in gradients]  # (B, 1, C) each
    maps = torch.stack([(values * one).sum(dim=2).relu() for one in weights], dim=1)
    largest = maps.amax(dim=2, keepdim=True)
    maps = torch.where(largest > 0, maps / largest, 0.0)  # (B, T, places)
    found: NDArray[np.float32] = maps.reshape(*maps.shape[:2], *source.grid).float().cpu().numpy()
    return found


def _depending(answer: torch.Tensor, seen: Sequence[_Seen]) -> list[_Seen]:
    """Choose the outputs on several of whose places an answer depends."""
    if not seen:
        return []
    values = [one.values for one in seen]
    gradients = torch.autograd.grad(answer, values, retain_graph=True, allow_unused=True)
    return [
        one
        for one, gradient in zip(seen, gradients, strict=True)
        if gradient is not None and _num_places(one.source.by_place(gradient)) > 1
    ]


def _shape_of_the_stream(seen: Sequence[_Seen]) -> torch.Size | None:
    """Give the shape of what passes from layer to layer at the end: of tokens the commonest.

    Others are inside a layer, such as keys and values side by side.
    """
    if not seen:
        return None
    last = seen[-1]
    if last.source.layout != "tokens":
        return last.values.shape
    alike = [one.values.shape for one in seen if one.source.grid == last.source.grid]
    return max(alike, key=alike.count)


def _num_places(gradient: torch.Tensor) -> int:
    """Count the places, of (B, places, C), on which the answer depends."""
    return int((gradient != 0).any(dim=2).sum()) if bool(gradient.isfinite().all()) else 0


def _watch(network: nn.Module, image: torch.Tensor) -> _Pass:
    """Send one image through a network, and watch what has places."""
    seen: list[_Seen] = []
    num_before_lost = 0
    calls: dict[str, int] = {}
    size = (image.shape[-2], image.shape[-1])

    def after(name: str) -> object:
        def hook(module: nn.Module, inputs: object, output: object) -> None:
            nonlocal num_before_lost
            call = calls[name] = calls.get(name, -1) + 1
            if isinstance(output, torch.Tensor) and output.requires_grad and len(output) == 1:
                read = _read_shape(tuple(output.shape), size, seen)
                if read is not None:
                    seen.append(_Seen(MapSource(name, call, *read), output))
                elif output.ndim == 3 and output.shape[1] > 1:
                    num_before_lost = len(seen)

        return hook

    with ExitStack() as stack:
        for name, module in network.named_modules():
            if name:
                handle = module.register_forward_hook(after(name))
                stack.callback(handle.remove)
        logits = network(image)
    return _Pass(logits, seen, num_before_lost)


def _read_shape(
    shape: tuple[int, ...], image_size: Grid, seen: Sequence[_Seen]
) -> tuple[Layout, Grid, int] | None:
    """Tell how an output has places: its layout, its grid and the tokens before; None if not."""
    if len(shape) == 4:
        readings: list[tuple[Layout, Grid]] = [
            ("channels first", (shape[2], shape[3])),
            ("channels last", (shape[1], shape[2])),
        ]
        layout, grid = min(readings, key=lambda reading: _stretch(reading[1], image_size))
        # As many rows as there are tokens: weights of attention, whose places are pairs of tokens.
        is_of_pairs = any(one.values.shape[1:2] == grid[:1] for one in seen if one.values.ndim == 3)
        is_image_like = math.prod(grid) > 1 and _stretch(grid, image_size) <= _MOST_STRETCH
        has_places = is_image_like and not is_of_pairs
        return (layout, grid, 0) if has_places else None
    if len(shape) == 3:
        grids = {one.source.grid for one in seen}
        fitting = [grid for grid in grids if 0 <= shape[1] - math.prod(grid) <= _MOST_PREFIX_TOKENS]
        if fitting:
            grid = max(fitting, key=math.prod)
            return "tokens", grid, shape[1] - math.prod(grid)
    return None


def _stretch(grid: Grid, image_size: Grid) -> float:
    """Tell by what factor the sides of a grid are in another relation than those of an image."""
    factor = (grid[0] * image_size[1]) / (grid[1] * image_size[0])
    return max(factor, 1 / factor)
