"""Packed convolutions: the answers of the two modules that they were made of."""

import platform

import pytest
import torch
from timm.layers import Conv2dSame
from torch import nn

from finetune.model import packed
from finetune.model.fuse import fused
from finetune.model.packed import PackedConvolution, can_pack
from tests.unit.model.conftest import MakeNetwork

SIZES = ((14, 14), (13, 14))  # padded evenly in one direction of the second
needs_operators = pytest.mark.skipif(
    not can_pack(torch.device("cpu")), reason="no x86, or a torch without the operators"
)


def plain(name: str) -> nn.Conv2d:
    """A convolution of a kind that occurs."""
    torch.manual_seed(0)
    return {
        "depthwise": nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=8),
        "pointwise": nn.Conv2d(8, 12, 1),
        "dilated": nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=8),
        "same, depthwise": Conv2dSame(8, 8, 3, stride=2, groups=8),
        "same, wide": Conv2dSame(8, 8, 5, stride=2, groups=8),
        "same, dense": Conv2dSame(8, 6, 3, stride=2),
        "same, even": Conv2dSame(8, 8, 3, groups=8),
    }[name].eval()


KINDS = (
    "depthwise", "pointwise", "dilated", "same, depthwise", "same, wide", "same, dense",
    "same, even",
)  # fmt: skip


def maps_of(size: tuple[int, int], number: int = 2) -> torch.Tensor:
    """Maps that reach the ends of every activation."""
    generator = torch.Generator().manual_seed(1)
    return 6 * torch.randn(number, 8, *size, generator=generator)


def num_packed(network: nn.Module) -> int:
    """Count packed convolutions."""
    return sum(isinstance(module, PackedConvolution) for module in network.modules())


@needs_operators
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_convolution_gives_what_it_gave(kind: str, size: tuple[int, int]) -> None:
    convolution, maps = plain(kind), maps_of(size)
    one = PackedConvolution(convolution, nn.Identity(), maps.shape)
    with torch.inference_mode():
        torch.testing.assert_close(one(maps), convolution(maps), atol=1e-5, rtol=1e-5)


@needs_operators
@pytest.mark.parametrize("activation", [nn.ReLU(), nn.ReLU6(), nn.SiLU(), nn.Hardswish()])
def test_every_activation_gives_what_it_gave(activation: nn.Module) -> None:
    convolution, maps = plain("pointwise"), maps_of((14, 14))
    one = PackedConvolution(convolution, activation, maps.shape)
    with torch.inference_mode():
        expected = activation(convolution(maps))
        torch.testing.assert_close(one(maps), expected, atol=1e-5, rtol=1e-5)
    assert expected.max() > 6 or isinstance(activation, nn.ReLU6)


@needs_operators
def test_any_number_of_images_has_the_same_answers() -> None:
    convolution = plain("same, depthwise")
    one = PackedConvolution(convolution, nn.ReLU(), (1, 8, 14, 14))
    with torch.inference_mode():
        for number in (32, 1, 3, 40, 32):  # one after the other: the weights are laid out anew
            maps = maps_of((14, 14), number)
            torch.testing.assert_close(one(maps), convolution(maps).relu(), atol=1e-5, rtol=1e-5)


@needs_operators
def test_weights_are_laid_out_once_for_batches_of_one_size() -> None:
    one, maps = PackedConvolution(plain("depthwise"), nn.ReLU(), (1, 8, 14, 14)), maps_of((14, 14))
    with torch.inference_mode():
        one(maps)
        first = one._weight_for(maps)
        one(maps)
        assert one._weight_for(maps) is first
        assert one._weight_for(maps[:1]) is not first


@needs_operators
def test_maps_of_another_size_are_convolved_as_before() -> None:
    convolution, maps = plain("same, depthwise"), maps_of((15, 9))
    one = PackedConvolution(convolution, nn.ReLU(), (1, 8, 14, 14))
    with torch.inference_mode():
        assert torch.equal(one(maps), convolution(maps).relu())


@needs_operators
def test_gradients_flow_as_before() -> None:
    convolution, maps = plain("same, depthwise"), maps_of((14, 14)).requires_grad_()
    one = PackedConvolution(convolution, nn.SiLU(), maps.shape)
    (found,) = torch.autograd.grad(one(maps).square().sum(), maps)
    (expected,) = torch.autograd.grad(nn.functional.silu(convolution(maps)).square().sum(), maps)
    assert torch.equal(found, expected)


@needs_operators
def test_autocast_rounds_as_before() -> None:
    convolution, maps = plain("pointwise"), maps_of((14, 14))
    one = PackedConvolution(convolution, nn.ReLU(), maps.shape)
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        values = one(maps)
        assert values.dtype == torch.bfloat16
        assert torch.equal(values, convolution(maps).relu())


@needs_operators
def test_folded_convolutions_are_packed(make_network: MakeNetwork) -> None:
    network = make_network("test_efficientnet").eval()
    assert num_packed(fused(network, network.input_size)) > 5
    assert num_packed(network) == 0


@needs_operators
def test_what_would_answer_otherwise_is_folded_alone(
    make_network: MakeNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = make_network("test_efficientnet").eval()
    monkeypatch.setitem(packed._ACTIVATIONS, nn.SiLU, ("relu", []))
    copy = fused(network, network.input_size)
    assert copy is not network
    assert num_packed(copy) == 0
    images = torch.randn(2, *network.input_size)
    with torch.inference_mode():
        torch.testing.assert_close(copy(images), network(images), atol=1e-5, rtol=1e-5)


@needs_operators
def test_a_network_that_looks_into_its_convolution_is_folded_alone() -> None:
    class Looking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)
            self.norm = nn.BatchNorm2d(4)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            images = images.to(self.conv.weight.dtype)
            values: torch.Tensor = self.norm(self.conv(images)).mean((2, 3))
            return values

    network = Looking().eval()
    copy = fused(network, (3, 8, 8))
    assert copy is not network
    assert num_packed(copy) == 0
    assert copy(torch.randn(1, 3, 8, 8)).shape == (1, 4)


def test_other_devices_and_processors_have_no_such_operators(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert not can_pack(torch.device("cuda"))
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert not can_pack(torch.device("cpu"))
