"""Folded batch normalisations: the same logits, none left where all could be folded."""

import pytest
import torch
from torch import nn

from finetune.model.depth import is_batch_norm
from finetune.model.fuse import fused
from tests.unit.model.conftest import MakeNetwork


def settle(network: nn.Module) -> None:
    """Give batch normalisations statistics and scales that are not zeros and ones."""
    generator = torch.Generator().manual_seed(3)
    for module in network.modules():
        if is_batch_norm(module):
            for tensor in (module.running_mean, module.weight.data, module.bias.data):
                tensor.add_(0.3 * torch.randn(tensor.shape, generator=generator))
            module.running_var.mul_(1 + torch.rand(module.running_var.shape, generator=generator))


@pytest.mark.parametrize(
    ("name", "leaves_some"),
    [
        ("test_resnet", False),
        ("test_efficientnet", False),
        ("test_byobnet", False),
        ("mobilenetv2_100", False),
        ("tf_mobilenetv3_small_minimal_100", False),  # convolutions with "same" padding
        ("repvit_m0_9", True),  # a normalisation in the head, where no convolution precedes it
    ],
)
def test_folding_changes_no_logit(make_network: MakeNetwork, name: str, leaves_some: bool) -> None:
    network = make_network(name).eval()
    settle(network)
    copy = fused(network, network.input_size)
    images = torch.randn(2, *network.input_size)
    with torch.inference_mode():
        torch.testing.assert_close(copy(images), network(images), atol=1e-5, rtol=1e-5)
    left = sum(is_batch_norm(module) for module in copy.modules())
    assert bool(left) is leaves_some


def test_the_network_itself_is_left_as_it_is(make_network: MakeNetwork) -> None:
    network = make_network("test_resnet").eval()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    assert fused(network, network.input_size) is not network
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


def test_a_network_without_batch_normalisation_is_itself(make_network: MakeNetwork) -> None:
    network = make_network("test_vit").eval()
    assert fused(network, network.input_size) is network


class Twice(nn.Module):
    """A convolution whose output is used before its normalisation as well."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.norm.running_var.fill_(4.0)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = self.conv(images)
        return (self.norm(maps) + maps).mean((2, 3))


def test_a_fold_that_would_change_the_function_is_not_made() -> None:
    network = Twice().eval()
    assert fused(network, (3, 8, 8)) is network
