"""A network as a recipe's `model:` says: backbone, new head, and what its input must be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from finetune.components.preprocess import InputSpec, Preprocessing
from finetune.model.backbone import create_backbone
from finetune.model.input import fit_input, preprocessing_of, require_input, train_spec
from finetune.model.network import Network, build_network
from finetune.runtime.seeds import derive_seed, own_randomness
from finetune.types import InputRequest

if TYPE_CHECKING:
    from finetune.recipe.schema import Recipe

__all__ = ["Model", "create_model"]


@dataclass(frozen=True, slots=True)
class Model:
    """A network before training.

    Attributes:
        network: Pretrained unless asked otherwise, with a new head.
        preprocessing: What evaluation does to an image, from the weights.
        train_spec: What augmentation must deliver, at the size of the weights' training.
    """

    network: Network
    preprocessing: Preprocessing
    train_spec: InputSpec


def create_model(recipe: Recipe, *, num_classes: int) -> Model:
    """Create the network of a recipe; what is random in it follows from the recipe's seed.

    Raises:
        BackboneError: Unknown name, no weights within reach, weights that do not fit.
    """
    section = recipe.model
    request = InputRequest(section.image_size, section.in_chans)
    rates = {"drop_rate": section.drop_rate, "drop_path_rate": section.drop_path_rate}
    with own_randomness():
        torch.manual_seed(derive_seed(recipe.seed, "init"))
        backbone = create_backbone(
            section.backbone, pretrained=section.pretrained, weights=section.weights, **rates
        )
        backbone = fit_input(
            backbone,
            section.backbone,
            request,
            pretrained=section.pretrained,
            arguments={name: rate for name, rate in rates.items() if rate},
        )
        preprocessing = preprocessing_of(backbone, request)
        if recipe.data.resize != "auto":
            preprocessing = preprocessing.with_resize(recipe.data.resize)
        preprocessing = preprocessing.model_copy(update={"decode": recipe.data.decode})
        spec = train_spec(backbone, preprocessing, request)
        network = build_network(
            backbone,
            section.head,
            num_classes=num_classes,
            input_size=preprocessing.input_size,
        )
        if request.image_size is not None:
            require_input(network, section.backbone)
    return Model(network, preprocessing, spec)
