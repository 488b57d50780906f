"""Small networks of several kinds, without pretrained weights."""

from collections.abc import Callable

import pytest
import torch

from finetune.components.heads import LinearHead
from finetune.model.backbone import create_backbone
from finetune.model.input import preprocessing_of
from finetune.model.network import Network, build_network

MakeNetwork = Callable[..., Network]


@pytest.fixture
def make_network() -> MakeNetwork:
    """Build a network by name, with random weights that follow from a seed."""

    def make(name: str = "test_resnet", *, head: object = None, num_classes: int = 3) -> Network:
        torch.manual_seed(0)
        backbone = create_backbone(name, pretrained=False)
        size = preprocessing_of(backbone).input_size
        return build_network(
            backbone, head or LinearHead(), num_classes=num_classes, input_size=size
        )

    return make
