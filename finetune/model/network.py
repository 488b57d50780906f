"""The network: a timm model and, where timm's own classifier does not do, a head of ours.

With `head: linear` it is the timm model itself, so that what is saved is a plain timm model. Every
other head stands on the features before the classifier. Inputs are normalised images, outputs
logits; normalisation itself belongs to `Preprocessing`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from finetune.errors import BackboneError, Problem, RecipeError
from finetune.model.backbone import TimmModel

if TYPE_CHECKING:
    from finetune.components.heads import Head

__all__ = ["Network", "build_network"]


class Network(nn.Module):
    """A backbone with a head for K classes.

    Args:
        backbone: A timm model; with its classifier where `head` is None, without it otherwise.
        head: Module from features (B, D) to logits (B, K), or None for timm's own classifier.
    """

    def __init__(self, backbone: TimmModel, head: nn.Module | None = None) -> None:
        super().__init__()
        self.backbone: TimmModel = backbone
        self.head = head

    backbone_prefix = "backbone."  # of the backbone's parameters among the network's

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Compute logits (B, K) of normalised images (B, C, H, W)."""
        if self.head is None:
            logits: torch.Tensor = self.backbone(images)
            return logits
        logits = self.head(self.features(images))
        return logits

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Compute pooled features (B, D): what the classifier sees."""
        maps = self.backbone.forward_features(images)
        pooled: torch.Tensor = self.backbone.forward_head(maps, pre_logits=True)
        return pooled.flatten(1)

    def head_modules(self) -> tuple[Any, ...]:
        """Give the modules whose parameters are the head."""
        if self.head is not None:
            return (self.head,)
        classifier = self.backbone.get_classifier()
        return tuple(classifier) if isinstance(classifier, (tuple, list)) else (classifier,)

    def set_linear_head(self, weight: torch.Tensor, bias: torch.Tensor) -> None:
        """Put a fitted linear layer into the head; both classifiers of a distilled pair get it.

        Args:
            weight: (K, D) float32.
            bias: (K,) float32.

        Raises:
            RecipeError: The head of this backbone is not one linear layer.
        """
        modules = self.head_modules()
        if not all(_is_linear(module) for module in modules):
            kinds = ", ".join(sorted({type(module).__name__ for module in modules}))
            raise RecipeError(
                [Problem("stages", f"solver: probe fits a linear head, but this one is {kinds}")],
                hint="train the head by gradient: {name: head, train: head, epochs: 3, lr: 1e-3}",
            )
        with torch.no_grad():
            for module in modules:
                module.weight.copy_(weight.reshape(module.weight.shape))
                module.bias.copy_(bias)


def build_network(
    backbone: TimmModel, head: Head, *, num_classes: int, input_size: tuple[int, int, int]
) -> Network:
    """Replace a backbone's classifier by a new head.

    Args:
        backbone: A timm model with any classifier.
        head: The head section of a recipe, or any object with its verb `build`.
        num_classes: K ≥ 2.
        input_size: (C, H, W) of the images it will see.

    Raises:
        BackboneError: The model has neither a classifier nor pooled features.
    """
    if head.kind == "linear":
        _reset_classifier(backbone, num_classes)
        return Network(backbone)
    _reset_classifier(backbone, 0)
    return Network(backbone, head.build(_feature_width(backbone, input_size), num_classes))


def _reset_classifier(backbone: TimmModel, num_classes: int) -> None:
    """Let timm replace the classifier."""
    if not hasattr(backbone, "reset_classifier"):
        raise BackboneError(
            f"{type(backbone).__name__} has no classifier that timm can replace",
            hint="choose a backbone that `finetune backbones` lists",
        )
    backbone.reset_classifier(num_classes)


@torch.no_grad()
def _feature_width(backbone: TimmModel, input_size: tuple[int, int, int]) -> int:
    """Measure D, the width of the features before the classifier, on one blank image."""
    was_training = backbone.training
    width = Network(backbone.eval()).features(torch.zeros(1, *input_size)).shape[1]
    backbone.train(was_training)
    return int(width)


def _is_linear(module: nn.Module) -> bool:
    """Whether a classifier is one linear layer, written as Linear or as a 1 by 1 convolution."""
    if isinstance(module, nn.Conv2d):
        return module.kernel_size == (1, 1) and module.groups == 1 and module.bias is not None
    return type(module) is nn.Linear and module.bias is not None
