"""The network: a timm model and, where timm's own classifier does not do, a head of ours.

With `head: linear` it is the timm model itself, so that what is saved is a plain timm model. Every
other head stands on the pooled features, and so does the linear head of an encoder, which has no
classifier, or of several depths. Inputs are normalised images, outputs logits; normalisation itself
belongs to `Preprocessing`.

What a probe fits is found by the way of the data, not by the kind of head: the layers of the head
that give one value a class, and what enters them. Whatever timm calls its classifier (a linear
layer, a convolution, a distilled pair, one layer a branch, a layer behind a normalisation), the
logits are a weighted sum of those layers' values, hence linear in their inputs taken together; each
layer's share in the sum is measured.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from finetune.errors import BackboneError, Problem, RecipeError
from finetune.model.backbone import TimmModel

if TYPE_CHECKING:
    from finetune.components.heads import Head

__all__ = ["Network", "build_network", "has_classifier", "is_timms_own"]

InputSize = tuple[int, int, int]
_LEAST_SHARE = 1e-4  # of a layer in the logits; timm's pairs and branches have a half to an eighth


class Network(nn.Module):
    """A backbone with a head for K classes.

    Args:
        backbone: A timm model; with its classifier where `head` is None, without it otherwise.
        head: Module from features (B, D) to logits (B, K), or None for timm's own classifier.
        num_classes: K.
        input_size: (C, H, W) of the images it is made for.
        depths: How many depths of the backbone give features.
    """

    backbone_prefix = "backbone."  # of the backbone's parameters among the network's

    def __init__(
        self,
        backbone: TimmModel,
        head: nn.Module | None = None,
        *,
        num_classes: int,
        input_size: InputSize,
        depths: int = 1,
    ) -> None:
        super().__init__()
        self.backbone: TimmModel = backbone
        self.head = head
        self.num_classes = num_classes
        self.input_size = input_size
        self.depths = depths

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Compute logits (B, K) of normalised images (B, C, H, W)."""
        if self.head is None:
            logits: torch.Tensor = self.backbone(images)
            return logits
        logits = self.head(self.features(images))
        return logits

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Compute pooled features (B, D): what timm's classifier, or a head of ours, would see."""
        return _pooled_features(self.backbone, images, self.depths)

    def head_inputs(self, images: torch.Tensor) -> torch.Tensor:
        """Compute what enters the layers that give the logits, side by side: (B, D).

        Raises:
            RecipeError: The head has no linear layer that gives one value a class.
        """
        return self._watched(images, self.logit_layers())[1]

    def answers(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute logits (B, K), and in the same pass the features (B, D) that they come from.

        Features are `head_inputs`; of a head that is not linear, what enters all of it.

        Raises:
            RecipeError: timm's classifier has no linear layer that gives one value a class.
        """
        if self.head is not None and not isinstance(self.head, nn.Linear):
            features = self.features(images)
            logits: torch.Tensor = self.head(features)
            return logits, features
        return self._watched(images, self.logit_layers())

    def answering_modules(self) -> tuple[nn.Module, ...]:
        """Give the modules that stand between the features of `answers` and its logits."""
        if self.head is not None and not isinstance(self.head, nn.Linear):
            return (self.head,)
        return self.logit_layers()

    def _watched(
        self, images: torch.Tensor, layers: tuple[Any, ...]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute logits (B, K), and what enters some layers meanwhile, side by side: (B, D)."""
        caught: dict[int, torch.Tensor] = {}

        def catch(layer: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            caught[id(layer)] = _flat(inputs[0], is_map=isinstance(layer, nn.Conv2d))

        handles = [layer.register_forward_pre_hook(catch) for layer in layers]
        try:
            logits = self(images)
        finally:
            for handle in handles:
                handle.remove()
        return logits, torch.cat([caught[id(layer)] for layer in layers], dim=1)

    def head_modules(self) -> tuple[nn.Module, ...]:
        """Give the modules whose parameters are the head."""
        if self.head is not None:
            return (self.head,)
        classifier = self.backbone.get_classifier()
        return tuple(classifier) if isinstance(classifier, (tuple, list)) else (classifier,)

    def set_linear_head(self, weight: torch.Tensor, bias: torch.Tensor) -> None:
        """Put a fitted linear map of `head_inputs` into the head.

        Args:
            weight: (K, D) float32.
            bias: (K,) float32.

        Raises:
            RecipeError: The head has no linear layer that gives one value a class.
        """
        layers = self.logit_layers()
        shares = self._shares(layers)
        parts = torch.split(weight, [layer.weight[0].numel() for layer in layers], dim=1)
        with torch.no_grad():
            for layer, part, share in zip(layers, parts, shares, strict=True):
                layer.weight.copy_((part / share).reshape(layer.weight.shape))
                layer.bias.copy_(bias / sum(shares))

    @torch.no_grad()
    def _shares(self, layers: tuple[Any, ...]) -> tuple[float, ...]:
        """Measure each layer's share in the logits: what they are where it alone gives ones."""
        if len(layers) == 1:
            return (1.0,)
        was_training = self.training
        blank = torch.zeros(1, *self.input_size, device=layers[0].weight.device)
        for layer in layers:
            layer.weight.zero_()
        shares = []
        for layer in layers:
            for other in layers:
                other.bias.fill_(float(other is layer))
            shares.append(float(self.eval()(blank)[0, 0]))
        self.train(was_training)
        if min(map(abs, shares)) < _LEAST_SHARE:
            raise _not_linear("a sum in which a layer has no part")
        return tuple(shares)

    def logit_layers(self) -> tuple[Any, ...]:
        """Give the linear layers whose sum is the logits; of a chain of layers it is the last.

        Raises:
            RecipeError: The head has no linear layer that gives one value a class.
        """
        if self.head is not None and not isinstance(self.head, nn.Linear):
            raise _not_linear(type(self.head).__name__)
        layers = tuple(
            module
            for part in self.head_modules()
            for module in part.modules()
            if _num_outputs(module) == self.num_classes
        )
        if not layers:
            raise _not_linear(", ".join(sorted({type(m).__name__ for m in self.head_modules()})))
        return layers


def build_network(
    backbone: TimmModel, head: Head, *, num_classes: int, input_size: InputSize
) -> Network:
    """Replace a backbone's classifier by a new head.

    Args:
        backbone: A timm model with any classifier, or with none.
        head: The head section of a recipe, or any object with its verb `build`.
        num_classes: K ≥ 2.
        input_size: (C, H, W) of the images it will see.

    Raises:
        BackboneError: The model gives no features that could be pooled, or not of so many depths.
    """
    if is_timms_own(head, backbone):
        _replace_classifier(backbone, num_classes)
        return Network(backbone, num_classes=num_classes, input_size=input_size)
    if has_classifier(backbone):
        backbone.reset_classifier(0)
    depths = head.depths if head.kind == "linear" else 1
    module = head.build(_feature_width(backbone, input_size, depths), num_classes)
    return Network(backbone, module, num_classes=num_classes, input_size=input_size, depths=depths)


@torch.no_grad()
def _replace_classifier(backbone: TimmModel, num_classes: int) -> None:
    """Give a backbone a new classifier; what is pretrained in its head and names no class stays.

    Some heads of timm are more than the layer that names the classes: a normalisation before it, or
    in CAFormer a layer and its activation. `reset_classifier` makes all of it anew.
    """
    before = backbone.state_dict()
    backbone.reset_classifier(num_classes)
    named = backbone.pretrained_cfg.get("classifier") or ()
    of_classes = tuple(f"{name}." for name in ((named,) if isinstance(named, str) else named))
    if not of_classes:
        return
    for name, values in backbone.state_dict().items():
        old = before.get(name)
        if old is None or name.startswith(of_classes) or old.shape != values.shape:
            continue
        if old.data_ptr() != values.data_ptr():
            values.copy_(old)


def is_timms_own(head: Head, backbone: TimmModel) -> bool:
    """Whether a head section asks for the classifier that timm itself makes."""
    return head.kind == "linear" and head.depths == 1 and has_classifier(backbone)


def has_classifier(backbone: TimmModel) -> bool:
    """Whether timm can replace the classifier; its encoders (`*_enc`) have none."""
    return hasattr(backbone, "reset_classifier") and hasattr(backbone, "get_classifier")


def _pooled_features(backbone: TimmModel, images: torch.Tensor, depths: int = 1) -> torch.Tensor:
    """Compute features (B, D): what timm pools, behind the means of maps before the last."""
    if depths == 1:
        return _pooled(backbone, backbone.forward_features(images))
    last, maps = backbone.forward_intermediates(images, indices=depths)
    means = [_flat(one, is_map=True) for one in maps[:-1]]
    return torch.cat([*means, _pooled(backbone, last)], dim=1)


def _pooled(backbone: TimmModel, maps: Any) -> torch.Tensor:
    """Pool maps to (B, D) as timm's head does; of an encoder take their mean over places."""
    if has_classifier(backbone):
        pooled: torch.Tensor = backbone.forward_head(maps, pre_logits=True)
        return pooled.flatten(1)
    is_channels_first = maps.ndim == 4 and maps.shape[-1] != backbone.num_features
    mean: torch.Tensor = (
        maps.flatten(2).mean(2) if is_channels_first else maps.flatten(1, -2).mean(1)
    )
    return mean


@torch.no_grad()
def _feature_width(backbone: TimmModel, input_size: InputSize, depths: int) -> int:
    """Measure D, the width of the pooled features, on one blank image."""
    if not hasattr(backbone, "forward_features"):
        raise BackboneError(
            f"{type(backbone).__name__} gives no features that could be pooled",
            hint="choose a backbone that `finetune backbones` lists",
        )
    if depths > 1:
        _require_depths(backbone, depths)
    was_training = backbone.training
    backbone.eval()
    device = next(backbone.parameters()).device
    blank = torch.zeros(1, *input_size, device=device)
    width = _pooled_features(backbone, blank, depths).shape[1]
    backbone.train(was_training)
    return int(width)


def _require_depths(backbone: TimmModel, depths: int) -> None:
    """Refuse to take more feature maps than a backbone has."""
    has_maps = hasattr(backbone, "forward_intermediates") and has_classifier(backbone)
    found = len(backbone.feature_info) if has_maps else 1
    if depths > found:
        raise BackboneError(
            f"head.depths is {depths}, but {type(backbone).__name__} gives features of "
            f"{found} depth{'s' * (found > 1)}",
            hint=f"--set model.head.depths={found}",
        )


def _flat(values: torch.Tensor, *, is_map: bool) -> torch.Tensor:
    """Bring what enters a layer to (B, D) by the mean over places: a linear layer allows it."""
    if is_map:
        return values.flatten(2).mean(2)
    return values.flatten(1, -2).mean(1) if values.ndim > 2 else values


def _num_outputs(module: nn.Module) -> int:
    """Count the outputs of a linear layer with a bias, or of a 1 by 1 convolution; 0 of others."""
    if isinstance(module, nn.Conv2d):
        is_linear = module.kernel_size == (1, 1) and module.groups == 1
        return module.out_channels if is_linear and module.bias is not None else 0
    if isinstance(module, nn.Linear) and module.bias is not None:
        return module.out_features
    return 0


def _not_linear(kinds: str) -> RecipeError:
    """Refuse a head that no linear fit can fill."""
    return RecipeError(
        [Problem("stages", f"solver: probe fits a linear head, but this one is {kinds}")],
        hint="train the head by gradient: {name: head, train: head, epochs: 3, lr: 1e-3}",
    )
